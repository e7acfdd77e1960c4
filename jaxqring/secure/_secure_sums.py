"""`secure_psum` and `secure_pmean`: the ring's sums, with masks that nobody can take off.

Inside the compiled step: GHZ copies are verified; each node adds a mask of the verified copies to
its codes, mod 2^b; the ring adds them up, and the sum of the masks, zero, comes off by itself. A
step whose copies fail verification, after as many attempts as asked for, delivers no number at
all.
"""

import dataclasses
import functools
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import get_opaque_trace_state
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, cipher_key, derive
from jaxqring.codec._formats import FixedPoint
from jaxqring.link._error_sampler import mapped_alike
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring._axes import as_varying, axis_size, tracked, varying, within_devices
from jaxqring.ring._call import enter
from jaxqring.ring._collectives import AxisName, sum_of
from jaxqring.ring._lanes import each_node
from jaxqring.ring._masking import Masks
from jaxqring.ring._report import Report
from jaxqring.ring._ring import Ring
from jaxqring.secure._attacks import PlantedSource
from jaxqring.secure._masks import sum_errors
from jaxqring.secure._security import Security
from jaxqring.secure._verification import verify

#: Of two nodes each would know the other's data from the sum.
MIN_PARTIES = 3


@struct.dataclass
class Dropout:
    """Nodes that vanish after they have added their masks, which ruins the sum.

    A GHZ state that has lost a qubit has no correlations along X, so that the others cannot go
    on with the same copies.

    Attributes:
      prob: () probability that a node vanishes in an attempt, in [0, 1].
      recovery: "restart" repeats the attempt among the nodes that are left, with fresh copies;
        "spare" has copies in reserve for every set of nodes that lacks one, N times as many more,
        and restarts only if two vanish at once.

    Simplification: the noise of the copies is that of all N parties, which is more than that of
    fewer, and symbols still travel over N links.
    """

    prob: ArrayLike = 0.0
    recovery: str = struct.field(pytree_node=False, default="restart")

    def __post_init__(self) -> None:
        checks.one_of("recovery", self.recovery, ("restart", "spare"))
        if isinstance(self.prob, float | int):
            checks.within("prob", self.prob)


@struct.dataclass
class SecureReport:
    """What happened in one secure collective; the same on every node.

    Attributes:
      ring: what happened on the links.
      aborted: () bool, whether the step was given up; then the result is NaN.
      attempts: () int32 verifications made.
      failures: () int32 tests that failed in the last one.
      copies: () float32 GHZ copies used by all attempts, each of `wire.bits` qubit states.
      restarts: () int32 attempts that ended because nodes vanished.
      survivors: () int32 nodes whose data are in the sum.
      wrong_sums: () uint32 coordinates whose masks did not add up to zero.
      uncorrected: () uint32 coordinates for which they still do not, after correction.
    """

    ring: Report
    aborted: jax.Array
    attempts: jax.Array
    failures: jax.Array
    copies: jax.Array
    restarts: jax.Array
    survivors: jax.Array
    wrong_sums: jax.Array
    uncorrected: jax.Array

    def keep(self, new: Any, old: Any) -> Any:
        """`old` where the step was aborted, else `new`; pytrees of the same structure."""
        return _choose(self.aborted, old, new)


