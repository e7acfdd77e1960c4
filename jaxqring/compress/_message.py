"""Messages: the static description of what a compressor sends in a step, and its cost."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.codec import Counts, FixedPoint
from jaxqring.ring import Cost, Ring


class Message(NamedTuple):
    """One collective of a step.

    Attributes:
      collective: "psum" for a sum, "all_gather" for what every node needs to see of every other.
      size: numbers that a node puts in.
      bits: width of one of them on the wire, even.
    """

    collective: Literal["psum", "all_gather"]
    size: int
    bits: int


class Traffic(NamedTuple):
    """All that a compressor sends in a step.

    Attributes:
      messages: in their order.
      scales: float32 numbers of which the nodes agree on the largest (or, requantising, on the
        sum) over the control channel, call by call.
      shared: float32 numbers that are averaged over the control channel.
    """

    messages: tuple[Message, ...]
    scales: tuple[int, ...] = ()
    shared: int = 0


def width(bits: int) -> int:
    """The even number of bits on the wire that holds `bits`."""
    return bits + bits % 2


def wire_for_sums(bits: int, num_nodes: int) -> FixedPoint:
    """The FixedPoint format whose levels have at least `bits` bits beside the guard bits.

    Raises:
      ValueError: if it would be wider than 32 bits.
    """
    guard = (num_nodes - 1).bit_length()
    if bits + guard > 32:
        checks.refuse("bits", f"leave room for {guard} guard bits of {num_nodes} nodes", bits)
    return FixedPoint(width(bits + guard))


def sizes_of(tree: PyTree) -> list[int]:
    """The number of values of each leaf of a pytree of arrays, or of anything with a shape."""
    return [math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree)]


def traffic_cost(traffic: Traffic, ring: Ring, num_nodes: int, leaves: int) -> Cost:
    """The cost of a step over each link of a ring, each codeword sent once.

    Args:
      traffic: of the step.
      ring: whose links and protection carry it, each message in its own width.
      num_nodes: N.
      leaves: of the gradient: a bit each says over the control channel whether all is finite.
    """
    total = Cost(num_nodes, 0, 0, 0, 0, 0, 0)
    for message in traffic.messages:
        own = dataclasses.replace(ring, wire=Counts(message.bits), noise=plain_noise(ring))
        total += own.cost(message.size, num_nodes, collective=message.collective)
    bits = all_reduced_bits(leaves, num_nodes, 1) + all_reduced_bits(traffic.shared, num_nodes)
    bits += sum(all_reduced_bits(count, num_nodes) for count in traffic.scales)
    return dataclasses.replace(total, control_bits=bits)


def all_reduced_bits(count: int, num_nodes: int, bits: int = 32) -> int:
    """Classical bits over each link to agree on `count` numbers by a ring all-reduce."""
    return 2 * (num_nodes - 1) * -(-count // num_nodes) * bits


def plain_noise(ring: Ring) -> Literal["sampled", "off"]:
    """The noise of a ring as far as its cost is concerned."""
    return "off" if ring.noise == "off" else "sampled"


def star_cost(up_bits: float, down_bits: float, sizes: Sequence[int]) -> tuple[float, float]:
    """Bits of one worker and step to a parameter server and back, in the LQ-SGD paper's account.

    Args:
      up_bits: of a number on the way to the server.
      down_bits: of a number on the way back.
      sizes: numbers of the step.

    Returns:
      Bits up and bits down.

    >>> star_cost(8, 32, [36_325, 9_610])
    (367480, 1469920)
    """
    count = sum(sizes)
    return up_bits * count, down_bits * count
