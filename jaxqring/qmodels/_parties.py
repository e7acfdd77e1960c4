"""Two parties that hold one model: a state goes back and forth, and each turns it in its turn."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._varying import as_varying, varying
from jaxqring.physics._paulis import complex_dtype
from jaxqring.qmodels._density_matrices import MOST_QUBITS_MIXED
from jaxqring.qmodels._hop_noise import Hop, cross, each_hop
from jaxqring.qmodels._pauli_strings import check_pauli
from jaxqring.qmodels._states import amplitudes
from jaxqring.qmodels._unitaries import (
    Gates,
    check_gates,
    dense_expectations,
    expectations,
    num_angles,
    parts,
    turn,
)

PARTIES = ("alice", "bob")
Angles = Mapping[str, jax.Array]


@struct.dataclass
class TwoParty:
    """A model of two parties: L layers, in each of which Bob turns the state and then Alice.

    Alice prepares |psi(x)>. It hops to Bob, who applies his unitary of the first layer, and back to
    Alice, who applies hers; and so on. In the end the state is Alice's, who reads the observable:
    2L hops of all n qubits, each before the unitary that it leads to. On the way back, which
    estimates of gradients take, a hop is crossed the other way with the same noise.

    The angles are radians, {"alice": (L, P_A), "bob": (L, P_B)}, where P is the number of rotations
    of a unitary. Parties whose unitaries depend on the data compute the angles from it: angles may
    have leading axes, which broadcast with those of x.

    Attributes:
      alice: gates of her unitary in the order of time: Pauli strings such as "XXI", each a
        rotation exp(-i t P / 2) with an angle of its own, and entanglers such as "cz-ring".
      bob: gates of his unitary.
      observable: Pauli string whose expectation is the loss.
      layers: L.
      hop: noise of a hop: a `Channel` on each qubit, a `Pair` that each qubit uses up as it is
        teleported, a `GlobalDepolarizing`, or None. With a leading axis (2L,) every hop has its
        own.

    Raises:
      TypeError: if the gates are not a sequence.
      ValueError: if a string is none, or of another length than the observable; a unitary has no
        rotation; or there are more than 14 qubits or no layer.

    Reference: Gilboa, Michaeli, Soudry and McClean, NeurIPS 37 (2024), arXiv:2310.07136. The paper
    states products of unitaries of the two parties and a Pauli observable; the order of the hops
    and their noise are our interpretation.

    >>> model = TwoParty(alice=("ZZ", "XI"), bob=("YI", "IY"), observable="ZI", layers=2)
    >>> model.qubits, model.hops, model.gradient_hops
    (2, 4, (7, 6, 5, 4))
    """

    alice: Gates = struct.field(pytree_node=False)
    bob: Gates = struct.field(pytree_node=False)
    observable: str = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)
    hop: Hop | None = None

    def __post_init__(self) -> None:
        check_pauli("observable", self.observable)
        for party in PARTIES:
            gates = check_gates(party, getattr(self, party), self.qubits)
            object.__setattr__(self, party, gates)
        object.__setattr__(self, "layers", checks.integer("layers", self.layers))

    @property
    def qubits(self) -> int:
        """The number of qubits n that a hop carries."""
        return len(self.observable)

    @property
    def hops(self) -> int:
        """The number of hops of one run, 2L."""
        return 2 * self.layers

    @property
    def parameters(self) -> dict[str, int]:
        """The number of angles of one unitary of each party."""
        return {party: num_angles(getattr(self, party)) for party in PARTIES}

    @property
    def groups(self) -> dict[str, int]:
        """The number of commuting groups of one unitary of each party.

        A group is a maximal run of rotations, without an entangler between them, whose strings
        commute: one copy of a state serves them all.
        """
        return {
            party: sum(
                not isinstance(part, str) for part in parts(getattr(self, party), commuting=True)
            )
            for party in PARTIES
        }

    @property
    def gradient_hops(self) -> tuple[int, ...]:
        """The hops of one copy for the gradient of segment s = 1, ..., 2L (B_1, A_1, ...): 4L - s.

        The state goes to the end, and back to the segment.
        """
        return tuple(4 * self.layers - segment for segment in range(1, self.hops + 1))

    def loss(self, angles: Angles, x: ArrayLike) -> jax.Array:
        """The loss <observable>, exact, and differentiable in angles, data and the noise of hops.

        Args:
          angles: {"alice": (..., L, P_A), "bob": (..., L, P_B)} radians.
          x: (..., N) data, whose amplitudes Alice prepares; ceil(log2 N) = n.

        Returns:
          (...) the loss.

        Raises:
          TypeError: if `angles` are not a mapping of real arrays, `x` is not real or `hop` is no
            noise.
          ValueError: if a shape does not fit, or hops are noisy and there are more than 7 qubits.

        >>> model = TwoParty(alice=("YI",), bob=("IY",), observable="ZI", layers=1)
        >>> angles = {"alice": jnp.array([[0.5]]), "bob": jnp.array([[0.1]])}
        >>> round(float(model.loss(angles, [1.0, 0.0, 0.0, 0.0])), 6)
        0.877583
        """
        begin = prepare(self, angles, x)
        return read(forward(self, begin), begin, (self.observable,))[0]


class Prepared(NamedTuple):
    """All that a run of a model begins with.

    Attributes:
      state: (..., 2^n) of Alice's data, or (..., 2^n, 2^n) where hops are noisy.
      bob: (L, ..., P_B) angles.
      alice: (L, ..., P_A) angles.
      hops: (L, 2, ...) noise of the two hops of each layer, or None.
    """

    state: jax.Array
    bob: jax.Array
    alice: jax.Array
    hops: jax.Array | None


def prepare(model: TwoParty, angles: Angles, x: ArrayLike, dense: bool = True) -> Prepared:
    """Checks shapes, and brings everything to one type and batch; pure states unless `dense`."""
    psi = amplitudes(x)
    if psi.shape[-1] != 2**model.qubits:
        checks.refuse("x", f"have amplitudes of {model.qubits} qubits", jnp.shape(x))
    radians = check_angles(model, angles)
    hops = each_hop(model.hop, model.hops)
    if dense and hops is not None and model.qubits > MOST_QUBITS_MIXED:
        rule = (
            f"be None where there are more than {MOST_QUBITS_MIXED} qubits, or a Pair with `shots`"
        )
        checks.refuse("hop", f"{rule} of losses or shifts", type(model.hop).__name__)
    inputs = [psi, *radians.values(), *jax.tree.leaves(hops)]
    dtype = complex_dtype(jnp.result_type(*(leaf.real.dtype for leaf in inputs)))
    batch = jnp.broadcast_shapes(psi.shape[:-1], *(own.shape[:-2] for own in radians.values()))
    state = jnp.broadcast_to(psi, (*batch, psi.shape[-1])).astype(dtype)
    if hops is not None and dense:
        hops = hops.astype(dtype.type(0).real.dtype).reshape(model.layers, 2, *hops.shape[1:])
        state = state[..., :, None] * state.conj()[..., None, :]
    layered = {
        party: jnp.moveaxis(own, -2, 0).astype(dtype.type(0).real.dtype)
        for party, own in radians.items()
    }
    state = as_varying(state, varying(*inputs))
    return Prepared(state, hops=hops if dense else None, **layered)


def check_angles(model: TwoParty, angles: Angles) -> dict[str, jax.Array]:
    """The angles of both parties, or a refusal of other names or shapes."""
    if not isinstance(angles, Mapping) or {*angles} != {*PARTIES}:
        rule = "be a mapping of the angles of 'alice' and 'bob'"
        got: Any = sorted(angles) if isinstance(angles, Mapping) else angles
        checks.refuse("angles", rule, got, ValueError if isinstance(angles, Mapping) else TypeError)
    known = {party: checks.real(f"angles of {party}", angles[party]) for party in PARTIES}
    for party, own in known.items():
        wanted = (model.layers, model.parameters[party])
        if own.shape[-2:] != wanted:
            rule = "have the shape (..., {}, {})".format(*wanted)
            checks.refuse(f"angles of {party}", rule, own.shape)
    return known


def by_layer(begin: Prepared) -> dict[str, jax.Array]:
    """The angles, and the noise if there is any, with a leading axis of the layers."""
    return {name: leaf for name, leaf in begin._asdict().items() if name != "state"}


def forward(model: TwoParty, begin: Prepared) -> jax.Array:
    """The state after all layers: (..., 2^n), or (..., 2^n, 2^n) where hops are noisy."""
    dense = begin.hops is not None

    def layer(state: jax.Array, own: dict[str, jax.Array]) -> tuple[jax.Array, None]:
        for hop, party in enumerate(("bob", "alice")):
            if dense:
                state = cross(state, own["hops"][hop])
            state = turn(state, getattr(model, party), own[party], dense)
        return state, None

    return lax.scan(layer, begin.state, by_layer(begin))[0]


def read(state: jax.Array, begin: Prepared, strings: Gates) -> jax.Array:
    """(P, ...) the expectations of strings in a state of `forward`."""
    return (expectations if begin.hops is None else dense_expectations)(state, strings)
