"""The client's part of federated learning on fixed chips: gradients from measured runs.

The server sends programs, of the angles and of the angles shifted by a quarter turn either way; the
client runs its fixed circuit on its own data and never holds an angle. Runs in which a rotation
failed are thrown away, as the chip sees the failure, so that what is left is not biased.
"""

import dataclasses
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring._varying import as_varying, varying
from jaxqring.physics._paulis import complex_dtype
from jaxqring.qmodels._chips import BASES, program, turn
from jaxqring.qmodels._pauli_strings import check_pauli, expectation
from jaxqring.qmodels._states import MOST_QUBITS, Entangler, Rotation, check_norm, entangle


@dataclasses.dataclass(frozen=True)
class ChipCircuit:
    """A fixed circuit of layers: a programmed rotation of every qubit, then an entangler.

    Attributes:
      axes: of the rotations of each layer.
      observable: Pauli string, a letter for each qubit, that is read at the end.
      entangler: gates between neighbours after each layer.
      program_qubits: k of every program.

    Raises:
      ValueError: if an axis or the entangler is unknown, `observable` is no Pauli string, or
        `program_qubits` is not an integer in [1, 14].
    """

    axes: tuple[Rotation, ...]
    observable: str
    entangler: Entangler = "cz-ring"
    program_qubits: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.axes, tuple) or not self.axes:
            checks.refuse("axes", "be a tuple of at least one axis", self.axes)
        for axis in self.axes:
            checks.one_of("axes", axis, get_args(Rotation))
        check_pauli("observable", self.observable)
        checks.one_of("entangler", self.entangler, get_args(Entangler))
        checks.integer("program_qubits", self.program_qubits, 1, MOST_QUBITS)

    @property
    def qubits(self) -> int:
        """Qubits of the data."""
        return len(self.observable)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (layers, qubits) of the angles."""
        return len(self.axes), self.qubits


class ChipGradient(NamedTuple):
    """A gradient estimated from measured runs of a fixed chip.

    Attributes:
      gradient: (layers, qubits) of the mean loss.
      variance: (layers, qubits) of that estimate, estimated from the same runs.
      succeeded: () fraction of the runs in which all rotations succeeded.
    """

    gradient: jax.Array
    variance: jax.Array
    succeeded: jax.Array


def chip_gradient(
    circuit: ChipCircuit,
    angles: ArrayLike,
    states: ArrayLike,
    labels: ArrayLike,
    *,
    shots: int,
    key: Key,
) -> ChipGradient:
    """Estimates the gradient of a client's loss by the shift rule, through programs alone.

    The loss of an input is (1 - label <O>) / 2, the probability that one reading of O contradicts
    its label. It is linear in <O>, so that the estimate has no bias but where not one of the runs
    of a mean has succeeded, which then counts as zero.

    Args:
      circuit: the fixed circuit.
      angles: (layers, qubits) in radians, of which the client sees programs only.
      states: (batch, 2^n) unit vectors, the client's inputs.
      labels: (batch,) +1 or -1.
      shots: runs for each input, angle and sign of the shift.
      key: typed PRNG key, one of its own for every client.

    Returns:
      A `ChipGradient`; its gradient is a pytree of one array for `jaxqring.pmean` or
      `jaxqring.secure_pmean`.

    Raises:
      TypeError: if `key` is not a typed PRNG key, or angles or labels are not real.
      ValueError: if a shape is wrong, a known state has not the norm one, a known label is another
        number, or `shots` is not an integer of at least 2.

    Reference: Mitarai, Negoro, Kitagawa and Fujii, Phys. Rev. A 98, 032309 (2018), for the shift
    rule; after Daskin, arXiv:2401.13421, whose body was not at hand: this reading of it is our
    interpretation.

    >>> circuit = ChipCircuit(("ry",), "ZI")
    >>> inputs, labels = jnp.eye(4)[:1], jnp.array([1.0])
    >>> found = chip_gradient(
    ...     circuit, jnp.array([[0.5, 0.1]]), inputs, labels, shots=2000, key=jax.random.key(0)
    ... )
    >>> bool(abs(found.gradient[0, 0] - np.sin(0.5) / 2) < 0.03), found.gradient.shape
    (True, (1, 2))
    """
    checks.prng_key("key", key)
    data, signs, angles = _checked(circuit, angles, states, labels)
    shots = checks.integer("shots", shots, 2)
    count = angles.size
    quarter = np.pi / 2 * np.eye(count, dtype=angles.dtype).reshape(count, *circuit.shape)
    shifted = jnp.stack([angles + quarter, angles - quarter])
    programs = program(shifted, circuit.program_qubits)

    def mean(own: jax.Array, state: jax.Array, key: Key) -> tuple[jax.Array, ...]:
        keys = jax.random.split(key, shots)
        read, valid = jax.vmap(lambda each: _run(circuit, own, state, each))(keys)
        runs = jnp.sum(valid)
        average = jnp.sum(read * valid) / jnp.maximum(runs, 1)
        # Outcomes +-1: the unbiased variance of their mean, of at least two runs.
        return average, (1 - average**2) / jnp.maximum(runs - 1, 1), runs

    keys = jax.random.split(key, (2, count, data.shape[0]))
    over_inputs = jax.vmap(mean, in_axes=(None, 0, 0))
    over_angles = jax.vmap(over_inputs, in_axes=(0, None, 0))
    averages, variances, runs = jax.vmap(over_angles, in_axes=(0, None, 0))(programs, data, keys)
    slopes = -signs * (averages[0] - averages[1]) / 4
    spread = jnp.sum(variances, axis=(0, 2)) / (4 * data.shape[0]) ** 2
    return ChipGradient(
        gradient=jnp.mean(slopes, axis=-1).reshape(circuit.shape),
        variance=spread.reshape(circuit.shape),
        succeeded=jnp.mean(runs) / shots,
    )


def _run(
    circuit: ChipCircuit, programs: jax.Array, state: jax.Array, key: Key
) -> tuple[jax.Array, jax.Array]:
    """The reading +-1 of one run, and one if all its rotations succeeded, else zero."""
    layers, qubits = circuit.shape
    draws = jax.random.uniform(key, (layers * qubits * circuit.program_qubits + 1,))
    shaped = draws[1:].reshape(layers, qubits, -1)
    bases = jnp.asarray(np.stack([BASES[axis] for axis in circuit.axes]), state.dtype)

    def layer(carry: tuple, step: tuple) -> tuple:
        now, valid = carry
        kets, own, basis = step
        for qubit in range(qubits):
            now, succeeded = turn(now, kets[qubit], qubit, own[qubit], basis)
            valid = valid & succeeded
        return (entangle(now, circuit.entangler), valid), None

    start = as_varying((state, jnp.array(True)), varying(state, programs, draws))
    (state, valid), _ = lax.scan(layer, start, (programs, shaped, bases))
    chance = (1 + expectation(state, circuit.observable)) / 2
    return jnp.where(draws[0] < chance, 1.0, -1.0), valid.astype(float)


def _checked(
    circuit: ChipCircuit, angles: ArrayLike, states: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The states as complex, the labels and the angles, or a refusal."""
    checks.instance("circuit", circuit, ChipCircuit)
    angles, labels = checks.real("angles", angles), checks.real("labels", labels)
    if angles.shape != circuit.shape:
        checks.refuse("angles", f"have the shape {circuit.shape}", angles.shape)
    data = jnp.asarray(states)
    if data.ndim != 2 or data.shape[1] != 2**circuit.qubits:
        checks.refuse("states", f"have the shape (batch, {2**circuit.qubits})", data.shape)
    if labels.shape != data.shape[:1]:
        checks.refuse("labels", f"have the shape {data.shape[:1]}", labels.shape)
    check_norm("states", states)
    if not checks.is_traced(labels) and not np.all(np.abs(labels) == 1):
        checks.refuse("labels", "be +1 or -1", labels)
    return data.astype(complex_dtype(data.dtype)), labels, angles
