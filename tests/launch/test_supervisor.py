"""Children of a parent: started together, ended together, started again. Plain Python children."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from launched import running

from jaxqring.launch import supervise
from jaxqring.launch._stopping import STOPPED
from jaxqring.launch._supervisor import LEFT, PARENT, _first_failure


def command(code):
    return [
        sys.executable,
        "-c",
        f"import os, sys, time, signal; rank = os.environ['RANK']; {code}",
    ]


def nothing():
    return None


def test_every_child_knows_its_place(tmp_path):
    names = "('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')"
    write = f"print(*map(os.environ.get, {names}), file=open(sys.argv[1] + '/' + rank, 'w'))"
    assert supervise([*command(write), str(tmp_path)], 3, progress=nothing) == 0
    found = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [place[:3] for place in found] == [[str(i), "3", "127.0.0.1"] for i in range(3)]
    assert len({place[3] for place in found}) == 1


@pytest.mark.parametrize("status", [1, 2])
def test_a_refusal_ends_all_and_is_shown_once(status, capfd):
    refuse = (
        "sys.stderr.write('refused ' + rank) if rank == '1' else time.sleep(60);"
        f" sys.exit({status})"
    )
    start = time.monotonic()
    assert supervise(command(refuse), 2, progress=nothing) == status
    assert time.monotonic() - start < 30
    assert capfd.readouterr().err == "refused 1"


def test_all_start_again_until_there_is_no_progress(tmp_path):
    """Two starts that come further, and then restarts that do not."""
    count = (
        "path = sys.argv[1] + '/' + rank;"
        " open(path, 'a').write('.'); os.kill(os.getpid(), signal.SIGKILL) if rank == '0' else"
        " time.sleep(60)"
    )
    starts = tmp_path / "0"
    said = []

    def progress():
        return min(len(starts.read_text()), 2) if starts.exists() else 0

    status = supervise(
        [*command(count), str(tmp_path)], 2, progress=progress, restarts=3, say=said.append
    )
    assert status == 128 + signal.SIGKILL
    assert len(starts.read_text()) == 2 + 4
    assert said[0] == "process 0 of 2 was ended by SIGKILL"
    assert said[-1] == "gave up after 3 restarts without progress"


def test_the_next_start_has_as_many_processes_as_is_said(tmp_path):
    """The second of three dies, then the second of two; one alone ends well."""
    note = (
        "count = os.environ['WORLD_SIZE']; open(sys.argv[1] + '/' + count, 'a').write(rank);"
        " os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else"
        " time.sleep(60 if count != '1' else 0)"
    )
    seen, said = [], []

    def after(rank, processes):
        seen.append((rank, processes))
        return processes - 1

    status = supervise(
        [*command(note), str(tmp_path)], 3, progress=nothing, after=after, say=said.append
    )
    assert status == 0
    assert seen == [(1, 3), (1, 2)]
    assert (tmp_path / "1").read_text() == "0"
    assert said[-1] == "one process starts again, from the last checkpoint"


def test_a_process_that_stopped_on_request_is_not_lost(tmp_path):
    once = (
        "path = sys.argv[1] + '/' + rank; there = os.path.exists(path); open(path, 'a').close();"
        f" sys.exit(0 if there else {STOPPED})"
    )

    def after(rank, processes):
        raise AssertionError

    said = []
    status = supervise(
        [*command(once), str(tmp_path)], 2, progress=nothing, after=after, say=said.append
    )
    assert status == 0
    assert said[-1] == "2 processes start again, from the last checkpoint"


def test_sigterm_is_handed_on_and_nothing_starts_again(tmp_path):
    child = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        " open(sys.argv[1] + '/' + rank, 'a').write('.'); time.sleep(60)"
    )
    files = [tmp_path / "0", tmp_path / "1"]

    def ask():
        while not all(file.exists() and file.read_text() for file in files):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    assert supervise([*command(child), str(tmp_path)], 2, progress=nothing) == 7
    thread.join()
    assert [file.read_text() for file in files] == [".", "."]


def test_a_child_that_others_left_is_not_blamed():
    class Ended:
        def __init__(self, status):
            self.poll = lambda: status

    assert _first_failure([Ended(LEFT), Ended(None), Ended(-9)]) == (2, -9)
    # The one that is still there, when those that it left have ended, hangs.
    assert _first_failure([Ended(LEFT), Ended(-signal.SIGABRT), Ended(None)]) == (2, -9)
    assert _first_failure([Ended(LEFT), Ended(LEFT)]) == (0, LEFT)
    assert _first_failure([Ended(0), Ended(0)]) == (0, 0)


def test_no_child_outlives_a_parent_that_is_killed(tmp_path):
    child = (
        "from jaxqring.launch import initialize; initialize();"
        " open(sys.argv[1] + '/' + rank, 'w').write(str(os.getpid())); time.sleep(120)"
    )
    parent = (
        "import sys; from jaxqring.launch import supervise;"
        " supervise(sys.argv[1:], 2, progress=lambda: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, *command(child), str(tmp_path)])
    try:
        files = [tmp_path / "0", tmp_path / "1"]
        deadline = time.monotonic() + 120
        while not all(file.exists() and file.read_text() for file in files):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = [int(file.read_text()) for file in files]
        assert all(map(running, children))
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while any(map(running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_bad_counts_are_refused():
    for arguments, name in (((["true"], 0), "processes"), ((["true"], True), "processes")):
        with pytest.raises(ValueError, match=rf"^`{name}` must be an integer"):
            supervise(*arguments, progress=nothing)
    with pytest.raises(ValueError, match=r"^`restarts` must be an integer"):
        supervise(["true"], 1, progress=nothing, restarts=-1)
    assert PARENT not in os.environ
