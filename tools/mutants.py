"""Changes the package line by line, each change in a copy, and notes which of them the tests find.

The table is tools/mutants.toml. The tests that a mutant names run first, then all of its room: it
is "killed" if one of them fails, and has "survived" if they all pass. With --named-only the named
tests run alone; what they do not kill has "survived named tests", and a run without it tries all.
That the tests pass without a mutant is found out first; where they do not, nothing can be said.
What is recorded already is not run again, so that a run may be cut off at any time.

    python tools/mutants.py                    # all of the table, hours on one core
    python tools/mutants.py mask-reuse         # only these
    python tools/mutants.py --named-only       # only the tests that a mutant names
    python tools/mutants.py --check            # whether every mutant still finds its line
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "jaxqring"
NOT_COPIED = (".git", ".venv*", ".cache", "runs", "dist", "__pycache__", ".*_cache")
#: Outcomes that say nothing about a mutant: they are tried again.
UNKNOWN = ("no baseline", "stale")
#: Of a mutant that its named tests do not kill, where no others ran.
SURVIVED_NAMED = "survived named tests"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one line in a room of the package.

    Attributes:
      name: of the mutant, unique.
      room: a folder of the package; "." for its own files.
      old: what stands exactly once in the files of the room.
      new: what is put in its place.
      tests: names of test files without ".py", from the tests of the room.
    """

    name: str
    room: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()[:12]

    def file(self, root: Path) -> Path | None:
        """The file with the line; None unless there is exactly one."""
        files = sorted((root / PACKAGE / self.room).glob("*.py"))
        found = [path for path in files for _ in range(path.read_text().count(self.old))]
        return found[0] if len(found) == 1 else None

    def stages(self, root: Path) -> list[list[str]]:
        """Arguments of pytest for the named tests, and for the others of the room."""
        folder = Path(os.path.normpath(f"tests/{self.room}"))
        named = [os.path.normpath(folder / f"{name}.py") for name in self.tests]
        if self.room == "." or not (root / folder).is_dir():
            return [named]
        others = sorted(str(path.relative_to(root)) for path in (root / folder).glob("test_*.py"))
        left = [path for path in others if path not in named]
        return [named, left] if left else [named]


def load(table: Path) -> list[Mutant]:
    """The mutants of a table."""
    rows = tomllib.loads(table.read_text())["mutant"]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


