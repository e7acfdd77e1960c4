"""The memory that a computation needs, estimated from its jaxpr before anything is compiled."""

import math

import jax
from jax.extend import core

#: Primitives that run their inner jaxpr again and again; arrays that it works on live outside.
_LOOPS = ("scan", "while")


def live_bytes(jaxpr: core.ClosedJaxpr) -> tuple[int, int]:
    """The most bytes that are alive at one moment of a computation, and those of its constants.

    Results are made in the order of the jaxpr and freed after their last use. A call needs the
    bytes of its inner jaxpr, or of its results where those are larger; of branches the largest
    counts; a loop needs its results beside the bytes of one iteration.

    Optimizations of the compiler are left out: fusion, which never stores some of these arrays;
    arrays written in place; another order of operations; padding; the workspace of libraries. The
    estimate is most often above that of XLA, for the trainings of this library by up to a factor
    of two.

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
    """The most bytes alive at once of the arrays that a jaxpr makes itself."""
    last = {var: len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, core.Var)}
    for index, eqn in reversed(list(enumerate(jaxpr.eqns))):
        for var in eqn.invars:
            if isinstance(var, core.Var):
                last.setdefault(var, index)
    alive: dict[core.Var, int] = {}
    most = total = 0
    for index, eqn in enumerate(jaxpr.eqns):
        made = {var: _bytes(var.aval) for var in eqn.outvars}
        inner = [_peak(getattr(sub, "jaxpr", sub)) for sub in core.jaxprs_in_params(eqn.params)]
        results = sum(made.values())
        needed = max(inner, default=0)
        in_loop = eqn.primitive.name in _LOOPS
        most = max(most, total + (needed + results if in_loop else max(needed, results)))
        alive |= {var: size for var, size in made.items() if var in last}
        for var in [var for var in alive if last[var] <= index]:
            del alive[var]
        total = sum(alive.values())
    return most


def _bytes(aval: object) -> int:
    """Bytes of an array; zero for a value that is not an array."""
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    if shape is None or dtype is None:
        return 0
    # An extended type is a PRNG key, of at most four words.
    return math.prod(shape) * (
        16 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype.itemsize
    )
