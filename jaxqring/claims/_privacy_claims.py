"""Privacy of the two-party model: the bits that states of digits give away."""

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._party_witnesses import (
    fewest_shots,
    holevo_of_many,
    holevo_of_matrix,
    holevo_of_two,
)
from jaxqring.qmodels import leakage, shots_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR, DELTA = 0.1, 0.05


def _images(classes: tuple[int, ...]) -> np.ndarray:
    """(count, 64) unit vectors of scikit-learn's digits of some classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = digits.data[np.isin(digits.target, classes)]
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def _leaks(effort: Effort) -> dict[str, Any]:
    pair, every = _images((3, 8)), _images(tuple(range(10)))
    needed = shots_for(ERROR, DELTA)
    count = 7 if effort.quick else 25
    copies = sorted({*np.geomspace(1, 1000, count).round().astype(int).tolist(), 2, needed})
    with jax.enable_x64(True):
        curve = {k: leakage(pair, k) for k in copies}
        one_of_all = leakage(every).chi
    size = pair.shape[1]
    second = {k: holevo_of_many(pair, k) for k in copies}
    return {
        "copies": copies,
        "chi": [curve[k].chi for k in copies],
        "symmetric": [curve[k].symmetric for k in copies],
        "register": [curve[k].register for k in copies],
        "named": [second[k][1] for k in copies],
        "message": curve[1].message,
        "entropy": curve[1].entropy,
        "images": len(pair),
        "one": curve[1].chi,
        "one_dense": holevo_of_matrix(pair),
        "all": one_of_all,
        "all_dense": holevo_of_matrix(every),
        "two": curve[2].chi,
        "two_dense": holevo_of_two(pair),
        "needed": needed,
        "needed_scanned": fewest_shots(ERROR, DELTA),
        "many": curve[needed].chi,
        "many_gram": second[needed][0],
        "bound": curve[needed].symmetric,
        "bound_counted": math.log2(math.comb(size + needed - 1, needed)),
    }


def _privacy(found: dict[str, Any]) -> Finding:
    leaks = found["leaks"]
    register, needed = leaks["register"][0], leaks["needed"]
    numbers = (
        Number(
            f"bits that one copy tells of a digit 3 or 8, of {register}",
            leaks["one"],
            leaks["one_dense"],
            "eigenvalues of the mean density matrix",
        ),
        Number(
            f"bits that {needed} copies tell",
            leaks["many"],
            leaks["many_gram"],
            "eigenvalues of the overlaps to that power",
            within=1e-6,
        ),
        Number(
            "bits that two copies tell",
            leaks["two"],
            leaks["two_dense"],
            "singular values of all products of two amplitudes",
        ),
        Number(
            "bits that one copy tells of a digit of any class",
            leaks["all"],
            leaks["all_dense"],
            "eigenvalues of the mean density matrix",
        ),
        Number(
            f"copies of a loss to within {ERROR:g}",
            needed,
            leaks["needed_scanned"],
            "Hoeffding's bound, count by count",
        ),
        Number(
            f"bits of {needed} copies of any state of {register} qubits, at most",
            leaks["bound"],
            leaks["bound_counted"],
            "binomial coefficient in integers",
        ),
    )
    named = dict(zip(leaks["copies"], leaks["named"], strict=True))
    hidden = leaks["one"] < leaks["entropy"] / 2
    told = leaks["many"] > 0.99 * leaks["entropy"]
    because = (
        f"One copy tells {leaks['one']:.2f} of {leaks['entropy']:.2f} bits of which of "
        f"{leaks['images']} images it is, and a loss to within {ERROR:g} takes {needed} copies, "
        f"which tell {leaks['many']:.2f}: the pretty good measurement names the image from one "
        f"copy with probability {named[1]:.2f}, and from {needed} with {named[needed]:.2f}. Of an "
        f"image from a larger set they tell at most {leaks['bound']:.0f} of {leaks['message']:,} "
        "bits."
    )
    if not hidden:
        return Finding("fails", because, numbers)
    return Finding("holds if" if told else "holds", because, numbers)


def _draw_privacy(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    leaks = found["leaks"]
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    curves = {"register": "K n", "symmetric": "symmetric subspace", "chi": "Holevo quantity"}
    for index, (name, label) in enumerate(curves.items()):
        axes.plot(leaks["copies"], leaks[name], label=label, **look(index, 1))
    axes.axhline(leaks["message"], color="0.4", linewidth=1, label="the amplitudes sent once")
    axes.axhline(
        leaks["entropy"], color="0.4", linestyle=":", label=f"which of {leaks['images']} images"
    )
    axes.set(xscale="log", yscale="log", xlabel="copies K", ylabel="bits, at most", ylim=(1, 1e5))
    axes.legend(loc="upper left", fontsize=11)
    return figure


CLAIMS = (
    Claim(
        "two-party-privacy",
        "Bits that the states give away",
        "Gilboa, Michaeli, Soudry and McClean, arXiv:2310.07136, abstract",
        "little can be extracted from the states that travel.",
        "the Holevo quantity of digits as amplitudes, for the copies that an estimate takes; "
        "noiseless hops. That an image is named is computed by the second witness alone.",
        {"leaks": _leaks},
        _privacy,
        _draw_privacy,
    ),
)
