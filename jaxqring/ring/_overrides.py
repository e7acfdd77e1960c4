"""How an estimator of derivatives holds the errors that a ring draws."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords
from jaxqring.codec._packing import symbol_place


@struct.dataclass
class Site:
    """One symbol of one call, whose error is set and not drawn.

    Attributes:
      call: two () uint32, the cipher key of the call.
      hop: () int32 number of the hop.
      link: () int32 number of the link.
      symbol: () int32 number of the symbol among those of the hop.
      error: () uint32 what is XORed onto it, 0 to 3.
    """

    call: KeyWords
    hop: jax.Array
    link: jax.Array
    symbol: jax.Array
    error: jax.Array


@struct.dataclass
class Overrides:
    """What is held.

    Attributes:
      envelope: (4, 4) or (N, 4, 4) error table (see `SymbolChannel.error_table`) that no link of
        any of several coupled rings exceeds; None without coupling.
      calls: two (K,) uint32, the cipher keys of all calls that may happen: what another call
        returns is NaN, so that none escapes an estimator unseen. None for any.
      site: the symbol whose error is set; None for none.
      shape: nodes, hops and codes of a hop of every call; None for any. Static.
    """

    envelope: jax.Array | None = None
    calls: KeyWords | None = None
    site: Site | None = None
    shape: tuple[int, int, int] | None = struct.field(pytree_node=False, default=None)

    def check(self, nodes: int, hops: int, size: int) -> None:
        """Refuses a call of another shape.

        Raises:
          ValueError: if it is one.
        """
        if self.shape is not None and self.shape != (nodes, hops, size):
            rule = "be that of every call, here {} nodes, {} hops and {} values a hop"
            checks.refuse("cost", rule.format(nodes, hops, size), self.shape)

    def knows(self, keys: KeyWords) -> jax.Array:
        """() bool, whether a call with cipher keys (k,) is one of those that may happen."""
        assert self.calls is not None
        first, second = self.calls
        return jnp.any((first == keys[0][0]) & (second == keys[1][0]))

    def set_error(
        self,
        received: jax.Array,
        sent: jax.Array,
        size: int,
        bits: int,
        keys: KeyWords,
        hop: jax.Array,
        nodes: jax.Array,
    ) -> jax.Array:
        """The words (k, W) received by the neighbours of nodes (k,), with the site's error set."""
        if self.site is None:
            return received
        site = self.site
        word, shift = symbol_place(site.symbol, size, bits)
        here = (keys[0] == site.call[0]) & (keys[1] == site.call[1])
        here &= (hop == site.hop) & (nodes == site.link)
        wanted = (sent[:, word] >> shift) ^ site.error
        change = ((wanted ^ (received[:, word] >> shift)) & 3) << shift
        return received.at[:, word].set(received[:, word] ^ jnp.where(here, change, 0))
