"""Circuits by TensorCircuit-NG: one layer is built, traced once, and scanned over."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._tensorcircuit import with_jax_backend
from jaxqring.qmodels._states import neighbours

if TYPE_CHECKING:
    from jaxqring.qmodels._circuits import Angles, Circuit

USER = 'A circuit with engine="tensorcircuit"'


def run(circuit: "Circuit", angles: "Angles", initial: jax.Array) -> jax.Array:
    """The state (2^n,) complex64 of a circuit.

    Args:
      circuit: whose engine is TensorCircuit.
      angles: floating arrays of its shapes.
      initial: (2^n,) state, varying over the axes that the angles vary over.

    Raises:
      ValueError: if the angles are of double precision, or TensorCircuit is set to it.
      MissingExtraError: if TensorCircuit is not installed.
    """
    if angles["layers"].dtype == jnp.float64:
        rule = 'be of single precision with engine="tensorcircuit"'
        checks.refuse("angles", rule, str(angles["layers"].dtype))
    with with_jax_backend(USER) as tc:
        if tc.cons.dtypestr != "complex64":
            rule = 'be "complex64" with engine="tensorcircuit"'
            checks.refuse("the precision of TensorCircuit", rule, tc.cons.dtypestr)

        def step(state: jax.Array, of_layer: jax.Array) -> tuple[jax.Array, None]:
            built = tc.Circuit(circuit.qubits, inputs=state)
            if circuit.custom is not None:
                circuit.custom(built, of_layer)
            else:
                _append(built, circuit.layer, of_layer)
            return built.state(), None

        state, _ = lax.scan(step, initial, angles["layers"])
        if circuit.last:
            built = tc.Circuit(circuit.qubits, inputs=state)
            _append(built, circuit.last, angles["last"])
            state = built.state()
    return state


def _append(built: Any, steps: tuple[str, ...], angles: jax.Array) -> None:
    """Appends steps of a layer to a circuit of TensorCircuit, with angles (slots, n)."""
    qubits = built.circuit_param["nqubits"]
    slot = 0
    for step in steps:
        gate, _, shape = step.partition("-")
        if not shape:
            for q in range(qubits):
                getattr(built, gate)(q, theta=angles[slot, q])
        else:
            for q, pair in enumerate(neighbours("ring" if shape == "ring" else "line", qubits)):
                with_angle = {"theta": angles[slot, q]} if gate in ("rzz", "crz") else {}
                getattr(built, gate)(*pair, **with_angle)
        slot += not shape or gate in ("rzz", "crz")
