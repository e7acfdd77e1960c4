"""The factor of two of an all-reduce, once links are protected and pairs are paid for.

The factor of two is a saving on the synchronisation critical path, and total lifetime channel use
is unchanged: so the paper says of perfect pairs. The effects of noise, codes and the supply of
pairs on either are a reconstruction of ours. Everything here is in closed form and can be
differentiated with respect to the hardware that made the pairs.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._shown import Panel, Shown, in_short
from jaxqring._types import Collective, PyTree
from jaxqring.capacity._limits import break_even, lifetime_uses
from jaxqring.codes._binomial import any_of
from jaxqring.codes._block_codes import BlockCode
from jaxqring.codes._messages import Message, message_qubits, protected_message
from jaxqring.codes._protection import IdealCode, Retransmit
from jaxqring.link._symbol_channel import SymbolChannel, check_transition, superdense
from jaxqring.physics._pair import werner
from jaxqring.ring._ring import Ring
from jaxqring.supply._generation import Supply

WholeCode = BlockCode | Retransmit | IdealCode


#: The meaning of each field of a budget, with its unit, as it is printed.
_MEANINGS = {
    "net_bits_per_qubit": "of payload, exact, per online qubit",
    "capacity": "bits per online qubit at most",
    "bits": "of payload, the uses of a classical link",
    "control_bits": "classical, for the scale",
    "online_qubits": "repetitions included",
    "pairs": "one for each online qubit",
    "raw_pairs": "consumed to make them",
    "lifetime_uses": "of the link, pairs included",
    "undelivered": "codewords that stay wrong",
    "pair_seconds": "to make the pairs",
    "seconds": "of the quantum ring",
    "classical_seconds": "of the classical ring",
}


@struct.dataclass(repr=False)
class Budget(Shown):
    """One collective over each directed link of the ring, in expectation.

    Every field has the batch shape (...) of the link and the supply. Where an `IdealCode` has no
    capacity to spare, qubits, uses and seconds are infinite and only the net rate has a derivative.

    Attributes:
      net_bits_per_qubit: (...) bits of payload that arrive exact per online qubit. The paper's
        factor of two, less codes, checksums, padding, repetitions and codewords that stay wrong.
        The last codeword of a message is shortened to the payload that is left for it.
      capacity: (...) bits per online qubit that no code on this link exceeds (codewords of a few
        bits that are right by chance aside; see `BlockCode.net_rate`).
      bits: (...) payload; also the uses of a classical link that carries one bit a use.
      control_bits: (...) over the classical control channel, for the scale.
      online_qubits: (...) sent on the critical path, repetitions included.
      pairs: (...) used, one for each of them.
      raw_pairs: (...) consumed to make those pairs.
      lifetime_uses: (...) of the link by online qubits and by all attempts to share the pairs.
      undelivered: (...) codewords that stay wrong.
      pair_seconds: (...) seconds to make the pairs.
      seconds: (...) seconds of the quantum ring.
      classical_seconds: (...) seconds of the classical ring with the same wire.
      protection: the code.
    """

    net_bits_per_qubit: jax.Array
    capacity: jax.Array
    bits: jax.Array
    control_bits: jax.Array
    online_qubits: jax.Array
    pairs: jax.Array
    raw_pairs: jax.Array
    lifetime_uses: jax.Array
    undelivered: jax.Array
    pair_seconds: jax.Array
    seconds: jax.Array
    classical_seconds: jax.Array
    protection: WholeCode | None = struct.field(pytree_node=False)

    def _panels(self) -> list[Panel]:
        shape = np.shape(self.net_bits_per_qubit)
        title = f"Budget of a collective, over each link, protection {self.protection}"
        rows = []
        for name, meaning in _MEANINGS.items():
            values = np.asarray(getattr(self, name))
            low, high = in_short(values.min()), in_short(values.max())
            rows.append((name, low if low == high else f"{low} to {high}", meaning))
        return [Panel(title + (f"; a batch {shape}" if shape else ""), rows)]

    @property
    def online_saving(self) -> jax.Array:
        """(...) classical uses of a link per online qubit; above one the quantum ring saves."""
        return self.bits / jnp.where(self.online_qubits > 0, self.online_qubits, 1)

    @property
    def lifetime_saving(self) -> jax.Array:
        """(...) classical uses of a link per use over its lifetime; one at best."""
        return self.bits / jnp.where(self.lifetime_uses > 0, self.lifetime_uses, 1)

    @property
    def speedup(self) -> jax.Array:
        """(...) classical seconds per second of the quantum ring."""
        return self.classical_seconds / self.seconds

    @property
    def break_even_fidelity(self) -> float | None:
        """The fidelity at which the code nets one bit per qubit; see `break_even_fidelity`."""
        return break_even_fidelity(self.protection)


def budget(
    ring: Ring,
    size: PyTree | int,
    nodes: int,
    supply: Supply,
    *,
    qubit_rate: ArrayLike = 1e9,
    bit_rate: ArrayLike = 1e9,
    latency: ArrayLike = 0.0,
    encode_time: ArrayLike = 0.0,
    measure_time: ArrayLike = 0.0,
    compute_time: ArrayLike = 0.0,
    collective: Collective = "psum",
) -> Budget:
    """The budget of one collective.

    Args:
      ring: its channel is made of the pairs of the supply, and every symbol is protected; or
        noise is off, which stands for perfect pairs.
      size: the payload of one node: a pytree of arrays, or its number of values.
      nodes: N.
      supply: of the pairs; batch shapes of it and of the channel broadcast.
      qubit_rate: (...) qubits per second on a link, in hertz, above zero.
      bit_rate: (...) bits per second on the same link used classically, in hertz, above zero. The
        default is the same number of uses per second.
      latency: (...) seconds of one hop.
      encode_time: (...) seconds of one hop, to encode.
      measure_time: (...) seconds of one hop, to measure.
      compute_time: (...) seconds between two collectives, in which pairs are made meanwhile.
      collective: "psum" (also for `pmean`), "psum_scatter" or "all_gather".

    Returns:
      A `Budget`. Seconds follow the alpha-beta model: hops (latency + encode_time + measure_time)
      + online_qubits / qubit_rate + max(0, pair_seconds - compute_time). All links wait for the
      codeword that needs most attempts; a repetition takes a request and a latency more.

    Raises:
      TypeError: if `ring` is not a Ring, or `supply` not a Supply.
      ValueError: if the ring is noisy and not protected as a whole, or a concrete value is out of
        range.

    >>> from jaxqring import Retransmit, reed_solomon
    >>> from jaxqring.supply import generate
    >>> supply = generate(werner(fidelity=0.99), length=10e3, modes=100)
    >>> ring = Ring(superdense(supply.pair), protection=Retransmit(reed_solomon(255, 223)))
    >>> result = budget(ring, 1_000_000, 8, supply)
    >>> round(float(result.net_bits_per_qubit), 3), round(float(result.capacity), 3)
    (1.674, 1.903)
    >>> bool(result.lifetime_saving < 1)
    True
    """
    checks.instance("ring", ring, Ring)
    checks.instance("supply", supply, Supply)
    code, channel = _protected_link(ring)
    qubit_rate, bit_rate = (
        checks.bounded(name, value, 1e-9, 1e18)[0]
        for name, value in (("qubit_rate", qubit_rate), ("bit_rate", bit_rate))
    )
    latency, encode_time, measure_time, compute_time = (
        checks.bounded(name, value, 0.0, 1e18)[0]
        for name, value in (
            ("latency", latency),
            ("encode_time", encode_time),
            ("measure_time", measure_time),
            ("compute_time", compute_time),
        )
    )
    bare = dataclasses.replace(ring, protection=None).cost(size, nodes, collective=collective)
    chunk = bare.bits // (bare.rounds * ring.wire.bits) if bare.rounds else 0
    _, qubits = message_qubits(code, chunk, ring.wire.bits, channel)
    message = protected_message(code, chunk, ring.wire.bits)
    undelivered, lost, repeated, attempts = _repetition(message, channel, nodes)
    online = bare.rounds * (jnp.asarray(qubits, dtype=repeated.dtype) + repeated)
    wrong = lost / max(chunk * ring.wire.bits // 2, 1)
    pairs_rate = supply.pairs_per_second
    pair_seconds = jnp.where(
        pairs_rate > 0, online / jnp.where(pairs_rate > 0, pairs_rate, 1), jnp.inf
    )
    attempt = latency + encode_time + measure_time
    busy = bare.rounds * (attempt + (attempts - 1) * (attempt + latency)) + online / qubit_rate
    late = pair_seconds - compute_time
    fields = {
        "net_bits_per_qubit": bare.bits * (1 - wrong) / jnp.where(online > 0, online, 1),
        "capacity": IdealCode().net_rate(channel),
        "bits": bare.bits,
        "control_bits": bare.control_bits,
        "online_qubits": online,
        "pairs": online,
        "raw_pairs": online * supply.raw_pairs_per_pair,
        "lifetime_uses": lifetime_uses(
            online=online,
            # A dark supply takes for ever, as `pair_seconds` says; here it is a large number.
            generation_prob=jnp.where(
                supply.generation_prob > 1e-18, supply.generation_prob, 1e-18
            ),
            purification_cost=supply.raw_pairs_per_pair,
        ),
        "undelivered": bare.rounds * undelivered,
        "pair_seconds": pair_seconds,
        "seconds": busy + jnp.where(late > 0, late, 0),
        "classical_seconds": bare.rounds * latency + bare.bits / bit_rate,
    }
    arrays = [jnp.asarray(value, dtype=online.dtype) for value in fields.values()]
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    batched = [jnp.broadcast_to(array, shape) for array in arrays]
    return Budget(**dict(zip(fields, batched, strict=True)), protection=code)


def _protected_link(ring: Ring) -> tuple[WholeCode | None, SymbolChannel]:
    """The code and the channel of the links; perfect ones where noise is off.

    Raises:
      TypeError: if the channel is missing or not a SymbolChannel.
      ValueError: if the ring is noisy and not protected as a whole, or a matrix not stochastic.
    """
    protection, channel = ring.protection, ring.channel
    code = protection if isinstance(protection, WholeCode) else None
    if code is not protection or (code is None and ring.noise != "off"):
        rule = "protect every symbol of a noisy ring (no bit on a bare link is sure)"
        checks.refuse("ring.protection", rule, protection)
    if ring.noise == "off":
        channel = SymbolChannel(jnp.eye(4))
    check_transition("ring.channel", channel)  # type: ignore[arg-type]
    assert channel is not None
    return code, channel


def _repetition(
    message: Message | None, channel: SymbolChannel, num_nodes: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The expected fate of one message, (...) each.

    Args:
      message: its codewords, the last of which may be shorter.
      channel: the link.
      num_nodes: N, the number of links that carry such a message at once.

    Returns:
      Codewords that stay wrong; symbols of payload in them; qubits of repetitions; and attempts of
      a hop, those of the codeword that needs most among all that are sent at once.
    """
    nothing = channel.error_prob * 0
    undelivered, lost, repeated = nothing, nothing, nothing
    if message is None or not message.codewords:
        return undelivered, lost, repeated, nothing + 1
    running: Any = None
    for count, symbols, code in message.parts:
        wrong = code.undelivered_prob(channel)
        undelivered += count * wrong
        lost += symbols * wrong
        repeated += count * code.block.symbols * (code.expected_attempts(channel) - 1)
        again = code.failure_prob(channel) * (1 - code.missed_fraction)
        # The chance that a codeword is still running after a attempts, for each a.
        some = any_of(count * num_nodes, again[..., None] ** np.arange(code.attempts))
        running = some if running is None else running + (1 - running) * some
    return undelivered, lost, repeated, jnp.sum(running, axis=-1)


@functools.lru_cache
def break_even_fidelity(protection: WholeCode | None) -> float | None:
    """The fidelity of Werner pairs at which a code nets one bit per online qubit.

    Args:
      protection: a BlockCode, Retransmit or IdealCode; None for bare perfect links.

    Returns:
      The fidelity, or None if there is no code or it stays below one bit with perfect pairs. For
      `IdealCode()` it is the threshold of superdense coding, 0.8107.

    Raises:
      TypeError: if `protection` is of another kind.

    >>> round(break_even_fidelity(IdealCode()), 4)
    0.8107
    """
    if protection is None:
        return None
    if not isinstance(protection, WholeCode):
        checks.refuse(
            "protection", "be a BlockCode, Retransmit or IdealCode", protection, TypeError
        )

    def rate(fidelity: jax.Array) -> jax.Array:
        return protection.net_rate(superdense(werner(fidelity=fidelity)))

    with jax.ensure_compile_time_eval():
        if float(rate(jnp.ones(()))) <= 1:
            return None
        return break_even(jax.jit(rate), 0.25, 1.0)
