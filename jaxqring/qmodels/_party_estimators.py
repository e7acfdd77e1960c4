"""Losses and gradients of a model of two parties as its parties can measure them."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import GradientMethod, Key
from jaxqring._varying import as_varying, varying
from jaxqring.physics._pair import Pair
from jaxqring.qmodels._commuting import outcome_law
from jaxqring.qmodels._density_matrices import MOST_QUBITS_MIXED
from jaxqring.qmodels._parties import Angles, TwoParty, check_angles, prepare, read
from jaxqring.qmodels._trajectories import trajectories
from jaxqring.qmodels._unitaries import Gates
from jaxqring.qmodels._way_back import measure, shadow_scales, walk_back


@struct.dataclass
class TwoPartyEstimate:
    """A loss, or the gradients of the angles, as measured.

    Attributes:
      value: the estimate; for gradients {"alice": (L, P_A), "bob": (L, P_B)}.
      unit_variance: of the same shape, the variance of one shot, predicted from the exact state;
        from the estimate itself where that is beyond a simulation (`two_party_loss`).
      shots: repetitions m of each measurement; None if `value` is exact.
      copies: the number of states |psi(x)> prepared for all of `value`; 0 if it is exact.
    """

    value: Any
    unit_variance: Any
    shots: int | None = struct.field(pytree_node=False)
    copies: int = struct.field(pytree_node=False)

    @property
    def variance(self) -> Any:
        """The predicted variance of `value`: that of one shot over m, or 0 if it is exact."""
        per_shot = 0.0 if self.shots is None else 1 / self.shots
        return jax.tree.map(lambda unit: unit * per_shot, self.unit_variance)


def two_party_loss(
    model: TwoParty,
    angles: Angles,
    x: ArrayLike,
    *,
    shots: int | None = None,
    key: Key | None = None,
) -> TwoPartyEstimate:
    """Estimates the loss from m runs, each of which ends with an outcome of +1 or -1.

    Args:
      model: the model.
      angles: {"alice": (..., L, P_A), "bob": (..., L, P_B)} radians.
      x: (..., N) data.
      shots: m for each element of the batch, all drawn at once; None is the exact loss.
      key: typed PRNG key, where `shots` are given.

    Returns:
      A `TwoPartyEstimate` of (...) losses, of variance (1 - loss^2) / m. Beyond 7 qubits,
      teleported hops are simulated by the Pauli errors of each run.

    Raises:
      TypeError: if `key` is no typed key, or as `TwoParty.loss`.
      ValueError: if `shots` is below 1, `key` is missing, or as `TwoParty.loss`.

    >>> model = TwoParty(alice=("YI",), bob=("IY",), observable="ZI", layers=1)
    >>> angles = {"alice": jnp.array([[0.5]]), "bob": jnp.array([[0.1]])}
    >>> found = two_party_loss(model, angles, [1.0, 0.0, 0.0, 0.0])
    >>> round(float(found.unit_variance), 6)
    0.229849
    """
    _check_shots(shots, key)
    value, mean = _losses(model, angles, x, shots, key)
    return TwoPartyEstimate(value, 1 - mean**2, shots, (shots or 0) * value.size)


def two_party_gradients(
    model: TwoParty,
    angles: Angles,
    x: ArrayLike,
    *,
    method: GradientMethod = "exact",
    shots: int | None = None,
    key: Key | None = None,
) -> TwoPartyEstimate:
    """Estimates the derivative of the loss of one input with respect to every angle.

    A group is a maximal run of commuting rotations of one unitary; |Psi> is the state that the
    ancilla method has there (below). The methods, and the variance of one shot:

    * "exact": automatic differentiation of the simulation; 0.
    * "shift": (L_+ - L_-) / 2, the losses with the angle turned by plus and minus pi / 2; one run
      each: (2 - L_+^2 - L_-^2) / 4. Exact under any noise of the hops.
    * "ancilla": run to the end, apply the observable controlled by an ancilla in |+>, run back
      without control to the group, and read -Y on the ancilla times P on the register: one copy
      reads all strings of a group; 1 - g^2. Under noise the mean is that of the noisy circuit.
    * "shadows": read every qubit of |Psi> along X, Y or Z at random; a string of w letters is read
      with 3^-(w + 1): 3^(w + 1) - g^2.
    * "bell": Bell measurements between two copies of |Psi>; the value is g^2, without the sign of
      g, and the variance of a pair of copies 1 - g^4.

    All three that use |Psi> need copies for each group of their own, as the state of another group
    is another. Outcomes are drawn from the law that the state gives the strings of a group. Two
    facts make that cheap. Y on the ancilla may be read before the way back: it leaves the register
    turned by exp(-+i pi/4 observable), each with probability 1/2, so that a coin does the work of
    the ancilla. And bases and Bell signs of a commuting group have the law of readings of one copy
    kept by chance, and of the product of readings of two.

    Args:
      model: the model.
      angles: {"alice": (L, P_A), "bob": (L, P_B)} radians.
      x: (N,) data of one input; `jax.vmap` maps over more.
      method: one of the above.
      shots: m: runs on either side ("shift"), copies ("ancilla", "shadows") or pairs of copies
        ("bell") of each group. None gives the exact mean.
      key: typed PRNG key, where `shots` are given.

    Returns:
      A `TwoPartyEstimate` in the shape of `angles`.

    Raises:
      TypeError: if `key` is no typed key, or as `TwoParty.loss`.
      ValueError: if `shots` is below 1 or given for "exact", `key` is missing, there is more than
        one input, or as `TwoParty.loss`.

    Reference: Gilboa, Michaeli, Soudry and McClean, arXiv:2310.07136, from whom the states that go
    forward and back are; they use shadow tomography. Mitarai, Negoro, Kitagawa and Fujii, Phys.
    Rev. A 98, 032309 (2018), for the shift; Huang, Kueng and Preskill, Nature Physics 16, 1050
    (2020), for shadows; Huang, Kueng and Preskill, Phys. Rev. Lett. 126, 190505 (2021), for Bell.

    >>> model = TwoParty(alice=("YI",), bob=("IY",), observable="ZI", layers=1)
    >>> angles = {"alice": jnp.array([[0.5]]), "bob": jnp.array([[0.1]])}
    >>> found = two_party_gradients(model, angles, [1.0, 0.0, 0.0, 0.0], method="ancilla")
    >>> print(f"{found.value['alice'].item():.4f}, {found.unit_variance['alice'].item():.4f}")
    -0.4794, 0.7702
    """
    checks.one_of("method", method, get_args(GradientMethod))
    _check_shots(shots, key)
    radians = check_angles(model, angles)
    if np.ndim(x) != 1 or any(own.ndim != 2 for own in radians.values()):
        checks.refuse("x", "be one input (N,), with one set of angles", np.shape(x))
    if method == "exact":
        if shots is not None:
            checks.refuse("shots", "be None for the method 'exact'", shots)
        # Of this input alone, also where `shard_map` would add up what its nodes find.
        own = as_varying(radians, varying(*jax.tree.leaves((model, x))))
        value = jax.grad(lambda own: model.loss(own, x))(own)
        return TwoPartyEstimate(value, jax.tree.map(jnp.zeros_like, value), None, 0)
    if method == "shift":
        return _shift(model, radians, x, shots, key)
    return _walked(model, radians, x, method, shots, key)


def _check_shots(shots: int | None, key: Key | None) -> None:
    if shots is not None:
        checks.integer("shots", shots)
        if key is None:
            checks.refuse("key", "be given where `shots` are", key)
        checks.prng_key("key", key)


def _losses(
    model: TwoParty, angles: Angles, x: ArrayLike, shots: int | None, key: Key | None
) -> tuple[jax.Array, jax.Array]:
    """(...) estimates of the losses, and the exact losses (...) as far as they can be had."""
    if key is None or shots is None:
        exact = model.loss(angles, x)
        return exact, exact
    if model.qubits > MOST_QUBITS_MIXED and isinstance(model.hop, Pair):
        estimates = trajectories(model, model.hop, angles, x, shots, key)
        return estimates, estimates
    exact = model.loss(angles, x)
    # Not `jax.random.binomial`, which `shard_map` refuses on mapped values.
    heads = jax.random.uniform(key, (shots, *exact.shape), exact.dtype) < (1 + exact) / 2
    return 2 * jnp.mean(heads, axis=0, dtype=exact.dtype) - 1, exact


def _shift(
    model: TwoParty, angles: Angles, x: ArrayLike, shots: int | None, key: Key | None
) -> TwoPartyEstimate:
    flat, unravel = ravel_pytree(angles)

    def sides(at: tuple[jax.Array, Key | None]) -> tuple[jax.Array, jax.Array]:
        place, key = at
        quarter = jnp.pi / 2 * (jnp.arange(flat.size) == place)
        return _losses(
            model, jax.vmap(unravel)(flat + jnp.stack([quarter, -quarter])), x, shots, key
        )

    keys = None if key is None else jax.random.split(key, flat.size)
    found, means = lax.map(sides, (jnp.arange(flat.size), keys))  # (M, 2) each
    unit = (2 - jnp.sum(means**2, axis=-1)) / 4
    copies = 2 * (shots or 0) * flat.size
    return TwoPartyEstimate(unravel((found[:, 0] - found[:, 1]) / 2), unravel(unit), shots, copies)


def _walked(
    model: TwoParty,
    angles: Angles,
    x: ArrayLike,
    method: GradientMethod,
    shots: int | None,
    key: Key | None,
) -> TwoPartyEstimate:
    begin = prepare(model, angles, x)

    def visit(strings: Gates, branches: jax.Array, key: Key | None) -> tuple[jax.Array, jax.Array]:
        of_branch = read(branches, begin, strings)  # (P, 2)
        exact = (of_branch[:, 1] - of_branch[:, 0]) / 2
        if method == "bell":
            exact = exact**2
        largest = shadow_scales(strings, exact) if method == "shadows" else 1.0
        if key is None or shots is None:
            return exact, largest - exact**2
        law = outcome_law(branches, strings, begin.hops is not None)
        return measure(strings, law, method, shots, key), largest - exact**2

    groups = sum(model.groups.values())
    keys = None if key is None else jax.random.split(key, (model.layers, groups))
    found = walk_back(model, begin, visit, keys)
    value, unit = ({party: pair[at] for party, pair in found.items()} for at in (0, 1))
    copies = (shots or 0) * (2 if method == "bell" else 1) * groups * model.layers
    return TwoPartyEstimate(value, unit, shots, copies)
