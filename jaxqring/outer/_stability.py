"""The stability of outer loops on a quadratic, as the spectral radius of one round.

All nodes have the same quadratic loss, and the inner steps of a round close a share r of the way to
its optimum: a node that starts a round at theta is displaced by r theta. One round then is a linear
map of (theta, m, theta of the round before),

    theta' = theta - eta (g + mu m'),   m' = mu m + g,

with g = r theta for "sync", r theta_old for "delayed", and r theta_old + r (theta - theta_old) / N
for "eager". For "co2" theta' = theta - eta m' and m' = mu m + theta - (1 - r) theta_old.

Derived here from the updates; the paper of the delayed and the eager update has no bound.
"""

import warnings
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks

LoopKind: TypeAlias = Literal["sync", "delayed", "eager", "co2"]

#: Squarings of a matrix whose norm then gives its radius: an error of 1e-7 for a Jordan block.
_SQUARINGS = 30


def round_matrix(
    kind: LoopKind, share: Any, learning_rate: Any, momentum: Any, nodes: int | None
) -> list[list[Any]]:
    """The rows of the (3, 3) map of a round; `nodes` None stands for very many."""
    if kind == "co2":
        kept = 1 - share
        return [
            [1 - learning_rate, -learning_rate * momentum, learning_rate * kept],
            [1.0, momentum, -kept],
            [1.0, 0.0, 0.0],
        ]
    part = {"sync": 1.0, "delayed": 0.0, "eager": 0.0 if nodes is None else 1 / nodes}[kind]
    fresh, stale = share * part, share * (1 - part)
    ahead = learning_rate * (1 + momentum)
    return [
        [1 - ahead * fresh, -learning_rate * momentum**2, -ahead * stale],
        [fresh, momentum, stale],
        [1.0, 0.0, 0.0],
    ]


def _check(kind: LoopKind, learning_rate: float, momentum: float, nodes: int | None) -> None:
    checks.one_of("kind", kind, get_args(LoopKind))
    check_rates(learning_rate, momentum)
    if nodes is not None:
        checks.integer("nodes", nodes)


def check_rates(learning_rate: float, momentum: float) -> None:
    """Refuses rates of an outer step that are none.

    Raises:
      TypeError: if one is not a real number.
      ValueError: if the learning rate is not positive and finite, or the momentum not in [0, 1).
    """
    checks.open_interval("learning_rate", learning_rate, 0.0, np.inf)
    if checks.is_traced(momentum):
        checks.refuse("momentum", "be concrete", momentum)
    number = checks.numbers("momentum", momentum)
    if number.size != 1 or not 0 <= number.item() < 1:
        checks.refuse("momentum", "lie in [0, 1)", momentum)


def radius(
    kind: LoopKind,
    share: float,
    learning_rate: float,
    momentum: float,
    nodes: int | None = None,
) -> float:
    """The spectral radius of one round of an outer loop on a quadratic; below one it converges.

    Args:
      kind: "sync", "delayed" or "eager", of `diloco`; or "co2", without a clip.
      share: r, of the way to the optimum that the inner steps of a round close; at least 0, above 1
        if they overshoot.
      learning_rate: eta of the outer step; of "co2" it is divided by the gap.
      momentum: mu of the outer step, of Nesterov; of "co2" beta, of heavy ball.
      nodes: N, which "eager" depends on; None for very many, where it is "delayed".

    Returns:
      The radius; the error shrinks by this factor a round in the long run.

    Raises:
      TypeError: if a number is not real.
      ValueError: if the kind is unknown or a number out of range.

    >>> round(radius("delayed", 0.6513, 0.7, 0.9), 4)
    1.1182
    """
    _check(kind, learning_rate, momentum, nodes)
    checks.within("share", share, 0.0, np.inf)
    rows = round_matrix(kind, float(share), float(learning_rate), float(momentum), nodes)
    return float(np.abs(np.linalg.eigvals(np.array(rows))).max())


def largest_share(
    kind: LoopKind, learning_rate: float, momentum: float, nodes: int | None = None
) -> float:
    """The share r at which an outer loop on a quadratic stops being stable; below it, it is.

    Where the radius reaches one an eigenvalue is 1, -1 or one of a complex pair on the unit circle,
    and each of these is a root of a polynomial in r: no search.

    Args:
      kind: as for `radius`.
      learning_rate: eta.
      momentum: mu.
      nodes: N, for "eager".

    Returns:
      The smallest positive r with radius one; 0 for "co2" whose learning rate is above
      1 + momentum, which is unstable where r is small.

    Raises:
      TypeError: if a number is not real.
      ValueError: if the kind is unknown or a number out of range.

    >>> round(largest_share("delayed", 0.7, 0.9), 3)
    0.362
    """
    _check(kind, learning_rate, momentum, nodes)
    eta, mu = float(learning_rate), float(momentum)
    if kind == "co2" and eta > 1 + mu:  # an eigenvalue is mu - eta where r is small
        return 0.0
    # In units of 1 / eta, so that coefficients are of one size; but for "co2" with eta m in place
    # of m, the map then is that of a learning rate of one.
    rate, unit = (eta, eta) if kind == "co2" else (1.0, 1.0)
    # The characteristic polynomial z^3 + a z^2 + b z + c is linear in r.
    at = [np.poly(np.array(round_matrix(kind, share, rate, mu, nodes))) for share in (0.0, 1.0)]
    a, b, c = (np.polynomial.Polynomial([at[0][i], (at[1] - at[0])[i] / unit]) for i in (1, 2, 3))
    minus_one = 1 - a + b - c  # the polynomial at z = -1, times -1; at z = 1 it is r > 0
    on_circle = 1 - b + a * c - c * c  # Jury: zero where two eigenvalues have the product one
    # Coefficients that are zero but for roundings would have roots far away, and spoil the others.
    roots = np.concatenate([each.trim(1e-12).roots() for each in (minus_one, on_circle)])
    real = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    return float(next(r for r in real if r > 1e-9)) / eta


def warn_unless_stable(
    kind: LoopKind, learning_rate: float, momentum: float, nodes: int | None = None
) -> None:
    """Warns of rates with which a round diverges for some share in (0, 1]."""
    least = largest_share(kind, learning_rate, momentum, nodes)
    if least > 1:
        return
    who = f"The {kind} outer step with learning_rate={learning_rate:g} and momentum={momentum:g}"
    who += f" on {nodes} nodes" if nodes else ""
    where = f" where the inner steps of a round close more than {100 * least:.0f} % of the way"
    where = where + " to the optimum" if least else ", however little the inner steps of a round do"
    warnings.warn(f"{who} is unstable{where}.", UserWarning, stacklevel=3)


def traced_radius(rows: list[list[Any]]) -> jax.Array:
    """() float32 the spectral radius of a small matrix of traced entries.

    By Gelfand's formula: the norm of a power, to the inverse of that power, by repeated squaring.
    """
    matrix = jnp.stack([jnp.stack([jnp.asarray(x, jnp.float32) for x in row]) for row in rows])

    def square(at: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        matrix, log = carry
        norm = jnp.maximum(jnp.max(jnp.abs(matrix)), jnp.finfo(jnp.float32).tiny)
        unit = matrix / norm
        log = log + jnp.log(norm) * 0.5**at
        # Not a product of matrices, whose precision depends on the device.
        return jnp.sum(unit[:, :, None] * unit[None, :, :], axis=1), log

    return jnp.exp(lax.fori_loop(0, _SQUARINGS, square, (matrix, matrix[0, 0] * 0))[1])
