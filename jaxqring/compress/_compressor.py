"""The interface of a compressor, and the loss of a leaf that none of them can carry."""

import abc
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.codec import FixedPoint
from jaxqring.compress._exchange import Exchange
from jaxqring.compress._message import Message, Traffic, traffic_cost
from jaxqring.ring import Cost, Hops, Ring


class Compressor(abc.ABC):
    """A method that sends less than a gradient, and delivers a tree of its shape.

    Compressors are frozen dataclasses and pytrees: numbers that a sweep may vary are leaves,
    whatever decides about shapes is static. They keep what they remember from step to step in a
    state of the caller.
    """

    @property
    @abc.abstractmethod
    def reduce(self) -> Literal["sum", "vote", "gather", "hop", "server"]:
        """The use of the ring: sums and votes add up integers, and can be masked.

        "gather" shows the codes of each node to all, "hop" requantises partial sums; neither can.
        "server" is an account of costs.
        """

    @property
    def draws(self) -> bool:
        """True if the method itself draws random numbers, so that a step needs a key."""
        return False

    @abc.abstractmethod
    def init(self, tree: PyTree) -> PyTree:
        """The state before the first step, for a gradient of the shapes of `tree`, on one node."""

    def own(self, state: PyTree) -> PyTree:
        """The part of a state that each node has of its own, and all nodes do not have alike."""
        return state

    def joined(self, own: PyTree, state: PyTree) -> PyTree:
        """A state of which this part is a node's own, and the rest is that of another node."""
        return own

    @abc.abstractmethod
    def mean(self, tree: PyTree, state: PyTree, exchange: Exchange) -> tuple[PyTree, PyTree]:
        """One step: what is delivered in place of the mean, and the state after it.

        Args:
          tree: pytree of finite float32 (k, ...), the gradients of the k nodes of this device.
          state: of them, every leaf with a leading axis k.
          exchange: of the step.

        Returns:
          The delivered tree and the state, of the same shapes.
        """

    @abc.abstractmethod
    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        """All that a step sends, from shapes alone.

        Args:
          tree: pytree of arrays or of anything with a shape: the gradient of one node.
          num_nodes: N.
          wire: of the ring, for methods that send linear levels of its width.
        """

    def messages(
        self, tree: PyTree, num_nodes: int, wire: FixedPoint | None = None
    ) -> tuple[Message, ...]:
        """The collectives of a step in their order, from shapes alone; see `traffic`.

        >>> import numpy as np
        >>> from jaxqring.compress import PowerSGD
        >>> PowerSGD(rank=1).messages({"w": np.zeros((30, 20)), "b": np.zeros(20)}, num_nodes=8)[0]
        Message(collective='psum', size=50, bits=16)
        """
        num_nodes = checks.integer("num_nodes", num_nodes)
        self.check(tree)
        return self.traffic(tree, num_nodes, wire or FixedPoint()).messages

    def cost(self, ring: Ring, tree: PyTree, num_nodes: int) -> Cost:
        """The cost of a step over each link of a ring, control channel included.

        Args:
          ring: whose wire, links and protection carry the messages.
          tree: as for `traffic`.
          num_nodes: N.

        Raises:
          TypeError: if the ring is not a Ring or its wire not a FixedPoint.
          ValueError: as `Ring.cost`; if the method refuses the tree.
        """
        checks.instance("ring", ring, Ring)
        checks.instance("ring.wire", ring.wire, FixedPoint)
        num_nodes = checks.integer("num_nodes", num_nodes)
        self.check(tree)
        assert isinstance(ring.wire, FixedPoint)
        traffic = self.traffic(tree, num_nodes, ring.wire)
        return traffic_cost(traffic, ring, num_nodes, len(jax.tree.leaves(tree)))

    def hops(self, ring: Ring, tree: PyTree, num_nodes: int) -> tuple[Hops, ...]:
        """The hops of the collectives of a step in their order, for `jaxqring.expected`.

        Args:
          ring: as for `cost`.
          tree: as for `traffic`.
          num_nodes: N.

        Raises:
          TypeError: as `cost`.
          ValueError: as `cost`.

        >>> import numpy as np
        >>> from jaxqring.compress import PowerSGD
        >>> PowerSGD(rank=1).hops(Ring(), {"w": np.zeros((30, 20))}, num_nodes=4)[1]
        Hops(num_nodes=4, rounds=6, size=5, bits=16)
        """
        checks.instance("ring", ring, Ring)
        checks.instance("ring.wire", ring.wire, FixedPoint)
        assert isinstance(ring.wire, FixedPoint)
        return tuple(
            Hops.of(message.size, num_nodes, message.bits, collective=message.collective)
            for message in self.messages(tree, num_nodes, ring.wire)
        )

    def check(self, tree: PyTree) -> None:
        """Refuses a gradient that the method cannot carry.

        Raises:
          ValueError: if there is no leaf, or one without values.
        """
        named = jax.tree_util.tree_leaves_with_path(tree)
        if not named:
            checks.refuse("x", "have at least one leaf", tree)
        for path, leaf in named:
            if 0 in jnp.shape(leaf):
                name = "x" + jax.tree_util.keystr(path)
                checks.refuse(name, "hold at least one value", jnp.shape(leaf))


def with_nodes(state: PyTree, nodes_per_device: int) -> Any:
    """The state of one node for each of k on a device, along a leading axis."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (nodes_per_device, *jnp.shape(leaf))),
        state,
    )
