"""Averages of a pytree over nodes, of one interface, for the rounds of outer loops."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.compress import Compressor, compressed_pmean
from jaxqring.compress._collective import _masking, check_options
from jaxqring.compress._compressor import with_nodes
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, pmean
from jaxqring.ring._axes import axis_size, names_of
from jaxqring.secure import SecureReport, Security, secure_pmean


class AverageCounts(NamedTuple):
    """Counts of one average, each () and the same on every node.

    Attributes:
      bits: float32 payload bits over each link.
      qubits: float32 online qubits over each link, repetitions included, the mean of links.
      saturated: float32 values that were clipped, on all nodes.
      out_of_range: float32 sums, votes and places that no codes of a compressor give, on all nodes.
      symbol_errors: float32 symbols that arrived wrong on all links.
      retransmissions: float32 codewords sent again on all links.
      repeated_qubits: float32 of the qubits, those of codewords sent again, on all links.
      undelivered: float32 codewords that stayed wrong on all links.
      aborted: bool, True if nothing was delivered, as the masks failed their verification; None
        without masks.
    """

    bits: jax.Array
    qubits: jax.Array
    saturated: jax.Array
    out_of_range: jax.Array
    symbol_errors: jax.Array
    retransmissions: jax.Array
    repeated_qubits: jax.Array
    undelivered: jax.Array
    aborted: jax.Array | None


class Average(NamedTuple):
    """A mean of a pytree over the nodes, with a memory from one round to the next.

    Attributes:
      init: takes a tree, of one node as `mean` takes it, to the memory; runs outside the mapping.
      mean: takes (tree, memory, key) to (mean, memory, counts), inside the mapping; the counts are
        an `AverageCounts`, or None if nothing is counted.
      axis_name: of the mapped axis; None if it is not known.
      nodes_per_device: k; for more than one, every leaf has a leading axis k.
      counts: whether `mean` counts.
      draws: whether `mean` needs a key.
    """

    init: Callable[[PyTree], PyTree]
    mean: Callable[[PyTree, PyTree, Key | None], tuple[PyTree, PyTree, AverageCounts | None]]
    axis_name: AxisName | None = None
    nodes_per_device: int = 1
    counts: bool = False
    draws: bool = False

    def known_axis(self) -> AxisName:
        """The name of the mapped axis.

        Raises:
          ValueError: if it is not known.
        """
        if self.axis_name is None:
            rule = "know its axis for this loop, as `jaxqring.outer.over_ring(ring, axis_name)`"
            checks.refuse("average", rule, "a function of (tree, key)")
        return self.axis_name

    def num_nodes(self) -> int:
        """N, inside the mapping.

        Raises:
          ValueError: if the axis is not known, or not bound here.
        """
        return axis_size(self.known_axis()) * self.nodes_per_device


def check_name(axis_name: AxisName) -> None:
    """Refuses what names no mapped axis; None is none, as outer loops run in a mapping.

    Raises:
      TypeError: if it is not a name or a tuple of names.
    """
    if not names_of(axis_name):
        checks.refuse("axis_name", "be a name or a tuple of names", axis_name, TypeError)


def _nothing(tree: PyTree) -> PyTree:
    del tree
    return ()


def _tally(
    calls: Sequence[Report | SecureReport],
    nodes: int,
    *,
    out_of_range: ArrayLike = 0,
    aborted: jax.Array | None = None,
) -> AverageCounts:
    """The counts of an average, from the reports of its collectives on N nodes."""
    sums = functools.reduce(optax.tree.add, [_sent(call, nodes) for call in calls])
    wrong = jnp.asarray(out_of_range, jnp.float32)
    return AverageCounts(**sums, out_of_range=wrong, aborted=aborted)


def _sent(call: Report | SecureReport, nodes: int) -> dict[str, jax.Array]:
    """The counts of one collective: none if it was aborted, as masks are verified before."""
    ring = call.ring if isinstance(call, SecureReport) else call
    counts: dict[str, Any] = {
        "bits": 2.0 * ring.symbols_per_link,
        "qubits": ring.online_qubits / nodes,
        "saturated": ring.saturated,
        "symbol_errors": ring.symbol_errors,
        "retransmissions": ring.retransmissions,
        "repeated_qubits": ring.repeated_qubits,
        "undelivered": ring.undelivered,
    }
    floats = {name: jnp.asarray(counts[name], jnp.float32) for name in counts}
    if not isinstance(call, SecureReport):
        return floats
    return {name: jnp.where(call.aborted, 0, number) for name, number in floats.items()}


def over_ring(ring: Ring, axis_name: AxisName) -> Average:
    """The mean over a quantum ring, `jaxqring.pmean`.

    Args:
      ring: the ring.
      axis_name: name of the mapped axis, as for `jaxqring.pmean`, but not None.

    Returns:
      An `Average` without memory.

    Raises:
      TypeError: if the ring is not a Ring, or the name not a name.

    >>> average = over_ring(Ring(noise="off"), "nodes")
    >>> mean = lambda x: average.mean(x, (), None)[0]
    >>> jax.jit(jax.vmap(mean, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    checks.instance("ring", ring, Ring)
    check_name(axis_name)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        result, report = pmean(tree, axis_name, ring=ring, key=key, with_report=True)
        nodes = axis_size(axis_name) * ring.nodes_per_device
        return result, memory, _tally((report,), nodes)

    return Average(_nothing, mean, axis_name, ring.nodes_per_device, True, ring.draws)


def secure(ring: Ring, axis_name: AxisName, *, source: GHZSource, security: Security) -> Average:
    """The mean under masks from verified GHZ states, `jaxqring.secure_pmean`.

    A round whose masks fail their verification is aborted: nothing was sent, nothing is delivered.

    Args:
      ring: as for `jaxqring.secure_pmean`.
      axis_name: name of the mapped axis.
      source: of the GHZ states.
      security: the tests, the amplification and the correction.

    Returns:
      An `Average` without memory.

    Raises:
      TypeError: if an argument is of another type. Calls raise as `secure_pmean` does.

    >>> average = secure(Ring(noise="off"), "nodes", source=GHZSource(4), security=Security())
    >>> mean = lambda x: average.mean(x, (), jax.random.key(0))[0]
    >>> jax.jit(jax.vmap(mean, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    checks.instance("ring", ring, Ring)
    check_name(axis_name)
    checks.instance("security", security, Security)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        assert key is not None  # `draws` has had it checked
        result, report = secure_pmean(
            tree, axis_name, ring=ring, source=source, security=security, key=key, with_report=True
        )
        nodes = axis_size(axis_name) * ring.nodes_per_device
        return result, memory, _tally((report,), nodes, aborted=report.aborted)

    return Average(_nothing, mean, axis_name, ring.nodes_per_device, True, True)


def compressed(
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    axis_name: AxisName,
    *,
    source: GHZSource | None = None,
    security: Security | None = None,
) -> Average:
    """The mean as a compressor delivers it, `jaxqring.compress.compressed_pmean`.

    Args:
      compressor: one of `jaxqring.compress`.
      ring: as for `compressed_pmean`.
      axis_name: name of the mapped axis.
      source: of GHZ states, for masks; given with `security`.
      security: of the masks.

    Returns:
      An `Average` whose memory is that of the compressor.

    Raises:
      TypeError, ValueError: as `compressed_pmean`; calls as well.

    >>> from jaxqring.compress import Uncompressed
    >>> average = compressed(Uncompressed(8), Ring(noise="off"), "nodes")
    >>> mean = lambda x: average.mean(x, average.init(x), None)[0]
    >>> jax.jit(jax.vmap(mean, axis_name="nodes"))(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3..., 4...], dtype=float32)
    """
    rings = ring if isinstance(ring, tuple) else (ring,)
    check_name(axis_name)
    masking = _masking(security, source)
    draws = compressor_draws(compressor, rings) or masking is not None
    check_options(compressor, rings, jax.random.key(0) if draws else None, masking)
    own = rings[0].nodes_per_device

    def init(tree: PyTree) -> PyTree:
        one = tree if own == 1 else jax.tree.map(lambda leaf: leaf[0], tree)
        memory = compressor.init(one)
        return memory if own == 1 else with_nodes(memory, own)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        result, memory, report = compressed_pmean(
            tree,
            memory,
            axis_name,
            compressor=compressor,
            ring=ring,
            key=key,
            source=source,
            security=security,
            with_report=True,
        )
        nodes = axis_size(axis_name) * own
        aborted = None if masking is None else report.aborted
        counts = _tally(report.calls, nodes, out_of_range=report.out_of_range, aborted=aborted)
        return result, memory, counts

    return Average(init, mean, axis_name, own, True, draws)


def compressor_draws(compressor: Compressor, rings: tuple[Ring, ...]) -> bool:
    """True if compressed averages over these rings need a key."""
    checks.instance("compressor", compressor, Compressor)
    for ring in rings:
        checks.instance("ring", ring, Ring)
    return compressor.draws or any(ring.draws for ring in rings)


def exact(axis_name: AxisName) -> Average:
    """The mean by `jax.lax.pmean`, in the types of the leaves: a classical network without error.

    Its last bits depend on the mapping and on how processes share the nodes; those of
    `over_ring(Ring(wire=Float32(), noise="off"), axis_name)` do not.

    Args:
      axis_name: name of the mapped axis.

    Returns:
      An `Average` without memory, which counts nothing.

    >>> average = exact("nodes")
    >>> mean = lambda x: average.mean(x, (), None)[0]
    >>> jax.vmap(mean, axis_name="nodes")(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    check_name(axis_name)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        del key
        axis_size(axis_name)  # refuses what is not bound
        return lax.pmean(tree, axis_name), memory, None

    return Average(_nothing, mean, axis_name)


def as_average(average: Any) -> Average:
    """An `Average` of itself, or of a plain function (tree, key) -> mean.

    Raises:
      TypeError: if it is neither.
    """
    if isinstance(average, Average):
        return average
    if not callable(average):
        rule = "be an Average or a function (tree, key) -> mean"
        checks.refuse("average", rule, average, TypeError)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        result = average(tree, key)
        if not same_structure(result, tree):
            rule = "return a mean with the structure of what it is given"
            checks.refuse("average", rule, str(jax.tree.structure(result)))
        return result, memory, None

    return Average(_nothing, mean)


def same_structure(a: PyTree, b: PyTree) -> bool:
    """True if two trees have leaves at the same places."""
    known: Any = jax.tree.structure(a)
    return bool(known == jax.tree.structure(b))
