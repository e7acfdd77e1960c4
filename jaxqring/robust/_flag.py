"""Flag: the part of all directions that lies in a subspace which most of them agree on."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.robust._rule import Aggregate, Rule, middle, norms, share

Length = Literal["unit", "median"]
#: Added to the share that a subspace leaves of a direction, so that no weight is infinite.
_FLOOR = 1e-7
#: Eigenvalues below this part of the largest one are zero.
_LEAST = 1e-6


@struct.dataclass
class Flag(Rule):
    """The mean direction of n vectors, projected on a subspace found by reweighting.

    With unit vectors u_i, Y holds the `rank` leading left singular vectors of the columns w_i u_i;
    w_i = (1 - |Y' u_i|^2 + 1e-7)^(-1/4) minimises sum_i (1 - |Y' u_i|^2)^(1/2), step by step. With
    `pairs` above 0 the differences d_ij of all pairs of directions count as well, as unit vectors
    with the weight pairs / (n (n - 1)), as in the objective of the paper; public code scales
    differences that are not normalised. The result is Y Y' sum_i u_i / rank, as there.

    **Lengths are lost**: the result is a sum of directions, whatever the gradients are long, so
    that the learning rate means another thing. `length="median"` gives Y Y' mean_i u_i the median
    of the lengths, which is ours. And a subspace of rank 2 or more locks on to a liar: where the
    honest agree on one direction, a liar alone makes the second.

    All is done with n x n Gram matrices; no decomposition of an n x P matrix is made. Eigenvectors
    of equal eigenvalues have no derivative, so that asking for one raises.

    Attributes:
      rank: r, of the subspace.
      iterations: of reweighting; 0 for equal weights.
      pairs: lambda, of at least 0.
      length: "unit" or "median".

    Raises:
      ValueError: if an attribute is out of its domain.

    Reference: Almasi, Mishra, Vamanan and Ravi, arXiv:2302.05865, for the weights and the
    objective; the Gram form is ours.

    >>> x = jnp.array([[2.0, 0.1], [2.0, -0.1], [3.0, 0.0], [0.0, 9.0]])
    >>> [round(float(part), 2) for part in Flag(iterations=5, length="median")(x).value]
    [1.87, 0.0]
    """

    rank: int = struct.field(pytree_node=False, default=1)
    iterations: int = struct.field(pytree_node=False, default=1)
    pairs: float = struct.field(pytree_node=False, default=0.0)
    length: Length = struct.field(pytree_node=False, default="unit")

    def __post_init__(self) -> None:
        checks.integer("rank", self.rank)
        checks.integer("iterations", self.iterations, 0)
        checks.within("pairs", self.pairs, 0.0, float("inf"))
        checks.one_of("length", self.length, get_args(Length))

    def check(self, count: int) -> None:
        if self.rank > count:
            checks.refuse("rank", f"be at most the {count} vectors", self.rank)

    def kept(self, x: jax.Array) -> jax.Array:
        """(n,) the shares |Y' u_i|^2 of directions (n, P) that lie in the subspace."""
        gram = _gram(_directions(x))
        return jnp.diagonal(_inside(gram, self._basis(gram)))

    def _basis(self, gram: jax.Array) -> jax.Array:
        """(n, rank) the subspace in combinations of directions, after all reweightings."""
        ones = jnp.ones_like(gram)
        first = _leading(gram, jnp.diag(ones[0]) + self._of_pairs(gram, ones), self.rank)

        def reweighted(_: jax.Array, basis: jax.Array) -> jax.Array:
            inside, apart = _inside(gram, basis), _apart(gram)
            shares = _apart(inside) / jnp.where(apart > 0, apart, 1)
            squares = jnp.diag(_weights(jnp.diagonal(inside)))
            return _leading(gram, squares + self._of_pairs(gram, _weights(shares)), self.rank)

        return lax.fori_loop(0, self.iterations, reweighted, first)

    def _of_pairs(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        """(n, n) what differences of pairs add to the squared weights of the directions."""
        count = gram.shape[0]
        if not self.pairs or count < 2:
            return jnp.zeros_like(gram)
        apart = _apart(gram)
        each = jnp.where(apart > _LEAST, weights / jnp.where(apart > _LEAST, apart, 1), 0)
        each = each * self.pairs / (count * (count - 1))
        # The sum over ordered pairs of each_ij (e_i - e_j)(e_i - e_j)'.
        return 2 * (jnp.diag(jnp.sum(each, axis=1)) - each)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        x = _not_differentiated(x)
        directions = _directions(x)
        gram = _gram(directions)
        basis = self._basis(gram)
        parts = _product(basis, jnp.sum(_product(gram, basis), axis=0))
        total = _product(parts, directions)
        if self.length == "unit":
            return Aggregate(total / self.rank, share(0))
        return Aggregate(total / x.shape[0] * middle(norms(x)), share(0))


def _leading(gram: jax.Array, squares: jax.Array, rank: int) -> jax.Array:
    """(n, rank) the leading left singular vectors of the columns, in combinations of directions.

    The columns are the directions U (P, n) times R, with R R = `squares`: with the eigenvectors V
    of R G R and their eigenvalues s, the vectors are U R V s^(-1/2).
    """
    values, vectors = jnp.linalg.eigh(squares)
    root = _product(vectors * jnp.sqrt(jnp.maximum(values, 0)), vectors.T)
    spectrum, basis = jnp.linalg.eigh(_product(root, gram, root))
    top, basis = spectrum[-rank:], basis[:, -rank:]
    is_there = top > _LEAST * spectrum[-1]
    scale = jnp.where(is_there, lax.rsqrt(jnp.where(is_there, top, 1)), 0)
    return _product(root, basis * scale)


def _inside(gram: jax.Array, basis: jax.Array) -> jax.Array:
    """(n, n) products of the parts of the directions that lie in a subspace."""
    reached = _product(gram, basis)
    return _product(reached, reached.T)


def _product(first: jax.Array, *others: jax.Array) -> jax.Array:
    for other in others:
        first = jnp.matmul(first, other, precision="highest")
    return first


def _directions(x: jax.Array) -> jax.Array:
    """(n, P) unit vectors; zero for the zero vector."""
    length = norms(x)[:, None]
    return x / jnp.where(length > 0, length, 1)


def _gram(directions: jax.Array) -> jax.Array:
    return _product(directions, directions.T)


def _apart(gram: jax.Array) -> jax.Array:
    """(n, n) squared lengths of the differences of vectors with these products."""
    own = jnp.diagonal(gram)
    return jnp.maximum(own[:, None] + own[None] - 2 * gram, 0)


def _weights(shares: jax.Array) -> jax.Array:
    """Squared weights of columns of which the subspace holds these shares."""
    return (jnp.abs(1 - shares) + _FLOOR) ** -0.5


@jax.custom_jvp
def _not_differentiated(x: jax.Array) -> jax.Array:
    return x


@_not_differentiated.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    raise ValueError(
        "`x` must not be differentiated through Flag, but got a derivative: eigenvectors of equal"
        " eigenvalues have none; take another rule."
    )
