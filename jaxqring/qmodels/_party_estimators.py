"""Losses and gradients of a model of two parties as its parties can measure them."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import GradientMethod, Key
from jaxqring._varying import as_varying, varying
from jaxqring.qmodels._commuting import diagonal_form, outcome_law
from jaxqring.qmodels._hop_noise import cross
from jaxqring.qmodels._parties import PARTIES, Angles, Prepared, TwoParty, forward, prepare, read
from jaxqring.qmodels._pauli_strings import weight
from jaxqring.qmodels._unitaries import Gates, act, apply_part, parts, rotate_by

#: Called for the strings of a group, the two branches of the state there, and a key.
_Visit = Callable[[Gates, jax.Array, Key | None], Any]


@struct.dataclass
class Estimate:
    """A loss, or the gradients of the angles, as measured.

    Attributes:
      value: the estimate; for gradients {"alice": (L, P_A), "bob": (L, P_B)}.
      unit_variance: of the same shape, the variance of one shot, predicted from the exact state.
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
) -> Estimate:
    """Estimates the loss from m runs, each of which ends with an outcome of +1 or -1.

    Args:
      model: the model.
      angles: {"alice": (..., L, P_A), "bob": (..., L, P_B)} radians.
      x: (..., N) data.
      shots: m for each element of the batch; None is the exact loss.
      key: typed PRNG key, where `shots` are given.

    Returns:
      An `Estimate` of (...) losses, of variance (1 - loss^2) / m.

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
    loss = model.loss(angles, x)
    copies = 0 if shots is None else shots * loss.size
    value = loss if shots is None else _sample(key, loss, shots)
    return Estimate(value, 1 - loss**2, shots, copies)


def two_party_gradients(
    model: TwoParty,
    angles: Angles,
    x: ArrayLike,
    *,
    method: GradientMethod = "exact",
    shots: int | None = None,
    key: Key | None = None,
) -> Estimate:
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
      An `Estimate` in the shape of `angles`.

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
    >>> print(found.value["alice"].round(4), found.unit_variance["alice"].round(4))
    [[-0.4794]] [[0.7702]]
    """
    checks.one_of("method", method, get_args(GradientMethod))
    _check_shots(shots, key)
    if jnp.ndim(x) != 1 or any(jnp.ndim(angles[party]) != 2 for party in PARTIES):
        checks.refuse("x", "be one input (N,), with one set of angles", jnp.shape(x))
    if method == "exact":
        if shots is not None:
            checks.refuse("shots", "be None for the method 'exact'", shots)
        value = jax.grad(lambda own: model.loss(own, x))(dict(angles))
        return Estimate(value, jax.tree.map(jnp.zeros_like, value), None, 0)
    if method == "shift":
        return _shift(model, angles, x, shots, key)
    return _walked(model, angles, x, method, shots, key)


def _check_shots(shots: int | None, key: Key | None) -> None:
    if shots is None:
        return
    checks.integer("shots", shots)
    if key is None:
        checks.refuse("key", "be given where `shots` are", key)
    checks.prng_key("key", key)


def _sample(key: Key, mean: jax.Array, shots: int) -> jax.Array:
    """The average of m outcomes of +1 or -1, for each mean (...)."""
    return 2 * jax.random.binomial(key, shots, (1 + mean) / 2, dtype=mean.dtype) / shots - 1


def _shift(
    model: TwoParty, angles: Angles, x: ArrayLike, shots: int | None, key: Key | None
) -> Estimate:
    flat, unravel = ravel_pytree({party: jnp.asarray(angles[party], float) for party in PARTIES})

    def sides(place: jax.Array) -> jax.Array:
        turns = flat + jnp.array([[1], [-1]]) * jnp.pi / 2 * (jnp.arange(flat.size) == place)
        return model.loss(jax.vmap(unravel)(turns), x)

    means = lax.map(sides, jnp.arange(flat.size))  # (M, 2)
    unit = (2 - jnp.sum(means**2, axis=-1)) / 4
    found = means if shots is None else _sample(key, means, shots)
    copies = 0 if shots is None else 2 * shots * flat.size
    return Estimate(unravel((found[:, 0] - found[:, 1]) / 2), unravel(unit), shots, copies)


