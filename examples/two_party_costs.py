"""The cost of learning between two parties, method by method, and what their states give away.

Two parties hold a model together and send quantum states instead of amplitudes. This prints the
qubits of a gradient at equal error by four methods, beside a classical message and the formulas of
the paper; where each overtakes the other; the linear classifier, where the advantage cannot hold;
and the bits that the states of real digits give away at most.

The model and the formulas are those of Gilboa et al. (arXiv:2310.07136), quoted from memory with
constants of one; estimators, their shots and the classical message are ours.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch
from sklearn.datasets import load_digits

import jaxqring as jq
from jaxqring.show._style import COLOURS, page, save

EPSILON, DELTA, BITS = 0.1, 0.05, 16
QUBITS, LAYERS = 20, 5
PARAMETERS = (20, 50, 100, 200, 500, 1000, 2000)
METHODS = ("shift", "ancilla", "shadows", "bell")


def groups_of(parameters, qubits):
    """Groups of a unitary made of sublayers, each a rotation of every qubit about one axis."""
    return math.ceil(parameters / (2 * LAYERS) / qubits)


def gradient_qubits(method, parameters, qubits=QUBITS, groups=None):
    """Qubits of a whole gradient to within EPSILON in the max norm."""
    cost = jq.qmodels.two_party_cost(
        qubits,
        LAYERS,
        method=method,
        shots=jq.qmodels.shots_for(EPSILON, DELTA, parameters, method=method),
        parameters=parameters // (2 * LAYERS),
        groups=groups or groups_of(parameters, qubits),
    )
    return cost.qubits


def classical_bits(parameters, qubits=QUBITS):
    """Bits of a protocol that exists: Alice sends her amplitudes and angles, gets a gradient."""
    return (2**qubits + parameters) * BITS


def formula(parameters, qubits=QUBITS):
    """The paper's qubits of a gradient, with the constant one."""
    each = parameters // (2 * LAYERS)
    return jq.qmodels.gradient_bound(2**qubits, LAYERS, each, EPSILON, DELTA)


def first(wins, values):
    """The first value for which `wins` holds from there on; None if it never does."""
    last = [value for value in values if not wins(value)]
    later = [value for value in values if not last or value > last[-1]]
    return later[0] if later else None


def print_table():
    print(f"Qubits of a gradient, error {EPSILON} with confidence {1 - DELTA}; {QUBITS} qubits,")
    print(f"{LAYERS} layers, sublayers of {QUBITS} rotations. *: all generators at one place.")
    heads = ("parameters", "groups", *METHODS, "shadows*", "bell*", "formula", "bits")
    print("".join(f"{head:>12}" for head in heads))
    for parameters in PARAMETERS:
        numbers = [gradient_qubits(method, parameters) for method in METHODS]
        numbers += [gradient_qubits(method, parameters, groups=1) for method in METHODS[2:]]
        numbers += [formula(parameters), classical_bits(parameters)]
        row = f"{parameters:>12}{groups_of(parameters, QUBITS):>12}"
        print(row + "".join(f"{number:>12.3e}" for number in numbers))


def print_crossovers():
    print("\nCrossovers")
    for bits in (16, 32):
        found = [jq.qmodels.amplitude_crossover(e, DELTA, bits=bits) for e in (0.1, 0.01)]
        print(f"  loss, a hop against N amplitudes of {bits} bits: N = 2^{found[0]} for", end=" ")
        print(f"error 0.1, 2^{found[1]} for 0.01")
    sizes = range(2 * LAYERS, 10_001, 2 * LAYERS)
    rivals = {
        "ancilla below shift": lambda m: (
            gradient_qubits("ancilla", m) < gradient_qubits("shift", m)
        ),
        "shadows* below ancilla": lambda m: (
            gradient_qubits("shadows", m, groups=1) < gradient_qubits("ancilla", m)
        ),
        "the classical message below ancilla": lambda m: (
            classical_bits(m) < gradient_qubits("ancilla", m)
        ),
    }
    for name, wins in rivals.items():
        found = first(wins, sizes)
        print(f"  {name}: {f'from {found} parameters on' if found else 'never up to 10,000'}")
    for method in METHODS:
        found = first(
            lambda n, method=method: gradient_qubits(method, 200, n) < classical_bits(200, n),
            range(2, 61),
        )
        print(f"  {method} below the classical message, 200 parameters: from n = {found} on")


def print_classifier():
    print("\nThe sign of an inner product of a million entries, at the error of GapIP:")
    heads = ("margin", "qubits >=", "GapIP qubits", "SimHash bits", "bits <=", "fewer")
    print("".join(f"{head:>14}" for head in heads))
    for margin in (0.1, 0.03, 0.01, 0.003):
        bound = jq.qmodels.linear_classifier_bounds(10**6, margin)
        row = jq.audit.crossover(margin, 10**6)
        fewer = "GapIP" if row.qubits < row.simhash_bits else "SimHash"
        print(f"{margin:>14}{bound.quantum:>14.1f}{row.qubits:>14,}", end="")
        print(f"{row.simhash_bits:>14,}{bound.classical:>14,.0f}{fewer:>14}")


def digits(classes):
    """The states of the handwritten digits of some classes, of six qubits."""
    images = load_digits()
    return jq.qmodels.amplitudes(images.data[np.isin(images.target, classes)]).real


def print_leakage(states):
    print("\nLeakage of the handwritten digits, in bits")
    print(f"  one copy, all ten classes: {jq.qmodels.leakage(digits(range(10))).chi:.3f} of 6")
    heads = ("copies", "chi", "symmetric", "K n", "message", "choice")
    print("".join(f"{head:>11}" for head in heads) + "   (3 and 8)")
    for copies in (1, 2, 10, 100, 738):
        found = jq.qmodels.leakage(states, copies)
        print(f"{copies:>11}{found.chi:>11.3f}{found.symmetric:>11.3f}{found.register:>11}", end="")
        print(f"{found.message:>11}{found.entropy:>11.3f}")


