"""Claims are tested part by part; what is finished is kept, and the report says what was found."""

import dataclasses
import html.parser
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxqring._files import locked
from jaxqring.claims import CLAIMS, Answer, Claim, Finding, Number, ReproduceConfig, reproduce
from jaxqring.claims import _reproduction as reproduction
from jaxqring.claims._claim import VERDICTS
from jaxqring.claims._pages import row, shown, verdict, write_report

CHEAP = ("optimality", "overhead-and-rate")


def config(folder, *names, **fields):
    return ReproduceConfig(names or CHEAP, quick=True, out=str(folder), **fields)


def toy(parts, conclude=None):
    """A claim whose parts are functions of an effort."""

    def holds(found):
        number = Number("sum", sum(v["x"] for v in found.values()), 3.0, "by hand", claimed=3.0)
        return Finding("holds" if number.agrees else "fails", "It adds up.", (number,))

    return Claim("toy", "A toy", "nobody", "3.", "none.", parts, conclude or holds)


def with_claims(monkeypatch, *claims):
    named = {claim.name: claim for claim in claims}
    monkeypatch.setattr(reproduction, "CLAIMS", named)


def written(folder):
    return {name: (folder / name).read_bytes() for name in ("report.md", "report.html")}


def test_two_runs_write_the_same_report_and_the_second_computes_nothing(tmp_path):
    first = reproduce(config(tmp_path))
    files = written(tmp_path)
    changed = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("parts/*/*.json"))]
    assert len(changed) == sum(len(CLAIMS[name].parts) for name in CHEAP)
    again = reproduce(config(tmp_path))
    assert [t.finding for t in again] == [t.finding for t in first]
    assert [t.seconds for t in again] == [t.seconds for t in first]
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("parts/*/*.json"))] == changed
    assert written(tmp_path) == files
    reproduce(config(tmp_path / "other"))
    assert written(tmp_path / "other") == files


def test_a_reproduction_that_was_cut_off_goes_on_after_the_parts_that_are_done(
    tmp_path, monkeypatch
):
    calls = []

    def part(name, fails=False):
        def run(effort):
            calls.append(name)
            if fails and len(calls) < 3:
                raise KeyboardInterrupt
            return {"x": 1.0 if name == "one" else 2.0, "far": math.inf}

        return run

    with_claims(monkeypatch, toy({"one": part("one"), "two": part("two", fails=True)}))
    with pytest.raises(KeyboardInterrupt):
        reproduce(config(tmp_path, "toy"))
    (tested,) = reproduce(config(tmp_path, "toy"))
    assert calls == ["one", "two", "two"]
    assert tested.finding.verdict == "holds"
    assert tested.results["one"]["far"] == math.inf  # what JSON has no number for


@pytest.mark.parametrize("change", [{"seed": 1}, {"quick": False}, {"resume": False}])
def test_parts_of_another_seed_effort_or_request_are_computed_anew(tmp_path, monkeypatch, change):
    seen = []

    def part(effort):
        seen.append((effort.seed, effort.quick))
        return {"x": 3.0}

    with_claims(monkeypatch, toy({"part": part}))
    before = config(tmp_path, "toy")
    reproduce(before)
    reproduce(dataclasses.replace(before, **change))
    after = change.get("seed", 0), change.get("quick", True)
    assert seen == [(0, True), after]


def test_parts_of_other_code_are_computed_anew(tmp_path, monkeypatch):
    seen = []
    with_claims(monkeypatch, toy({"part": lambda effort: seen.append(1) or {"x": 3.0}}))
    reproduce(config(tmp_path, "toy"))
    monkeypatch.setattr(reproduction, "_code", lambda: {"jaxqring": "of tomorrow"})
    reproduce(config(tmp_path, "toy"))
    assert len(seen) == 2


@pytest.mark.parametrize("content", ['{"made_by": {"quick": tr', "[1]", '"x"', "\udcff"])
def test_what_is_no_file_of_a_part_is_computed_anew(tmp_path, monkeypatch, content):
    with_claims(monkeypatch, toy({"part": lambda effort: {"x": 3.0}}))
    reproduce(config(tmp_path, "toy"))
    files, (path,) = written(tmp_path), tmp_path.glob("parts/*/*.json")
    path.write_bytes(content.encode(errors="surrogateescape"))
    (tested,) = reproduce(config(tmp_path, "toy"))
    assert tested.results == {"part": {"x": 3.0}}
    assert written(tmp_path) == files