def secure_psum(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: jax.Array,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool = False,
) -> Any:
    """`jaxqring.psum` under masks from verified GHZ states.

    With perfect states the result is that of `psum`, bit for bit, where links have no errors.
    Where sums of masks are wrong (`SecureReport.wrong_sums`) the result is off by a random code.

    A leaf with a NaN or an infinity on any node is NaN on every node, as with `psum`, which says so
    of that leaf and no more; its peak travels over the control channel, as all do.

    If verification fails in every attempt, or sums are beyond correction, the step is aborted and
    the result is NaN: `optax.apply_if_finite` skips such an update and leaves the state as it is;
    `SecureReport.keep` does so for a whole state. Nothing is ever delivered unmasked.

    Over bare noisy links errors are others than those of `psum`: on its way to the sum a code is
    masked, and an error adds or subtracts a power of two by chance, the highest one against the
    sign of the sum. They do not average out; protect links that shall be exact.

    Derivatives with respect to data are those of a sum, on given errors of its masked codes; the
    sum itself then travels as in `psum`. With respect to noise there are none, and asking raises.

    Args:
      x: pytree of floating arrays, as for `psum`.
      axis_name: name of the mapped axis, of at least 3 nodes.
      ring: with a FixedPoint wire, whose bits are those of a mask; noise "sampled" or "off".
      source: of the GHZ states, one party for each node. What a dishonest one plants changes
        whether verification passes, not the sums.
      security: what is tested, summed up and corrected; "bucket" or "none".
      key: typed PRNG key, the same on every node; used for one collective only.
      dropout: nodes that vanish; None for none.
      replicated: as for `psum`.
      with_report: whether to return a `SecureReport` too.

    Returns:
      The sum, a pytree like `x`; with a report, the pair (sum, SecureReport).

    Raises:
      TypeError, ValueError: as `psum`; if there are fewer than 3 nodes, a source of another number
        of parties, a float wire, universal amplification (which needs a prime field), or a key
        that another secure collective of the same traced function was given.

    Source: our interpretation of the paper's secure aggregation.

    >>> total = lambda x: secure_psum(x, "nodes", ring=Ring(noise="off"), source=GHZSource(4),
    ...                               security=Security(), key=jax.random.key(0))
    >>> jax.jit(jax.vmap(total, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([12., 16.], dtype=float32)
    """
    given = _Given(source, security, key, dropout, replicated, with_report)
    return _on_devices(x, axis_name, ring, given, mean=False)


