"""The attempts of a secure collective: verify fresh copies until they pass and all nodes stay."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, Recovery
from jaxqring._varying import as_varying, varying
from jaxqring.physics.ghz import GHZSource
from jaxqring.secure._attacks import PlantedSource
from jaxqring.secure._security import MIN_PARTIES, Security
from jaxqring.secure._verification import verify


@struct.dataclass
class Dropout:
    """Nodes that vanish after they have added their masks, which ruins the sum.

    A GHZ state that has lost a qubit has no correlations along X, so that the others cannot go
    on with the same copies.

    Simplification: the noise of the copies is that of all N parties, which is more than that of
    fewer, and symbols still travel over N links.

    Attributes:
      prob: () probability that a node vanishes in an attempt, in [0, 1].
      recovery: "restart" repeats the attempt among the nodes that remain, with fresh copies;
        "spare" has copies in reserve for every set of nodes that lacks one, N times as many more,
        and restarts only if two vanish at once.

    Raises:
      TypeError: if `prob` is a concrete number that is not real.
      ValueError: if it is outside [0, 1], or `recovery` is unknown.
    """

    prob: ArrayLike = 0.0
    recovery: Recovery = struct.field(pytree_node=False, default="restart")

    def __post_init__(self) -> None:
        checks.one_of("recovery", self.recovery, get_args(Recovery))
        if isinstance(self.prob, float | int):
            checks.within("prob", self.prob)


class Attempts(NamedTuple):
    """The state of the attempts of one collective; the same on every node.

    Attributes:
      number: () int32 attempts made.
      done: () bool, True once copies have passed and enough nodes remain.
      alive: (N,) bool nodes that have not vanished.
      failures: () int32 tests that failed in the last attempt.
      copies: () float32 GHZ copies used.
      restarts: () int32 attempts that ended because nodes vanished.
    """

    number: jax.Array
    done: jax.Array
    alive: jax.Array
    failures: jax.Array
    copies: jax.Array
    restarts: jax.Array


def verify_attempts(
    key: Key,
    source: GHZSource | PlantedSource,
    size: int,
    bits: int,
    num_nodes: int,
    security: Security,
    dropout: Dropout | None,
) -> Attempts:
    """Verifies fresh copies until a set of them passes and no node has vanished.

    Args:
      key: typed PRNG key.
      source: of the copies.
      size: coordinates of the payload.
      bits: qubit GHZ states of a copy.
      num_nodes: N.
      security: the tests, and the number of attempts.
      dropout: nodes that vanish; None if all stay.
    """
    untested = security.masks_needed(max(size, 1))
    tested = security.copies_tested(untested)

    def goes_on(state: Attempts) -> jax.Array:
        verifications = state.number - state.restarts
        enough = jnp.sum(state.alive) >= MIN_PARTIES
        return ~state.done & (verifications < security.attempts) & enough

    def attempt(state: Attempts) -> Attempts:
        tests_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.number))
        verification = verify(
            tests_key,
            source,
            untested,
            tested,
            tests=security.tests,
            tolerance=security.tolerance,
            bits=bits,
        )
        alive, complete = state.alive, jnp.bool_(True)
        copies = jnp.float32(untested + tested)
        if dropout is not None:
            prob, _ = checks.bounded("prob", dropout.prob)
            vanishes = jax.random.bernoulli(dropout_key, prob, (num_nodes,))
            gone = state.alive & vanishes & verification.passed
            alive = state.alive & ~gone
            spare = int(dropout.recovery == "spare")
            complete = jnp.sum(gone) <= spare
            copies *= 1 + spare * jnp.sum(state.alive)
        restarted = verification.passed & ~complete
        return Attempts(
            state.number + 1,
            verification.passed & complete & (jnp.sum(alive) >= MIN_PARTIES),
            alive,
            verification.failures,
            state.copies + copies,
            state.restarts + restarted.astype(jnp.int32),
        )

    zero = jnp.int32(0)
    start = Attempts(zero, jnp.bool_(False), jnp.ones(num_nodes, bool), zero, jnp.float32(0), zero)
    # Random draws may vary over axes beside the ring, and then all of the state does.
    start = as_varying(start, varying(key, *jax.tree.leaves((source, dropout))))
    return lax.while_loop(goes_on, attempt, start)
