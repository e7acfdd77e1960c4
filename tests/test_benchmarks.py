"""Every benchmark runs at toy size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name, options, words",
    [
        (
            "transport",
            ["--errors", "0.001", "0.1", "--batches", "1"],
            ["stim, 2 cores", "x copy", "0.001"],
        ),
        ("collectives", ["--sizes", "64", "6400"], ["lax.pmean", "noise off", "protected"]),
        ("processes", ["--sizes", "64", "6400"], ["over 2 processes", "lax.pmean", "noise off"]),
        ("transition", ["--batch", "16"], ["TensorCircuit-NG", "with Jacobian"]),
        ("training", ["--steps", "1"], ["classical", "ring-protected", "error 1e-3"]),
        ("compiling", ["--nodes", "2", "--size", "1e3"], ["lax.pmean", "2 nodes: first"]),
        (
            "estimators",
            ["--runs", "8", "--errors", "1e-3"],
            ["quadratic, 0.001, russo", "std of a run", "bias"],
        ),
        (
            "sweep",
            ["--fraction", "0.016", "--steps", "2", "--sample", "2", "--processes", "1"],
            ["1 trace", "x sweep", "processes"],
        ),
        (
            "secure",
            ["--size", "1e3", "--batches", "1", "--sizes", "800"],
            ["SecAgg+", "stim, 2 cores", "plain ring", "X outcomes of 64 parties"],
        ),
        (
            "compressors",
            ["--channels", "2", "--only", "PowerSGD, rank 1"],
            ["lax.pmean", "PowerSGD, rank 1", "Mbit a link"],
        ),
        ("plans", ["--largest", "6"], ["Mt-KaHyPar", "QFT-6, 3 nodes"]),
        (
            "circuits",
            ["--qubits", "3", "--layers", "1", "--batch", "2", "--unrolled"],
            ["TC in a scan", "PennyLane, broadcasting", "first call, CPU s"],
        ),
        (
            "accelerator",
            ["--toy", "--seconds", "900"],
            ["dense transmit", "Threefry, consumed", "lax.pmean", "failed: nothing"],
        ),
    ],
)
def test_a_benchmark_prints_its_table_and_writes_it(name, options, words, tmp_path):
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--repeats", "1", "--folder", tmp_path]
    # Benchmarks measure compiling, too.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    run = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for word in words:
        assert word in run.stdout
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["name"] == name
    for row in found["rows"]:
        for column, value in row.items():
            assert column in run.stdout
            assert isinstance(value, str) or value > 0


def test_every_benchmark_is_run_by_make_and_by_a_test():
    helpers = {"correctness", "timing", "workers"}
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - helpers
    makefile = (BENCHMARKS.parent / "Makefile").read_text()
    listed = next(line for line in makefile.splitlines() if line.startswith("BENCHMARKS := "))
    # An accelerator is borrowed, and has no make.
    assert set(listed.split()[2:]) == scripts - {"accelerator"}
    marks = test_a_benchmark_prints_its_table_and_writes_it.pytestmark
    (cases,) = [mark.args[1] for mark in marks if mark.name == "parametrize"]
    assert {case[0] for case in cases} == scripts