def _walked(
    model: TwoParty,
    angles: Angles,
    x: ArrayLike,
    method: GradientMethod,
    shots: int | None,
    key: Key | None,
) -> Estimate:
    begin = prepare(model, angles, x)
    dense = begin.hops is not None

    def visit(strings: Gates, branches: jax.Array, key: Key | None) -> tuple[jax.Array, ...]:
        of_branch = read(branches, begin, strings)  # (P, 2)
        exact = (of_branch[:, 1] - of_branch[:, 0]) / 2
        if method == "ancilla":
            unit = 1 - exact**2
        elif method == "shadows":
            unit = _scales(strings, exact) - exact**2
        else:
            exact = exact**2
            unit = 1 - exact**2
        if shots is None:
            return exact, unit
        return _measure(strings, outcome_law(branches, strings, dense), method, shots, key), unit

    groups = sum(model.groups.values())
    keys = None if key is None else jax.random.split(key, (model.layers, groups))
    found = walk_back(model, begin, visit, keys)
    value, unit = ({party: pair[at] for party, pair in found.items()} for at in (0, 1))
    copies = (shots or 0) * (2 if method == "bell" else 1) * groups * model.layers
    return Estimate(value, unit, shots, copies)


def _scales(strings: Gates, like: jax.Array) -> jax.Array:
    """(P,) 3^(w + 1) of each string, by which a reading of its shadow is multiplied."""
    return jnp.array([3.0 ** (weight(string) + 1) for string in strings], like.dtype)


def _measure(
    strings: Gates, law: jax.Array, method: GradientMethod, shots: int, key: Key
) -> jax.Array:
    """(P,) the estimates of a group from the outcomes (2, 2^n) of the two branches."""
    values = jnp.asarray(diagonal_form(strings)[2], law.dtype)
    # The outcome of -Y on the ancilla, times that of each string.
    values = jnp.concatenate([-values, values], axis=-1)
    cumulative = jnp.cumsum(jnp.maximum(law, 0).reshape(-1))

    def readings(key: Key) -> jax.Array:
        uniform = jax.random.uniform(key, (shots,), cumulative.dtype) * cumulative[-1]
        # Below the sum by rounding at most: the last outcome of probability above zero.
        return values[:, jnp.searchsorted(cumulative, uniform, side="right", method="sort")]

    first, second = jax.random.split(key)
    signs = readings(first)
    if method == "bell":
        signs = signs * readings(second)
    if method == "shadows":
        letters = jnp.array([["IXYZ".index(letter) for letter in "Y" + s] for s in strings])
        bases = jax.random.randint(second, (shots, letters.shape[1]), 1, 4)
        is_read = jnp.all((letters[:, None] == 0) | (letters[:, None] == bases), axis=-1)
        signs = signs * is_read * _scales(strings, signs)[:, None]
    return jnp.mean(signs, axis=-1)


def walk_back(model: TwoParty, begin: Prepared, visit: _Visit, keys: Key | None) -> dict[str, Any]:
    """Runs a model to its end and back, and visits every commuting group.

    Returns:
      The results of `visit` for each party, whose arrays (P of the group, ...) become (L, P, ...).
      The branches that it sees, (2, 2^n) or (2, 2^n, 2^n), are those of Y on the ancilla, +1 first.
    """
    dense = begin.hops is not None
    end = forward(model, begin)
    quarter = jnp.array([[1.0], [-1.0]], end.real.dtype) * jnp.pi / 2
    if dense:
        end, quarter = end[None].repeat(2, 0), quarter[:, None]
    else:
        end = end[None].repeat(2, 0)
    branches = act(end, lambda own: rotate_by(own, (model.observable,), quarter), dense)

    def layer(state: jax.Array, own: tuple[Prepared, Key]) -> tuple[jax.Array, dict[str, Any]]:
        begin, keys = own
        found: dict[str, Any] = {}
        for hop, party in enumerate(PARTIES):  # Alice first, as she was last
            results = []
            gates, angles = getattr(model, party), getattr(begin, party)
            for part in reversed(parts(gates, commuting=True)):
                if not isinstance(part, str):
                    key = None if keys is None else keys[0]
                    keys = None if keys is None else keys[1:]
                    results.append(visit(part.strings, state, key))
                state = act(
                    state, lambda own, p=part, a=angles: apply_part(own, p, a, inverse=True), dense
                )
            joined = jax.tree.map(lambda *of: jnp.concatenate(of), *results[::-1])
            found[party] = joined
            if dense:
                state = cross(state, begin.hops[1 - hop])
        return state, found

    layers = begin.replace(state=None)  # type: ignore[attr-defined]
    branches = as_varying(branches, varying(begin.state))
    return lax.scan(layer, branches, (layers, keys), reverse=True)[1]