def secure_pmean(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    source: GHZSource | PlantedSource,
    security: Security,
    key: jax.Array,
    dropout: Dropout | None = None,
    replicated: bool = False,
    with_report: bool = False,
) -> Any:
    """The mean over the nodes: `secure_psum`, divided by the number of nodes whose data are in it.

    Arguments, results and errors as of `secure_psum`.

    >>> mean = lambda x: secure_pmean(x, "nodes", ring=Ring(noise="off"), source=GHZSource(4),
    ...                               security=Security(), key=jax.random.key(0))
    >>> jax.jit(jax.vmap(mean, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    given = _Given(source, security, key, dropout, replicated, with_report)
    return _on_devices(x, axis_name, ring, given, mean=True)


class _Given(NamedTuple):
    """The arguments of a call, as of `secure_psum`."""

    source: GHZSource | PlantedSource
    security: Security
    key: jax.Array
    dropout: Dropout | None
    replicated: bool
    with_report: bool


def _on_devices(x: Any, axis_name: AxisName, ring: Ring, given: _Given, *, mean: bool) -> Any:
    _check(axis_name, ring, given)
    act = functools.partial(_secure, given=given, mean=mean)
    return within_devices(act, x, axis_name, ring, given.with_report)


def _secure(x: Any, axis_name: AxisName, ring: Ring, *, given: _Given, mean: bool) -> Any:
    security, dropout = given.security, given.dropout
    call = enter(
        x,
        axis_name,
        ring,
        given.key,
        "secure sum",
        with_report=given.with_report,
        replicated=given.replicated,
    )
    place, wire, nodes = call.place, ring.wire, call.place.num_nodes
    assert call.key is not None  # `_check` has refused that
    size = sum(leaf.size for leaf in call.leaves) // ring.nodes_per_device
    source = jax.tree.map(_not_differentiated, given.source)
    chunk = -(-size // nodes)
    verify_key, mask_key = jax.random.split(call.key)
    outcome = _attempts(verify_key, source, size, wire.bits, nodes, given)

    cipher = cipher_key(mask_key)
    honest = source.honest if isinstance(source, PlantedSource) else source
    errors, wrong, left = each_node(
        lambda node: _chunk_errors(
            derive(derive(cipher, 1), node),
            honest.visibility,
            chunk,
            jnp.clip(size - node * chunk, 0, chunk),
            wire.bits,
            security,
        ),
        place.nodes(),
    )
    masked = dataclasses.replace(ring, masks=Masks(derive(cipher, 0), errors))
    counts = jnp.stack([jnp.sum(wrong), jnp.sum(left)])
    wrong_sums, uncorrected = lax.psum(as_varying(counts, tracked(axis_name)), axis_name)
    wrong_sums, uncorrected = wrong_sums.astype(jnp.uint32), uncorrected.astype(jnp.uint32)
    aborted = ~outcome.done
    if security.correction is not None:
        aborted |= uncorrected > 0  # the nodes compare check sums, and see it

    call = call._replace(ring=masked)
    divisor: int | jax.Array = nodes if mean else 1
    if dropout is not None:
        alive = outcome.alive[place.nodes()]
        call = call._replace(leaves=[_of_survivors(leaf, alive, ring) for leaf in call.leaves])
        divisor = jnp.sum(outcome.alive).astype(jnp.float32) if mean else 1
    total = sum_of(call, given.replicated, given.with_report, divisor, fits=mean)
    total, report = total if given.with_report else (total, None)
    survivors = jnp.sum(outcome.alive, dtype=jnp.int32)
    lost = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), total)
    total = _choose(aborted, lost, total)
    if report is None:
        return total
    return total, SecureReport(
        ring=report,
        aborted=aborted,
        attempts=outcome.number,
        failures=outcome.failures,
        copies=outcome.copies,
        restarts=outcome.restarts,
        survivors=survivors,
        wrong_sums=wrong_sums,
        uncorrected=uncorrected,
    )


def _choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """`yes` where the condition is true, else `no`.

    By a branch and not by `where`, which XLA would fuse into what comes before and after, and with
    it compute an optimizer's update with other roundings than without masks.
    """
    first, second = (
        jax.tree.map(lambda a, b, i=i: mapped_alike(jnp.asarray(a), jnp.asarray(b))[i], yes, no)
        for i in (0, 1)
    )
    return lax.cond(condition, lambda: first, lambda: second)


def _check(axis_name: AxisName, ring: Ring, given: _Given) -> None:
    """Refuses a malformed call before anything is traced."""
    source, security = given.source, given.security
    checks.instance("ring", ring, Ring)
    if not isinstance(source, PlantedSource):
        checks.instance("source", source, GHZSource)
    checks.instance("security", security, Security)
    if given.dropout is not None:
        checks.instance("dropout", given.dropout, Dropout)
    checks.prng_key("key", given.key)
    nodes = axis_size(axis_name) * ring.nodes_per_device
    if nodes < MIN_PARTIES:
        checks.refuse("axis_name", f"bind at least {MIN_PARTIES} nodes", nodes)
    if source.num_parties != nodes:
        checks.refuse("source", f"have {nodes} parties, one for each node", source.num_parties)
    if ring.masks is not None:
        checks.refuse("ring.masks", "be None, as every call draws its own", "masks")
    if not isinstance(ring.wire, FixedPoint):
        checks.refuse("ring.wire", "be a FixedPoint, whose codes add up mod 2^bits", ring.wire)
    if security.amplification == "universal":
        rule = 'be "bucket" or "none" in a ring that adds mod 2^bits, where random matrices are'
        checks.refuse("security.amplification", f"{rule} no universal hash", "universal")
    _refuse_second_use(given.key)


#: Keys that secure collectives were given, with the state of the trace: for a refusal, no more.
_used: dict[int, tuple[weakref.ref, Any]] = {}


def _refuse_second_use(key: jax.Array) -> None:
    """Refuses a key that another call in the same trace was given.

    Masks drawn twice from one key are the same masks: the difference of what a node sends under
    them is the difference of its data.
    """
    known = _used.get(id(key))
    state = get_opaque_trace_state()
    if known is not None and known[0]() is key and known[1] == state:
        raise ValueError(
            "`key` must be used for one secure collective only, but got the key of another one in"
            " this function: the same masks twice tell the difference of the data."
        )
    name = id(key)
    _used[name] = weakref.ref(key, lambda _: _used.pop(name, None)), state


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


class _Attempts(NamedTuple):
    """Where the attempts of a step stand; all the same on every node."""

    number: jax.Array
    done: jax.Array
    alive: jax.Array
    failures: jax.Array
    copies: jax.Array
    restarts: jax.Array


def _attempts(
    key: jax.Array,
    source: GHZSource | PlantedSource,
    size: int,
    bits: int,
    nodes: int,
    given: _Given,
) -> _Attempts:
    """Verifies fresh copies until a set of them passes and nobody has vanished."""
    security, dropout = given.security, given.dropout
    kept = security.masks_needed(max(size, 1))
    tested = security.copies_tested(kept)

    def again(state: _Attempts) -> jax.Array:
        tries = state.number - state.restarts
        enough = jnp.sum(state.alive) >= MIN_PARTIES
        return ~state.done & (tries < security.attempts) & enough

    def attempt(state: _Attempts) -> _Attempts:
        tests_key, fate_key = jax.random.split(jax.random.fold_in(key, state.number))
        seen = verify(
            tests_key,
            source,
            kept,
            tested,
            tests=security.tests,
            tolerance=security.tolerance,
            bits=bits,
        )
        alive, whole = state.alive, jnp.bool_(True)
        copies = jnp.float32(kept + tested)
        if dropout is not None:
            prob, _ = checks.bounded("prob", dropout.prob)
            fate = jax.random.bernoulli(fate_key, prob, (nodes,))
            gone = state.alive & fate & seen.passed
            alive = state.alive & ~gone
            spare = int(dropout.recovery == "spare")
            whole = jnp.sum(gone) <= spare
            copies *= 1 + spare * jnp.sum(state.alive)
        ended = seen.passed & ~whole
        return _Attempts(
            state.number + 1,
            seen.passed & whole & (jnp.sum(alive) >= MIN_PARTIES),
            alive,
            seen.failures,
            state.copies + copies,
            state.restarts + ended.astype(jnp.int32),
        )

    none = jnp.int32(0)
    start = _Attempts(none, jnp.bool_(False), jnp.ones(nodes, bool), none, jnp.float32(0), none)
    # What is drawn may vary over axes beside the ring, and then all of the state does.
    start = as_varying(start, varying(key, *jax.tree.leaves((source, dropout))))
    return lax.while_loop(again, attempt, start)


def _of_survivors(leaf: jax.Array, alive: jax.Array, ring: Ring) -> jax.Array:
    """The data of nodes that are left; nothing of the others."""
    if ring.nodes_per_device == 1:
        return jnp.where(alive[0], leaf, 0)
    return jnp.where(alive.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)


def _chunk_errors(
    cipher: KeyWords,
    visibility: jax.Array,
    size: int,
    real: jax.Array,
    bits: int,
    security: Security,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the sums of one chunk's masks are off by, of which the first `real` are of payload.

    Simplification: decoders are counted, not run; a word with few enough wrong sums is put right.
    Words do not reach from one chunk into the next, which makes at most N - 1 more of them than
    `Security.blocks` counts, and the check masks have no errors of their own.

    Returns:
      (c,) int32 errors after correction; () int32 how many sums were wrong, and how many are left.
    """
    code = security.correction
    words = size if code is None else -(-size // code.k)
    drawn = words if code is None else words * code.n

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        return total + sum_errors(derive(cipher, number), visibility, drawn, bits)

    # Made of the key and the noise, to have the type of mapped values.
    none = (cipher[0] & jnp.uint32(0)).astype(jnp.int32) + (visibility > 2).astype(jnp.int32)
    errors = lax.fori_loop(0, security.summed, add, jnp.full((drawn,), none))
    errors &= jnp.int32(2**bits - 1) if bits < 32 else jnp.int32(-1)
    left = errors
    if code is not None:
        errors = errors.reshape(words, code.n)
        in_reach = jnp.sum(errors != 0, axis=1) <= code.t
        left = jnp.where(in_reach[:, None], 0, errors)
        errors, left = (each[:, : code.k].reshape(-1)[:size] for each in (errors, left))
    is_real = jnp.arange(size) < real
    left = jnp.where(is_real, left, 0)
    count = functools.partial(jnp.sum, dtype=jnp.int32)
    return left, count((errors != 0) & is_real), count(left != 0)
