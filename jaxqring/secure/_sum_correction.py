"""Errors of the sums of masks in one chunk of a payload, before and after their correction."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._threefry import KeyWords, derive
from jaxqring._types import Sampler
from jaxqring.secure._dense_sums import all_sum_errors
from jaxqring.secure._masks import sum_errors
from jaxqring.secure._security import Security

_DRAWN: dict[str, Callable[..., jax.Array]] = {"sparse": sum_errors, "dense": all_sum_errors}


def chunk_errors(
    cipher: KeyWords,
    visibility: jax.Array,
    size: int,
    payload_size: jax.Array,
    bits: int,
    security: Security,
    sampler: Sampler,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws the errors of the sums of one chunk's masks.

    Simplification: decoders are counted, not run; a codeword with few enough wrong sums is put
    right. Codewords do not reach from one chunk into the next, which makes at most N - 1 more of
    them than `Security.blocks` counts, and the check masks have no errors of their own.

    Args:
      cipher: two words of key, used for nothing else.
      visibility: () of every qubit GHZ state.
      size: c, coordinates of a chunk.
      payload_size: () int32 coordinates of the chunk that hold payload; the others are padding.
      bits: of a mask.
      security: the masks added up for one, and the correction.
      sampler: of the ring: "sparse" looks for wrong sums, "dense" draws every bit of every sum.

    Returns:
      (c,) int32 errors after correction; () int32 number of wrong sums before it; () int32 after
      it.
    """
    code = security.correction
    num_codewords = size if code is None else -(-size // code.k)
    num_sums = num_codewords if code is None else num_codewords * code.n

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        key = derive(cipher, number)
        if sampler != "auto":
            return total + _DRAWN[sampler](key, visibility, num_sums, bits)
        each = {
            name: functools.partial(draw, size=num_sums, bits=bits) for name, draw in _DRAWN.items()
        }
        return total + lax.platform_dependent(
            key, visibility, cpu=each["sparse"], default=each["dense"]
        )

    # Made of the key and the noise, to have the type of mapped values.
    zero = (cipher[0] & jnp.uint32(0)).astype(jnp.int32) + (visibility > 2).astype(jnp.int32)
    errors = lax.fori_loop(0, security.summed, add, jnp.full((num_sums,), zero))
    errors &= jnp.int32(2**bits - 1) if bits < 32 else jnp.int32(-1)
    remaining = errors
    if code is not None:
        errors = errors.reshape(num_codewords, code.n)
        in_reach = jnp.sum(errors != 0, axis=1) <= code.t
        remaining = jnp.where(in_reach[:, None], 0, errors)
        errors, remaining = (each[:, : code.k].reshape(-1)[:size] for each in (errors, remaining))
    is_payload = jnp.arange(size) < payload_size
    remaining = jnp.where(is_payload, remaining, 0)
    count = functools.partial(jnp.sum, dtype=jnp.int32)
    return remaining, count((errors != 0) & is_payload), count(remaining != 0)
