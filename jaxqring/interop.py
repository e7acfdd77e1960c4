"""Pairs and channels from TensorCircuit-NG, and back.

TensorCircuit's backend and precision are global and belong to the caller: every function here uses
them as they are. Importing TensorCircuit changes more than that (the precision of JAX, environment
variables, warning filters); a first import from here restores all of it.

With TensorCircuit's "jax" backend the conversions can be traced, batched and differentiated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._tensorcircuit import tensorcircuit_module
from jaxqring.physics._pair import Pair, from_density_matrix
from jaxqring.physics.channels import Channel, from_kraus

if TYPE_CHECKING:
    import tensorcircuit

__all__ = [
    "channel_from_tensorcircuit",
    "channel_to_tensorcircuit",
    "pair_from_tensorcircuit",
    "pair_to_tensorcircuit",
]


def pair_from_tensorcircuit(circuit: "tensorcircuit.Circuit | tensorcircuit.DMCircuit") -> Pair:
    """Converts the output state of a circuit of two qubits to a pair.

    Args:
      circuit: with or without noise; qubit 0 is the half that will be sent.

    Returns:
      One pair, without batch axes, in the output state.

    Raises:
      TypeError: if `circuit` is not a circuit of TensorCircuit.
      ValueError: if it does not have two qubits, or its state is not one, to 1e-5.
      MissingExtraError: if TensorCircuit is not installed.

    >>> import tensorcircuit as tc
    >>> circuit = tc.DMCircuit(2)
    >>> circuit.h(0)
    >>> circuit.cnot(0, 1)
    >>> circuit.depolarizing(0, px=0.01, py=0.01, pz=0.01)
    >>> round(float(pair_from_tensorcircuit(circuit).fidelity), 6)
    0.97
    """
    tc = tensorcircuit_module("`jaxqring.interop`")
    if not isinstance(circuit, tc.basecircuit.BaseCircuit):
        rule = "be a Circuit or DMCircuit of TensorCircuit"
        checks.refuse("circuit", rule, circuit, TypeError)
    if (qubits := circuit.circuit_param["nqubits"]) != 2:
        checks.refuse("circuit", "have two qubits", qubits)
    state = _array(circuit.state())
    return from_density_matrix(jnp.outer(state, state.conj()) if state.ndim == 1 else state)


def pair_to_tensorcircuit(pair: Pair) -> "tensorcircuit.DMCircuit":
    """Builds a circuit of two qubits in the state of a pair, to which gates can be appended.

    Args:
      pair: one pair, without batch axes.

    Returns:
      A `DMCircuit` of TensorCircuit's present backend and precision; qubit 0 is the sent half.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if it has batch axes, or is traced and the backend is not "jax".
      MissingExtraError: if TensorCircuit is not installed.

    >>> from jaxqring import werner
    >>> circuit = pair_to_tensorcircuit(werner(fidelity=0.97))
    >>> round(float(circuit.expectation_ps(z=[0, 1]).real), 6)
    0.96
    """
    checks.instance("pair", pair, Pair)
    if pair.correlation.ndim != 2:
        checks.refuse("pair", "have no batch axes", pair.correlation.shape[:-2])
    tc = tensorcircuit_module("`jaxqring.interop`")
    return tc.DMCircuit(2, dminputs=_tensor(tc, "pair", pair.density_matrix()))


def channel_from_tensorcircuit(kraus: Sequence[Any]) -> Channel:
    """Converts Kraus operators of one qubit to a channel.

    Args:
      kraus: the operators: what a function of `tensorcircuit.channels` returns, gates of
        TensorCircuit, or (2, 2) matrices.

    Returns:
      One channel, without batch axes.

    Raises:
      ValueError: if an operator does not act on one qubit, or the operators do not preserve the
        trace to 1e-5.

    >>> import tensorcircuit as tc
    >>> channel = channel_from_tensorcircuit(tc.channels.amplitudedampingchannel(0.1, 1.0))
    >>> print(np.asarray(channel.ptm.diagonal()).round(4))
    [1.     0.9487 0.9487 0.9   ]
    """
    matrices = [_array(getattr(operator, "tensor", operator)) for operator in kraus]
    shapes = {matrix.shape for matrix in matrices}
    if shapes != {(2, 2)}:
        checks.refuse("kraus", "be a list of operators of shape (2, 2)", sorted(shapes))
    return from_kraus(jnp.stack(matrices))


def channel_to_tensorcircuit(channel: Channel) -> "tensorcircuit.channels.KrausList":
    """Converts a channel to a list of four Kraus gates, as `general_kraus` of a circuit takes it.

    Args:
      channel: one channel, without batch axes.

    Returns:
      A `KrausList` of TensorCircuit's present backend and precision. Some operators may be zero.
      Like `Channel.kraus`, they have no derivative.

    Raises:
      TypeError: if `channel` is not a Channel.
      ValueError: if it has batch axes, or is traced and the backend is not "jax".
      MissingExtraError: if TensorCircuit is not installed.

    >>> import tensorcircuit as tc
    >>> from jaxqring import bit_flip
    >>> circuit = tc.DMCircuit(1)
    >>> circuit.general_kraus(channel_to_tensorcircuit(bit_flip(error_prob=0.1)), 0)
    >>> round(float(circuit.expectation_ps(z=[0]).real), 6)
    0.8
    """
    checks.instance("channel", channel, Channel)
    if channel.ptm.ndim != 2:
        checks.refuse("channel", "have no batch axes", channel.ptm.shape[:-2])
    tc = tensorcircuit_module("`jaxqring.interop`")
    operators = _tensor(tc, "channel", channel.kraus())
    gates = [tc.gates.Gate(operators[index]) for index in range(4)]
    return tc.channels.KrausList(gates, name="jaxqring", is_unitary=False)


def _array(tensor: Any) -> jax.Array:
    """A tensor of any backend as an array of JAX."""
    return jnp.asarray(tensor if isinstance(tensor, jax.Array) else np.asarray(tensor))


def _tensor(tc: Any, argument: str, array: jax.Array) -> Any:
    """An array of JAX as a tensor of TensorCircuit's present backend and precision."""
    if tc.backend.name == "jax":
        return tc.backend.cast(array, tc.cons.dtypestr)
    if checks.is_traced(array):
        rule = 'be concrete unless the backend of TensorCircuit is "jax"'
        checks.refuse(argument, rule, tc.backend.name)
    return tc.backend.cast(tc.backend.convert_to_tensor(np.asarray(array)), tc.cons.dtypestr)
