"""`robust_pmean`: a mean over the nodes of a ring of which some may lie."""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeVar, get_args, overload

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import varying
from jaxqring.codec import FixedPoint
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, all_gather, pmean, replica_agreement
from jaxqring.ring._axes import (
    device_axes,
    key_of_ring,
    names_of,
    num_devices,
    tracked,
    within_devices,
)
from jaxqring.robust._clipping import CentredClipping, clipped_projections
from jaxqring.robust._robust_report import RobustReport
from jaxqring.robust._rule import Aggregate, Rule
from jaxqring.robust._vectors import Vectors, everyone, own_rows, powers_of_two, usable
from jaxqring.secure import SecureReport, Security, secure_pmean
from jaxqring.secure._security import MIN_PARTIES

T = TypeVar("T")
Topology = Literal["groups", "gather", "butterfly"]
#: The GHZ states of one group, and what is made of them.
Secure = tuple[GHZSource, Security]


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
    options = _Options(rule, topology, key, secure, group_size, with_report)
    _check(axis_name, ring, options)

    def act(both: tuple[PyTree, PyTree], axis: AxisName | None, ring: Ring) -> Any:
        return _on_device(both, axis, ring, options)

    # A leaf of `start` that is None is no leaf.
    result = within_devices(act, (x, start), axis_name, ring, with_report)
    return (result[0][0], result[1]) if with_report else result[0]


class _Options(NamedTuple):
    """The keyword arguments of `robust_pmean`, but for the ring and the start."""

    rule: Rule
    topology: Topology
    key: Key | None
    secure: Secure | None
    group_size: int
    with_report: bool


class _Keys(NamedTuple):
    """The keys of a call: of the dealing, of the rings in groups, of the ring, and of the rule."""

    deal: Key | None
    groups: Key | None
    ring: Key | None
    second: Key | None
    rule: Key | None

    @classmethod
    def of(cls, key: Key | None) -> "_Keys":
        return cls(*([None] * 5 if key is None else jax.random.split(key, 5)))


def check_group_size(group_size: int, num_nodes: int, *, masked: bool) -> None:
    """Refuses groups that do not fit the nodes.

    Raises:
      ValueError: if they are too small, or N is no multiple of their size.
    """
    least = MIN_PARTIES if masked else 2
    checks.integer("group_size", group_size, least, num_nodes)
    if num_nodes % group_size:
        checks.refuse("group_size", f"divide the number of nodes, {num_nodes}", group_size)


def agrees_on_scales(ring: Ring) -> bool:
    """True if the nodes of a ring agree on scales by their peaks."""
    return isinstance(ring.wire, FixedPoint) and not ring.wire.has_fixed_clip


def with_own_scales(ring: Ring) -> Ring:
    """The ring over which vectors are gathered: scales of their own need no vote of the nodes."""
    wire = ring.wire
    if not isinstance(wire, FixedPoint) or not agrees_on_scales(ring):
        return ring
    return dataclasses.replace(ring, wire=dataclasses.replace(wire, clip="max", liars=0))


def _check(axis_name: AxisName | None, ring: Ring, options: _Options) -> None:
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
    both: tuple[PyTree, PyTree], axis_name: AxisName | None, ring: Ring, options: _Options
) -> Any:
    """The mean on one device; the second of its results is that for `start`, which has none."""
    x, start = both
    own = ring.nodes_per_device
    vectors = Vectors(x, axis_name, own)
    keys = _Keys.of(_own_key(options.key, axis_name, vectors.rows))
    state = None if start is None else _state(start, vectors, own)
    fit = usable(vectors.rows)
    unusable = jnp.sum(~everyone(fit, axis_name), dtype=jnp.uint32)
    # As zeros from here on: a NaN would be that of all on a FixedPoint wire.
    rows = jnp.where(fit[:, None], vectors.rows, 0)
    call = _Call(vectors, rows, axis_name, ring, options, keys, state)
    made = _MEANS[options.topology](call)
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


