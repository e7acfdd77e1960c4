"""Errors of a collective that an estimator of derivatives sets or shares."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords
from jaxqring.codec._packing import symbol_position


@struct.dataclass
class Site:
    """One symbol of one call, whose error is set and not drawn.

    Attributes:
      call: two () uint32, the cipher key of the call.
      hop: () int32 number of the hop.
      link: () int32 number of the link.
      symbol: () int32 number of the symbol among those of the hop.
      error: () uint32 pattern that is XORed onto it, 0 to 3.
    """

    call: KeyWords
    hop: jax.Array
    link: jax.Array
    symbol: jax.Array
    error: jax.Array


@struct.dataclass
class Overrides:
    """Overrides of the random errors of a collective, for estimators of derivatives.

    Attributes:
      envelope: (4, 4) or (N, 4, 4) error table (see `SymbolChannel.error_table`) that no link of
        any of several coupled rings exceeds; None without coupling.
      calls: two (K,) uint32, the cipher keys of all calls that may happen: another call returns
        NaN, so that no call escapes an estimator unseen. None allows any.
      site: the symbol whose error is set; None if all errors are drawn.
      shape: nodes, hops and levels of a hop of every call; None allows any. Static.
    """

    envelope: jax.Array | None = None
    calls: KeyWords | None = None
    site: Site | None = None
    shape: tuple[int, int, int] | None = struct.field(pytree_node=False, default=None)

    def check(self, num_nodes: int, hops: int, size: int) -> None:
        """Refuses a call of another shape.

        Raises:
          ValueError: if the call has another number of nodes, hops or levels of a hop.
        """
        if self.shape is not None and self.shape != (num_nodes, hops, size):
            rule = f"be that of every call, here {num_nodes} nodes, {hops} hops and {size} values"
            checks.refuse("cost", f"{rule} a hop", self.shape)

    def knows(self, keys: KeyWords) -> jax.Array:
        """() bool, whether a call with cipher keys (k,) may happen."""
        assert self.calls is not None
        return jnp.any((self.calls[0] == keys[0][0]) & (self.calls[1] == keys[1][0]))

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
        word, shift = symbol_position(site.symbol, size, bits)
        here = (keys[0] == site.call[0]) & (keys[1] == site.call[1])
        here &= (hop == site.hop) & (nodes == site.link)
        wanted = (sent[:, word] >> shift) ^ site.error
        change = ((wanted ^ (received[:, word] >> shift)) & 3) << shift
        return received.at[:, word].set(received[:, word] ^ jnp.where(here, change, 0))
