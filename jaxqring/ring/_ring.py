"""`Ring`, the configuration of a collective."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxqring import _checks as checks
from jaxqring._types import Collective, Derivative, Noise, PyTree, Sampler, Simulate
from jaxqring.codec import BFloat16, FixedPoint, Float32, LogLevels, WireFormat
from jaxqring.codes._messages import Message, message_qubits, protected_message
from jaxqring.codes._protection import Protection, Unequal, protected_part
from jaxqring.link._symbol_channel import SymbolChannel, check_transition
from jaxqring.ring._cost import Cost, ring_cost
from jaxqring.ring._masking import Masks
from jaxqring.ring._overrides import Overrides

#: The widest wire whose exact law is computed: it has 2^bits probabilities for each value.
MAX_EXACT_BITS = 12


@struct.dataclass
class Ring:
    """N links closed into a ring; node i sends over link i to node i + 1.

    A pytree: the channel's probabilities are leaves, so that a ring can be differentiated,
    vmapped over and passed through jit; everything else is static.

    Attributes:
      channel: the symbol channel of every link, or N of them along a leading axis. May be None
        with `noise="off"`.
      wire: how numbers are written: `FixedPoint`, `Float32` or `BFloat16`; for what a compressor
        sends also `Counts` or `LogLevels`.
      noise: "sampled" draws symbol errors exactly. "gaussian" replaces the error of each level
        by a normal one of the same mean and variance, rounded and clipped to the range of levels;
        "mean" replaces the level by its mean, rounded, half a level off at most. Both need a
        FixedPoint wire. "off" moves levels without error.
      protection: error control of the links: a `BlockCode`, `Retransmit`, `IdealCode` or
        `Unequal`; None for bare symbols. Needs noise "sampled" or "off", and scrambled links.
      scramble: whether links XOR symbols with a pad that both ends know, which makes errors
        independent of the data.
      nodes_per_device: k neighbouring nodes on each device; every leaf then has a leading axis k.
      simulate: how protected links are simulated. "attempts" draws whether each codeword arrives,
        "symbol" draws every symbol of every codeword; the distribution is the same.
      sampler: the way in which errors of bare symbols and wrong sums of masks are drawn: "sparse",
        "dense" or, by the platform that a program is compiled for, "auto"; see `jaxqring.transmit`.
        The distribution is the same. Events of codewords are drawn in one way only.
      derivative: the rule of a derivative with respect to sampled noise. None refuses one, as an
        error that is drawn has no derivative. "mean" follows the mean of every hop given what was
        sent over it, blind to the variance, which is most of what noise does to a training. "exact"
        follows the exact mean and variance of what the whole ring delivers, for FixedPoint wires of
        up to 12 bits. The estimators of `jaxqring.expected` do without this option.
      overrides: errors that are set or shared while derivatives are estimated; see
        `jaxqring.gradients.couple`.
      masks: zero-sum masks on the levels; set by `jaxqring.secure_psum`, which checks that they may
        be there.

    Raises:
      TypeError: if the wire or the protection is not one of these kinds.
      ValueError: if another static value is outside its domain.

    >>> from jaxqring import superdense, werner
    >>> ring = Ring(superdense(werner(fidelity=0.99)))
    >>> ring.cost(1000, num_nodes=4).qubits
    12000
    """

    channel: SymbolChannel | None = None
    wire: WireFormat = struct.field(pytree_node=False, default=FixedPoint(16))
    noise: Noise = struct.field(pytree_node=False, default="sampled")
    protection: Protection | None = struct.field(pytree_node=False, default=None)
    scramble: bool = struct.field(pytree_node=False, default=True, kw_only=True)
    nodes_per_device: int = struct.field(pytree_node=False, default=1, kw_only=True)
    simulate: Simulate = struct.field(pytree_node=False, default="attempts", kw_only=True)
    sampler: Sampler = struct.field(pytree_node=False, default="auto", kw_only=True)
    derivative: Derivative | None = struct.field(pytree_node=False, default=None, kw_only=True)
    overrides: Overrides | None = struct.field(default=None, kw_only=True)
    masks: Masks | None = struct.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # Only what is static: this also runs whenever JAX rebuilds the pytree.
        if not isinstance(self.wire, FixedPoint | Float32 | BFloat16 | LogLevels):
            rule = "be a FixedPoint, Counts, Float32, BFloat16 or LogLevels"
            checks.refuse("wire", rule, self.wire, TypeError)
        checks.one_of("noise", self.noise, get_args(Noise))
        if self.noise in ("gaussian", "mean") and not isinstance(self.wire, FixedPoint):
            checks.refuse(
                "noise", 'be "sampled" or "off" on a float or logarithmic wire', self.noise
            )
        checks.one_of("scramble", self.scramble, (True, False))
        checks.one_of("simulate", self.simulate, get_args(Simulate))
        checks.one_of("sampler", self.sampler, get_args(Sampler))
        checks.one_of("derivative", self.derivative, (None, *get_args(Derivative)))
        if self.derivative == "exact":
            self._check_exact()
        if self.protection is not None:
            self._check_protection()
        if self.masks is not None:
            self._check_masks()
        checks.integer("nodes_per_device", self.nodes_per_device)

    def _check_exact(self) -> None:
        wire = self.wire
        fixed = isinstance(wire, FixedPoint) and wire.rounding == "nearest"
        if not fixed or wire.bits > MAX_EXACT_BITS:
            rule = f"be a FixedPoint of at most {MAX_EXACT_BITS} bits, rounded to nearest, for an"
            checks.refuse("wire", f"{rule} exact derivative", wire)
        if self.noise != "sampled" or self.protection is not None:
            rule = 'not be "exact" unless noise is "sampled" and links are bare'
            checks.refuse("derivative", rule, self.derivative)

    def _check_masks(self) -> None:
        if not isinstance(self.wire, FixedPoint):
            checks.refuse("wire", "be a FixedPoint under masks, which add up mod 2^bits", self.wire)
        if self.noise not in ("sampled", "off"):
            rule = 'be "sampled" or "off" under masks, which leave levels no mean'
            checks.refuse("noise", rule, self.noise)
        if self.derivative == "exact":
            checks.refuse("derivative", 'not be "exact" under masks', self.derivative)

    def _check_protection(self) -> None:
        if not isinstance(self.protection, Protection):
            rule = "be a BlockCode, Retransmit, IdealCode or Unequal"
            checks.refuse("protection", rule, self.protection, TypeError)
        if self.noise not in ("sampled", "off"):
            rule = 'be "sampled" or "off" with protection, which makes codewords whole or wrong'
            checks.refuse("noise", rule, self.noise)
        if not self.scramble:
            rule = "be True with protection, so that errors do not depend on the codeword"
            checks.refuse("scramble", rule, self.scramble)
        if isinstance(self.protection, Unequal) and not isinstance(self.wire, FixedPoint):
            rule = "be a FixedPoint under Unequal protection, which ranks the symbols of a level"
            checks.refuse("wire", rule, self.wire)
        protected_part(self.protection, self.wire.bits)

    @property
    def delivers_exactly(self) -> bool:
        """True if all that is delivered is exact; failures are counted in `Report.undelivered`."""
        return self.noise == "off" or not isinstance(self.protection, Unequal | None)

    def message_words(self, size: int) -> Message | None:
        """The codewords of a message of `size` levels; None without codewords."""
        return protected_message(self.protection, size, self.wire.bits)

    def message_qubits(self, size: int) -> tuple[int, int | jax.Array]:
        """Codewords and online qubits of a message of `size` levels, each codeword sent once."""
        channel = self.channel
        if self.noise == "off" or channel is None:
            channel = SymbolChannel(jnp.eye(4))
        return message_qubits(self.protection, size, self.wire.bits, channel)

    @property
    def draws(self) -> bool:
        """True if a collective over this ring needs a key."""
        return self.noise in ("sampled", "gaussian") or rounds_at_random(self.wire)

    def cost(
        self, tree_or_size: PyTree | int, num_nodes: int, *, collective: Collective = "psum"
    ) -> Cost:
        """The cost of one collective, from shapes alone; nothing is traced.

        Args:
          tree_or_size: the payload of one node: a pytree of arrays, or its number of values.
          num_nodes: N.
          collective: "psum" (also for `pmean`), "psum_scatter" or "all_gather".

        Returns:
          The cost if every codeword is sent once; `jaxqring.economics.budget` has the expected one.

        Raises:
          TypeError: if the payload is neither a pytree of arrays nor an integer.
          ValueError: if an argument is outside its domain, the wire has no room for guard bits, or
            half of the nodes may lie; for an IdealCode also if its link is traced or has no
            capacity to spare.
        """
        return ring_cost(self.wire, tree_or_size, num_nodes, collective, self._known_qubits)

    def _known_qubits(self, size: int) -> tuple[int, int]:
        """`message_qubits` of the worst link, as integers."""
        with jax.ensure_compile_time_eval():
            codewords, qubits = self.message_qubits(size)
        if checks.is_traced(qubits):
            rule = "be concrete for the cost of an IdealCode, whose rate depends on it"
            checks.refuse("ring.channel", rule, self.channel)
        most = float(np.max(qubits))
        if not math.isfinite(most):
            rule = "have a capacity above the gap of its IdealCode"
            checks.refuse("ring.channel", rule, self.channel)
        return codewords, math.ceil(most)

    def check(self, num_terms: int, num_nodes: int) -> None:
        """Refuses a ring that does not fit N nodes, or the number of levels to add.

        Raises:
          TypeError: if the channel is missing or not a SymbolChannel.
          ValueError: if there are not one or N links, a matrix is not stochastic, the wire has no
            room for guard bits, or half of the nodes may lie.
        """
        if isinstance(self.wire, FixedPoint):
            self.wire.level_bits(num_terms)
            self.wire.check_liars(num_nodes)
        if self.noise == "off":
            return
        check_transition("ring.channel", self.channel)  # type: ignore[arg-type]
        assert self.channel is not None
        batch = self.channel.transition.shape[:-2]
        if batch not in ((), (num_nodes,)):
            checks.refuse(
                "ring.channel", f"be one link or one for each of the {num_nodes} nodes", batch
            )

    @property
    def transition(self) -> jax.Array:
        """(4, 4), (5, 4) or with a leading axis N: the matrices of the links."""
        assert self.channel is not None  # `check` has refused a noisy ring without a channel
        return self.channel.transition


def rounds_at_random(wire: WireFormat) -> bool:
    """True if the wire rounds stochastically."""
    return isinstance(wire, FixedPoint) and wire.rounding == "stochastic"


def links_of(transition: jax.Array, nodes: jax.Array) -> jax.Array:
    """(k, 4 or 5, 4) the matrices of the links that leave the given nodes (k,)."""
    if transition.ndim == 2:
        return jnp.broadcast_to(transition, (nodes.shape[0], *transition.shape))
    return transition[nodes]
