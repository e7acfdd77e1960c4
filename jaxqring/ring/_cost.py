"""The cost of one collective, from shapes alone."""

import dataclasses
import math
from collections.abc import Callable
from typing import get_args

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._shown import Panel, Shown, in_short
from jaxqring._types import Collective, PyTree
from jaxqring.codec._formats import EXPONENT_BITS, FixedPoint, WireFormat
from jaxqring.ring._payload import layout_of


@dataclasses.dataclass(frozen=True)
class Hops:
    """The hops of one collective over each link: their number, and the numbers that each carries.

    Attributes:
      num_nodes: N.
      rounds: sequential hops.
      size: numbers of one hop over a link, padding to whole chunks included.
      bits: width of one of them on the wire, even, in [2, 32].

    Raises:
      ValueError: if an attribute is not an integer of its domain.

    >>> Hops.of(10, 4, 8), Hops.of(10, 4, 8, collective="all_gather")
    (Hops(num_nodes=4, rounds=6, size=3, bits=8), Hops(num_nodes=4, rounds=3, size=10, bits=8))
    """

    num_nodes: int
    rounds: int
    size: int
    bits: int

    def __post_init__(self) -> None:
        checks.integer("num_nodes", self.num_nodes)
        checks.integer("rounds", self.rounds, 0)
        checks.integer("size", self.size, 0)
        checks.integer("bits", self.bits, 2, 32)
        if self.bits % 2:
            checks.refuse("bits", "be an even integer in [2, 32]", self.bits)

    @classmethod
    def of(cls, size: int, num_nodes: int, bits: int, *, collective: Collective = "psum") -> "Hops":
        """The hops of a collective.

        Args:
          size: numbers that a node puts in.
          num_nodes: N.
          bits: of a number on the wire.
          collective: as for `Ring.cost`.

        Raises:
          ValueError: as the class; if the collective is unknown.
        """
        checks.one_of("collective", collective, get_args(Collective))
        num_nodes = checks.integer("num_nodes", num_nodes)
        size = checks.integer("size", size, 0)
        rounds = (2 if collective == "psum" else 1) * (num_nodes - 1) if size else 0
        chunk = size if collective == "all_gather" else -(-size // num_nodes)
        return cls(num_nodes, rounds, chunk, bits)

    @property
    def symbols(self) -> int:
        """Two-bit symbols of one hop over a link."""
        return self.size * self.bits // 2


@dataclasses.dataclass(frozen=True, repr=False)
class Cost(Shown):
    """Online traffic of one collective over each directed link of the ring.

    Superdense coding sends two bits with each online qubit and uses up one pre-shared EPR pair
    for it. That halves the traffic on the critical path; the pairs were sent before, so that the
    number of qubits over the lifetime of a link is that of the classical bits at best.

    Attributes:
      num_nodes: N.
      rounds: sequential hops.
      bits: payload bits per link, as a classical ring with the same wire would send.
      qubits: online qubits per link if every codeword is sent once: half of `bits` on bare links,
        more with a code.
      pairs: EPR pairs used per link, one for each qubit.
      control_bits: classical bits per link to agree on the scales of a FixedPoint wire, by one ring
        all-reduce of a float32 for each scale. If `clip` is a number one bit for each says whether
        all values are finite; nothing is agreed on if `non_finite` is "clip" as well. If it is
        "robust", a ring all-gather of 8 bits for each.
      codewords: per link, each sent once.

    Reference: Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 117 (2009).
    """

    num_nodes: int
    rounds: int
    bits: int
    qubits: int
    pairs: int
    control_bits: int
    codewords: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """The cost of one collective after the other.

        Raises:
          ValueError: if they are of rings of another size.
        """
        if not isinstance(other, Cost):
            return NotImplemented
        if self.num_nodes != other.num_nodes:
            checks.refuse("other", f"be of a ring of {self.num_nodes} nodes", other.num_nodes)
        names = [field.name for field in dataclasses.fields(self) if field.name != "num_nodes"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Cost(self.num_nodes, **sums)

    def _panels(self) -> list[Panel]:
        meanings = {
            "rounds": "sequential hops",
            "bits": "of payload, as a classical ring sends",
            "qubits": "online, every codeword sent once",
            "pairs": "of EPR, used",
            "control_bits": "classical, to agree on scales",
            "codewords": "each sent once",
        }
        rows = [(name, in_short(getattr(self, name)), text) for name, text in meanings.items()]
        return [Panel(f"Cost over each link, {self.num_nodes} nodes", rows)]

    @property
    def symbols(self) -> int:
        """Two-bit symbols of payload per link."""
        return self.bits // 2

    def seconds(
        self,
        *,
        qubit_rate: float,
        latency: float = 0.0,
        encode_time: float = 0.0,
        measure_time: float = 0.0,
    ) -> float:
        """Time of the quantum ring in the alpha-beta model, pairs being in stock.

        Args:
          qubit_rate: qubits per second on each link, in hertz.
          latency: of one hop, in seconds.
          encode_time: of one round, in seconds.
          measure_time: of the Bell measurements of one round, in seconds.

        Raises:
          ValueError: if the rate is not positive or a time negative.
        """
        _check_times(qubit_rate=qubit_rate)
        for name, time in (
            ("latency", latency),
            ("encode_time", encode_time),
            ("measure_time", measure_time),
        ):
            checks.bounded(name, time, 0.0, math.inf)
        return self.rounds * (latency + encode_time + measure_time) + self.qubits / qubit_rate

    def classical_seconds(self, *, bit_rate: float, latency: float = 0.0) -> float:
        """Time of the classical ring with the same wire.

        Args:
          bit_rate: bits per second on each link, in hertz.
          latency: of one hop, in seconds.

        Raises:
          ValueError: if the rate is not positive or the latency negative.
        """
        _check_times(bit_rate=bit_rate)
        checks.bounded("latency", latency, 0.0, math.inf)
        return self.rounds * latency + self.bits / bit_rate


def _check_times(**rates: float) -> None:
    for name, rate in rates.items():
        if not np.all((checks.numbers(name, rate) > 0) & np.isfinite(rate)):
            checks.refuse(name, "be a positive finite rate", rate)


def ring_cost(
    wire: WireFormat,
    tree_or_size: PyTree | int,
    num_nodes: int,
    collective: Collective,
    message: Callable[[int], tuple[int, int]],
) -> Cost:
    """The cost of a collective over a ring. See `Ring.cost`.

    Args:
      wire: the format of numbers.
      tree_or_size: as for `Ring.cost`.
      num_nodes: N.
      collective: as for `Ring.cost`.
      message: size of a message -> its codewords and qubits.
    """
    num_nodes = checks.integer("num_nodes", num_nodes)
    checks.one_of("collective", collective, get_args(Collective))
    if tree_or_size is None or isinstance(tree_or_size, bool | float | str):
        rule = "be a pytree of arrays or an integer"
        checks.refuse("tree_or_size", rule, tree_or_size, TypeError)
    if isinstance(tree_or_size, int | np.integer):
        sizes = [int(tree_or_size)]
    else:
        sizes = [math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree_or_size)]
    size = sum(sizes)
    if size < 0:
        checks.refuse("tree_or_size", "be a pytree or a size of at least 0", size)
    if isinstance(wire, FixedPoint) and collective != "all_gather":
        wire.level_bits(num_nodes)  # refuses a wire without room for guard bits
    if isinstance(wire, FixedPoint):
        wire.check_liars(num_nodes)
    hops = Hops.of(size, num_nodes, wire.bits, collective=collective)
    rounds = hops.rounds
    codewords, qubits = message(hops.size) if rounds else (0, 0)
    control = 0
    if isinstance(wire, FixedPoint) and rounds > 0:
        rows = num_nodes if collective == "psum_scatter" else 1
        scales = layout_of(wire, [size // rows for size in sizes], rows).num_scales
        width = int(wire.non_finite == "propagate") if wire.has_fixed_clip else 32
        control = 2 * (num_nodes - 1) * -(-scales // num_nodes) * width
        if wire.clip == "robust":
            control = (num_nodes - 1) * scales * EXPONENT_BITS
    return Cost(
        num_nodes=num_nodes,
        rounds=rounds,
        bits=rounds * hops.size * wire.bits,
        qubits=rounds * qubits,
        pairs=rounds * qubits,
        control_bits=control,
        codewords=rounds * codewords,
    )
