"""Errors of a collective that an estimator of derivatives sets or shares."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords
from jaxqring.codec._packing import symbol_position
from jaxqring.ring._cost import Hops


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
      calls: two (K, M) uint32, the cipher keys of all calls that may happen, M for each key that a
        loss is given: another call returns NaN, so that no call escapes an estimator unseen. None
        allows any.
      site: the symbol whose error is set; None if all errors are drawn.
      hops: of each of the M calls; given with `calls`. Static.
    """

    envelope: jax.Array | None = None
    calls: KeyWords | None = None
    site: Site | None = None
    hops: tuple[Hops, ...] | None = struct.field(pytree_node=False, default=None)

    def check(self, own: Hops, protection: Any) -> None:
        """Refuses a collective that is not among those described.

        Raises:
          ValueError: if no call has this number of nodes, hops or levels of a hop, or their width,
            or codes protect it.
        """
        if self.hops is None:
            return
        if own not in self.hops:
            rule = (
                f"be that of every call, here {own.num_nodes} nodes, {own.rounds} hops and"
                f" {own.size} values a hop of {own.bits} bits"
            )
            checks.refuse("cost", rule, ", ".join(map(str, self.hops)))
        if protection is not None:
            rule = "be None in every call, as this estimator knows bare links"
            checks.refuse("ring.protection", rule, protection)

    def knows(self, keys: KeyWords, own: Hops) -> jax.Array:
        """() bool, whether a call with cipher keys (k,) and these hops may happen."""
        assert self.calls is not None
        assert self.hops is not None
        columns = np.asarray([number for number, hops in enumerate(self.hops) if hops == own])
        known = self.calls[0][:, columns], self.calls[1][:, columns]
        return jnp.any((known[0] == keys[0][0]) & (known[1] == keys[1][0]))

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
