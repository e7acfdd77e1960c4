"""What one hop of the ring does to the codes that are sent over it, and to their derivative."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring._threefry import KeyWords, derive
from jaxqring.codec._formats import FixedPoint, Wire
from jaxqring.codec._packing import pack
from jaxqring.codes._coded_hop import Tally, deliver
from jaxqring.codes._protection import protected_part
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import count_symbol_errors, jump_moments, mean_slope, moments, receive
from jaxqring.ring._lanes import each_node
from jaxqring.ring._ring import Ring


class Inputs(NamedTuple):
    """What the nodes on this device put in.

    Attributes:
      values: float32 (k, N, L, G) chunks if the plan reduces, else (k, L, G): L lanes of G codes.
      size: how many of the values of a chunk are real; the rest pads the lanes.
      links: (k, 4 or 5, 4) the matrices of their links; None if noise is off.
      called: the keys that the call was given, each word (k,); None if nothing is drawn.
      keys: those that it draws with.
      envelopes: (k, 4, 4) error tables that coupled links share; None without coupling.
      laws: (k, 2, 2) what decides the attempts of their codewords; None if nothing does.
    """

    values: jax.Array
    size: int
    links: jax.Array | None
    called: KeyWords | None
    keys: KeyWords | None
    laws: jax.Array | None
    envelopes: jax.Array | None = None


def rounds_at_random(ring: Ring) -> bool:
    """Whether the wire rounds stochastically."""
    return isinstance(ring.wire, FixedPoint) and ring.wire.rounding == "stochastic"


def through_links(
    words: jax.Array,
    given: Inputs,
    ring: Ring,
    stream: jax.Array,
    nodes: jax.Array,
    mend: jax.Array | None = None,
) -> tuple[jax.Array, Tally]:
    """Sends (k, W) packed payloads: what arrives, and what happened, (k,) each.

    Where `mend` is true, codewords that no attempt delivers come over the error-free control
    channel.
    """
    wire = ring.wire
    keys: Any = None if given.keys is None else derive(given.keys, stream, nodes)
    tally = no_tally(nodes)
    if ring.noise in ("gaussian", "mean"):
        of_node = keys if ring.noise == "gaussian" else None
        smooth = functools.partial(_smooth_hop, ring=ring)
        return each_node(smooth, words, given.links, of_node), tally
    if ring.noise != "sampled":
        return words, tally
    assert given.links is not None  # `Ring.check` has refused noise without links
    protection = ring.protection
    if protection is None:
        received = each_node(
            lambda key, word, link, envelope: receive(
                key, word, SymbolChannel(link), scramble=ring.scramble, envelope=envelope
            ),
            keys,
            words,
            given.links,
            given.envelopes,
        )
        if ring.overrides is not None:
            assert given.called is not None  # sampled noise draws
            received = ring.overrides.set_error(
                received, words, given.size, wire.bits, given.called, stream, nodes
            )
        # Padding that fills the last words crosses no link.
        real = pack(jnp.full((given.size,), -1, jnp.int32), wire.bits)
        seen = count_symbol_errors((words ^ received) & real)
        return received, tally._replace(errors=jnp.sum(seen, axis=1, dtype=jnp.uint32))

    def over(key: Any, word: jax.Array, link: jax.Array, law: jax.Array | None) -> tuple:
        channel = SymbolChannel(link)
        return deliver(key, word, given.size, wire.bits, channel, protection, law)

    received, tally = each_node(over, keys, words, given.links, given.laws)
    if mend is not None:
        received = jnp.where(mend, words, received)
        tally = tally._replace(errors=jnp.where(mend, 0, tally.errors))
    return received, tally


def no_tally(nodes: jax.Array) -> Tally:
    """(k,) zeros, mapped as the nodes are.

    Constants would not be, and JAX wants a function and its derivative rule mapped alike.
    """
    zeros = (nodes * 0).astype(jnp.uint32)
    return Tally(zeros, zeros, zeros, zeros)


def _smooth_hop(words: jax.Array, link: Any, key: KeyWords | None, ring: Ring) -> jax.Array:
    """(W,) codes replaced by their mean after a hop, or by a normal variate of their moments."""
    wire = ring.wire
    assert isinstance(wire, FixedPoint)
    codes = jnp.stack(wire.part(words))
    received, variance = moments(codes, wire, SymbolChannel(effective_channel(link, ring)))
    if key is not None:
        received += jnp.sqrt(variance) * _normal(key, codes.shape)
    # Clipped, not wrapped: the tails of the normal distribution have no bits to flip.
    edge = np.float32(2.0 ** (wire.bits - 1))
    last = np.nextafter(edge, np.float32(0)) if wire.bits > 25 else edge - 1
    return wire.join(list(jnp.clip(jnp.round(received), -edge, last).astype(jnp.int32)))


def _normal(key: KeyWords, shape: tuple[int, ...]) -> jax.Array:
    """The normal variates of one hop over one link."""
    typed = jax.random.wrap_key_data(jnp.stack(key), impl="threefry2x32")
    return jax.random.normal(typed, shape, jnp.float32)


def normal_tangent(
    words: jax.Array,
    link: jax.Array,
    d_link: jax.Array,
    key: KeyWords,
    slope: jax.Array,
    wire: FixedPoint,
) -> tuple[jax.Array, jax.Array]:
    """The tangent of the normal part of a "gaussian" hop, in codes.

    Args:
      words: (W,) as sent.
      link: (4, 4) effective matrix.
      d_link: (4, 4) its tangent.
      key: of the hop.
      slope: () of the variance on the code.
      wire: of the codes.

    Returns:
      What the noise contributes, and what one code more contributes, (G L,) each: the tangent of
      the standard deviation times the variate. It fades out below half a code, where rounding
      swallows the noise, so that no derivative is infinite: at zero noise that of the mean is left.
    """
    codes = jnp.stack(wire.part(words))

    def variance(transition: jax.Array) -> jax.Array:
        return jump_moments(codes, wire, transition)[1]

    known, moved = jax.jvp(variance, (link,), (d_link,))
    deviation = jnp.sqrt(known)
    rate = _normal(key, codes.shape) * deviation / (2 * jnp.maximum(known, 0.25))
    return (rate * moved).reshape(-1), (rate * slope).reshape(-1)


def code_runs(ring: Ring, size: int) -> list[tuple[int, tuple]]:
    """Runs of the codes of a message of `size` codes that are in words of like length.

    Codes fill words one after another, each from its lowest protected symbol.

    Returns:
      How many codes, and the word that each protected symbol of theirs is in, the lowest first:
      codes in full words, perhaps one across the border, codes in the last word if it is shorter.
    """
    strong, count = protected_part(ring.protection, ring.wire.bits)
    message = ring.message_words(size)
    if message is None:
        return [(size, (strong,) * count)]
    code, last = message.code, message.last
    if code == last:
        return [(size, (code,) * count)]
    inside, across = divmod((message.codewords - 1) * code.payload_symbols, count)
    border = min(across, 1)
    runs = [
        (inside, (code,) * count),
        (border, (code,) * across + (last,) * (count - across)),
        (size - inside - border, (last,) * count),
    ]
    return [run for run in runs if run[0]]


def effective_channels(
    transition: jax.Array, ring: Ring, runs: list[tuple[int, tuple]]
) -> list[jax.Array]:
    """float32 what the symbols of a code meet, by runs: (4, 4), or (bits / 2, 4, 4) if they differ.

    Erasures guessed, scrambled if the ring scrambles, after the attempts of protected symbols.
    """
    raw = SymbolChannel(transition.astype(jnp.float32))
    bare = effective_channel(transition, ring)
    residual = {word: word.residual(raw).transition for _, coded in runs for word in coded}

    def of_code(coded: tuple) -> jax.Array:
        met = [bare] * (ring.wire.bits // 2 - len(coded)) + [residual[word] for word in coded]
        return met[0] if all(each is met[0] for each in met) else jnp.stack(met)

    return [of_code(coded) for _, coded in runs]


def effective_channel(transition: jax.Array, ring: Ring) -> jax.Array:
    """(4, 4) float32 what bare symbols meet: erasures guessed, scrambled if the ring scrambles."""
    guessed = SymbolChannel(transition.astype(jnp.float32)).guessed()
    return (guessed.scrambled() if ring.scramble else guessed).transition


def code_slope(transition: jax.Array, wire: Wire) -> jax.Array:
    """How far what a hop delivers follows what was sent."""
    if isinstance(wire, FixedPoint):
        return mean_slope(wire, transition)
    # A float with a wrong bit may be anything; only whole words are followed. (The symbols of a
    # codeword fail together, so that this is below the true probability there.)
    intact = 1 - SymbolChannel(transition).error_prob
    return jnp.prod(intact) if transition.ndim == 3 else intact ** (wire.bits // 2)
