"""Circuits with angles: layers of rotations on every qubit and of gates between neighbours."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.qmodels import _tensorcircuit_layers as tensorcircuit_layers
from jaxqring.qmodels._states import (
    Entangler,
    Rotation,
    bits,
    check_qubits,
    entangle,
    neighbours,
    one_qubit_layer,
    probabilities,
    rotations,
    zero_state,
)

#: A gate about Z Z, or a controlled one about Z, on each pair of neighbours, with angles.
PairRotation: TypeAlias = Literal["rzz-ring", "crz-ring"]
Engine: TypeAlias = Literal["statevector", "tensorcircuit"]
#: The angles of a circuit, in radians: "layers" (L, slots, n) and "last" (rotations, n).
Angles: TypeAlias = dict[str, jax.Array]

ROTATIONS: tuple[str, ...] = get_args(Rotation)
PAIR_ROTATIONS: tuple[str, ...] = get_args(PairRotation)
STEPS: tuple[str, ...] = (*ROTATIONS, *get_args(Entangler), *PAIR_ROTATIONS)


@dataclasses.dataclass(frozen=True)
class Circuit:
    """A circuit of equal layers, each with angles of its own, on the state |0...0>.

    A layer is compiled once, whatever their number. A rotation, or a gate with angles on pairs, is
    a slot: it has an angle for each qubit, in radians. Of a pair of neighbours the angle is that of
    the left one.

    Attributes:
      qubits: n, at most 14.
      layers: L.
      layer: steps of a layer, in order: the rotations "rx", "ry" and "rz" on every qubit; the fixed
        gates "cz-ring", "cz-line", "cnot-ring" and "cnot-line"; "rzz-ring" for exp(-i t ZZ / 2) and
        "crz-ring" for controlled rotations about Z, on three qubits or more.
      last: rotations on every qubit after all layers.
      features: numbers that `encode` takes; a multiple of n, or 0 for none.
      engine: "statevector" for the state vectors of this package, "tensorcircuit" for those of
        TensorCircuit-NG in single precision. They agree to 2e-6.
      custom: a layer written for TensorCircuit, see `from_tensorcircuit`; `layer` is empty then.
      slots: of a custom layer; counted otherwise.
      shift_rule: false if a custom layer has angles of gates whose generator is no Pauli.

    Raises:
      ValueError: if a number is out of range or not an integer, a step is unknown or needs more
        qubits, or the features do not fill rows of n.

    >>> circuit = Circuit(2, 1, ("ry", "cz-ring"))
    >>> angles = {"layers": jnp.full((1, 1, 2), jnp.pi / 2), "last": jnp.zeros((0, 2))}
    >>> print(circuit.state(angles).real.round(3))
    [ 0.5  0.5  0.5 -0.5]
    """

    qubits: int
    layers: int
    layer: tuple[str, ...] = ()
    last: tuple[Rotation, ...] = ()
    features: int = 0
    engine: Engine = "statevector"
    custom: Callable[..., None] | None = None
    slots: int = -1
    shift_rule: bool = True

    def __post_init__(self) -> None:
        check_qubits(self.qubits)
        checks.integer("layers", self.layers)
        for step in self.layer:
            checks.one_of("layer", step, STEPS)
            if step in PAIR_ROTATIONS and self.qubits < 3:
                checks.refuse("layer", "leave out gates around a ring of fewer than 3 qubits", step)
        for step in self.last:
            checks.one_of("last", step, ROTATIONS)
        if checks.integer("features", self.features, 0) % self.qubits:
            rule = f"be a multiple of the {self.qubits} qubits"
            checks.refuse("features", rule, self.features)
        checks.one_of("engine", self.engine, get_args(Engine))
        if self.custom is None:
            with_angles = [step for step in self.layer if step in (*ROTATIONS, *PAIR_ROTATIONS)]
            object.__setattr__(self, "slots", len(with_angles))
            object.__setattr__(self, "shift_rule", "crz-ring" not in self.layer)
        checks.integer("slots", self.slots, 0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the angles."""
        return {
            "layers": (self.layers, self.slots, self.qubits),
            "last": (len(self.last), self.qubits),
        }

    @property
    def num_angles(self) -> int:
        """The number of angles."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def init(self, key: Key) -> PyTree:
        """Parameters for `encode`, as a first guess.

        Args:
          key: of the draws.

        Returns:
          "bias" and "last", uniform over a turn, in radians and in the shapes of the angles; with
          features "weight" too, normal of standard deviation 0.3.

        Raises:
          TypeError: if the key is not a typed one.
        """
        checks.prng_key("key", key)
        keys = jax.random.split(key, 3)
        params = {
            "bias": jax.random.uniform(keys[0], self.shapes["layers"], maxval=2 * jnp.pi),
            "last": jax.random.uniform(keys[1], self.shapes["last"], maxval=2 * jnp.pi),
        }
        if self.features:
            params["weight"] = 0.3 * jax.random.normal(keys[2], self.shapes["layers"])
        return params

    def encode(self, params: PyTree, x: ArrayLike | None = None) -> Angles:
        """The angles of one sample: weight times feature plus bias.

        The features are rows of n numbers; slot after slot of layer after layer takes the next row,
        and begins with the first again after the last.

        Args:
          params: "bias" (L, slots, n), "last" (rotations, n), and with features "weight" (L, slots,
            n).
          x: (features,) of one sample; None for a circuit without features.

        Raises:
          ValueError: if the shapes are others.
        """
        if not self.features:
            if x is not None:
                checks.refuse("x", "be left out of a circuit without features", x)
            return {"layers": params["bias"], "last": params["last"]}
        if x is None or np.shape(x) != (self.features,):
            checks.refuse("x", f"have the shape ({self.features},)", None if x is None else x)
        rows = jnp.asarray(x).reshape(-1, self.qubits)
        taken = np.arange(self.layers * self.slots).reshape(self.layers, self.slots) % len(rows)
        return {"layers": params["weight"] * rows[taken] + params["bias"], "last": params["last"]}

    def state(self, angles: Angles) -> jax.Array:
        """The state (2^n,) complex; `jax.vmap` for several.

        Args:
          angles: of the shapes `shapes`, real.

        Raises:
          ValueError: if the shapes are others, or the engine is TensorCircuit and they are of
            double precision.
        """
        values = self.checked(angles)
        dtype = jnp.promote_types(values["layers"].dtype, jnp.complex64)
        initial = as_varying(zero_state(self.qubits, dtype), varying(*values.values()))
        if self.engine == "tensorcircuit":
            return tensorcircuit_layers.run(self, values, initial)

        # Derivatives work a layer out again, which takes less time than to keep what is inside it.
        @functools.partial(jax.checkpoint, prevent_cse=False)  # no need of it in a loop
        def step(state: jax.Array, of_layer: jax.Array) -> tuple[jax.Array, None]:
            return self._one_layer(state, of_layer), None

        state, _ = lax.scan(step, initial, values["layers"])
        for rotation, of_qubits in zip(self.last, values["last"], strict=True):
            state = one_qubit_layer(state, rotations(rotation, of_qubits))
        return state

    def expectations(self, angles: Angles, observables: ArrayLike) -> jax.Array:
        """The expectations (K,) of observables that are diagonal, of the exact state.

        Args:
          angles: as for `state`.
          observables: (2^n, K) the value of each by outcome, as `z_values` gives.

        Raises:
          ValueError: as `state`; if the observables have another number of outcomes.
        """
        values = check_observables(self, observables)
        return jnp.matmul(probabilities(self.state(angles)), values, precision="highest")

    def _one_layer(self, state: jax.Array, angles: jax.Array) -> jax.Array:
        """The state after one layer with angles (slots, n)."""
        slot, waiting = 0, None
        for step in self.layer:
            if step in ROTATIONS:
                gates = rotations(step, angles[slot])
                # Neighbouring rotations of a qubit are one gate.
                waiting = gates if waiting is None else _product(gates, waiting)
                slot += 1
                continue
            if waiting is not None:
                state, waiting = one_qubit_layer(state, waiting), None
            if step in PAIR_ROTATIONS:
                state = _pair_rotation(state, step, angles[slot])
                slot += 1
            else:
                state = entangle(state, step)
        return state if waiting is None else one_qubit_layer(state, waiting)

    def checked(self, angles: Angles) -> Angles:
        """The angles as floating arrays, or a refusal of another shape."""
        shapes = self.shapes
        found = {name: np.shape(value) for name, value in angles.items()}
        if found != shapes:
            checks.refuse("angles", f"have the shapes {shapes}", found)
        dtype = jnp.result_type(float, *angles.values()) if angles else jnp.float32
        for name, value in angles.items():
            checks.real(f"angles[{name!r}]", value)
        return {name: jnp.asarray(value, dtype) for name, value in angles.items()}


def hardware_efficient(
    qubits: int, layers: int, features: int = 0, *, engine: Engine = "statevector"
) -> Circuit:
    """The circuit of layers RY, RZ and a ring of CZ, with rotations RY at the end.

    Args:
      qubits: n, at most 14; for two there is one CZ in a layer.
      layers: L.
      features: numbers of a sample that `Circuit.encode` writes into the angles; a multiple of n.
      engine: as for `Circuit`.

    Returns:
      The circuit, with 2 n L + n angles.

    Raises:
      ValueError: as `Circuit`.

    >>> hardware_efficient(8, 6, features=16).num_angles
    104
    """
    return Circuit(qubits, layers, ("ry", "rz", "cz-ring"), ("ry",), features, engine)


def from_tensorcircuit(
    layer: Callable[[Any, jax.Array], None],
    qubits: int,
    layers: int,
    slots: int,
    *,
    features: int = 0,
    last: tuple[Rotation, ...] = (),
    shift_rule: bool = False,
) -> Circuit:
    """A circuit whose layer is written for TensorCircuit-NG.

    Args:
      layer: `layer(circuit, angles)` appends gates to a `tensorcircuit.Circuit` of n qubits, with
        angles (slots, n) in radians; it is traced once. The backend of TensorCircuit is "jax"
        inside, the caller's outside.
      qubits: n, at most 14.
      layers: L.
      slots: rows of n angles in a layer.
      features: as for `Circuit`.
      last: as for `Circuit`.
      shift_rule: true if every angle is that of one gate exp(-i angle P / 2) with P a Pauli, so
        that `parameter_shift` may be used.

    Returns:
      The circuit, to be used as any other; its engine is TensorCircuit.

    Raises:
      TypeError: if `layer` cannot be called.
      ValueError: as `Circuit`.

    >>> def layer(circuit, angles):
    ...     for q in range(2):
    ...         circuit.rx(q, theta=angles[0, q])
    ...     circuit.iswap(0, 1)
    >>> circuit = from_tensorcircuit(layer, qubits=2, layers=1, slots=1, shift_rule=True)
    >>> angles = {"layers": jnp.array([[[jnp.pi, 0.0]]]), "last": jnp.zeros((0, 2))}
    >>> print(abs(circuit.state(angles)).round(3))
    [0. 1. 0. 0.]
    """
    if not callable(layer):
        checks.refuse("layer", "be a function of a circuit and its angles", layer, TypeError)
    return Circuit(qubits, layers, (), last, features, "tensorcircuit", layer, slots, shift_rule)


def check_observables(circuit: Circuit, observables: ArrayLike) -> jax.Array:
    """The observables (2^n, K) of a circuit, or a refusal of another shape."""
    values = checks.real("observables", observables)
    if values.ndim != 2 or values.shape[0] != 2**circuit.qubits:
        checks.refuse("observables", f"have the shape ({2**circuit.qubits}, K)", values.shape)
    return values


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """(n, 2, 2) products of the gates of each qubit, written out."""
    return (left[:, :, :, None] * right[:, None, :, :]).sum(axis=2)


def _pair_rotation(state: jax.Array, step: str, angles: jax.Array) -> jax.Array:
    """The state after diagonal gates with angles (n,) on the pairs of a ring."""
    qubits = len(angles)
    of = bits(qubits)
    pairs = neighbours("ring", qubits)
    if step == "rzz-ring":
        signs = np.stack([(1 - 2 * of[a]) * (1 - 2 * of[b]) for a, b in pairs])
    else:
        signs = np.stack([of[a] * (1 - 2 * of[b]) for a, b in pairs])
    phase = jnp.einsum("q,qi->i", angles, signs.astype(angles.dtype), precision="highest") / 2
    return state * lax.complex(jnp.cos(phase), -jnp.sin(phase))
