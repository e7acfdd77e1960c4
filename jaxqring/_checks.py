"""Refusals, said the same way everywhere: the argument, the rule, the value.

Values that are known now are checked now. Values known only inside a trace cannot be checked
without a host callback, so `bounded` clips them to their domain and hands back a flag, which
travels with the object built from them and ends in `Report.clipped_parameters`.
"""

from collections.abc import Hashable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def is_traced(value: Any) -> bool:
    """Returns whether any leaf of `value` is traced, that is not concrete."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def refuse(argument: str, rule: str, value: Any, error: type[Exception] = ValueError) -> NoReturn:
    """Raises `error` with the one sentence that every refusal of this library has."""
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not is_traced(value):
        shown = np.array2string(np.asarray(value), threshold=6, precision=6)
    else:
        shown = repr(value)
    raise error(f"`{argument}` must {rule}, but got {' '.join(shown.split())}.")


def real(argument: str, value: ArrayLike) -> jax.Array:
    """`value` as an array of the default float type (or of its own, if it is a float already)."""
    kind = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    _refuse_unless_real(argument, kind, value)
    if isinstance(value, jax.Array) and jnp.issubdtype(kind, jnp.floating):
        # Below single precision the columns of a transition matrix would not sum to one.
        return value.astype(jnp.float32) if kind.itemsize < 4 else value
    return jnp.asarray(value, dtype=float)


def numbers(argument: str, value: ArrayLike) -> np.ndarray:
    """A known value as an array of real numbers, without touching a device.

    Raises:
      TypeError: if it is something else.
    """
    try:
        known = np.asarray(value)
    except ValueError:  # ragged
        refuse(argument, "be a real number or an array of them", value, TypeError)
    _refuse_unless_real(argument, known.dtype, value)
    return known


def within(argument: str, value: ArrayLike, low: float = 0.0, high: float = 1.0) -> None:
    """Refuses a known value outside [low, high], without touching a device.

    Raises:
      TypeError: if it is not real.
      ValueError: if it lies outside, or is not a number.
    """
    known = numbers(argument, value)
    if not np.all((known >= low) & (known <= high)):
        rule = f"be at least {low:g}" if np.isinf(high) else f"lie in [{low:g}, {high:g}]"
        refuse(argument, rule, value)


def integer(argument: str, value: Any, least: int = 1, most: float = np.inf) -> int:
    """Refuses a `value` that is not a concrete integer in [least, most]; returns it as an `int`.

    Raises:
      ValueError: if it is a bool, not an integer, or outside.

    >>> integer("count", np.int32(3))
    3
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or not least <= value <= most
    ):
        rule = f"of at least {least}" if most == np.inf else f"in [{least}, {most}]"
        refuse(argument, f"be an integer {rule}", value)
    return int(value)


def open_interval(argument: str, value: ArrayLike, low: float = 0.0, high: float = 1.0) -> float:
    """Refuses a `value` that is not one concrete number strictly between `low` and `high`.

    Raises:
      TypeError: if it is not real.
      ValueError: if it is traced, an array of more than one number, or not inside.

    >>> open_interval("fraction", 0.5)
    0.5
    """
    if is_traced(value):
        refuse(argument, "be concrete", value)
    number = numbers(argument, value)
    if number.size != 1 or not low < number.item() < high:
        refuse(argument, f"lie in ({low:g}, {high:g})", value)
    return float(number.item())


def _refuse_unless_real(argument: str, dtype: Any, value: Any) -> None:
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        refuse(argument, "be a real number or an array of them", value, TypeError)


def bounded(
    argument: str, value: ArrayLike, low: float = 0.0, high: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """`value` within [low, high], and how many times it had to be moved there.

    Args:
      argument: the name to use in the refusal.
      value: (...) real number or array.
      low: smallest value allowed.
      high: largest value allowed; may be infinite.

    Returns:
      The value (...) and a float array (...): 1 where a traced value lay outside and was
      clipped, else 0. It is a float so that a pytree that carries it can be differentiated.

    Raises:
      ValueError: if a value known now lies outside, or is not a number.
    """
    if not is_traced(value):
        within(argument, value, low, high)
    array = real(argument, value)
    # Written with >= and <= so that the derivative is one at the ends of the domain, where
    # jnp.clip would halve it, and so that NaN goes to `low`.
    inside = jnp.where(array >= low, jnp.where(array <= high, array, high), low)
    moved = jnp.where((array >= low) & (array <= high), 0.0, 1.0).astype(array.dtype)
    return inside, moved


def exactly_one(**alternatives: ArrayLike | None) -> tuple[str, ArrayLike]:
    """The name and the value of the one alternative that was given.

    Raises:
      ValueError: if none or more than one was given.
    """
    given = [(name, value) for name, value in alternatives.items() if value is not None]
    if len(given) != 1:
        names = " or ".join(f"`{name}`" for name in alternatives)
        found = "both" if len(given) > 1 else "neither"
        raise ValueError(f"{names} must be given, exactly one of them, but got {found}.")
    return given[0]


def instance(argument: str, value: Any, kind: type) -> None:
    """Refuses a `value` that is not a `kind`.

    Raises:
      TypeError: if it is not.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        refuse(argument, f"be {article} {kind.__name__}", value, TypeError)


def one_of(argument: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuses a `value` that is none of those `allowed`.

    Raises:
      ValueError: if it is not.
    """
    if not isinstance(value, Hashable) or value not in allowed:
        refuse(argument, "be one of " + ", ".join(map(repr, allowed)), value)


def density_matrix(argument: str, rho: ArrayLike) -> None:
    """Refuses known matrices (..., d, d) that are no states, to 1e-5.

    Raises:
      ValueError: if one is not Hermitian, of trace one and positive.
    """
    if is_traced(rho):
        return
    known = np.asarray(rho)
    if not np.allclose(known, np.swapaxes(known.conj(), -1, -2), atol=1e-5):
        refuse(argument, "be Hermitian", known)
    trace = np.trace(known, axis1=-2, axis2=-1)
    if not np.allclose(trace, 1.0, atol=1e-5):
        refuse(argument, "have trace one", trace)
    least = np.linalg.eigvalsh(known).min()
    if least < -1e-5:
        refuse(argument, "have no negative eigenvalue", least)


def prng_key(argument: str, key: Any) -> None:
    """Refuses what is not one typed PRNG key.

    Raises:
      TypeError: for anything but a typed key, an old-style uint32 key included.
      ValueError: for a batch of keys.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        rule = "be a typed key, as `jax.random.key(seed)` makes"
        if hasattr(key, "dtype") and key.dtype == jnp.uint32:
            rule += " and `jax.random.wrap_key_data` makes of an old-style key"
        got = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)
        raise TypeError(f"`{argument}` must {rule}, but got {got}.")
    if key.shape != ():
        raise ValueError(f"`{argument}` must be a single key of shape (), but got {key.shape}.")
