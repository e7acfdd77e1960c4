"""Derivatives of the outcomes of a training by its physical parameters, with error bars."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args
from urllib.parse import quote, unquote

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.flatten_util import ravel_pytree

from jaxqring import _checks as checks
from jaxqring._types import DerivativeMode, Key, PyTree
from jaxqring.gradients import expected, finite_difference
from jaxqring.gradients._estimators import ESTIMATORS
from jaxqring.link import SymbolChannel
from jaxqring.link._symbol_channel import xor_symmetric
from jaxqring.ring import Cost, Ring
from jaxqring.sweeps._sweep import sweep
from jaxqring.sweeps._tidy_table import Table

if TYPE_CHECKING:
    from rich.console import Console

DIFFERENCE = "difference"

Parameters = dict[str, Any]
Train = Callable[[Ring, jax.Array], Mapping[str, jax.Array]]
#: Lower and upper ends of the intervals of differences, (P,) each.
Ends = tuple[jax.Array, jax.Array]

#: Up to this number of parameters forward mode costs less than reverse mode, and needs less memory.
FORWARD_MOST = 4


#: Columns of a table of sensitivities.
COLUMNS = (
    *("estimator", "outcome", "parameter", "link", "value"),
    *("derivative", "standard_error", "low", "high"),
)


class _Label(NamedTuple):
    """One of the values to differentiate by: a parameter, and a link or -1 for all in one."""

    parameter: str
    link: int


def sensitivity(
    train_fn: Train,
    ring: Ring | Callable[[Parameters], Ring],
    parameters: Parameters | None = None,
    *,
    seeds: int | Sequence[int],
    calls: int,
    estimators: Sequence[str] = ("gaussian", DIFFERENCE),
    cost: Cost | None = None,
    samples: int | None = None,
    widths: Parameters | None = None,
    mode: DerivativeMode = "auto",
    confidence: float = 0.95,
    folder: str | Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    about: Any = None,
    shard: tuple[int, int] = (1, 1),
    merge: bool = False,
    console: "Console | None" = None,
) -> Table:
    """Derivatives of the outcomes of a training with respect to every physical parameter.

    Each seed gives an estimate of each derivative; the mean and its standard error are reported,
    with the interval of Student's t. A central difference with common random numbers is reported
    beside them: unbiased but for the curvature over its width.

    Args:
      train_fn: `train_fn(ring, keys) -> outcomes`, a dict of () floats, as for
        `jaxqring.expected`: a whole training with its loop, pure, with `keys` (calls,), one for
        each all-reduce.
      ring: makes the ring from the parameters; or a ring, whose parameters are then the
        probabilities "x_error", "y_error" and "z_error" of its links, () or (N,).
      parameters: values at which to differentiate: floats or arrays (N,) by name; None for a ring.
      seeds: their number, counted from 0; or the seeds themselves. At least two.
      calls: number of keys that a training takes.
      estimators: of `jaxqring.expected`, and "difference".
      cost: of an all-reduce, for "score" and "russo".
      samples: trainings for each estimate of "score", "russo" and others; 1 by default, 2 for
        "score".
      widths: of the interval of a difference, by name, floats or arrays like the parameters. By
        default half the distance to the nearest of 0 and 1, for values above 1 half of their
        own, and 1e-3 to one side at 0 and 1.
      mode: "forward", "reverse", or "auto": reverse for more than a few parameters. Forward mode
        takes the memory of one training for each parameter, reverse mode that of all its steps,
        less what the training rematerialises.
      confidence: of the intervals, in (0, 1).
      folder: for the estimates of the seeds, with which an interrupted call goes on; see
        `jaxqring.sweeps.sweep`.
      devices: to spread the seeds over; all local ones by default.
      about: whatever else tells this study from others; see `jaxqring.sweeps.sweep`.
      shard: (k, n) for the k-th of n shares of the estimates; see `jaxqring.sweeps.sweep`.
      merge: computes nothing, and takes the estimates of all shards from the folder.
      console: that shows progress; None for silence.

    Returns:
      A tidy `Table`: columns "estimator", "outcome", "parameter", "link" (-1 for all links in one),
      "value" of the parameter, "derivative", "standard_error", "low" and "high" ends of the
      interval. For a shard, it has no rows while estimates of others are missing.

    Raises:
      TypeError, ValueError: as `jaxqring.expected` and `jaxqring.sweeps.sweep`; for no parameters,
        fewer than two seeds, or a width that is not positive.

    >>> from jaxqring import FixedPoint, psum, superdense, werner
    >>> def train(ring, keys):
    ...     add = lambda x: psum(x, "nodes", ring=ring, key=keys[0])
    ...     return {"sum": jnp.mean(jax.vmap(add, axis_name="nodes")(jnp.ones((2, 8))))}
    >>> make = lambda at: Ring(superdense(werner(fidelity=at["fidelity"])), FixedPoint(8))
    >>> table = sensitivity(train, make, {"fidelity": 0.98}, seeds=8, calls=1)
    >>> table["estimator"].tolist()
    ['gaussian', 'difference']
    """
    make, at = _on_links(ring) if isinstance(ring, Ring) else (ring, parameters)
    if isinstance(ring, Ring) and parameters is not None:
        checks.refuse("parameters", "be None for a ring, which has its own", parameters)
    at = _as_arrays("parameters", at)
    make(at)  # refused now, if it cannot be made
    ends = _ends(at, widths)
    _check(estimators, seeds, mode, confidence)
    flat, _ = ravel_pytree(at)
    forward = mode == "forward" or (mode == "auto" and flat.size <= FORWARD_MOST)
    labels = _labels(at)

    def estimate(setting: dict[str, Any], key: Key) -> dict[str, jax.Array]:
        name = setting["estimator"]
        if name == DIFFERENCE:
            slopes_of = _differences(train_fn, make, at, ends, key, calls)
        else:
            count = samples or (2 if name == "score" else 1)

            def outcomes(values: Parameters) -> PyTree:
                same = {"estimator": name, "samples": count, "calls": calls, "cost": cost}
                return dict(expected(train_fn, make(values), key, **same, batch=1))

            slopes_of = (jax.jacfwd if forward else jax.jacrev)(outcomes)(at)
        return {
            _column(outcome, label): slope
            for outcome, slopes in slopes_of.items()
            for label, slope in zip(labels, ravel_pytree(slopes)[0], strict=True)
        }

    table = sweep(
        estimate,
        {"estimator": list(estimators)},
        seeds,
        static=["estimator"],
        folder=folder,
        devices=devices,
        about={
            "parameters": {name: value.tolist() for name, value in at.items()},
            "ends": [end.tolist() for end in ends],
            "calls": calls,
            "samples": samples,
            "mode": "forward" if forward else "reverse",
            "job": about,
        },
        shard=shard,
        merge=merge,
        console=console,
    )
    if not table["seed"].size:
        return _table([np.array([])] * len(COLUMNS))
    return _summary(table, at, labels, confidence)


def _on_links(ring: Ring) -> tuple[Callable[[Parameters], Ring], Parameters]:
    """A ring as a function of the Pauli error probabilities of its links."""
    if ring.channel is None:
        checks.refuse("ring", "have links", ring.channel)
    probs = SymbolChannel(ring.transition).guessed().xor_probs
    # Symbol 2a + b is sent as X^a Z^b: 1 is a Z, 2 an X, 3 both.
    names = ("z_error", "x_error", "y_error")

    def make(at: Parameters) -> Ring:
        errors = jnp.stack([at[name] for name in names], axis=-1)
        all_probs = jnp.concatenate([1 - jnp.sum(errors, -1, keepdims=True), errors], axis=-1)
        return dataclasses.replace(ring, channel=SymbolChannel(xor_symmetric(all_probs)))

    return make, {name: probs[..., kind + 1] for kind, name in enumerate(names)}


def _as_arrays(argument: str, values: Parameters | None) -> Parameters:
    """Arrays () or (N,) of the default float type, by name."""
    if not isinstance(values, Mapping) or not values:
        checks.refuse(argument, "be a dict of at least one value", values)
    for name, value in values.items():
        known = checks.numbers(f"{argument}[{name!r}]", value)
        if known.ndim > 1 or not np.all(np.isfinite(known)):
            checks.refuse(f"{argument}[{name!r}]", "be finite, () or (N,)", known)
    return {name: jnp.asarray(value, dtype=float) for name, value in values.items()}


def _ends(at: Parameters, widths: Parameters | None) -> Ends:
    """The intervals of the differences."""
    values = np.asarray(ravel_pytree(at)[0], np.float64)
    room = np.where(values > 1, values, np.minimum(np.abs(values), np.abs(1 - values)))
    half = np.where(room > 0, room / 4, 5e-4)
    if widths is not None:
        given = _as_arrays("widths", widths)
        whole = {name: np.broadcast_to(given[name], at[name].shape) for name in at if name in given}
        if set(given) != set(at):
            checks.refuse("widths", f"be given for {sorted(at)}", sorted(given))
        half = np.asarray(ravel_pytree(whole)[0], np.float64) / 2
        if not np.all(half > 0):
            checks.refuse("widths", "be positive", 2 * half)
    low = np.where(values == 0, values, np.where(values == 1, values - 2 * half, values - half))
    return jnp.asarray(low, dtype=float), jnp.asarray(low + 2 * half, dtype=float)


def _check(estimators: Sequence[str], seeds: Any, mode: str, confidence: float) -> None:
    if isinstance(estimators, str) or not estimators:
        checks.refuse("estimators", "be a sequence of at least one", estimators)
    for name in estimators:
        checks.one_of("estimators", name, (*ESTIMATORS, DIFFERENCE))
    checks.one_of("mode", mode, get_args(DerivativeMode))
    checks.open_interval("confidence", confidence)
    if (seeds if isinstance(seeds, int) else len(seeds)) < 2:
        checks.refuse("seeds", "be at least two, for an error bar", seeds)


def _labels(at: Parameters) -> list[_Label]:
    """The values to differentiate by, in the order of `ravel_pytree`."""
    return [
        _Label(name, link if value.ndim else -1)
        for name, value in sorted(at.items())
        for link in range(value.size)
    ]


def _column(outcome: str, label: _Label) -> str:
    """The name of a column of derivatives: `outcome/parameter` or `outcome/parameter[link]`.

    No two are the same: of a name, the characters that separate its parts are percent-encoded.
    """
    link = "" if label.link < 0 else f"[{label.link}]"
    return f"{_encoded(outcome, '%/')}/{_encoded(label.parameter, '%[')}{link}"


def _encoded(name: str, special: str) -> str:
    return "".join(quote(c, safe="") if c in special else c for c in name)


def _outcome_of(column: str) -> str:
    return unquote(column.partition("/")[0])


def _differences(
    train_fn: Train,
    make: Callable[[Parameters], Ring],
    at: Parameters,
    ends: Ends,
    key: Key,
    calls: int,
) -> dict[str, jax.Array]:
    """Differences (P,) of each outcome; one pair of trainings after another."""
    flat, restore = ravel_pytree(at)
    low, high = ends

    def plain(ring: Ring, keys: jax.Array) -> dict[str, jax.Array]:
        return dict(train_fn(ring, keys))

    def one(index: jax.Array) -> PyTree:
        below, above = (make(restore(flat.at[index].set(end[index]))) for end in ends)
        width = high[index] - low[index]
        quotients = finite_difference(plain, below, above, width, key, calls=calls)
        return jax.tree.map(lambda quotient: quotient[0], quotients)

    return jax.lax.map(one, jnp.arange(flat.size, dtype=jnp.int32))


def _summary(
    table: dict[str, np.ndarray], at: Parameters, labels: list[_Label], confidence: float
) -> Table:
    """The tidy table of `sensitivity`, from the estimates of the seeds."""
    values = np.asarray(ravel_pytree(at)[0], np.float64)
    outcomes = dict.fromkeys(_outcome_of(name) for name in table if "/" in name)
    estimators = dict.fromkeys(table["estimator"].tolist())
    rows = []
    for estimator, outcome in itertools.product(estimators, outcomes):
        selected = table["estimator"] == estimator
        for label, value in zip(labels, values, strict=True):
            slopes = table[_column(outcome, label)][selected].astype(np.float64)
            mean, error = slopes.mean(), slopes.std(ddof=1) / np.sqrt(slopes.size)
            reach = scipy.stats.t.ppf((1 + confidence) / 2, slopes.size - 1) * error
            rows.append(
                (estimator, outcome, *label, value, mean, error, mean - reach, mean + reach)
            )
    return _table([np.array(column) for column in zip(*rows, strict=True)])


def _table(columns: Sequence[np.ndarray]) -> Table:
    named = dict(zip(COLUMNS, columns, strict=True))
    return Table(named, ["parameter", "link"], ["estimator", "outcome"])
