"""Payloads over protected links: what is repeated, and what arrives wrong after all.

Two ways to simulate the same thing. "symbol" draws the errors of every symbol of every codeword
and counts them. "attempts" draws only whether each attempt fails, from the exact probability, and
draws errors for the words that stay wrong alone, given that decoding failed. The second costs next
to nothing where links work. Both are exact: probabilities to 2^-32 and the rounding of float32.

The last word of a message is shortened. Of a full word's units, the first as many as it has are
its own; those beyond are zeros that are not sent, and no error is drawn there.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, derive, random_words
from jaxqring.codec._packing import pack
from jaxqring.codes._block_codes import BlockCode, Codewords
from jaxqring.codes._messages import Message, message_words
from jaxqring.codes._protection import Protection, protected_part
from jaxqring.link._error_sampler import kind_thresholds
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import count_symbol_errors, receive

SIMULATIONS = ("attempts", "symbol")

# What the keys of a payload are derived for.
_BARE, _FATE, _SPOILED = range(3)

# What becomes of a qubit: kind 0 to 3 is the XOR pattern of its symbol, kind 4 a flagged loss.
_LOST = 4


class Tally(NamedTuple):
    """What happened to one payload, each () uint32.

    Attributes:
      errors: two-bit symbols of payload that arrive wrong.
      retransmissions: codewords sent again.
      undelivered: codewords that stay wrong.
      last_retransmissions: of the codewords sent again, the times that it was the last one of its
        message, which may be shorter.
    """

    errors: jax.Array
    retransmissions: jax.Array
    undelivered: jax.Array
    last_retransmissions: jax.Array


def attempt_law(protection: Protection, channel: SymbolChannel, size: int, bits: int) -> jax.Array:
    """Thresholds for a random word that decide an attempt, (2, 2) uint32.

    The first row is of the words of a message but the last, the second of the last one. Below the
    first threshold the attempt fails, below the second the receiver misses the failure.

    Args:
      protection: of the link.
      channel: the link.
      size: codes in a message.
      bits: of a code.
    """
    message = message_words(protection, size, bits)
    if message is None:
        return jnp.zeros((2, 2), jnp.uint32)

    def of_word(code: Codewords) -> jax.Array:
        fails = code.failure_prob(channel).astype(jnp.float32)
        fails = jnp.where(jnp.isfinite(fails), fails, 1)  # NaN, which only a trace can bring
        missed = fails * np.float32(code.missed_fraction)
        return kind_thresholds(jnp.stack([fails - missed, missed]))

    last = of_word(message.last)
    return jnp.stack([last if message.code == message.last else of_word(message.code), last])


def deliver(
    key: KeyWords,
    words: jax.Array,
    size: int,
    bits: int,
    channel: SymbolChannel,
    protection: Protection,
    law: jax.Array | None,
) -> tuple[jax.Array, Tally]:
    """Sends a packed payload over one protected, scrambled link.

    Args:
      key: see `jaxqring._threefry`.
      words: uint32, the payload as `wire.join` writes it.
      size: number of codes in it.
      bits: of a code.
      channel: the link.
      protection: of the link.
      law: what `attempt_law` gives, to draw attempts; None to draw every symbol.

    Returns:
      The words received, and what happened.
    """
    count = protected_part(protection, bits)[1]
    zero = jnp.sum(words ^ words, dtype=jnp.uint32)  # with the type of a mapped value
    tally = Tally(zero, zero, zero, zero)
    if count < bits // 2:
        low = pack(jnp.full((size,), 2 ** (bits - 2 * count) - 1, jnp.int32), bits)
        errors = low & (words ^ receive(derive(key, _BARE), words, channel, scramble=True))
        wrong = jnp.sum(count_symbol_errors(errors), dtype=jnp.uint32)
        words, tally = words ^ errors, tally._replace(errors=wrong)
    message = message_words(protection, size, bits)
    if message is None:
        return words, tally
    codewords = message.codewords

    def by_law(attempt: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        assert law is not None
        u = random_words(derive(key, _FATE, attempt), codewords)
        fails, missed = (_by_word(codewords, *law[:, which]) for which in range(2))
        return u < fails, u < missed, jnp.full((codewords, 0), zero.astype(jnp.uint8))

    def by_symbol(attempt: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _draw_words(derive(key, _FATE, attempt), channel, message)

    undelivered, again, of_last, patterns = _attempt(
        by_symbol if law is None else by_law, codewords, message.code.attempts, zero
    )

    def spoil(state: tuple) -> tuple:
        words, errors, turn, _ = state
        drawn = patterns
        if law is not None:
            fresh = derive(key, _SPOILED, turn)
            # Tied to the loop, out of which XLA would move work that is the same in every turn.
            tied, _ = lax.optimization_barrier((channel.transition, turn))
            drawn = _draw_failed(fresh, SymbolChannel(tied), message, zero)
        drawn = jnp.where(undelivered[:, None], drawn, 0)[:, : message.code.payload_symbols]
        symbols = drawn.reshape(-1)[: size * count].reshape(size, count).astype(jnp.uint32)
        shifts = jnp.arange(bits - 2 * count, bits, 2, dtype=jnp.uint32)
        codes = jnp.sum(symbols << shifts, axis=1, dtype=jnp.uint32)
        wrong = pack(lax.bitcast_convert_type(codes, jnp.int32), bits)
        errors += jnp.sum(count_symbol_errors(wrong), dtype=jnp.uint32)
        return words ^ wrong, errors, turn + 1, jnp.any(undelivered) & False

    # A loop of one turn or none: unlike `cond`, it costs nothing under vmap if no word is wrong.
    start = (words, tally.errors, zero.astype(jnp.int32), jnp.any(undelivered))
    words, errors, _, _ = lax.while_loop(lambda state: state[3], spoil, start)
    return words, Tally(errors, again, jnp.sum(undelivered, dtype=jnp.uint32), of_last)


def _by_word(codewords: int, each: Any, last: Any) -> jax.Array:
    """(codewords,) `each` for all words of a message, `last` for the last one."""
    return jnp.where(np.arange(codewords) == codewords - 1, last, each)


def _attempt(
    draw: Callable[[jax.Array], tuple], codewords: int, attempts: int, zero: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Sends words until they arrive, or until the last attempt.

    Args:
      draw: number of the attempt -> whether each word fails (codewords,), whether that is missed,
        and the patterns (codewords, ...) that it arrives with.
      codewords: how many.
      attempts: how often at most.
      zero: () uint32 zero, with the type of a mapped value.

    Returns:
      (codewords,) bool which words stay wrong, () uint32 repetitions, those of the last word, and
      the patterns of the words that stay wrong.
    """

    def turn(state: tuple) -> tuple:
        attempt, running, wrong, again, of_last, kept = state
        failed, missed, patterns = draw(attempt)
        last = attempt == attempts - 1
        ends = running & failed & (missed | last)
        running = running & failed & ~ends
        again += jnp.sum(running, dtype=jnp.uint32)
        of_last += jnp.sum(running[-1:], dtype=jnp.uint32)
        kept = jnp.where(ends[:, None], patterns, kept)
        return attempt + 1, running, wrong | ends, again, of_last, kept

    running = jnp.full((codewords,), zero == 0)
    shape = jax.eval_shape(draw, jnp.int32(0))[2].shape
    kept = jnp.full(shape, zero.astype(jnp.uint8))
    start = (jnp.int32(0), running, ~running, zero, zero, kept)
    ended = lax.while_loop(lambda state: jnp.any(state[1]), turn, start)
    return ended[2:]


