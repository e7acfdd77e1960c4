"""Every malformed call is refused in one sentence: the argument, the rule and the value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import AXIS, KEY, noisy, quiet

from jaxqring import BFloat16, FixedPoint, Float32, GHZSource, Ring
from jaxqring.codec import Counts, LogLevels
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    Levels,
    Linear,
    Logarithmic,
    PowerSGD,
    RandomK,
    SignVote,
    Ternary,
    TernGrad,
    TopK,
    all_reduce,
    compressed_pmean,
    star_cost,
)
from jaxqring.secure import Security

X = np.ones((6, 5), np.float32)
SECURE = {"security": Security("none"), "source": GHZSource(3)}
NAN = float("nan")


def mean(compressor, *, x=X, state=None, ring=None, key=KEY, nodes=3, axis=AXIS, **options):
    """Traces a step on nodes that all hold x."""
    state = compressor.init(x) if state is None else state
    ring = quiet() if ring is None else ring

    def run(_):
        return compressed_pmean(
            x, state, axis, compressor=compressor, ring=ring, key=key, **options
        )

    return jax.eval_shape(jax.vmap(run, axis_name=AXIS), jnp.zeros(nodes))


def tracing_alpha():
    def run(alpha):
        return mean(LQSGD(alpha=alpha, reduce="hop"))

    return jax.eval_shape(run, jnp.float32(10))


# name: (call, exception, words of the message)
CASES = {
    "rank of zero": (lambda: PowerSGD(rank=0), ValueError, ["`rank`", "at least 1", "0"]),
    "rank of LQ-SGD": (lambda: LQSGD(rank=0), ValueError, ["`rank`", "at least 1", "0"]),
    "k of zero": (lambda: DeMo(k=0), ValueError, ["`k`", "at least 1", "0"]),
    "no levels": (lambda: QSGD(levels=0), ValueError, ["`levels`", "[1, 4194304]", "0"]),
    "count of levels": (lambda: Levels(0), ValueError, ["`count`", "[1, 4194304]", "0"]),
    "fraction of zero": (lambda: TopK(0.0), ValueError, ["`fraction`", "lie in (0, 1]", "0.0"]),
    "fraction above one": (lambda: DGC(1.5), ValueError, ["`fraction`", "lie in (0, 1]", "1.5"]),
    "negative fraction": (
        lambda: RandomK(-0.1),
        ValueError,
        ["`fraction`", "lie in (0, 1]", "-0.1"],
    ),
    "fraction that is no number": (
        lambda: TopK(NAN),
        ValueError,
        ["`fraction`", "lie in (0, 1]", "nan"],
    ),
    "fraction of a string": (lambda: TopK("half"), ValueError, ["`fraction`", "(0, 1]", "half"]),
    "odd bits of a value": (lambda: TopK(bits=15), ValueError, ["`bits`", "even", "15"]),
    "bits of a value": (lambda: DeMo(bits=26), ValueError, ["`bits`", "[2, 24]", "26"]),
    "bits of linear levels": (lambda: Linear(1), ValueError, ["`bits`", "[2, 24]", "1"]),
    "bits of log levels": (lambda: Logarithmic(17), ValueError, ["`bits`", "[2, 16]", "17"]),
    "odd bits of a hop": (
        lambda: LQSGD(bits=7, reduce="hop"),
        ValueError,
        ["`bits`", 'even and at least 4 for reduce="hop"', "7"],
    ),
    "unknown reduction": (
        lambda: LQSGD(reduce="ring"),
        ValueError,
        ["`reduce`", "'gather'", "'ring'"],
    ),
    "unknown norm": (lambda: QSGD(norm="l1"), ValueError, ["`norm`", "'max'", "'l1'"]),
    "alpha of zero": (lambda: LQSGD(alpha=0.0), ValueError, ["`alpha`", "positive", "0"]),
    "negative clip": (lambda: TernGrad(clip=-1.0), ValueError, ["`clip`", "positive", "-1"]),
    "infinite clip": (lambda: DGC(clip=np.inf), ValueError, ["`clip`", "positive", "inf"]),
    "clip of zero deviations": (lambda: Ternary(0.0), ValueError, ["`clip_sigma`", "positive"]),
    "rate of zero": (lambda: DeMo(rate=0.0), ValueError, ["`rate`", "positive", "0"]),
    "momentum of one": (lambda: SignVote(1.0), ValueError, ["`momentum`", "[0, 1)", "1"]),
    "momentum of DGC": (lambda: DGC(momentum=-0.1), ValueError, ["`momentum`", "[0, 1)", "-0.1"]),
    "decay of one": (lambda: DeMo(decay=1.0), ValueError, ["`decay`", "[0, 1)", "1"]),
    "feedback that is no flag": (
        lambda: PowerSGD(error_feedback="own"),
        ValueError,
        ["`error_feedback`", "True", "own"],
    ),
    "negative seed": (lambda: PowerSGD(seed=-1), ValueError, ["`seed`", "[0, ", "-1"]),
    # The tree and the state.
    "integers": (
        lambda: mean(TopK(), x=np.ones(3, np.int32), state=jnp.zeros(3)),
        TypeError,
        ["`x`", "be real and floating", "int32"],
    ),
    "a list of numbers": (
        lambda: mean(TopK(), x=[1.0], state=[jnp.zeros(())]),
        TypeError,
        ["`x[0]`", "be real and floating", "1.0"],
    ),
    "an empty leaf": (
        lambda: mean(TopK(), x={"w": X, "none": np.zeros((3, 0), np.float32)}),
        ValueError,
        ["`x['none']`", "hold at least one value", "(3, 0)"],
    ),
    "no leaf": (lambda: mean(TopK(), x={}), ValueError, ["`x`", "at least one leaf", "{}"]),
    "costs of an empty leaf": (
        lambda: TopK().cost(quiet(), [np.zeros(0)], 3),
        ValueError,
        ["`x[0]`", "hold at least one value", "(0,)"],
    ),
    "the state of another shape": (
        lambda: mean(TopK(), state=jnp.zeros((5, 6))),
        ValueError,
        ["`state`", "for a tree like `x`", "(5, 6)"],
    ),
    "the state of another compressor": (
        lambda: mean(PowerSGD(), state=TopK().init(X)),
        ValueError,
        ["`state`", "as its `init` makes it", "(6, 5)"],
    ),
    "the state of another rank": (
        lambda: mean(PowerSGD(rank=1), state=PowerSGD(rank=2).init(X)),
        ValueError,
        ["`state`", "that of the compressor"],
    ),
    "a leaf without its nodes": (
        lambda: mean(TopK(), ring=quiet(nodes_per_device=2)),
        ValueError,
        ["`x`", "leading axis of `nodes_per_device` = 2", "(6, 5)"],
    ),
    # The ring, the key and masks.
    "no compressor": (
        lambda: mean("powersgd", state=()),
        TypeError,
        ["`compressor`", "Compressor", "powersgd"],
    ),
    "a compressor that is not made": (
        lambda: mean(TopK, state=()),
        TypeError,
        ["`compressor`", "Compressor"],
    ),
    "no ring": (lambda: mean(TopK(), ring=()), ValueError, ["`ring`", "tuple of at least one"]),
    "rings of two widths": (
        lambda: mean(PowerSGD(), ring=(quiet(16), quiet(8))),
        ValueError,
        ["`ring`", "one wire and one number of nodes per device"],
    ),
    **{
        f"a wire of {type(wire).__name__}": (
            lambda wire=wire: mean(TopK(), ring=Ring(noise="off", wire=wire)),
            TypeError,
            ["`ring.wire`", "be a FixedPoint, as a compressor sends integers"],
        )
        for wire in (Float32(), BFloat16(), LogLevels(), Counts(8))
    },
    "costs of a float wire": (
        lambda: TopK().cost(Ring(noise="off", wire=Float32()), X, 3),
        TypeError,
        ["`ring.wire`", "FixedPoint"],
    ),
    "a numeric clip": (
        lambda: mean(PowerSGD(), ring=Ring(noise="off", wire=FixedPoint(16, clip=1.0))),
        ValueError,
        ["`ring.wire.clip`", 'be "max"', "1.0"],
    ),
    "a wire without room": (
        lambda: mean(PowerSGD(), ring=quiet(2)),
        ValueError,
        ["`wire.bits`", "at least 4 for 3 nodes", "2"],
    ),
    "linear levels without room": (
        lambda: mean(LQSGD(bits=16, alpha=1e5, reduce="sum"), nodes=64),
        ValueError,
        ["`bits`", "leave room for 6 guard bits of 64 nodes", "30"],
    ),
    "no key for errors": (
        lambda: mean(TopK(), ring=noisy(), key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "no key for ternary codes": (
        lambda: mean(TernGrad(), key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "no key for random places": (
        lambda: mean(RandomK(), key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "no key for a cold start": (
        lambda: mean(PowerSGD(warm_start=False), key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "no key for stochastic rounding": (
        lambda: mean(PowerSGD(), ring=quiet(wire={"rounding": "stochastic"}), key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "no key for masks": (
        lambda: mean(SignVote(), key=None, **SECURE),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "raw bits for a key": (
        lambda: mean(TernGrad(), key=jax.random.PRNGKey(0)),
        TypeError,
        ["`key`", "typed"],
    ),
    **{
        f"masks on {type(compressor).__name__}": (
            lambda compressor=compressor: mean(compressor, **SECURE),
            ValueError,
            ["`compressor`", "sum what it sends under masks", type(compressor).__name__],
        )
        for compressor in (TopK(), DGC(), DeMo(), LQSGD())
    },
    "masks on requantised sums": (
        lambda: mean(LQSGD(reduce="hop"), **SECURE),
        ValueError,
        ["`compressor`", "sum what it sends under masks", "hop"],
    ),
    "a source without security": (
        lambda: mean(SignVote(), source=GHZSource(3)),
        ValueError,
        ["`security`", "be given with `source`", "None"],
    ),
    "security without a source": (
        lambda: mean(SignVote(), security=Security()),
        ValueError,
        ["`source`", "be given with `security`", "None"],
    ),
    "an axis that is not bound": (
        lambda: mean(TopK(), axis="elsewhere"),
        ValueError,
        ["`axis_name`", "be bound", "elsewhere"],
    ),
    "a report that is no flag": (
        lambda: mean(TopK(), with_report=1.5),
        ValueError,
        ["`with_report`", "1.5"],
    ),
    "a run of the parameter server": (
        lambda: mean(LQSGD(reduce="server")),
        ValueError,
        ["`reduce`", '"gather", "hop" or "sum"', "server"],
    ),
    "costs of the parameter server": (
        lambda: LQSGD(reduce="server").cost(quiet(), X, 3),
        ValueError,
        ["`reduce`", "star_cost", "server"],
    ),
    "a traced alpha on the wire": (
        tracing_alpha,
        ValueError,
        ["`alpha`", 'be concrete for reduce="hop"'],
    ),
    "sums beyond what float32 holds": (
        lambda: mean(QSGD(levels=2**22), nodes=3),
        ValueError,
        ["`most`", "[1, 8388607]", str(3 * 2**22)],
    ),
    "costs of no nodes": (
        lambda: TopK().cost(quiet(), X, 0),
        ValueError,
        ["`num_nodes`", "at least 1", "0"],
    ),
    "noise that logarithmic levels have no mean of": (
        lambda: mean(LQSGD(reduce="hop"), ring=noisy(noise="gaussian")),
        ValueError,
        ["`noise`", '"sampled" or "off"', "gaussian"],
    ),
    # The transformation checks what it can before it runs.
    "a transformation without a key": (
        lambda: all_reduce(TernGrad(), quiet(), AXIS, key=None),
        (TypeError, ValueError),
        ["`key`", "None"],
    ),
    "a masked transformation that gathers": (
        lambda: all_reduce(TopK(), quiet(), AXIS, key=KEY, **SECURE),
        ValueError,
        ["`compressor`", "masks"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence(name):
    call, error, words = CASES[name]
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert " must " in text
    assert text.count("\n") == 0
    assert text.endswith(".")


def test_what_is_allowed_is_not_refused():
    """The neighbours of the refusals: the least and the most of every interval."""
    for made in (PowerSGD(rank=1), TopK(1.0), DeMo(k=1), QSGD(levels=2**22), SignVote(0.0)):
        assert made.reduce in ("sum", "vote", "gather")
    assert LQSGD(bits=4, reduce="hop").reduce == "hop"
    delivered, _ = mean(QSGD(levels=2**20), nodes=3)
    assert delivered.shape == (3, 6, 5)
    jax.eval_shape(lambda alpha: mean(LQSGD(alpha=alpha)), jnp.float32(10))
    assert star_cost(8, 32, [3, 4]) == (56, 224)
    mean(TopK(), key=None)