class Copy:
    """A copy of the repository in which tests run, one mutant after the other."""

    def __init__(self, root: Path, folder: Path, most_seconds: float, cache: Path) -> None:
        self.root = folder / "copy"
        shutil.copytree(root, self.root, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        self.most_seconds = most_seconds
        # Without bytecode: a mutant may have the size and the second of the file before it.
        self.environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)),
        }

    def run(self, tests: list[str]) -> tuple[str, str]:
        """The outcome of tests, "passed", "failed" or "broken", and the first that failed."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
        lane = ["-m", "not statistics and not matrix"]
        try:
            done = subprocess.run(
                [*command, *lane, *tests],
                cwd=self.root,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=self.most_seconds,
            )
        except subprocess.TimeoutExpired:
            return "failed", f"not done after {self.most_seconds:g} s"
        first = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
        if done.returncode in (0, 5):  # 5: no test of these is in the lane
            return "passed", ""
        if first is None:
            return "broken", (done.stdout + done.stderr)[-500:]
        return "failed", first[1]


def judge(
    mutant: Mutant, copy: Copy, baselines: dict[str, bool], named_only: bool = False
) -> dict[str, str | float]:
    """The verdict of tests on a mutant, of all of its room or of those that it names alone."""
    path = mutant.file(copy.root)
    if path is None:
        return {"outcome": "stale", "seconds": 0.0, "by": "its line is not there exactly once"}
    seconds = 0.0
    whole = path.read_text()
    stages = mutant.stages(copy.root)
    for tests in stages[:1] if named_only else stages:
        key = " ".join(tests)
        if key not in baselines:
            baselines[key] = copy.run(tests)[0] == "passed"
        if not baselines[key]:
            return {"outcome": "no baseline", "seconds": seconds, "by": key}
        path.write_text(whole.replace(mutant.old, mutant.new))
        begin = time.monotonic()
        try:
            outcome, by = copy.run(tests)
        finally:
            path.write_text(whole)
        seconds += time.monotonic() - begin
        if outcome == "broken":  # pytest itself did not work
            return {"outcome": "no baseline", "seconds": seconds, "by": by}
        if outcome == "failed":
            return {"outcome": "killed", "seconds": round(seconds, 1), "by": by}
    outcome = SURVIVED_NAMED if named_only and len(stages) > 1 else "survived"
    return {"outcome": outcome, "seconds": round(seconds, 1), "by": ""}


def run(
    root: Path,
    mutants: list[Mutant],
    results: Path,
    most_seconds: float,
    cache: Path,
    named_only: bool = False,
) -> Iterator[tuple[Mutant, dict]]:
    """Judges the mutants that `results`, a JSON file, does not have yet; adds them and a table."""
    done = json.loads(results.read_text()) if results.exists() else {}
    for mutant in mutants:  # a line that has changed may be another one
        if done.get(mutant.name, {}).get("digest") != mutant.digest:
            done.pop(mutant.name, None)
    again = UNKNOWN if named_only else (*UNKNOWN, SURVIVED_NAMED)
    left = [m for m in mutants if done.get(m.name, {}).get("outcome", "stale") in again]
    results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy, baselines = Copy(root, Path(folder), most_seconds, cache), {}
        for mutant in left:
            found = {"digest": mutant.digest, "room": mutant.room}
            done[mutant.name] = found | judge(mutant, copy, baselines, named_only)
            results.write_text(json.dumps(done, indent=1) + "\n")
            results.with_suffix(".md").write_text(markdown(done))
            yield mutant, done[mutant.name]


def markdown(done: dict[str, dict]) -> str:
    """A table of what is recorded, survivors first."""
    order = sorted(done, key=lambda name: (done[name]["outcome"] == "killed", name))
    rows = [
        f"| {done[name]['room']} | {name} | {done[name]['outcome']} | {done[name]['seconds']:.1f} |"
        f" {' '.join(done[name]['by'].split())} |"
        for name in order
    ]
    killed = sum(found["outcome"] == "killed" for found in done.values())
    survived = sum(found["outcome"].startswith("survived") for found in done.values())
    return "\n".join(
        [
            f"{killed} of {killed + survived} mutants are killed.",
            "",
            "| Room | Mutant | Outcome | Seconds | By |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these mutants")
    parser.add_argument("--check", action="store_true", help="look for their lines, run nothing")
    parser.add_argument(
        "--named-only", action="store_true", help="run the tests that a mutant names, no others"
    )
    parser.add_argument("--table", type=Path, default=ROOT / "tools" / "mutants.toml")
    parser.add_argument("--results", type=Path, default=ROOT / ".cache" / "mutants.json")
    parser.add_argument("--seconds", type=float, default=1800, help="the most for a run of tests")
    options = parser.parse_args()
    mutants = load(options.table)
    if unknown := {*options.names} - {mutant.name for mutant in mutants}:
        parser.error(f"no mutant has the name {', '.join(sorted(unknown))}")
    mutants = [each for each in mutants if not options.names or each.name in options.names]
    if options.check:
        stale = [mutant for mutant in mutants if mutant.file(ROOT) is None]
        for mutant in stale:
            print(f"{mutant.name}: not exactly once in {mutant.room}: {mutant.old}")
        sys.exit(bool(stale))
    cache = ROOT / ".cache" / "jax" / "mutants"
    limits = options.results, options.seconds, cache, options.named_only
    for mutant, found in run(ROOT, mutants, *limits):
        line = (
            f"{found['outcome']:20} {mutant.room}/{mutant.name} {found['seconds']} s {found['by']}"
        )
        print(line, flush=True)


if __name__ == "__main__":
    main()
