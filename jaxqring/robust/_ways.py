"""The ways of vectors to a robust mean: by gathering, by a butterfly, by rings in groups."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._types import AxisName, Key
from jaxqring.codec import FixedPoint
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, all_gather, pmean
from jaxqring.robust._clipping import CentredClipping, clipped_projections
from jaxqring.robust._rule import Aggregate, Rule
from jaxqring.robust._vectors import Vectors, everyone, own_rows, powers_of_two, usable
from jaxqring.secure import SecureReport, Security, secure_pmean

Topology = Literal["groups", "gather", "butterfly"]
#: The GHZ states of one group, and what is made of them.
Secure = tuple[GHZSource, Security]


class Options(NamedTuple):
    """The keyword arguments of `robust_pmean`, but for the ring and the start."""

    rule: Rule
    topology: Topology
    key: Key | None
    secure: Secure | None
    group_size: int
    with_report: bool


class Keys(NamedTuple):
    """The keys of a call: of the dealing, of the rings in groups, of the ring, and of the rule."""

    deal: Key | None
    groups: Key | None
    ring: Key | None
    second: Key | None
    rule: Key | None

    @classmethod
    def of(cls, key: Key | None) -> "Keys":
        return cls(*([None] * 5 if key is None else jax.random.split(key, 5)))


def agrees_on_scales(ring: Ring) -> bool:
    """True if the nodes of a ring agree on scales by their peaks."""
    return isinstance(ring.wire, FixedPoint) and not ring.wire.has_fixed_clip


def with_own_scales(ring: Ring) -> Ring:
    """The ring over which vectors are gathered: scales of their own need no vote of the nodes."""
    wire = ring.wire
    if not isinstance(wire, FixedPoint) or not agrees_on_scales(ring):
        return ring
    return dataclasses.replace(ring, wire=dataclasses.replace(wire, clip="max", liars=0))


class Call(NamedTuple):
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
    options: Options
    keys: Keys
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


def _table(call: Call) -> _Gathered:
    """The vectors (k, N, P) of all nodes as they arrive."""
    rows, vectors = call.rows, call.vectors
    if not call.has_own_scales:
        return call.gathered(rows, call.keys.ring)
    powers = vectors.powers(rows)
    found = call.gathered(rows / vectors.spread(powers), call.keys.ring)
    scale = vectors.spread(everyone(powers, call.axis_name))
    return found._replace(table=found.table * scale)


def _by_gathering(call: Call) -> _Made:
    table, report, garbled = _table(call)
    value, clipped = call.aggregated(table, call.state)
    return _Made(value, clipped, report, garbled)


def _by_butterfly(call: Call) -> _Made:
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


def _by_groups(call: Call) -> _Made:
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


MEANS = {"groups": _by_groups, "gather": _by_gathering, "butterfly": _by_butterfly}