class _Call(NamedTuple):
    """A call on one device.

    Attributes:
      vectors: the pytrees of its nodes.
      rows: (k, P) their numbers, all of them usable.
      axis_name: of the nodes.
      ring: of the call, on this device.
      options: of the call.
      keys: of the call.
      state: (k, P) the means of the step before, or None.
    """

    vectors: Vectors
    rows: jax.Array
    axis_name: AxisName | None
    ring: Ring
    options: _Options
    keys: _Keys
    state: jax.Array | None

    @property
    def has_own_scales(self) -> bool:
        """True on a wire on which nodes would agree on a scale by their peaks."""
        return agrees_on_scales(self.ring)

    def gathered(self, rows: jax.Array, key: Key | None) -> "_Gathered":
        """Rows (k, M) of all nodes, as they arrive on the k nodes of this device."""
        one = self.ring.nodes_per_device == 1
        sent = rows[0] if one else rows
        told = self.options.with_report
        ring = with_own_scales(self.ring)
        found: Any = all_gather(sent, self.axis_name, ring=ring, key=key, with_report=told)
        table, report = found if told else (found, None)
        table = table[None] if one else table
        fit = usable(table)
        garbled = jnp.sum(~fit, axis=1, dtype=jnp.uint32) if told else jnp.zeros((), jnp.uint32)
        return _Gathered(jnp.where(fit[..., None], table, 0), report, garbled)

    def aggregated(self, tables: jax.Array, state: jax.Array | None) -> Aggregate:
        """(k, P) the aggregates of tables (k, n, P); once, where all nodes have the same."""
        rule, key = self.options.rule, self.keys.rule if self.options.rule.draws else None

        def one(inputs: tuple) -> Aggregate:
            return rule.aggregate(inputs[0], key, inputs[1])

        if self.ring.noise == "off":  # then nodes differ in nothing
            value, clipped = one((tables[0], None if state is None else state[0]))
            return Aggregate(jnp.broadcast_to(value, (tables.shape[0], *value.shape)), clipped)
        value, clipped = lax.map(one, (tables, state))
        return Aggregate(value, clipped[0])


class _Gathered(NamedTuple):
    """The vectors that a gathering brings to one device.

    Attributes:
      table: (k, N, M) rows; those that arrived unusable are zero.
      report: of the ring, if there is to be one.
      garbled: (k,) uint32 rows that arrived unusable on each node.
    """

    table: jax.Array
    report: Report | None
    garbled: jax.Array


class _Made(NamedTuple):
    """The outcome of a topology on one device."""

    rows: jax.Array
    clipped: jax.Array
    report: Report | None
    garbled: jax.Array
    unusable: jax.Array | int = 0
    groups: Report | SecureReport | None = None
    residual: jax.Array | None = None


def _table(call: _Call) -> _Gathered:
    """The vectors (k, N, P) of all nodes as they arrive."""
    rows, vectors = call.rows, call.vectors
    if not call.has_own_scales:
        return call.gathered(rows, call.keys.ring)
    powers = vectors.powers(rows)
    found = call.gathered(rows / vectors.spread(powers), call.keys.ring)
    scale = vectors.spread(everyone(powers, call.axis_name))
    return found._replace(table=found.table * scale)


def _by_gathering(call: _Call) -> _Made:
    table, report, garbled = _table(call)
    value, clipped = call.aggregated(table, call.state)
    return _Made(value, clipped, report, garbled)


