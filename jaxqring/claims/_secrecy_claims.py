"""The secrecy of sums: at twice the copies, under noise, and what verification costs."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._secrecy_witnesses import (
    bucket_loss,
    disagreement,
    hashed_rate,
    planted_escapes,
    sampling_distance,
)
from jaxqring.physics.channels import depolarizing
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring
from jaxqring.secure import Epsilon, SecureReport, Security, epsilon, plan, secure_psum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER = "Gragera Garces and Pira, arXiv:2606.20344"
PARTIES, BITS, TARGET, STEPS, SIZE = 8, 16, 1e-6, 100, 10_000
_EXCESS = 0.05  # of the error rate of masks in use over the tested one


def _twice(effort: Effort) -> dict[str, Any]:
    size, source = SIZE, GHZSource(PARTIES)
    bare = epsilon(Security(amplification="none", attempts=1), size, source)
    paper = epsilon(Security(attempts=1), size, source, mode="paper", excess=_EXCESS)
    trials = 20_000 if effort.quick else 1_000_000
    return {
        "size": size,
        "escape": bare.classical_error,
        "escape_drawn": planted_escapes(size, trials, effort.seed),
        "trials": trials,
        "distance": bare.secrecy,
        "overhead": bare.overhead,
        "paper": paper.secrecy,
        "paper_second": sampling_distance(size, size, _EXCESS),
        "paper_overhead": paper.overhead,
    }


def _amplified(effort: Effort) -> dict[str, Any]:
    size, source = SIZE, GHZSource(PARTIES)

    def secrecy(bucket: int) -> float:
        return epsilon(Security(bucket=bucket, attempts=1), size, source).secrecy

    def second(bucket: int) -> float:
        kept = size * bucket
        return math.sqrt(bucket_loss(kept, kept, 0, bucket))

    buckets = range(3, 41, 2)
    ours = next(b for b in buckets if secrecy(b) <= TARGET)
    return {
        "size": size,
        "bucket": ours,
        "bucket_second": next(b for b in buckets if second(b) <= TARGET),
        "three": secrecy(3),
        "three_second": second(3),
    }


def _twice_the_copies(found: dict[str, Any]) -> Finding:
    twice, amplified = found["twice"], found["amplified"]
    spread = 6 * 0.5 / math.sqrt(twice["trials"])
    numbers = (
        Number(
            "secrecy distance at twice the copies, every mask, no noise",
            twice["distance"],
            math.sqrt(1 / 2),
            "root of the chance that one bad copy of 2n is not drawn",
            within=1e-3,
        ),
        Number(
            "chance that one planted copy escapes the tests",
            twice["escape"],
            twice["escape_drawn"],
            f"{twice['trials']:,} draws of the tested half",
            within=spread,
        ),
        Number(
            f"distance at twice the copies as an excess of errors, {twice['size']:,} masks",
            twice["paper"],
            twice["paper_second"],
            "bound for sampling without replacement",
        ),
        Number(
            f"secrecy distance of buckets of three, {amplified['size']:,} masks",
            amplified["three"],
            amplified["three_second"],
            "hypergeometric laws of scipy, all numbers of bad copies",
            within=1e-3 * amplified["three_second"],
        ),
        Number(
            f"smallest bucket for a distance of {TARGET:g}, half of the copies tested",
            amplified["bucket"],
            amplified["bucket_second"],
            "the same laws, bucket by bucket",
        ),
    )
    because = (
        f"At {twice['paper_overhead']:g} copies a mask the error rate of the masks in use is "
        f"within {_EXCESS:g} of the tested one, up to {twice['paper']:.2g}: the statement holds if "
        f"that is its epsilon. As a bound on every mask it is {twice['distance']:.3f}, since a "
        f"single planted copy escapes with probability {twice['escape']:.3f}; {TARGET:g} takes "
        f"buckets of {amplified['bucket']}, which is {2 * amplified['bucket']} copies a mask."
    )
    holds = twice["distance"] <= TARGET
    small = twice["paper"] <= 1e-1
    return Finding("holds" if holds else "holds if" if small else "fails", because, numbers)


def distance(chosen: Security, price: Epsilon) -> float:
    """The secrecy distance of buckets in any of their attempts, by the second witness."""
    allowed = chosen.failures_allowed(price.tested)
    once = bucket_loss(price.kept, price.tested, allowed, chosen.bucket)
    return math.sqrt(-math.expm1(chosen.attempts * math.log1p(-once)))


def _noise(effort: Effort) -> dict[str, Any]:
    size = 1_000
    losses = [1e-6, 1e-5, 3e-4] if effort.quick else np.geomspace(1e-6, 1e-3, 10).tolist()
    rows = []
    for loss in losses:
        with jax.enable_x64(True):  # in single precision, small errors are known to some 1e-7
            source = GHZSource(PARTIES, noise=depolarizing(error_prob=loss))
            chosen = plan(TARGET, size, STEPS, source, bits=BITS)
            price = epsilon(chosen, size, source, bits=BITS, steps=STEPS)
            differ = float(source.disagreement)
        rows.append(
            {
                "loss": loss,
                "bucket": chosen.bucket,
                "overhead": price.overhead,
                "sampling": price.sampling,
                "sampling_second": distance(chosen, price),
                "wrong": price.expected_wrong_sums,
                "disagreement": differ,
                "disagreement_second": disagreement(PARTIES, loss),
            }
        )
    return {"size": size, "rows": rows}


def _secrecy_under_noise(found: dict[str, Any]) -> Finding:
    rows, size = found["noise"]["rows"], found["noise"]["size"]
    first, last = rows[0], rows[-1]
    numbers = tuple(
        number
        for row in (first, last)
        for number in (
            Number(
                f"chance that Z outcomes disagree, {row['loss']:g} a qubit",
                row["disagreement"],
                row["disagreement_second"],
                f"all patterns of flips of {PARTIES} qubits",
                within=1e-6 * row["disagreement_second"],
            ),
            Number(
                f"secrecy distance of a step at {row['overhead']:.1f} copies a mask",
                row["sampling"],
                row["sampling_second"],
                "hypergeometric laws of scipy, all numbers of bad copies",
                within=1e-3 * row["sampling_second"],
            ),
        )
    )
    raw = math.sqrt(last["disagreement"] * (1 - last["disagreement"]))
    because = (
        f"Secrecy of {TARGET:g} over {STEPS} steps of {size:,} masks survives if copies are "
        f"amplified: {first['overhead']:.1f} a mask at an error of {first['loss']:g} a qubit, "
        f"{last['overhead']:.1f} at {last['loss']:g}, where a mask bit as it is would be "
        f"{raw:.2g} from a secret one and {last['wrong']:.3g} sums of a step come out wrong "
        "without a correction."
    )
    holds = all(row["overhead"] < math.inf for row in rows)
    return Finding("holds if" if holds else "fails", because, numbers)


def _draw_noise(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    rows = found["noise"]["rows"]
    losses = [row["loss"] for row in rows]
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.plot(losses, [row["overhead"] for row in rows], marker="o", **look(0))
    above.axhline(2, color="0.5", linewidth=1)
    above.annotate("twice the copies", (losses[0], 2), xytext=(0, 4), textcoords="offset points")
    above.set(ylabel="GHZ copies a mask", ylim=(0, None))
    below.plot(losses, [row["wrong"] for row in rows], marker="o", **look(1))
    below.set(xscale="log", yscale="log", xlabel="error of a qubit of a GHZ state (probability)")
    below.set_ylabel("wrong sums a step")
    return figure


def _rate(effort: Effort) -> dict[str, Any]:
    masks, dimension = 100_000, 65_537
    rows = []
    for tolerance in (0.0, 0.01):
        security = Security(amplification="universal", tolerance=tolerance, attempts=1)
        found = epsilon(security, masks, GHZSource(PARTIES), dimension=dimension)
        second = hashed_rate(found.kept, found.tested, tolerance, dimension)
        rows.append({"tolerance": tolerance, "rate": found.mask_rate, "second": second})
        rows[-1] |= {"overhead": found.overhead, "kept": found.kept}
    return {"rows": rows}


def _overhead_and_rate(found: dict[str, Any]) -> Finding:
    rows = found["rate"]["rows"]
    numbers = tuple(
        Number(
            f"masks for an untested copy, tolerance {row['tolerance']:g}",
            row["rate"],
            row["second"],
            "the finite-key formula, numpy; masks are whole",
            within=2 / row["kept"],
        )
        for row in rows
    )
    because = (
        f"A public random matrix over a prime field leaves {rows[0]['rate']:.3f} masks for an "
        f"untested copy without errors and {rows[1]['rate']:.3f} at a tolerance of "
        f"{rows[1]['tolerance']:g}: {rows[0]['overhead']:.2f} and {rows[1]['overhead']:.2f} copies "
        "a mask. The ring adds mod 2^b, where such a matrix is no universal hash."
    )
    return Finding("holds if" if rows[0]["overhead"] > 2 else "holds", because, numbers)


def _price(effort: Effort) -> dict[str, Any]:
    size = SIZE
    chosen = plan(TARGET, size, STEPS, GHZSource(PARTIES), bits=BITS)
    price = epsilon(chosen, size, GHZSource(PARTIES), bits=BITS, steps=STEPS)
    ring = Ring(noise="off")
    plain, chunk = ring.cost(size, PARTIES), -(-size // PARTIES)

    def masked(values: jax.Array) -> SecureReport:
        _, report = secure_psum(
            values,
            "nodes",
            ring=ring,
            source=GHZSource(PARTIES),
            security=chosen,
            key=jax.random.key(effort.seed),
            with_report=True,
        )
        return report

    report = jax.jit(jax.vmap(masked, axis_name="nodes"))(jnp.zeros((PARTIES, size)))
    return {
        "size": size,
        "pairs": plain.pairs,
        "qubits": float(report.ring.online_qubits[0]) / PARTIES,
        "qubits_counted": 2 * (PARTIES - 1) * chunk * BITS // 2,
        # A GHZ state is fused from one pair of each link but one.
        "lifetime": (plain.pairs + price.qubit_copies) / plain.pairs,
        "lifetime_second": 1
        + (size * chosen.bucket + price.tested) / (2 * (PARTIES - 1) * chunk // 2),
        "overhead": price.overhead,
        "sampling": price.sampling,
        "sampling_second": distance(chosen, price),
    }


def _verification(found: dict[str, Any]) -> Finding:
    price = found["price"]
    numbers = (
        Number(
            f"online qubits of a link, {price['size']:,} masked values",
            price["qubits"],
            price["qubits_counted"],
            "(N - 1) ceil(P / N) b",
        ),
        Number(
            "pairs of a link with verified masks, over those without",
            price["lifetime"],
            price["lifetime_second"],
            "1 + (buckets and tested copies) b / online qubits",
            within=1e-9 * price["lifetime"],
        ),
        Number(
            f"secrecy distance of a step at {price['overhead']:.1f} copies a mask",
            price["sampling"],
            price["sampling_second"],
            "hypergeometric laws of scipy, all numbers of bad copies",
            within=1e-3 * price["sampling_second"],
        ),
    )
    because = (
        "Online nothing changes, as a masked value is as long as a plain one. Before it, a link "
        f"makes {price['lifetime']:.3g} times the pairs of the plain ring, at "
        f"{price['overhead']:.1f} copies a mask for {TARGET:g} over {STEPS} steps, without noise "
        "or attempts that fail."
    )
    same = price["qubits"] == price["qubits_counted"]
    return Finding("holds if" if same else "fails", because, numbers)


CLAIMS = (
    Claim(
        "twice-the-copies",
        "Composable secrecy at twice the copies",
        f"{_PAPER}, abstract",
        "verified entanglement gives composable epsilon-secure aggregation at twice the GHZ "
        "copies.",
        "Z tests of half of the copies without tolerance, and the terms of epsilon.",
        {"twice": _twice, "amplified": _amplified},
        _twice_the_copies,
    ),
    Claim(
        "secrecy-under-noise",
        "Secrecy under channel noise",
        f"{_PAPER}, open question",
        "does the bound on secrecy survive channel noise?",
        "depolarizing noise on every qubit of a GHZ state, buckets, and the fewest copies.",
        {"noise": _noise},
        _secrecy_under_noise,
        _draw_noise,
    ),
    Claim(
        "overhead-and-rate",
        "Overhead and rate of verified masks",
        f"{_PAPER}, open question",
        "at what rate are there secret masks?",
        "the finite-key formula after Tomamichel et al. (2012), for masks over a prime field.",
        {"rate": _rate},
        _overhead_and_rate,
    ),
    Claim(
        "verification",
        "The price of verification",
        f"{_PAPER}, open question",
        "what does the cost of verification leave of the factor of two?",
        "GHZ states fused from pairs of neighbours, one for each qubit copy.",
        {"price": _price},
        _verification,
    ),
)
