"""The table of mutants fits the package, and the harness tells killed ones from survivors."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def mutants():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_mutant_changes_one_line_of_its_room_to_another_program(mutants):
    table = mutants.load(ROOT / "tools" / "mutants.toml")
    assert len({mutant.name for mutant in table}) == len(table) >= 60
    rooms = {path.parent.name for path in (ROOT / "jaxqring").glob("*/__init__.py")}
    assert {mutant.room for mutant in table} == rooms | {"."}
    stale = [mutant.name for mutant in table if mutant.file(ROOT) is None]
    assert not stale, "their lines are not there exactly once"
    for mutant in table:
        before = mutant.file(ROOT).read_text()
        after = ast.dump(ast.parse(before.replace(mutant.old, mutant.new)))
        assert after != ast.dump(ast.parse(before)), mutant.name
        for tests in mutant.stages(ROOT):
            assert all((ROOT / path).is_file() for path in tests), mutant.name


CONFIG = """
[tool.pytest.ini_options]
markers = ["statistics", "matrix"]
"""
TESTS = """
import pytest
from jaxqring.room import code

def test_double():
    assert code.double(3) == 6

@pytest.mark.matrix
def test_triple():
    assert code.triple(3) == 9
"""


@pytest.mark.matrix
def test_the_harness_tells_killed_mutants_from_survivors_and_goes_on(
    mutants, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the half of what this costs
    files = {
        "pyproject.toml": CONFIG,
        "jaxqring/__init__.py": "",
        "jaxqring/room/__init__.py": "",
        "jaxqring/room/code.py": "def double(x):\n    return 2 * x\n\n\n"
        "def triple(x):\n    return 3 * x\n",
        "tests/room/test_code.py": TESTS,
        "tests/room/test_other.py": "from jaxqring.room import code\n\n"
        "def test_zero():\n    assert code.triple(0) == 0\n",
        "tests/test_red.py": "def test_red():\n    assert False\n",
    }
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    make = mutants.Mutant
    table = [
        make("first stage", "room", "2 * x", "2 + x", ("test_code",)),
        make("second stage", "room", "3 * x", "3 + x", ("test_code",)),
        make("survivor", "room", "3 * x", "4 * x", ("test_code",)),
        make("not there", "room", "4 * x", "5 * x", ("test_code",)),
        make("red before", "room", "2 * x", "3 * x", ("../test_red",)),
    ]
    results = tmp_path / "results.json"
    settings = results, 60, tmp_path / "cache"
    some = [mutant for mutant in table if mutant.name in ("first stage", "second stage")]
    found = {m.name: f["outcome"] for m, f in mutants.run(root, some, *settings, named_only=True)}
    assert found == {"first stage": "killed", "second stage": "survived named tests"}
    assert "1 of 2 mutants are killed" in results.with_suffix(".md").read_text()
    assert not list(mutants.run(root, some, *settings, named_only=True))
    # The others of the room run now, for what the named tests did not kill.
    found = {m.name: f for m, f in mutants.run(root, table[1:], *settings)}
    outcomes = {name: (each["outcome"], each["by"]) for name, each in found.items()}
    assert outcomes == {
        "second stage": ("killed", "tests/room/test_other.py::test_zero"),
        "survivor": ("survived", ""),
        "not there": ("stale", "its line is not there exactly once"),
        "red before": ("no baseline", "tests/test_red.py"),
    }
    recorded = json.loads(results.read_text())
    assert recorded.pop("first stage")["by"] == "tests/room/test_code.py::test_double"
    assert recorded == found
    assert "2 of 3 mutants are killed" in results.with_suffix(".md").read_text()
    assert (root / "jaxqring/room/code.py").read_text() == files["jaxqring/room/code.py"]
    # What is known is not run again; a changed mutant and what is not known are.
    table[0] = make("first stage", "room", "2 * x", "1 * x + x", ("test_code",))
    table = [mutant for mutant in table if mutant.name != "red before"]
    again = {m.name: f for m, f in mutants.run(root, table, *settings)}
    assert {name: each["outcome"] for name, each in again.items()} == {
        "first stage": "survived",
        "not there": "stale",
    }