def _kind_probs(channel: SymbolChannel) -> jax.Array:
    """(5,) float32 probabilities of the kinds."""
    probs = jnp.append(channel.xor_probs, channel.erasure_prob).astype(jnp.float32)
    white = np.array([0.25, 0.25, 0.25, 0.25, 0], np.float32)
    return jnp.where(jnp.all(jnp.isfinite(probs)), jnp.clip(probs, 0, 1), white)


def _as_patterns(key: KeyWords, kinds: jax.Array, channel: SymbolChannel) -> jax.Array:
    """uint8 XOR patterns of (words, ...) uint8 kinds: a lost qubit is replaced by a guess."""
    if channel.is_heralded:
        guess = (random_words(key, kinds.size) & np.uint32(3)).astype(jnp.uint8)
        guess = guess.reshape(kinds.shape)
        kinds = jnp.where(kinds == _LOST, guess, kinds)
    return kinds.reshape(kinds.shape[0], -1)


def _draw_words(
    key: KeyWords, channel: SymbolChannel, message: Message
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One attempt, qubit by qubit; see `_attempt` for what comes back."""
    codewords, code, last = message.codewords, message.code.block, message.last.block
    errors_key, missed_key, guess_key = (derive(key, use) for use in range(3))
    shape = (codewords, code.units, code.symbols // code.units)
    u = random_words(errors_key, math.prod(shape)).reshape(shape)
    above = kind_thresholds(_kind_probs(channel)[1:])
    kinds = _decide(u, list(above))
    if last.units < code.units:
        sent = np.arange(code.units) < _by_word(codewords, code.units, last.units)[:, None]
        kinds = jnp.where(sent[..., None], kinds, 0)
    if code.is_binary:
        weights = jnp.where(kinds == 0, 0, jnp.where(kinds == 3, 2, 1))[..., 0]
    else:
        lost, wrong = jnp.any(kinds == _LOST, axis=-1), jnp.any(kinds != 0, axis=-1)
        weights = jnp.where(lost, 1, jnp.where(wrong, 2, 0))
    failed = jnp.sum(weights, axis=1, dtype=jnp.int32) > code.limit
    law = kind_thresholds(jnp.full((1,), message.code.missed_fraction, jnp.float32))
    missed = random_words(missed_key, codewords) < law[0]
    patterns = _as_patterns(guess_key, kinds, channel)[:, : message.code.payload_symbols]
    return failed, missed, patterns


def _draw_failed(
    key: KeyWords, channel: SymbolChannel, message: Message, zero: jax.Array
) -> jax.Array:
    """(codewords, at least payload_symbols) uint8 patterns of words, given that they fail.

    Unit by unit: with S[u, c] the probability that the units from u on bring a word of weight c
    beyond the limit, a unit has weight w with probability p_w S[u + 1, c + w] / S[u, c]. What a
    unit of a given weight looks like comes after. S depends on how many units are left alone, so
    that the last word, which has fewer, takes its rows from further down the same table; what is
    drawn for it beyond its own payload is part of no code.
    """
    codewords, code, last = message.codewords, message.code.block, message.last.block
    qubits = code.symbols // code.units
    units = -(-message.code.payload_symbols // qubits)
    draw_key, guess_key = (derive(key, use) for use in range(2))
    shape = (qubits + 2, units, codewords)
    draws = random_words(draw_key, math.prod(shape)).reshape(shape)
    single, double = code.unit_probs(channel)
    double = double.astype(jnp.float32)
    single = jnp.zeros_like(double) if single is None else single.astype(jnp.float32)
    probs = jnp.stack([1 - single - double, single, double])

    def back(beyond: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        padded = jnp.pad(beyond, (0, 2), constant_values=1)
        here, one, two = (padded[w : w + code.limit + 1] for w in range(3))
        return probs[0] * here + probs[1] * one + probs[2] * two, padded

    start = jnp.zeros((code.limit + 1,), jnp.float32) * probs[0]
    _, after = lax.scan(back, start, None, length=code.units, reverse=True)

    ends = _by_word(codewords, 0, 1)

    def forth(weight: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
        beyond, u = given
        options = [probs[w] * beyond[ends, weight + w] for w in range(3)]
        u = u * (options[0] + options[1] + options[2])
        own = (u >= options[0]).astype(jnp.int32) + (u >= options[0] + options[1])
        return jnp.minimum(weight + own, code.limit + 1), own

    # Beyond the limit the table is one: two more columns of that, and any weight may follow.
    after = jnp.pad(after, ((0, 0), (0, 1)), constant_values=1)
    rows = np.arange(units) + np.array([[0], [code.units - last.units]])
    after = after[np.minimum(rows, code.units - 1).T]  # (units, 2, weights)
    clean = jnp.full((codewords,), zero.astype(jnp.int32))
    _, weights = lax.scan(forth, clean, (after, _uniform(draws[0])))
    kinds = _contents(draws[1:], weights, _kind_probs(channel), code)
    kinds = jnp.transpose(kinds, (2, 1, 0))  # (codewords, units, qubits)
    return _as_patterns(guess_key, kinds, channel)


def _uniform(words: jax.Array) -> jax.Array:
    """float32 in [0, 1) of the upper 24 bits of random words."""
    return (words >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def _contents(
    draws: jax.Array, weights: jax.Array, kind_probs: jax.Array, code: BlockCode
) -> jax.Array:
    """uint8 (qubits, ...) kinds, given the weights (...) of units.

    A unit has a first qubit that gives it its weight: a lost one for an erased code symbol, a
    wrong one for a wrong code symbol. Before it, on it and after it kinds have other probabilities.
    Takes (1 + qubits, ...) random words: where that qubit is, and the kinds.
    """
    q, lost = kind_probs[:4], kind_probs[4:]
    none = jnp.zeros((1,), jnp.float32)
    clean = jnp.array([1.0, 0, 0, 0, 0], jnp.float32)
    arrives = jnp.concatenate([q, none])
    if code.is_binary:
        single = kind_probs * np.array([0, 1, 1, 0, 1], np.float32)
        double = jnp.array([0, 0, 0, 1.0, 0], jnp.float32)
        table = jnp.stack(
            [jnp.stack([clean] * 3), jnp.stack([single] * 3), jnp.stack([double] * 3)]
        )
        qubits, hazard = 1, jnp.ones((3,), jnp.float32)
    else:
        erased = jnp.stack([arrives, jnp.concatenate([none] * 4 + [none + 1]), kind_probs])
        wrong = jnp.stack([clean, arrives.at[0].set(0), arrives])
        table = jnp.stack([jnp.stack([clean] * 3), erased, wrong])
        qubits = code.symbol_bits // 2
        error = jnp.sum(q[1:]) / jnp.sum(q)
        hazard = jnp.stack([jnp.float32(1) + 0 * error, lost[0], error])
    total = jnp.sum(table, axis=-1, keepdims=True)
    table = table / jnp.where(total > 0, total, 1)
    above = kind_thresholds(table[..., 1:])  # (weight, phase, kind)
    places = jnp.arange(1, qubits + 1, dtype=jnp.float32)
    reached = jnp.expm1(places * jnp.log1p(-jnp.minimum(hazard, 1))[:, None])
    reached = reached / reached[:, -1:]  # that the first such qubit is among so many, by weight
    u = _uniform(draws[0])
    first = jnp.zeros_like(weights)
    for passed in range(qubits - 1):
        first += (u >= reached[weights, passed]).astype(jnp.int32)
    place = jnp.arange(qubits, dtype=jnp.int32).reshape(-1, *[1] * weights.ndim)
    phase = 1 + (place > first).astype(jnp.int32) - (place < first)
    row = 3 * weights + phase
    above = above.reshape(9, 4)
    return _decide(draws[1:], [above[row, kind] for kind in range(4)])


def _decide(u: jax.Array, above: list[jax.Array]) -> jax.Array:
    """uint8 the kinds that random words choose; see `kind_thresholds`."""
    kinds = (u < above[0]).astype(jnp.uint8)
    for threshold in above[1:]:
        kinds += (u < threshold).astype(jnp.uint8)
    return kinds
