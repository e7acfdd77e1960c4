"""Every benchmark runs at toy size."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, options, words",
    [
        ("collectives.py", ["--sizes", "64", "--repeats", "1"], ["lax.pmean", "noise off"]),
        ("transport.py", ["--errors", "0.1", "--repeats", "1"], ["jaxqring", "stim", "ratio"]),
    ],
)
def test_a_benchmark_prints_its_table(script, options, words):
    run = subprocess.run(
        [sys.executable, BENCHMARKS / script, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for word in words:
        assert word in run.stdout
