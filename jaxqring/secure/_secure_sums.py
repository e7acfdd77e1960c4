"""`secure_psum` and `secure_pmean`: the sums of a ring under masks that nobody can take off.

Inside the compiled program GHZ copies are verified; each node adds a mask of the verified copies
to its levels, mod 2^b; the ring adds them up, and the sum of the masks, zero, comes off by itself.
A collective whose copies fail verification, after the attempts that `Security` allows, delivers no
number at all.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, TypeVar, overload

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import _checks as checks
from jaxqring._threefry import cipher_key, derive
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import as_varying
from jaxqring.codec._formats import FixedPoint
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring._axes import num_devices, tracked, within_devices
from jaxqring.ring._call import enter
from jaxqring.ring._collectives import sum_of
from jaxqring.ring._lanes import each_node
from jaxqring.ring._masking import Masks
from jaxqring.ring._ring import Ring
from jaxqring.secure._attacks import PlantedSource
from jaxqring.secure._attempts import Dropout, verify_attempts
from jaxqring.secure._secure_report import SecureReport, choose
from jaxqring.secure._security import MIN_PARTIES, Security
from jaxqring.secure._sum_correction import chunk_errors

T = TypeVar("T")


@overload
def secure_psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def secure_psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: Literal[True],
) -> tuple[T, SecureReport]: ...
@overload
def secure_psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool,
) -> T | tuple[T, SecureReport]: ...
def secure_psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool = False,
) -> T | tuple[T, SecureReport]:
    """Sums a pytree over the nodes as `jaxqring.psum` does, under masks from verified GHZ states.

    **One key, one collective.** Masks drawn twice from one key are the same masks, and the
    difference of two messages under them is the difference of the data. As everywhere in JAX,
    splitting keys is up to the caller, and nothing here refuses a key that was used before; JAX's
    checker does, across calls, scans and compiled programs: under `jax.debug_key_reuse(True)` the
    second use raises `jax.errors.KeyReuseError`.

    With perfect states the result is that of `psum`, bit for bit, where links have no errors.
    Where sums of masks are wrong (`SecureReport.wrong_sums`) the result is off by a random level.

    A leaf with a NaN or an infinity on any node is NaN on every node, as with `psum`, which says so
    of that leaf and no more; its peak travels over the control channel, as all do. On a wire with
    `clip="robust"` the exponents of every node do, and a leaf is NaN as `FixedPoint` says.

    If verification fails in every attempt, or sums are beyond correction, the collective is aborted
    and the result is NaN: `optax.apply_if_finite` skips such an update and leaves the state as it
    is; `SecureReport.keep` does so for a whole state. Nothing is ever delivered unmasked.

    Over bare noisy links errors are others than those of `psum`: on its way to the sum a level is
    masked, and an error adds or subtracts a power of two by chance, the highest one against the
    sign of the sum. They do not average out; protect links that shall be exact.

    Derivatives with respect to data are those of a sum, on given errors of its masked levels; the
    sum itself then travels as in `psum`. With respect to noise there are none, and asking raises.

    Args:
      x: pytree of floating arrays, as for `psum`.
      axis_name: name of the mapped axis, of at least 3 nodes, or None as for `psum`.
      ring: with a FixedPoint wire, whose bits are those of a mask; noise "sampled" or "off".
      source: of the GHZ states, one party for each node. Copies that a dishonest one plants change
        whether verification passes, not the sums.
      security: the tests, the masks summed up for one, and the correction; "bucket" or "none".
      key: typed PRNG key, the same on every node; for this collective only, see above.
      dropout: nodes that vanish; None if all stay.
      replicated: as for `psum`.
      with_report: whether to return a `SecureReport` too.

    Returns:
      The sum, a pytree like `x`; with a report, the pair (sum, SecureReport).

    Raises:
      TypeError: as `psum`; if `source`, `security` or `dropout` is of another type.
      ValueError: as `psum`; if there are fewer than 3 nodes, a source of another number of
        parties, a float wire, universal amplification, which needs a prime field, or liars that
        could be half of the 3 nodes that a dropout may leave.

    Reference: our interpretation of the paper's secure aggregation.

    >>> total = lambda x: secure_psum(x, "nodes", ring=Ring(noise="off"), source=GHZSource(4),
    ...                               security=Security(), key=jax.random.key(0))
    >>> jax.jit(jax.vmap(total, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([12., 16.], dtype=float32)
    """
    options = _Options(source, security, key, dropout, replicated, with_report)
    return _on_devices(x, axis_name, ring, options, mean=False)


@overload
def secure_pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def secure_pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: Literal[True],
) -> tuple[T, SecureReport]: ...
@overload
def secure_pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool,
) -> T | tuple[T, SecureReport]: ...
def secure_pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: Key,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool = False,
) -> T | tuple[T, SecureReport]:
    """The mean over the nodes: `secure_psum`, divided by the number of nodes whose data are in it.

    Args:
      x: as for `secure_psum`, as all that follows.
      axis_name: name of the mapped axis.
      ring: the links and the wire.
      source: of the GHZ states.
      security: the tests, the masks summed up for one, and the correction.
      key: typed PRNG key, for this collective only.
      dropout: nodes that vanish; None if all stay.
      replicated: as for `pmean`.
      with_report: whether to return a `SecureReport` too.

    Returns:
      The mean, a pytree like `x`; with a report, the pair (mean, SecureReport).

    Raises:
      TypeError, ValueError: as `secure_psum`.

    >>> mean = lambda x: secure_pmean(x, "nodes", ring=Ring(noise="off"), source=GHZSource(4),
    ...                               security=Security(), key=jax.random.key(0))
    >>> jax.jit(jax.vmap(mean, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    options = _Options(source, security, key, dropout, replicated, with_report)
    return _on_devices(x, axis_name, ring, options, mean=True)


class _Options(NamedTuple):
    """The keyword arguments of `secure_psum`, but for the ring."""

    source: GHZSource | PlantedSource
    security: Security
    key: Key
    dropout: Dropout | None
    replicated: bool
    with_report: bool


def _on_devices(
    x: PyTree, axis_name: AxisName, ring: Ring, options: _Options, *, mean: bool
) -> Any:
    _check(axis_name, ring, options)
    act = functools.partial(_secure, options=options, mean=mean)
    return within_devices(act, x, axis_name, ring, options.with_report)


def _check(axis_name: AxisName, ring: Ring, options: _Options) -> None:
    """Refuses a malformed call before anything is traced."""
    source, security = options.source, options.security
    checks.instance("ring", ring, Ring)
    if not isinstance(source, PlantedSource):
        checks.instance("source", source, GHZSource)
    checks.instance("security", security, Security)
    if options.dropout is not None:
        checks.instance("dropout", options.dropout, Dropout)
    checks.prng_key("key", options.key)
    num_nodes = num_devices(axis_name) * ring.nodes_per_device
    if num_nodes < MIN_PARTIES:
        checks.refuse("axis_name", f"bind at least {MIN_PARTIES} nodes", num_nodes)
    if source.num_parties != num_nodes:
        rule = f"have {num_nodes} parties, one for each node"
        checks.refuse("source", rule, source.num_parties)
    if ring.masks is not None:
        checks.refuse("ring.masks", "be None, as every call draws its own", "masks")
    if not isinstance(ring.wire, FixedPoint):
        checks.refuse("ring.wire", "be a FixedPoint, whose levels add up mod 2^bits", ring.wire)
    if options.dropout is not None and 2 * ring.wire.liars >= MIN_PARTIES:
        rule = f"be below half of the {MIN_PARTIES} nodes that a dropout may leave"
        checks.refuse("ring.wire.liars", rule, ring.wire.liars)
    if security.amplification == "universal":
        rule = 'be "bucket" or "none" in a ring that adds mod 2^bits, where random matrices are'
        checks.refuse("security.amplification", f"{rule} no universal hash", "universal")


def _secure(x: PyTree, axis_name: AxisName, ring: Ring, *, options: _Options, mean: bool) -> Any:
    """The collective on one device."""
    dropout, with_report = options.dropout, options.with_report
    call = enter(
        x,
        axis_name,
        ring,
        options.key,
        "secure sum",
        with_report=with_report,
        replicated=options.replicated,
    )
    place, num_nodes = call.place, call.place.num_nodes
    assert call.key is not None  # `_check` has refused that
    size = sum(leaf.size for leaf in call.leaves) // ring.nodes_per_device
    source = jax.tree.map(_not_differentiated, options.source)
    verify_key, mask_key = jax.random.split(call.key)
    attempts = verify_attempts(
        verify_key, source, size, ring.wire.bits, num_nodes, options.security, dropout
    )
    masks, wrong_sums, uncorrected = _draw_masks(
        mask_key, source, size, call.place.nodes(), axis_name, ring, options.security
    )
    aborted = ~attempts.done
    if options.security.correction is not None:
        aborted |= uncorrected > 0  # the nodes compare check sums, and see it

    # The links draw from a stream of their own under the same key, by another cipher: a clone, so
    # that JAX's checker of keys does not take this for a second use.
    call = call._replace(
        ring=dataclasses.replace(ring, masks=masks), key=jax.random.clone(call.key)
    )
    divisor: int | jax.Array = num_nodes if mean else 1
    if dropout is not None:
        alive = attempts.alive[place.nodes()]
        call = call._replace(leaves=[_of_survivors(leaf, alive, ring) for leaf in call.leaves])
        divisor = jnp.sum(attempts.alive).astype(jnp.float32) if mean else 1
    total = sum_of(call, options.replicated, with_report, divisor, fits=mean)
    total, report = total if with_report else (total, None)
    survivors = jnp.sum(attempts.alive, dtype=jnp.int32)
    undelivered = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), total)
    total = choose(aborted, undelivered, total)
    if report is None:
        return total
    return total, SecureReport(
        ring=report,
        aborted=aborted,
        attempts=attempts.number,
        failures=attempts.failures,
        copies=attempts.copies,
        restarts=attempts.restarts,
        survivors=survivors,
        wrong_sums=wrong_sums,
        uncorrected=uncorrected,
    )


def _draw_masks(
    key: Key,
    source: GHZSource | PlantedSource,
    size: int,
    nodes: jax.Array,
    axis_name: AxisName,
    ring: Ring,
    security: Security,
) -> tuple[Masks, jax.Array, jax.Array]:
    """The masks of a call, and () uint32 sums that are wrong before and after correction."""
    chunk = -(-size // source.num_parties)
    cipher = cipher_key(key)
    honest = source.honest if isinstance(source, PlantedSource) else source
    errors, wrong, remaining = each_node(
        lambda node: chunk_errors(
            derive(derive(cipher, 1), node),
            honest.visibility,
            chunk,
            jnp.clip(size - node * chunk, 0, chunk),
            ring.wire.bits,
            security,
            ring.sampler,
        ),
        nodes,
    )
    counts = jnp.stack([jnp.sum(wrong), jnp.sum(remaining)])
    if axis_name is not None:
        counts = lax.psum(as_varying(counts, tracked(axis_name)), axis_name)
    wrong_sums, uncorrected = counts
    masks = Masks(derive(cipher, 0), errors)
    return masks, wrong_sums.astype(jnp.uint32), uncorrected.astype(jnp.uint32)


def _of_survivors(leaf: jax.Array, alive: jax.Array, ring: Ring) -> jax.Array:
    """A leaf whose values on vanished nodes are zero."""
    if ring.nodes_per_device == 1:
        return jnp.where(alive[0], leaf, 0)
    return jnp.where(alive.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)


@jax.custom_jvp
def _not_differentiated(value: jax.Array) -> jax.Array:
    return value


@functools.partial(_not_differentiated.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple:
    if not isinstance(tangents[0], SymbolicZero):
        raise ValueError(
            "`source` must not be differentiated through a secure collective, but got a"
            " derivative: errors of masks happen or do not; use finite differences, or"
            " differentiate `source.x_error`."
        )
    return primals[0], tangents[0]
