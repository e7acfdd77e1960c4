"""How much memory a computation needs, estimated from its jaxpr before anything is compiled."""

import math

import jax
from jax.extend import core

#: Primitives that run their inner jaxpr again and again, while what it works on is held outside.
_LOOPS = ("scan", "while")


def live_bytes(jaxpr: core.ClosedJaxpr) -> tuple[int, int]:
    """The most bytes that are alive at one moment of a computation, and those of its constants.

    Results are made in the order of the jaxpr and given up after their last use. A call holds
    what its inner jaxpr needs, or its results where those are larger; of branches the largest
    counts; a loop holds its results beside what one turn needs.

    Left out is what the compiler does with it: fusion, which never stores some of these arrays;
    arrays written in place; another order of operations; padding; the workspace of libraries. The
    estimate is most often above what XLA says, for the trainings of this library by up to a
    factor of two.

    Args:
      jaxpr: of the computation.

    Returns:
      Bytes of temporaries and results; bytes of constants.

    >>> import jax.numpy as jnp
    >>> square = jax.make_jaxpr(lambda x: jnp.sum(jnp.outer(x, x)))(jnp.zeros(100))
    >>> live_bytes(square)[0] >= 40_000
    True
    """
    constants = sum(_bytes(jax.typeof(constant)) for constant in jaxpr.consts)
    return _peak(jaxpr.jaxpr), constants


def _peak(jaxpr: core.Jaxpr) -> int:
    """The most bytes alive at once of what a jaxpr makes itself."""
    last = {var: len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, core.Var)}
    for place, eqn in reversed(list(enumerate(jaxpr.eqns))):
        for var in eqn.invars:
            if isinstance(var, core.Var):
                last.setdefault(var, place)
    held: dict[core.Var, int] = {}
    most = total = 0
    for place, eqn in enumerate(jaxpr.eqns):
        made = {var: _bytes(var.aval) for var in eqn.outvars}
        inner = [_peak(getattr(sub, "jaxpr", sub)) for sub in core.jaxprs_in_params(eqn.params)]
        results = sum(made.values())
        needed = max(inner, default=0)
        in_loop = eqn.primitive.name in _LOOPS
        most = max(most, total + (needed + results if in_loop else max(needed, results)))
        held |= {var: size for var, size in made.items() if var in last}
        for var in [var for var in held if last[var] <= place]:
            del held[var]
        total = sum(held.values())
    return most


def _bytes(aval: object) -> int:
    """Bytes of an array; none of what is no array."""
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    if shape is None or dtype is None:
        return 0
    # An extended type is a PRNG key, of at most four words.
    return math.prod(shape) * (
        16 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype.itemsize
    )
