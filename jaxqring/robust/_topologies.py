"""`robust_pmean`: a mean over the nodes of a ring of which some may lie."""

from typing import Any, Literal, TypeVar, get_args, overload

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import varying
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring, replica_agreement
from jaxqring.ring._axes import (
    device_axes,
    key_of_ring,
    names_of,
    num_devices,
    tracked,
    within_devices,
)
from jaxqring.robust._clipping import CentredClipping
from jaxqring.robust._robust_report import RobustReport
from jaxqring.robust._rule import Rule
from jaxqring.robust._vectors import Vectors, everyone, usable
from jaxqring.robust._ways import MEANS, Call, Keys, Options, Secure, Topology
from jaxqring.secure import Security
from jaxqring.secure._security import MIN_PARTIES

T = TypeVar("T")


@overload
def robust_pmean(
    x: T,
    axis_name: AxisName | None,
    *,
    rule: Rule,
    topology: Topology = "groups",
    ring: Ring,
    key: Key | None,
    secure: Secure | None = None,
    group_size: int = 3,
    start: PyTree | None = None,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def robust_pmean(
    x: T,
    axis_name: AxisName | None,
    *,
    rule: Rule,
    topology: Topology = "groups",
    ring: Ring,
    key: Key | None,
    secure: Secure | None = None,
    group_size: int = 3,
    start: PyTree | None = None,
    with_report: Literal[True],
) -> tuple[T, RobustReport]: ...
@overload
def robust_pmean(
    x: T,
    axis_name: AxisName | None,
    *,
    rule: Rule,
    topology: Topology = "groups",
    ring: Ring,
    key: Key | None,
    secure: Secure | None = None,
    group_size: int = 3,
    start: PyTree | None = None,
    with_report: bool,
) -> T | tuple[T, RobustReport]: ...
def robust_pmean(
    x: T,
    axis_name: AxisName | None,
    *,
    rule: Rule,
    topology: Topology = "groups",
    ring: Ring,
    key: Key | None,
    secure: Secure | None = None,
    group_size: int = 3,
    start: PyTree | None = None,
    with_report: bool = False,
) -> T | tuple[T, RobustReport]:
    """A mean over the nodes that a minority of liars cannot move at will; `jaxqring.pmean`'s kin.

    A ring all-reduce itself cannot be made robust: nobody sees a single vector, and node i alone
    finishes chunk i + 1, which a liar puts where it likes. So the vectors take other ways:

    - "groups": nodes are dealt into groups of `group_size` at random in every call, a ring inside
      each group adds its vectors, under masks if `secure` is given, and the rule aggregates the
      means of the groups. f liars spoil at most f groups (`spoilt_groups`). Each member of a group
      passes on the part of the mean that is its own by rank.
    - "gather": every node gets every vector and applies the rule. There is no secrecy.
    - "butterfly": node j gets part j of every vector, runs centred clipping, and passes the result
      on. All nodes check it by `clipped_projections`; see `RobustReport.residual`.

    A vector with a number that is not finite or beyond 2^120 counts as the zero vector, and so does
    the mean of a group that has one or is given up under masks: no liar can undo a step by NaN.
    `RobustReport.unusable` counts them. On a FixedPoint wire whose clip is no number every node, or
    group, has scales of its own, an exponent of 8 bits for each leaf, so that no peak of a liar
    costs the others digits; inside a group the scale is shared, and with clip "max" a peak spoils
    the group. (In the second half of the butterfly a part has one scale for all of its leaves.)

    The links of groups lie between any two nodes, all of the one kind that `ring.channel` is.
    `robust_cost` counts what a link carries. What is simulated is this way of the data with every
    error of the links, but for two simplifications. The groups of a call are all simulated on every
    device, where a real node knows its own group alone. And the first half of the butterfly is an
    `all_gather` of which node j reads part j alone: what it reads has the law of errors of the
    protocol on bare links, while `RobustReport.ring` counts all that the `all_gather` sends, which
    is twice as much: (N - 1) P numbers over each link, and not (N - 1) P / 2 as `robust_cost` does.

    Args:
      x: pytree of floating arrays, as for `jaxqring.pmean`.
      axis_name: name of the mapped axis, a tuple of names, or None if one device carries all nodes.
      rule: of the aggregation; for the butterfly a `CentredClipping`.
      topology: "groups", "gather" or "butterfly".
      ring: the links, the wire and the kind of noise; for groups one channel for all links.
      key: typed PRNG key, the same on every node; None where nothing is drawn: by a ring and a rule
        that do not, and "gather".
      secure: the GHZ states of a group and the `Security` of its masks, for groups alone; verified
        group by group. None for no masks.
      group_size: s, of which the number of nodes is a multiple; at least 3 under masks, else 2.
      start: the mean of the step before, a pytree like `x`, for rules that begin with the last
        aggregate; None in the first step. Others do not look at it. The same on every node, as that
        mean is, where links have no errors.
      with_report: whether to return a `RobustReport` too.

    Returns:
      The aggregate, a pytree like `x`, the same on all nodes where links have no errors; with a
      report, the pair (aggregate, RobustReport).

    Raises:
      TypeError: as `jaxqring.pmean`; if the rule is not a Rule.
      ValueError: as `jaxqring.pmean`; if the rule needs more vectors, groups do not fit the nodes,
        or an option does not belong to the topology.

    Reference: Karimireddy, He and Jaggi, ICLR 2022 (bucketing), for groups; Gorbunov, Borzunov,
    Diskin and Ryabinin, ICML 2022 (BTARD), for the butterfly. Rings in groups are our
    interpretation.

    >>> from jaxqring.robust import Median
    >>> mean = lambda x: robust_pmean(x, "nodes", rule=Median(), topology="gather",
    ...                               ring=Ring(noise="off"), key=None)
    >>> jax.vmap(mean, axis_name="nodes")(jnp.array([1.0, 2.0, 1e9]))
    Array([2., 2., 2.], dtype=float32)
    """
    options = Options(rule, topology, key, secure, group_size, with_report)
    _check(axis_name, ring, options)

    def act(both: tuple[PyTree, PyTree], axis: AxisName | None, ring: Ring) -> Any:
        return _on_device(both, axis, ring, options)

    # A leaf of `start` that is None is no leaf.
    result = within_devices(act, (x, start), axis_name, ring, with_report)
    return (result[0][0], result[1]) if with_report else result[0]


def check_group_size(group_size: int, num_nodes: int, *, masked: bool) -> None:
    """Refuses groups that do not fit the nodes.

    Raises:
      ValueError: if they are too small, or N is no multiple of their size.
    """
    least = MIN_PARTIES if masked else 2
    checks.integer("group_size", group_size, least, num_nodes)
    if num_nodes % group_size:
        checks.refuse("group_size", f"divide the number of nodes, {num_nodes}", group_size)


def _check(axis_name: AxisName | None, ring: Ring, options: Options) -> None:
    """Refuses a malformed call before anything is traced."""
    checks.instance("ring", ring, Ring)
    checks.instance("rule", options.rule, Rule)
    checks.one_of("topology", options.topology, get_args(Topology))
    checks.one_of("with_report", options.with_report, (True, False))
    num_nodes = num_devices(axis_name) * ring.nodes_per_device
    in_groups = options.topology == "groups"
    if options.secure is not None and not in_groups:
        rule = "be None but for groups, as a rule needs to see what masks hide"
        checks.refuse("secure", rule, options.secure)
    draws = ring.draws or options.rule.draws or options.topology != "gather"
    if draws or options.key is not None:
        checks.prng_key("key", options.key)
    if not in_groups:
        if options.topology == "butterfly":
            checks.instance("rule", options.rule, CentredClipping)
        ring.check(1, num_nodes)
        options.rule.check(num_nodes)
        return
    check_group_size(options.group_size, num_nodes, masked=options.secure is not None)
    if options.secure is not None:
        source, security = _pair(options.secure)
        checks.instance("secure[0]", source, GHZSource)
        checks.instance("secure[1]", security, Security)
    if ring.noise != "off" and ring.channel is not None and ring.channel.transition.ndim > 2:
        rule = "be one channel for groups, whose links lie between any two nodes"
        checks.refuse("ring.channel", rule, ring.channel.transition.shape[:-2])
    ring.check(options.group_size, options.group_size)
    options.rule.check(num_nodes // options.group_size)


def _pair(secure: Any) -> tuple[Any, Any]:
    if not isinstance(secure, tuple) or len(secure) != 2:
        checks.refuse("secure", "be a pair of a GHZSource and a Security", secure, TypeError)
    return secure


def _on_device(
    both: tuple[PyTree, PyTree], axis_name: AxisName | None, ring: Ring, options: Options
) -> Any:
    """The mean on one device; the second of its results is that for `start`, which has none."""
    x, start = both
    own = ring.nodes_per_device
    vectors = Vectors(x, axis_name, own)
    keys = Keys.of(_own_key(options.key, axis_name, vectors.rows))
    state = None if start is None else _state(start, vectors, own)
    fit = usable(vectors.rows)
    unusable = jnp.sum(~everyone(fit, axis_name), dtype=jnp.uint32)
    # As zeros from here on: a NaN would be that of all on a FixedPoint wire.
    rows = jnp.where(fit[:, None], vectors.rows, 0)
    call = Call(vectors, rows, axis_name, ring, options, keys, state)
    made = MEANS[options.topology](call)
    result = vectors.restored(made.rows), start
    if not options.with_report:
        return result
    assert made.report is not None
    held = jax.tree.map(lax.stop_gradient, result[0])
    return result, RobustReport(
        clipped=made.clipped,
        unusable=unusable + made.unusable,
        garbled=jnp.sum(everyone(made.garbled, axis_name), dtype=jnp.uint32),
        replica_agreement=replica_agreement(held, axis_name, nodes_per_device=own),
        ring=made.report,
        groups=made.groups,
        residual=made.residual,
    )


def _own_key(key: Key | None, axis_name: AxisName | None, rows: jax.Array) -> Key | None:
    """The key of these nodes among those that lie side by side on other axes of the devices.

    The rings in groups have no axis, and would draw the same errors and masks beside each other.
    """
    if key is None or axis_name is None:
        return key
    aside = frozenset(device_axes()) - frozenset(names_of(axis_name))
    if tracked(axis_name):
        aside &= varying(rows, key)
    return key_of_ring(key, tuple(n for n in device_axes() if n in aside)) if aside else key


def _state(start: PyTree, vectors: Vectors, own: int) -> jax.Array:
    """(k, P) the means of the step before."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(start)]
    if shapes != vectors.shapes:
        checks.refuse("start", f"be a pytree like `x`, of shapes {vectors.shapes}", shapes)
    flat = [jnp.asarray(leaf, jnp.float32).reshape(own, -1) for leaf in jax.tree.leaves(start)]
    return jnp.concatenate(flat, axis=1)
