"""One hop of the ring: its effect on the levels that are sent over it, and on their derivative."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring._threefry import KeyWords, derive
from jaxqring.codec._formats import FixedPoint, WireFormat
from jaxqring.codec._packing import pack
from jaxqring.codes._coded_hop import Tally, deliver
from jaxqring.codes._protection import Protection, protected_part
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import count_symbol_errors, jump_moments, mean_slope, moments, receive
from jaxqring.ring._lanes import each_node
from jaxqring.ring._ring import Ring


class Inputs(NamedTuple):
    """The inputs of the nodes on this device.

    Attributes:
      values: float32 (k, N, L, G) chunks if the call reduces, else (k, L, G): L lanes of G each.
      size: the values of a chunk that are real; the rest pads the lanes.
      links: (k, 4 or 5, 4) the matrices of their links; None if noise is off.
      called: the keys that the call was given, each word (k,); None if nothing is drawn.
      keys: those that it draws with.
      rounding: keys of stochastic rounding, each word (k,); None if it rounds to nearest.
      laws: (k, 2, 2) thresholds that decide the attempts of their codewords; None where attempts
        are not drawn as such.
      envelopes: (k, 4, 4) error tables that coupled links share; None without coupling.
    """

    values: jax.Array
    size: int
    links: jax.Array | None
    called: KeyWords | None
    keys: KeyWords | None
    rounding: KeyWords | None
    laws: jax.Array | None
    envelopes: jax.Array | None = None


def through_links(
    words: jax.Array,
    inputs: Inputs,
    ring: Ring,
    index: jax.Array,
    nodes: jax.Array,
    mend: jax.Array | None = None,
) -> tuple[jax.Array, Tally]:
    """Sends one packed payload from each node over its outgoing link.

    Args:
      words: (k, W) as sent.
      inputs: of this device.
      ring: of the call.
      index: () int32 number of the hop.
      nodes: (k,) the nodes on this device.
      mend: () bool, whether codewords that no attempt delivers come over the error-free control
        channel. None if they never do.

    Returns:
      The words received (k, W), and the counters (k,) of the links.
    """
    if ring.noise == "off":
        return words, _no_tally(nodes)
    keys = None if inputs.keys is None else derive(inputs.keys, index, nodes)
    if ring.noise in ("gaussian", "mean"):
        of_node = keys if ring.noise == "gaussian" else None
        smooth = functools.partial(_smooth_hop, ring=ring)
        return each_node(smooth, words, inputs.links, of_node), _no_tally(nodes)
    assert keys is not None  # sampled noise draws
    if ring.protection is None:
        return _bare_hops(words, inputs, ring, index, nodes, keys)
    return _protected_hops(words, inputs, ring, ring.protection, keys, mend)


def _bare_hops(
    words: jax.Array,
    inputs: Inputs,
    ring: Ring,
    index: jax.Array,
    nodes: jax.Array,
    keys: KeyWords,
) -> tuple[jax.Array, Tally]:
    """As `through_links`, of symbols that nothing protects."""

    def of_node(
        key: KeyWords, word: jax.Array, link: jax.Array, envelope: jax.Array | None
    ) -> jax.Array:
        channel = SymbolChannel(link)
        return receive(
            key, word, channel, scramble=ring.scramble, sampler=ring.sampler, envelope=envelope
        )

    received = each_node(of_node, keys, words, inputs.links, inputs.envelopes)
    if ring.overrides is not None:
        assert inputs.called is not None  # sampled noise draws
        received = ring.overrides.set_error(
            received, words, inputs.size, ring.wire.bits, inputs.called, index, nodes
        )
    # Padding that fills the last words crosses no link.
    real = pack(jnp.full((inputs.size,), -1, jnp.int32), ring.wire.bits)
    errors = count_symbol_errors((words ^ received) & real)
    tally = _no_tally(nodes)._replace(errors=jnp.sum(errors, axis=1, dtype=jnp.uint32))
    return received, tally


def _protected_hops(
    words: jax.Array,
    inputs: Inputs,
    ring: Ring,
    protection: Protection,
    keys: KeyWords,
    mend: jax.Array | None,
) -> tuple[jax.Array, Tally]:
    """As `through_links`, of symbols that a code protects, or some of them."""

    def of_node(
        key: KeyWords, word: jax.Array, link: jax.Array, law: jax.Array | None
    ) -> tuple[jax.Array, Tally]:
        channel = SymbolChannel(link)
        bits, sampler = ring.wire.bits, ring.sampler
        return deliver(key, word, inputs.size, bits, channel, protection, law, sampler)

    received, tally = each_node(of_node, keys, words, inputs.links, inputs.laws)
    if mend is not None:
        received = jnp.where(mend, words, received)
        tally = tally._replace(errors=jnp.where(mend, 0, tally.errors))
    return received, tally


def _no_tally(nodes: jax.Array) -> Tally:
    """(k,) zeros, mapped as the nodes are.

    Constants would not be, and JAX wants a function and its derivative rule mapped alike.
    """
    zeros = (nodes * 0).astype(jnp.uint32)
    return Tally(zeros, zeros, zeros, zeros)


def _smooth_hop(words: jax.Array, link: jax.Array, key: KeyWords | None, ring: Ring) -> jax.Array:
    """(W,) words of the means of levels after a hop, or of normal variates of their moments."""
    wire = ring.wire
    assert isinstance(wire, FixedPoint)
    levels = jnp.stack(wire.part(words))
    received, variance = moments(levels, wire, SymbolChannel(effective_channel(link, ring)))
    if key is not None:
        received += jnp.sqrt(variance) * _normal(key, levels.shape)
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
    """The tangent of the normal part of a "gaussian" hop, in levels.

    Args:
      words: (W,) as sent.
      link: (4, 4) effective matrix.
      d_link: (4, 4) its tangent.
      key: of the hop.
      slope: () of the variance on the level sent.
      wire: of the levels.

    Returns:
      The contribution of the noise, and that of one level more, (G L,) each: the tangent of the
      standard deviation times the variate. It fades out below half a level, where rounding
      swallows the noise, so that no derivative is infinite: at zero noise that of the mean is left.
    """
    levels = jnp.stack(wire.part(words))

    def variance(transition: jax.Array) -> jax.Array:
        return jump_moments(levels, wire, transition)[1]

    known, moved = jax.jvp(variance, (link,), (d_link,))
    deviation = jnp.sqrt(known)
    rate = _normal(key, levels.shape) * deviation / (2 * jnp.maximum(known, 0.25))
    return (rate * moved).reshape(-1), (rate * slope).reshape(-1)


def level_runs(ring: Ring, size: int) -> list[tuple[int, tuple]]:
    """Runs of the levels of a message of `size` levels that are in codewords of like length.

    Levels fill codewords one after another, each from its lowest protected symbol.

    Returns:
      The number of levels, and the code of the word that each of their protected symbols is in,
      the lowest first: levels in full codewords, perhaps one across the border, levels in the last
      codeword if it is shorter.
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
    """float32 channels of the symbols of a level, by runs; see `level_runs`.

    Each is (4, 4), or (bits / 2, 4, 4) if the symbols of a level have different ones.
    Erasures guessed, scrambled if the ring scrambles, after the attempts of protected symbols.
    """
    raw = SymbolChannel(transition.astype(jnp.float32))
    bare = effective_channel(transition, ring)
    residual = {code: code.residual(raw).transition for _, codes in runs for code in codes}

    def of_level(codes: tuple) -> jax.Array:
        each = [bare] * (ring.wire.bits // 2 - len(codes)) + [residual[code] for code in codes]
        return each[0] if all(matrix is each[0] for matrix in each) else jnp.stack(each)

    return [of_level(codes) for _, codes in runs]


def effective_channel(transition: jax.Array, ring: Ring) -> jax.Array:
    """(4, 4) float32 channel of bare symbols: erasures guessed, scrambled if the ring scrambles."""
    guessed = SymbolChannel(transition.astype(jnp.float32)).guessed()
    return (guessed.scrambled() if ring.scramble else guessed).transition


def level_slope(transition: jax.Array, wire: WireFormat) -> jax.Array:
    """() slope of the mean of a received level on the level sent."""
    if isinstance(wire, FixedPoint):
        return mean_slope(wire, transition)
    # A float with a wrong bit may be anything; only floats that arrive whole are followed. (The
    # symbols of a codeword fail together, so that this is below the true probability there.)
    intact = 1 - SymbolChannel(transition).error_prob
    return jnp.prod(intact) if transition.ndim == 3 else intact ** (wire.bits // 2)
