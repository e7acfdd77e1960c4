"""The price of scales that nobody can alter on their way."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxqring import _checks as checks
from jaxqring._shown import Panel, Shown, in_short
from jaxqring.codec._formats import EXPONENT_BITS
from jaxqring.control._tags import tag_length
from jaxqring.physics._pair import Pair
from jaxqring.physics.information import binary_entropy_bits

Method = Literal["tags", "signatures"]


def key_rate(pair: Pair) -> jax.Array:
    """Secret bits per pair of BB84 with entangled pairs, in the limit of many.

    Args:
      pair: (...) that two nodes share.

    Returns:
      (...) max(0, 1 - h(e_z) - h(e_x)), with the error rates of outcomes along Z and along X and
      the binary entropy h. Finite keys have less.

    Raises:
      TypeError: if `pair` is not a Pair.

    Reference: Shor and Preskill, Phys. Rev. Lett. 85, 441 (2000).

    >>> from jaxqring import werner
    >>> round(float(key_rate(werner(fidelity=0.99))), 3)
    0.884
    """
    checks.instance("pair", pair, Pair)
    _, phase, bit, both = jnp.moveaxis(pair.bell_probs, -1, 0)
    lost = binary_entropy_bits(bit + both) + binary_entropy_bits(phase + both)
    return jnp.where(lost < 1, 1 - lost, 0)


@struct.dataclass(repr=False)
class ScalePrice(Shown):
    """The price of one step's scales, sent by every node to all others with proof of their origin.

    Attributes:
      pairs: (...) EPR pairs that a receiver spends on the keys of all signers in a step; infinite
        where a pair has no secret bit.
      method: "tags" or "signatures".
      num_nodes: N.
      message_bits: m, of the exponents that a node sends.
      length: n, bits of a hash.
      key_bits: secret bits of one signer and one receiver, used up in a step.
      setup_bits: secret bits of one signer and one receiver, used once and for all.
      control_bits: classical bits over each link of the ring in a step.
    """

    pairs: jax.Array
    method: Method = struct.field(pytree_node=False)
    num_nodes: int = struct.field(pytree_node=False)
    message_bits: int = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False)
    key_bits: int = struct.field(pytree_node=False)
    setup_bits: int = struct.field(pytree_node=False)
    control_bits: int = struct.field(pytree_node=False)

    @property
    def receiver_bits(self) -> int:
        """Secret bits of one receiver and all N - 1 signers, used up in a step."""
        return (self.num_nodes - 1) * self.key_bits

    def _panels(self) -> list[Panel]:
        meanings = {
            "message_bits": "of the exponents of a node",
            "length": "bits of a hash",
            "key_bits": "secret, of a signer and a receiver",
            "receiver_bits": "secret, of a receiver and all signers",
            "setup_bits": "secret, once and for all",
            "control_bits": "classical, over each link",
        }
        rows = [(name, in_short(getattr(self, name)), text) for name, text in meanings.items()]
        least, most = in_short(jnp.min(self.pairs)), in_short(jnp.max(self.pairs))
        pairs = least if least == most else f"{least} to {most}"
        rows.append(("pairs", pairs, "of EPR, of a receiver"))
        return [Panel(f"Price of {self.method} on the scales of a step", rows)]


def authenticated_scales(
    leaves: int,
    num_nodes: int,
    pair: Pair,
    *,
    method: Method = "tags",
    forgery: float = 1e-10,
) -> ScalePrice:
    """The price of a step's scales from every node to all others, each with proof of its origin.

    Every node sends the exponents of all blocks as one message of m bits, round the ring. With
    "tags" each of its N - 1 receivers has a tag of its own, which only it can check: a relay cannot
    alter a scale, and a node that tells its receivers different scales is not found out. With
    "signatures" all check the same one, and a node cannot deny what it said.

    Args:
      leaves: L, blocks with a scale.
      num_nodes: N, at least 2; at least 3 for signatures.
      pair: (...) that a signer and a receiver share, near or far: what it takes to make such pairs
        between nodes that are no neighbours is not counted.
      method: "tags" or "signatures".
      forgery: the most that the best forgery of one message may be worth.

    Returns:
      A `ScalePrice`. A tag uses up n bits of key; its hash 2n once and for all, for the state and
      to hide the polynomial that one end draws. A signature uses up 3n. A tag leaves the ring where
      it is checked, so that a link carries (N - 1) m + n N (N - 1) / 2 bits. Signatures take
      (N - 1) (m + 2n), and N (N - 2) 3n for the shares that the receivers of each signer show each
      other: those of the signer's successor go N - 2 links, those of others N - 1, past the signer.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if a number is out of range, or the method unknown.

    Reference: derived; three nodes are the protocol of `jaxqring.control.sign`, more of them our
    reading: the signer's secrets are the sum of the shares of all receivers. Simplification: keys
    at the asymptotic rate, and the authentication of the shares not counted.

    >>> from jaxqring import werner
    >>> price = authenticated_scales(1, 9, werner(fidelity=0.99), method="signatures")
    >>> price.length, price.key_bits, 250 * price.receiver_bits
    (38, 114, 228000)
    """
    checks.integer("leaves", leaves)
    checks.one_of("method", method, get_args(Method))
    checks.integer("num_nodes", num_nodes, 3 if method == "signatures" else 2)
    message = EXPONENT_BITS * leaves
    length = tag_length(message, forgery)
    others = num_nodes - 1
    if method == "tags":
        key_bits, setup = length, 2 * length
        control = others * message + length * num_nodes * others // 2
    else:
        key_bits, setup = 3 * length, 0
        control = others * (message + 2 * length) + num_nodes * (num_nodes - 2) * 3 * length
    rate = key_rate(pair)
    needed = others * key_bits / jnp.where(rate > 0, rate, 1)
    return ScalePrice(
        pairs=jnp.where(rate > 0, needed, jnp.inf),
        method=method,
        num_nodes=num_nodes,
        message_bits=message,
        length=length,
        key_bits=key_bits,
        setup_bits=setup,
        control_bits=control,
    )
