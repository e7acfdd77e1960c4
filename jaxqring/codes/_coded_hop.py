"""Payloads over protected links: repetitions, and the errors that remain.

There are two ways to simulate the same link. "symbol" draws the errors of every symbol of every
codeword and counts them. "attempts" draws only whether each attempt fails, from the exact
probability, and draws errors only for the codewords that stay wrong, given that decoding failed.
The second costs next to nothing where links work. Both are exact: probabilities to 2^-32 and the
rounding of float32.

The last codeword of a message is shortened. It is simulated as the first units of a full one; the
units beyond are zeros that are not sent, and no error is drawn there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring._threefry import KeyWords, derive, random_words
from jaxqring._types import Sampler, Simulate
from jaxqring.codec._packing import pack
from jaxqring.codes._block_codes import BlockCode
from jaxqring.codes._codewords import Codewords
from jaxqring.codes._messages import Message, protected_message
from jaxqring.codes._protection import Protection, protected_part
from jaxqring.link._kinds import kind_thresholds
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import count_symbol_errors, receive

SIMULATIONS = get_args(Simulate)

# Uses of the key of a payload: bare symbols, attempts, errors of codewords that stay wrong.
_BARE, _ATTEMPT, _WRONG = range(3)

# Kinds of events on a qubit: kind 0 to 3 is the XOR pattern of its symbol, kind 4 a flagged loss.
_LOST = 4


class Tally(NamedTuple):
    """Counts of one payload, each () uint32.

    Attributes:
      errors: two-bit symbols of payload that arrive wrong.
      retransmissions: codewords sent again.
      undelivered: codewords that stay wrong.
      last_retransmissions: number of the codewords sent again that were the last one of their
        message, which may be shorter.
    """

    errors: jax.Array
    retransmissions: jax.Array
    undelivered: jax.Array
    last_retransmissions: jax.Array


def attempt_thresholds(
    protection: Protection, channel: SymbolChannel, size: int, bits: int
) -> jax.Array:
    """Thresholds (2, 2) uint32 for the random number that decides an attempt.

    The first row is for all codewords of a message but the last, the second for the last one.
    Below the first threshold the attempt fails, below the second the receiver misses the failure.

    Args:
      protection: the protection of the link.
      channel: the link.
      size: number of levels in a message.
      bits: width of a level.
    """
    message = protected_message(protection, size, bits)
    if message is None:
        return jnp.zeros((2, 2), jnp.uint32)

    def of_codeword(code: Codewords) -> jax.Array:
        fails = code.failure_prob(channel).astype(jnp.float32)
        fails = jnp.where(jnp.isfinite(fails), fails, 1)  # in place of a traced NaN
        missed = fails * np.float32(code.missed_fraction)
        return jnp.stack([fails - missed, missed])

    last = of_codeword(message.last)
    each = last if message.code == message.last else of_codeword(message.code)
    return kind_thresholds(jnp.stack([each, last]))


def deliver(
    key: KeyWords,
    words: jax.Array,
    size: int,
    bits: int,
    channel: SymbolChannel,
    protection: Protection,
    thresholds: jax.Array | None,
    sampler: Sampler,
) -> tuple[jax.Array, Tally]:
    """Sends a packed payload over one protected, scrambled link.

    Args:
      key: see `jaxqring._threefry`.
      words: uint32, the payload as `wire.join` packs it.
      size: number of levels in it.
      bits: width of a level.
      channel: the link.
      protection: the protection of the link.
      thresholds: from `attempt_thresholds`, to draw attempts; None to draw every symbol.
      sampler: of the symbols that `Unequal` leaves bare; see `jaxqring.transmit`.

    Returns:
      The packed words received, and the counts.
    """
    count = protected_part(protection, bits)[1]
    zero = jnp.sum(words ^ words, dtype=jnp.uint32)  # with the type of a mapped value
    tally = Tally(zero, zero, zero, zero)
    if count < bits // 2:
        low = pack(jnp.full((size,), 2 ** (bits - 2 * count) - 1, jnp.int32), bits)
        bare = receive(derive(key, _BARE), words, channel, scramble=True, sampler=sampler)
        errors = low & (words ^ bare)
        wrong = jnp.sum(count_symbol_errors(errors), dtype=jnp.uint32)
        words, tally = words ^ errors, tally._replace(errors=wrong)
    message = protected_message(protection, size, bits)
    if message is None:
        return words, tally
    codewords = message.codewords

    def by_thresholds(attempt: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        assert thresholds is not None
        u = random_words(derive(key, _ATTEMPT, attempt), codewords)
        fails, missed = (_by_codeword(codewords, *thresholds[:, which]) for which in range(2))
        return u < fails, u < missed, jnp.full((codewords, 0), zero.astype(jnp.uint8))

    def by_symbol(attempt: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _draw_codewords(derive(key, _ATTEMPT, attempt), channel, message)

    draw = by_symbol if thresholds is None else by_thresholds
    undelivered, again, of_last, patterns = _attempt(draw, codewords, message.code.attempts, zero)

    def add_errors(state: tuple) -> tuple:
        words, errors, iteration, _ = state
        drawn = patterns
        if thresholds is not None:
            fresh = derive(key, _WRONG, iteration)
            # Tied to the loop, because XLA would move work out that is the same in every iteration.
            tied, _ = lax.optimization_barrier((channel.transition, iteration))
            drawn = _draw_failed(fresh, SymbolChannel(tied), message, zero)
        drawn = jnp.where(undelivered[:, None], drawn, 0)[:, : message.code.payload_symbols]
        symbols = drawn.reshape(-1)[: size * count].reshape(size, count).astype(jnp.uint32)
        shifts = jnp.arange(bits - 2 * count, bits, 2, dtype=jnp.uint32)
        levels = jnp.sum(symbols << shifts, axis=1, dtype=jnp.uint32)
        wrong = pack(lax.bitcast_convert_type(levels, jnp.int32), bits)
        errors += jnp.sum(count_symbol_errors(wrong), dtype=jnp.uint32)
        return words ^ wrong, errors, iteration + 1, jnp.any(undelivered) & False

    # A loop of at most one iteration: unlike `cond`, it costs nothing under vmap if no codeword is
    # wrong.
    start = (words, tally.errors, zero.astype(jnp.int32), jnp.any(undelivered))
    words, errors, _, _ = lax.while_loop(lambda state: state[3], add_errors, start)
    return words, Tally(errors, again, jnp.sum(undelivered, dtype=jnp.uint32), of_last)


def _by_codeword(codewords: int, each: ArrayLike, last: ArrayLike) -> jax.Array:
    """A value (codewords,) for each codeword of a message: `each`, but `last` for the last one."""
    return jnp.where(np.arange(codewords) == codewords - 1, last, each)


def _attempt(
    draw: Callable[[jax.Array], tuple], codewords: int, attempts: int, zero: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Sends codewords until they arrive, or until the last attempt.

    Args:
      draw: callback from the number of the attempt to whether each codeword fails (codewords,),
        whether that is missed, and the patterns (codewords, ...) of its errors.
      codewords: number of codewords.
      attempts: largest number of attempts.
      zero: () uint32 zero, with the type of a mapped value.

    Returns:
      (codewords,) bool which codewords stay wrong, () uint32 repetitions, those of the last
      codeword, and the patterns of the codewords that stay wrong.
    """

    def send_once(state: tuple) -> tuple:
        attempt, running, wrong, again, of_last, final = state
        failed, missed, patterns = draw(attempt)
        last = attempt == attempts - 1
        ends = running & failed & (missed | last)
        running = running & failed & ~ends
        again += jnp.sum(running, dtype=jnp.uint32)
        of_last += jnp.sum(running[-1:], dtype=jnp.uint32)
        final = jnp.where(ends[:, None], patterns, final)
        return attempt + 1, running, wrong | ends, again, of_last, final

    running = jnp.full((codewords,), zero == 0)
    shape = jax.eval_shape(draw, jnp.int32(0))[2].shape
    final = jnp.full(shape, zero.astype(jnp.uint8))
    start = (jnp.int32(0), running, ~running, zero, zero, final)
    return lax.while_loop(lambda state: jnp.any(state[1]), send_once, start)[2:]