def mark(axes, x, y, text, offset, side="left"):
    axes.plot([x], [y], "o", color="k", ms=6, zorder=5)
    place = {"xytext": offset, "textcoords": "offset points", "ha": side, "va": "center"}
    axes.annotate(text, (x, y), fontsize=10, **place)


LOOKS = {
    "shift": (COLOURS[2], "--", "parameter shift"),
    "ancilla": (COLOURS[1], "-", "ancilla, commuting groups"),
    "shadows": (COLOURS[3], "-.", "Pauli shadows"),
    "bell": (COLOURS[4], ":", "Bell pairs (magnitudes)"),
}


def draw_costs(path):
    """Qubits of a gradient over the number of parameters, and over that of qubits."""
    with page(13, 5.4) as figure:
        by_parameters, by_qubits = figure.subplots(1, 2)
        many = np.unique(np.geomspace(2, 200, 60).round().astype(int)) * 2 * LAYERS
        sizes = np.arange(8, 33)
        for method, (colour, style, label) in LOOKS.items():
            look = {"color": colour, "linestyle": style}
            numbers = [gradient_qubits(method, int(m)) for m in many]
            by_parameters.plot(many, numbers, label=label, **look)
            by_qubits.plot(sizes, [gradient_qubits(method, 200, int(n)) for n in sizes], **look)
            if method in ("shadows", "bell"):
                least = [gradient_qubits(method, int(m), groups=1) for m in many]
                by_parameters.fill_between(many, least, numbers, color=colour, alpha=0.15, lw=0)
        formulas = {"color": COLOURS[5], "linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.5}
        label = "formula: shadow tomography"
        by_parameters.plot(many, [formula(int(m)) for m in many], label=label, **formulas)
        by_qubits.plot(sizes, [formula(200, int(n)) for n in sizes], **formulas)
        black = {"color": "k", "linewidth": 1.5}
        by_parameters.plot(many, classical_bits(many), label="classical message, bits", **black)
        by_qubits.plot(sizes, [classical_bits(200, int(n)) for n in sizes], **black)
        least = [jq.qmodels.classical_bound(2 ** int(n), LAYERS) for n in sizes]
        bound = {"color": "k", "linestyle": ":", "linewidth": 1.5}
        by_parameters.axhline(
            jq.qmodels.classical_bound(2**QUBITS, LAYERS),
            label="formula: classical lower bound",
            **bound,
        )
        by_qubits.plot(sizes, least, **bound)
        for method in ("ancilla", "shift", "bell"):
            cross = first(
                lambda n, method=method: gradient_qubits(method, 200, n) < classical_bits(200, n),
                range(8, 61),
            )
            low = method == "ancilla"
            offset, side = ((8, -30), "left") if low else ((-7, 8), "right")
            mark(by_qubits, cross, classical_bits(200, cross), f"n = {cross}", offset, side)
        sizes = range(2 * LAYERS, 2001, 2 * LAYERS)
        cross = first(lambda m: classical_bits(m) < gradient_qubits("ancilla", m), sizes)
        mark(by_parameters, cross, classical_bits(cross), f"{cross} parameters", (6, -12))
        by_parameters.set(xscale="log", xlabel="parameters", ylabel="qubits or bits of a gradient")
        by_parameters.set_title(f"{QUBITS} qubits, {LAYERS} layers")
        by_qubits.set(xlabel="qubits n of the state, N = 2^n numbers", title="200 parameters")
        for axes in (by_parameters, by_qubits):
            axes.set(yscale="log")
        shade = Patch(color="k", alpha=0.15, lw=0, label="down to: all generators at one place")
        handles, _ = by_parameters.get_legend_handles_labels()
        figure.legend(handles=[*handles, shade], loc="outside lower center", ncols=4, fontsize=11)
        return save(figure, path)


def draw_leakage(states, path):
    """Bits that copies of a state of a digit give away at most, by four bounds."""
    with page(7.5, 5) as figure:
        axes = figure.subplots()
        copies = np.unique(np.geomspace(1, 1000, 13).round().astype(int))
        found = [jq.qmodels.leakage(states, int(k)) for k in copies]
        chi = [each.chi for each in found]
        axes.plot(copies, [each.register for each in found], "-.", color=COLOURS[2], label="K n")
        axes.plot(
            copies,
            [each.symmetric for each in found],
            "--",
            color=COLOURS[1],
            label="symmetric subspace",
        )
        axes.plot(copies, chi, "-o", ms=4, color=COLOURS[3], label="Holevo quantity of the digits")
        axes.axhline(found[0].message, color="k", lw=1.5, label="classical message, N b")
        label = f"choice of one of {len(states)} digits"
        axes.axhline(found[0].entropy, color="k", linestyle=":", lw=1.5, label=label)
        axes.set(xscale="log", yscale="log", xlabel="copies K", ylabel="bits, at most")
        axes.set_ylim(0.2, None)
        axes.set_title("digits 3 and 8 as states of six qubits")
        axes.legend(loc="lower right", fontsize=10)
        return save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--figures", type=Path, default=Path("runs"), help="folder of the figures")
    folder = options.parse_args().figures
    print_table()
    print_crossovers()
    print_classifier()
    states = digits([3, 8])
    print_leakage(states)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"wrote {draw_costs(folder / 'two_party_costs.png')}")
    print(f"wrote {draw_leakage(states, folder / 'leakage.png')}")


if __name__ == "__main__":
    main()