def _by_butterfly(call: _Call) -> _Made:
    table, first, garbled = _table(call)
    own, num_nodes, size = table.shape
    chunk = -(-size // num_nodes)
    padding = (0, chunk * num_nodes - size)
    parts = jnp.pad(table, ((0, 0), (0, 0), padding)).reshape(own, num_nodes, num_nodes, chunk)
    nodes = own_rows(jnp.arange(num_nodes), call.axis_name, own)

    def part_of(rows: jax.Array, node: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(rows, node, axis=rows.ndim - 2, keepdims=False)

    mine = jax.vmap(part_of)(parts, nodes)
    state = None
    if call.state is not None:
        before = jnp.pad(call.state, ((0, 0), padding)).reshape(own, num_nodes, chunk)
        state = jax.vmap(part_of)(before, nodes)
    rule = call.options.rule
    assert isinstance(rule, CentredClipping)  # `_check` has refused others
    inputs = (mine, state)
    value, clipped = jax.vmap(lambda both: rule.aggregate(both[0], None, both[1]))(inputs)
    powers = jnp.ones_like(value[:, 0])
    if call.has_own_scales:
        powers = powers_of_two(jnp.max(jnp.abs(value), axis=1))
    final, second, also = call.gathered(value / powers[:, None], call.keys.second)
    final = final * everyone(powers, call.axis_name)[:, None]
    # Every node projects what it has sent, as the others have received it.
    sent = jax.vmap(lambda table, node: table[node])(parts, nodes)
    seed = call.keys.rule
    assert seed is not None  # `_check` has refused that

    def of_part(number: jax.Array, sent: jax.Array, centre: jax.Array) -> jax.Array:
        return clipped_projections(sent[None], centre, rule.tau, jax.random.fold_in(seed, number))

    of_node = jax.vmap(of_part, in_axes=(0, 0, 0))
    numbers = jnp.arange(num_nodes)
    projections = jax.vmap(lambda sent, final: of_node(numbers, sent, final)[:, 0])(sent, final)
    residual = jnp.sum(everyone(projections, call.axis_name), axis=0)
    rows = final.reshape(own, -1)[:, :size]
    share = jnp.mean(everyone(clipped, call.axis_name))
    return _Made(rows, share, _together(first, second), garbled + also, residual=residual)


def _together(first: Report | None, second: Report | None) -> Report | None:
    """The report of two calls over one ring; replicas agree as after the second one."""
    if first is None or second is None:
        return None
    same = ("clipped_parameters", "replica_agreement", "num_links")
    names = [field.name for field in dataclasses.fields(Report) if field.name not in same]
    added = {name: getattr(first, name) + getattr(second, name) for name in names}
    return dataclasses.replace(second, **added)


def _by_groups(call: _Call) -> _Made:
    vectors, options, ring = call.vectors, call.options, call.ring
    raw = everyone(call.rows, call.axis_name)
    num_nodes, size = raw.shape
    members = options.group_size
    assert call.keys.deal is not None  # `_check` has refused that
    assert call.keys.groups is not None
    dealt = jax.random.permutation(call.keys.deal, num_nodes).reshape(-1, members)
    dealt = jnp.sort(dealt, axis=1)  # a group goes round in the order of its nodes
    inner = dataclasses.replace(ring, nodes_per_device=members)

    def mean_of(inputs: tuple[jax.Array, Key]) -> Any:
        nodes, key = inputs
        leaves = vectors.split(raw[nodes])
        told = options.with_report
        result: Any
        if options.secure is None:
            result = pmean(leaves, None, ring=inner, key=key, with_report=told)
        else:
            source, security = options.secure
            secret: dict[str, Any] = {"source": source, "security": security}
            result = secure_pmean(leaves, None, ring=inner, key=key, with_report=told, **secret)
        return result if told else (result, None)

    group_keys = jax.random.split(call.keys.groups, dealt.shape[0])
    means, reports = lax.map(mean_of, (dealt, group_keys))
    table = jnp.concatenate(means, axis=-1)  # (G, s, P): of a group, as its members have it
    fit = jnp.all(usable(table), axis=1)
    table = jnp.where(fit[:, None, None], table, 0)
    powers = jnp.ones((dealt.shape[0], len(vectors.sizes)), jnp.float32)
    if call.has_own_scales:
        powers = vectors.powers(table[:, 0])  # the first member says them for its group
    table = table / vectors.spread(powers)[:, None]
    chunk = -(-size // members)
    table = jnp.pad(table, ((0, 0), (0, 0), (0, chunk * members - size)))
    parts = jnp.diagonal(table.reshape(-1, members, members, chunk), axis1=1, axis2=2)
    parts = jnp.moveaxis(parts, -1, 1).reshape(num_nodes, chunk)
    order = dealt.reshape(-1)
    sent = own_rows(parts[jnp.argsort(order)], call.axis_name, ring.nodes_per_device)
    arrived, report, garbled = call.gathered(sent, call.keys.ring)
    tables = arrived[:, order].reshape(arrived.shape[0], -1, members * chunk)[..., :size]
    value, clipped = call.aggregated(tables * vectors.spread(powers), call.state)
    unusable = jnp.sum(~fit, dtype=jnp.uint32)
    return _Made(value, clipped, report, garbled, unusable, reports)


_MEANS = {"groups": _by_groups, "gather": _by_gathering, "butterfly": _by_butterfly}