def _kind_probs(channel: SymbolChannel) -> jax.Array:
    """Probabilities (5,) float32 of the kinds of a qubit."""
    probs = jnp.append(channel.xor_probs, channel.erasure_prob).astype(jnp.float32)
    white = np.array([0.25, 0.25, 0.25, 0.25, 0], np.float32)
    return jnp.where(jnp.all(jnp.isfinite(probs)), jnp.clip(probs, 0, 1), white)


def _as_patterns(key: KeyWords, kinds: jax.Array, channel: SymbolChannel) -> jax.Array:
    """The uint8 XOR patterns of (codewords, ...) uint8 kinds; a lost qubit becomes a guess."""
    if channel.is_heralded:
        guess = (random_words(key, kinds.size) & np.uint32(3)).astype(jnp.uint8)
        guess = guess.reshape(kinds.shape)
        kinds = jnp.where(kinds == _LOST, guess, kinds)
    return kinds.reshape(kinds.shape[0], -1)


def _draw_codewords(
    key: KeyWords, channel: SymbolChannel, message: Message
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one attempt qubit by qubit, as the `draw` of `_attempt`."""
    codewords, code, last = message.codewords, message.code.block, message.last.block
    errors_key, missed_key, guess_key = (derive(key, use) for use in range(3))
    shape = (codewords, code.units, code.symbols // code.units)
    u = random_words(errors_key, math.prod(shape)).reshape(shape)
    above = kind_thresholds(_kind_probs(channel)[1:])
    kinds = _decide(u, list(above))
    if last.units < code.units:
        sent = np.arange(code.units) < _by_codeword(codewords, code.units, last.units)[:, None]
        kinds = jnp.where(sent[..., None], kinds, 0)
    if code.is_binary:
        weights = jnp.where(kinds == 0, 0, jnp.where(kinds == 3, 2, 1))[..., 0]
    else:
        lost, wrong = jnp.any(kinds == _LOST, axis=-1), jnp.any(kinds != 0, axis=-1)
        weights = jnp.where(lost, 1, jnp.where(wrong, 2, 0))
    failed = jnp.sum(weights, axis=1, dtype=jnp.int32) > code.limit
    threshold = kind_thresholds(jnp.full((1,), message.code.missed_fraction, jnp.float32))[0]
    missed = random_words(missed_key, codewords) < threshold
    patterns = _as_patterns(guess_key, kinds, channel)[:, : message.code.payload_symbols]
    return failed, missed, patterns


def _draw_failed(
    key: KeyWords, channel: SymbolChannel, message: Message, zero: jax.Array
) -> jax.Array:
    """Draws patterns (codewords, at least payload_symbols) uint8, given that decoding fails.

    Weights are drawn unit by unit. Let S[u, c] be the probability that the units u, u + 1, ... of a
    full codeword take a weight of c beyond the limit; S is filled from the last unit backwards. A
    codeword of weight c before unit u gives it the weight w with probability

        p_w S[u + 1, c + w] / S[u, c],    c = 0 -> w_0 -> w_0 + w_1 -> ... -> above the limit.

    S depends only on the number of units that follow, so that the last codeword, if it is d units
    shorter, uses the same table d rows further down:

        unit                     0         1         2      ...
        a full codeword reads    S[1]      S[2]      S[3]   ...
        the last one reads       S[d + 1]  S[d + 2]  S[d + 3]  ...

    Patterns drawn for it beyond its own payload are not used. `_contents` then draws the qubits of
    a unit, given its weight.
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

    ends = _by_codeword(codewords, 0, 1)

    def forth(weight: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
        beyond, u = given
        options = probs[:, None] * beyond[ends, weight + np.arange(3, dtype=np.int32)[:, None]]
        u = u * (options[0] + options[1] + options[2])
        drawn = (u >= options[0]).astype(jnp.int32) + (u >= options[0] + options[1])
        return jnp.minimum(weight + drawn, code.limit + 1), drawn

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
    """Uniform float32 numbers in [0, 1) from the upper 24 bits of random words."""
    return (words >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def _kind_tables(kind_probs: jax.Array, code: BlockCode) -> tuple[jax.Array, jax.Array]:
    """Distributions of the kind of a qubit, given the weight of its unit and its phase.

    The deciding qubit of a unit is the first that gives it its weight: the first lost one of an
    erased code symbol, the first wrong one of a wrong code symbol. The phase of a qubit is 0
    before the deciding qubit, 1 on it and 2 after it. With four qubits, and the third deciding:

        weight              qubit 0   qubit 1   qubit 2   qubit 3
        0: clean            right     right     right     right
        1: one is lost      arrives   arrives   lost      any
        2: none is lost     right     right     wrong     arrives
        phase               0         0         1         2

    "right" is kind 0, "wrong" kinds 1 to 3, "arrives" kinds 0 to 3, "lost" kind 4 and "any" all of
    them, each with the probabilities of the link. A unit of a binary code is one qubit, always of
    phase 1: kind 0 for weight 0, kinds 1, 2 or 4 for weight 1, and kind 3 for weight 2.

    Returns:
      (3, 3, 5) probabilities by weight, phase and kind, each row up to a factor; and (3,) by
      weight the probability that a qubit is the deciding one, if none before it was.
    """
    q, lost = kind_probs[:4], kind_probs[4:]
    zero = jnp.zeros((1,), jnp.float32)
    right = jnp.array([1.0, 0, 0, 0, 0], jnp.float32)
    arrives = jnp.concatenate([q, zero])
    clean = jnp.stack([right] * 3)
    if code.is_binary:
        single = kind_probs * np.array([0, 1, 1, 0, 1], np.float32)
        double = jnp.array([0, 0, 0, 1.0, 0], jnp.float32)
        table = jnp.stack([clean, jnp.stack([single] * 3), jnp.stack([double] * 3)])
        return table, jnp.ones((3,), jnp.float32)
    erased = jnp.stack([arrives, jnp.concatenate([zero] * 4 + [zero + 1]), kind_probs])
    wrong = jnp.stack([right, arrives.at[0].set(0), arrives])
    error = jnp.sum(q[1:]) / jnp.sum(q)
    return jnp.stack([clean, erased, wrong]), jnp.stack(
        [jnp.float32(1) + 0 * error, lost[0], error]
    )


def _contents(
    draws: jax.Array, weights: jax.Array, kind_probs: jax.Array, code: BlockCode
) -> jax.Array:
    """Draws kinds (qubits, ...) uint8 of the qubits of units, given the weights (...) of these.

    Takes (1 + qubits, ...) random words: the first for the position of the deciding qubit, a
    geometric variable cut off at the number of qubits, the others for the kinds; see
    `_kind_tables`.
    """
    qubits = 1 if code.is_binary else code.symbol_bits // 2
    table, hazard = _kind_tables(kind_probs, code)
    total = jnp.sum(table, axis=-1, keepdims=True)
    table = table / jnp.where(total > 0, total, 1)
    above = kind_thresholds(table[..., 1:]).reshape(9, 4)  # (3 weight + phase, kind - 1)
    counts = np.arange(1, qubits + 1, dtype=np.float32)
    reached = jnp.expm1(counts * jnp.log1p(-jnp.minimum(hazard, 1))[:, None])
    reached = reached / reached[:, -1:]  # P(the deciding qubit is among the first 1, 2, ...)
    u = _uniform(draws[0])
    position = np.arange(qubits, dtype=np.int32).reshape(-1, *[1] * weights.ndim)
    deciding = jnp.sum(u >= reached[weights, position[:-1]], axis=0, dtype=jnp.int32)
    phase = 1 + (position > deciding).astype(jnp.int32) - (position < deciding)
    row = 3 * weights + phase
    return _decide(draws[1:], [above[row, kind] for kind in range(4)])


def _decide(u: jax.Array, above: list[jax.Array]) -> jax.Array:
    """The uint8 kinds that random words choose; see `kind_thresholds`."""
    kinds = (u < above[0]).astype(jnp.uint8)
    for threshold in above[1:]:
        kinds += (u < threshold).astype(jnp.uint8)
    return kinds
