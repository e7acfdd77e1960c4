"""Finite differences with common random numbers, the measure of the estimators."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.gradients._reruns import Loss, each_sample
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.ring._overrides import Overrides
from jaxqring.ring._ring import Ring


def couple(*rings: Ring) -> tuple[Ring, ...]:
    """Rings that share their random numbers: common random numbers for finite differences.

    With the same key rings share errors: an error drawn on the quieter link also occurs, as the
    same error, on the noisier one. Bare links only; protected ones share no more than their keys.

    Args:
      rings: of the same number of links.

    Returns:
      The same rings, coupled.

    Raises:
      TypeError: if one is not a Ring.
      ValueError: if they have no links, or not the same number of them.

    >>> from jaxqring import superdense, werner
    >>> low, high = couple(*(Ring(superdense(werner(fidelity=f))) for f in (0.98, 0.99)))
    """
    for ring in rings:
        checks.instance("rings", ring, Ring)
        if ring.channel is None:
            checks.refuse("rings", "have links", None)
    tables = [SymbolChannel(ring.transition).guessed().error_table for ring in rings]
    shapes = {table.shape for table in tables}
    if len(shapes) != 1:
        checks.refuse("rings", "have the same number of links", sorted(shapes))
    envelope = jnp.max(jnp.stack(tables), axis=0)
    overrides = Overrides(envelope=lax.stop_gradient(envelope))
    return tuple(dataclasses.replace(ring, overrides=overrides) for ring in rings)


def finite_difference(
    loss: Loss,
    low: Ring,
    high: Ring,
    width: ArrayLike,
    key: Key,
    *,
    samples: int = 1,
    calls: int = 1,
    batch: int | None = None,
) -> PyTree:
    """Differences of the loss between two rings with common random numbers.

    Args:
      loss: as for `expected`.
      low: a ring at one end of an interval.
      high: the ring at the other end.
      width: of the interval.
      key: typed key of the samples.
      samples: independent pairs of runs.
      calls: how many keys the loss takes.
      batch: samples that run side by side; all by default.

    Returns:
      (high - low) / width of each sample, (samples,) for each () of the loss: unbiased for the
      difference quotient, with a variance of the order 1 / width.

    Raises:
      TypeError: as `couple`, and if the key is not a typed key.
      ValueError: as `couple`; for rings that differ in more than their links, or a count that is
        not a positive integer.

    >>> from jaxqring import FixedPoint, psum, superdense, werner
    >>> values = jnp.array([3.0, 1.0, 2.0])[:, None]
    >>> def loss(ring, keys):
    ...     add = lambda x: psum(x, "nodes", ring=ring, key=keys[0])
    ...     return jnp.mean((jax.vmap(add, axis_name="nodes")(values) - 6) ** 2)
    >>> links = (superdense(werner(fidelity=f)) for f in (0.94, 0.96))
    >>> low, high = (Ring(link, FixedPoint(6, clip=7.0)) for link in links)
    >>> slopes = finite_difference(loss, low, high, 0.02, jax.random.key(0), samples=64)
    >>> slopes.shape, bool(slopes.mean() < 0)
    ((64,), True)
    """
    check_counts(samples, calls, batch)
    checks.prng_key("key", key)
    low, high = couple(low, high)
    if len({jax.tree.structure(ring) for ring in (low, high)}) > 1:
        checks.refuse("high", "differ from `low` in the noise of its links alone", high)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), low, high)

    def difference(own: Key) -> PyTree:
        keys = jax.random.split(own, calls)
        ends = lax.map(lambda ring: loss(ring, keys), both)
        return jax.tree.map(lambda end: (end[1] - end[0]) / width, ends)

    return each_sample(difference, key, samples, batch)


def check_counts(samples: int, calls: int, batch: int | None) -> None:
    """Refuses numbers of runs that are not positive integers; `batch` may be None.

    Raises:
      ValueError: if one is not a positive integer.
    """
    checks.integer("samples", samples)
    checks.integer("calls", calls)
    if batch is not None:
        checks.integer("batch", batch)