def test_a_folder_of_another_process_or_none_is_refused_before_any_part(tmp_path, monkeypatch):
    calls = []
    with_claims(monkeypatch, toy({"part": lambda effort: calls.append(1) or {"x": 3.0}}))
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match="`out` must name a folder in which no other process works"),
    ):
        reproduce(config(tmp_path, "toy"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        reproduce(config(tmp_path / "file", "toy"))
    assert calls == []


def test_a_report_names_the_command_that_writes_it(tmp_path):
    assert ReproduceConfig().command == "jaxqring reproduce --seed 0"
    some = config(tmp_path, "tie-audit", "gap-ip", seed=2)
    assert some.command == "jaxqring reproduce gap-ip tie-audit --quick --seed 2"


def test_witnesses_that_disagree_are_no_verdict(tmp_path, monkeypatch):
    with_claims(monkeypatch, toy({"part": lambda effort: {"x": 3.1}}))
    (tested,) = reproduce(config(tmp_path, "toy"))
    assert [number.name for number in tested.finding.disputed] == ["sum"]
    assert verdict(tested) == row(tested)[-1] == "witnesses disagree"
    assert "Witnesses disagree:" in (tmp_path / "report.md").read_text()


def test_numbers_agree_within_their_tolerance_alone():
    exact = Number("n", 2.0, 2.0 + 1e-9, "w")
    assert exact.agrees
    assert not dataclasses.replace(exact, second=2.0 + 1e-8).agrees
    assert dataclasses.replace(exact, second=2.5, within=0.5).agrees
    assert not dataclasses.replace(exact, second=2.5, within=0.49).agrees
    assert Number("n", math.inf, math.inf, "w").agrees
    assert not Number("n", math.inf, 1.0, "w", within=math.inf).agrees
    assert not Number("n", math.nan, math.nan, "w").agrees


def test_what_cannot_be_a_finding_or_a_request_is_refused():
    with pytest.raises(ValueError, match="`numbers` must hold a number with two witnesses"):
        Finding("holds", "", ())
    number = Number("n", 1.0, 1.0, "w")
    with pytest.raises(ValueError, match="`verdict` must be one of 'holds', 'holds if'"):
        Finding("maybe", "", (number,))
    with pytest.raises(ValueError, match="`within` must"):
        Number("n", 1.0, 1.0, "w", within=-1.0)
    with pytest.raises(ValueError, match="`claims` must be one of 'factor-of-two'"):
        ReproduceConfig(("no-such-claim",))
    with pytest.raises(ValueError, match="`claims` must be a tuple of names, but got 'gap-ip'"):
        ReproduceConfig("gap-ip")
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        ReproduceConfig(seed=-1)


def test_every_claim_has_a_name_a_source_and_parts():
    for name, claim in CLAIMS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), name
        assert name == claim.name
        for text in (claim.title, claim.source, claim.says, claim.reading):
            assert text.strip() == text != ""
        assert claim.says.endswith((".", "?")), name
        assert claim.reading.endswith("."), name
        assert claim.parts


class Tags(html.parser.HTMLParser):
    """Opens and closes of elements, but for those that have no end."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], 0

    def handle_starttag(self, tag, attrs):
        self.cells += tag == "td"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_has_every_number_and_its_page_is_well_formed(tmp_path):
    numbers = (
        Number("x < y | z", 1 / 3, 1 / 3, "long division", claimed=0.3),
        Number("big", 123456789.0, 123456789.0, "counting"),
    )
    found = Finding("holds if", "It is <so>.", numbers)
    claim = toy({})
    write_report(config(tmp_path, *CLAIMS, seed=3), [Answer(claim, found, {}, 1.0)])
    text = (tmp_path / "report.md").read_text()
    assert "| x < y / z | 0.3 | 0.333333 | 0.333333 | long division |" in text
    assert "| big | - | 1.23457e+08 | 1.23457e+08 | counting |" in text
    assert f"`jaxqring reproduce {' '.join(CLAIMS)} --quick --seed 3`" in text
    tags = Tags()
    page = (tmp_path / "report.html").read_text()
    tags.feed(page)
    assert tags.open == []
    assert tags.cells == 6 + 2 * 5
    assert "x &lt; y | z" in page
    assert shown(-2.0) == "-2"


@pytest.mark.matrix
def test_all_claims_have_two_witnesses_that_agree(tmp_path):
    command = [sys.executable, "-m", "jaxqring.cli", "reproduce", "--quick", "--seed", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "report.md").read_text().splitlines()
    table = [line.split(" | ") for line in lines if line.count(" | ") == 5][2:]
    assert [line[0].strip("| ") for line in table] == list(CLAIMS)
    assert {line[-1].strip(" |") for line in table} <= set(VERDICTS)
    for claim in CLAIMS.values():
        assert (tmp_path / f"{claim.name}.png").exists() == (claim.draw is not None)


@pytest.mark.matrix
def test_killed_at_random_moments_the_command_ends_in_the_same_report(tmp_path):
    names = ("optimality", "lifetime", "overhead-and-rate", "twice-the-copies", "lqsgd-sizes")
    command = [sys.executable, "-m", "jaxqring.cli", "reproduce", "--quick", *names, "--out"]
    start = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole = time.monotonic() - start
    rng, kills = np.random.default_rng(), 0
    for _ in range(40):
        process = subprocess.Popen(
            [*command, str(tmp_path / "cut")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Never the whole time at first; later there is less to do.
        time.sleep(whole * rng.uniform(0.3, 0.8))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        for path in (tmp_path / "cut").glob("parts/*/*.json"):
            json.loads(path.read_text())  # whole or not there
    assert process.wait() == 0
    assert kills >= 1
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
