"""Every example runs as a script of its own and prints what it promises."""

import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from compress_costs import (
    CNN_SHAPES,
    lqsgd_bits,
    powersgd_bits,
    sgd_bits,
    terngrad_bits,
    vote_count_bits,
)

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(name, *options):
    """The output of a script, run as a user would, without the devices of this process."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options],
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def readme():
    output = printed("readme.py")
    error, cost = output.splitlines()
    # Weights of up to 2, and the noise of the last steps on top.
    assert float(re.search(r": ([0-9.]+)$", error).group(1)) < 0.3
    # Three numbers on eight nodes: one code of 16 bits in each of 14 hops.
    assert "num_nodes=8, rounds=14, bits=224, qubits=112, pairs=112" in cost


def train_step():
    output = printed("train_step.py")
    accuracy = {
        mapping: float(value)
        for mapping, value in re.findall(r"^(\w+): +accuracy ([0-9.]+)", output, re.MULTILINE)
    }
    assert accuracy.keys() == {"pmap", "shard_map", "nnx"}
    assert min(accuracy.values()) > 0.95
    assert accuracy["pmap"] == accuracy["shard_map"]
    # 82 parameters, in chunks of 11: 14 hops of 11 codes of 8 qubits, 150 times.
    assert "184,800 qubits per link" in output
    assert output.splitlines()[-1] == "pmap and shard_map agree bit for bit: True"


def unequal_protection():
    rows = [line.split() for line in printed("unequal_protection.py").splitlines()]
    rows = [[float(x) for x in row] for row in rows if len(row) == 7 and row[0].isdigit()]
    assert [row[0] for row in rows] == list(range(1, 9))
    # The qubits of the rival are never fewer; coding half of the symbols gains three decades.
    assert all(row[4] >= row[1] - 0.01 for row in rows)
    assert max(row[6] for row in rows) > 1000
    assert rows[-1][6] < 1


def which_link():
    # 16 seeds: the gain of link 7 is six standard errors above that of the next, by either way.
    output = printed("which_link.py", "--seeds", "16")
    assert "the gradient says link 7, brute force link 7;" in output
    assert "most errors are made on link 2" in output
    rows = [line.split() for line in output.splitlines() if line.count("±") == 2]
    gradient, brute_force = ([float(row[column]) for row in rows] for column in (4, 7))
    assert len(rows) == 8
    for one, other in zip(gradient, brute_force, strict=True):
        assert 0.4 < one / other < 1.4


def attacks():
    """Tolerance of a predicted rate: six standard deviations, and a little for few events."""
    lines = printed("attacks.py").splitlines()
    rows = re.findall(r"^(\w+ \w+|\w+) +(\S.*?) +([0-9.]+) +([0-9.]+)$", "\n".join(lines), re.M)
    assert len(rows) == 16 == len(lines) - 2
    seen = {what: (float(measured), float(predicted)) for _, what, measured, predicted in rows}
    samples = {
        "one of 2000 copies planted: tests passed": 10_000,
        "of these, the copy stays untested": 5000,
        "a node's gradient, masks from GHZ states": 640_000,
        "level over it read, buckets": 213_333,
        "purification of error 0.01: tests passed": 10_000,
        "bits of a raw mask guessed": 3_000_000,
        "bits of a sum of 3 guessed": 1_000_000,
        "product states, XY tests passed": 100_000,
        "product states, Z tests passed": 100_000,
        "with a node that speaks last, Z": 100_000,
        "change of a gradient, fresh masks": 640,
    }
    assert samples.keys() <= seen.keys()
    for what, (measured, predicted) in seen.items():
        if what not in samples:  # what is certain
            assert measured == predicted == 1
            continue
        spread = math.sqrt(predicted * (1 - predicted) / samples[what])
        assert abs(measured - predicted) < 6 * spread + 6 / samples[what] + 1e-6, what
    # What buckets leave of the source's advantage, and what a Z test leaves of a liar's.
    raw, summed = (seen[f"bits of a {kind} guessed"][0] for kind in ("raw mask", "sum of 3"))
    assert 0 < 8 * (summed - 0.5) < raw - 0.5
    assert seen["with a node that speaks last, Z"][0] < 0.03
    assert seen["a node's gradient, masks from GHZ states"][0] < 1e-4


def conflict_audit():
    with tempfile.TemporaryDirectory() as folder:
        figure = Path(folder) / "audit.png"
        output = printed("conflict_audit.py", "--figure", str(figure))
        assert figure.stat().st_size > 10_000
    beyond, pairs = map(int, re.search(r": (\d+) of (\d+) pairs", output).groups())
    right, conflicts = map(int, re.search(r"(\d+) of them .*; (\d+) conflict", output).groups())
    # Eleven runs each: a median errs once in a hundred times at the very edge of the gap.
    assert pairs == 45
    assert right >= beyond - 2
    assert conflicts > 0
    exact = float(re.search(r"inconsistent ([0-9.]+)", output).group(1))
    low, high = map(float, re.search(r"in \[([0-9.]+), ([0-9.]+)\]", output).groups())
    assert low - 0.01 <= exact <= high + 0.01


def compression_traffic():
    lines = [line.split("  ") for line in printed("compression_traffic.py").splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    epochs = [row for row in rows if len(row) == 6 and row[4] != "in the paper"]
    # Every size of the paper comes out, rounded; the ratios of its exact bytes do not.
    assert len(epochs) == 12
    assert all(round(float(row[3])) == int(row[4]) for row in epochs)
    assert [row[5] for row in epochs if row[1] == "LQ-SGD"] == ["973.0", "973.2", "973.3"]
    bills = [row for row in rows if len(row) == 7 and row[1][0].isdigit()]
    ring = {row[0]: [int(cell.replace(",", "")) for cell in row[1:4]] for row in bills}
    cnn = CNN_SHAPES  # the last of the tables
    assert ring["SGD, 16 bits"][0] == sgd_bits(cnn, 8)
    assert ring["PowerSGD, 16 bits"][0] == powersgd_bits(cnn, 8)
    assert ring["LQ-SGD, gather"][0] == lqsgd_bits(cnn, 8)
    assert ring["TernGrad"][0] == terngrad_bits(cnn, 8)
    assert ring["sign votes"][0] == vote_count_bits(cnn, 8)
    assert all(bits == 2 * qubits for bits, qubits, _ in ring.values())


def two_party_costs():
    with tempfile.TemporaryDirectory() as folder:
        output = printed("two_party_costs.py", "--figures", folder)
        for name in ("two_party_costs", "leakage"):
            assert (Path(folder) / f"{name}.png").stat().st_size > 10_000
    rows = [line.split() for line in output.splitlines()]
    table = {int(row[0]): row[1:] for row in rows if len(row) == 10 and row[0].isdigit()}
    assert list(table) == [20, 50, 100, 200, 500, 1000, 2000]
    for parameters, (groups, shift, ancilla, *_, classical) in table.items():
        # 20 qubits, 5 layers, sublayers of 20 rotations; 5 (30 - 1) hops of all segments.
        wanted = math.ceil(parameters / 200)
        assert int(groups) == wanted
        copies = 2 * math.log(2 * parameters / 0.05) / 0.01
        assert float(ancilla) == pytest.approx(copies * wanted * 145 * 20, rel=2e-3)
        assert float(shift) == pytest.approx(copies * parameters * 10 * 20, rel=2e-3)
        assert float(classical) == pytest.approx(16 * 2**20, rel=3e-3)
    assert "N = 2^9 for error 0.1, 2^17 for 0.01" in output
    winners = [row[-1] for row in rows if row and row[-1] in ("GapIP", "SimHash")]
    assert winners == ["SimHash", "SimHash", "GapIP", "GapIP"]
    assert "all ten classes: 2.226 of 6" in output
    leaks = [[float(cell) for cell in row] for row in rows if len(row) == 6 and row[0].isdigit()]
    assert [row[0] for row in leaks] == [1, 2, 10, 100, 738]
    assert leaks[0][1] == pytest.approx(1.626, abs=1e-3)
    assert all(row[1] <= min(row[2:]) + 1e-3 for row in leaks)


def distribute():
    with tempfile.TemporaryDirectory() as folder:
        figure = Path(folder) / "distribute.png"
        output = printed("distribute.py", "--figure", str(figure))
        assert figure.stat().st_size > 10_000
    rows = re.findall(r"^(\w.*?) +(\d) +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    pairs = {(name, int(nodes)): [*map(int, numbers)] for name, nodes, _, *numbers in rows}
    assert len(pairs) == 9
    assert pairs["QFT", 4] == [24, 12, 8]
    assert all(gate >= own >= any_node > 0 for gate, own, any_node in pairs.values())
    runs = re.findall(r"fidelity ([0-9.]+), bound ([0-9.]+), slope ([0-9.]+)", output)
    assert len(runs) == 9
    assert all(float(fidelity) >= float(bound) for fidelity, bound, _ in runs)
    assert all(float(slope) > 0 for *_, slope in runs)


def two_parties():
    """A short run: from half of the steps on every figure is within some images of the long one."""
    with tempfile.TemporaryDirectory() as folder:
        figure = Path(folder) / "parties.png"
        options = ("--steps", "150", "--depths", "1", "2", "--noisy-depth", "2")
        output = printed("two_parties.py", *options, "--out", str(figure))
        assert figure.stat().st_size > 10_000
    depth = re.findall(r"^ +(\d+) +(\d+) +(\d+) +([0-9.]+) %$", output, re.MULTILINE)
    assert [row[:3] for row in depth] == [("1", "2", "48"), ("2", "4", "96")]
    linear = float(re.search(r"on the pixels: ([0-9.]+)", output).group(1))
    assert float(depth[0][3]) < linear < float(depth[1][3])
    rows = re.findall(r"^ +([01]\.\d+) +(.*)$", output, re.MULTILINE)
    rows = [
        [float(cell.replace(",", "")) for cell in re.findall(r"[0-9.,]+", row[1])] for row in rows
    ]
    fixed, refitted, margins, shots, _ = zip(*rows, strict=True)
    assert len(rows) == 6
    assert fixed[0] - 2 < refitted[0]
    assert fixed[-1] < 75 < refitted[-1]
    assert list(margins) == sorted(margins, reverse=True)
    assert shots[-1] > 10 * shots[0]
    slopes = output.splitlines()[-2].split()
    assert len(slopes) == 4
    assert all(float(slope) < 0 for slope in slopes)


def finite_shots():
    """Tolerances are six standard errors: a mean square is one of 128 / N runs of 12 derivatives.

    So an error from N nodes is uncertain by sqrt(N / 3072) of itself, the slope of a row by 0.024
    and that of a column by 0.010 at the most.
    """
    with tempfile.TemporaryDirectory() as folder:
        figure = Path(folder) / "finite_shots.png"
        output = printed("finite_shots.py", "--figure", str(figure))
        assert figure.stat().st_size > 10_000
    rows = [line.replace("/", "").split() for line in output.splitlines()]
    rows = [[float(cell) for cell in row] for row in rows if len(row) == 10 and row[0].isdigit()]
    assert [row[0] for row in rows] == [10, 100, 1000, 10_000]
    for row in rows:
        for nodes, measured, predicted in zip((1, 2, 4, 8), row[1::2], row[2::2], strict=False):
            # Three digits are printed of each.
            assert abs(measured / predicted - 1) < 6 * math.sqrt(nodes / 3072) + 0.01
            assert predicted == pytest.approx(rows[0][2] * math.sqrt(10 / row[0] / nodes), rel=0.01)
        assert abs(row[-1] + 0.5) < 6 * 0.024
    (columns,) = re.findall(r"^slope +(.*\d)$", output, re.MULTILINE)
    assert all(abs(float(slope) + 0.5) < 6 * 0.01 for slope in columns.split())
    over_shots, over_nodes = map(
        float, re.search(r"over shots (-[0-9.]+), over nodes (-[0-9.]+);", output).groups()
    )
    assert abs(over_shots + 0.5) < 6 * 0.01
    assert abs(over_nodes + 0.5) < 6 * 0.024 / 2  # of four rows


CHECKS = {
    "distribute.py": distribute,
    "compression_traffic.py": compression_traffic,
    "conflict_audit.py": conflict_audit,
    "attacks.py": attacks,
    "finite_shots.py": finite_shots,
    "readme.py": readme,
    "train_step.py": train_step,
    "two_party_costs.py": two_party_costs,
    "which_link.py": which_link,
    "unequal_protection.py": unequal_protection,
    "two_parties.py": two_parties,
}


# `test_readme` runs readme.py among the quick tests, and compares every letter.
@pytest.mark.matrix
@pytest.mark.parametrize("name", CHECKS)
def test_the_example_prints_what_it_promises(name):
    CHECKS[name]()


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == CHECKS.keys()
