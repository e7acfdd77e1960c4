"""Processes of one host, which their parent starts, watches, and starts again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxqring import _checks as checks
from jaxqring.launch._stopping import STOPPED, caught

#: Names, for a child, the end of a pipe that closes when its parent ends.
PARENT = "JAXQRING_PARENT"

#: Exit statuses that another start would not change: a wrong request, and a missing package or a
#: file that cannot be written.
FINAL = (1, 2)

#: Exit status of a process that was left by another.
LEFT = 70

#: Seconds between two looks at the children.
_INTERVAL = 0.05

#: Seconds after which a child that has not failed with those that it left is taken to hang.
_PATIENCE = 1.0


def supervise(
    command: Sequence[str],
    processes: int,
    *,
    progress: Callable[[], Any],
    restarts: int = 3,
    after: Callable[[int, int], int] = lambda rank, processes: processes,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Runs a command in several processes at once, and all of them again if one dies.

    Each has `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` in its environment, for
    `jaxqring.launch.initialize`. The first one writes to the terminal, the others do not. When one
    ends with another status than 0, the rest are killed. All begin anew, and are to go on from
    their last checkpoint, unless the status is that of a refusal, 1 or 2, or `restarts` starts in
    a row have brought no progress. SIGTERM is handed on to all, and then nothing starts again. No
    child that has called `initialize` outlives its parent, not even one that is killed.

    Args:
      command: the program and its arguments.
      processes: their number.
      progress: a value that is another one after every step worth keeping.
      restarts: without progress, after which it gives up.
      after: takes the number of the process that was lost, counted from 0, and that of all to that
        of the processes of the next start; as many by default.
      say: shows a line to the user.

    Returns:
      0, or the status of the process that failed; 128 plus its number for a signal.

    Raises:
      ValueError: if a count is not an integer, `processes` is below 1, or `restarts` below 0.

    >>> supervise([sys.executable, "-c", "pass"], 2, progress=lambda: None)
    0
    """
    checks.integer("processes", processes)
    checks.integer("restarts", restarts, 0)
    before, vain = progress(), 0
    while True:
        rank, status, asked = _once(command, processes, say)
        if status == 0 or status in FINAL or asked:
            return status
        reached = progress()
        vain, before = (0 if reached != before else vain + 1), reached
        if vain > restarts:
            say(f"gave up after {restarts} restarts without progress")
            return status
        if status not in (STOPPED, LEFT, 128 + signal.SIGABRT):  # others may be started anew
            processes = after(rank, processes)
        again = "one process starts" if processes == 1 else f"{processes} processes start"
        say(f"{again} again, from the last checkpoint")


def _once(
    command: Sequence[str], processes: int, say: Callable[[str], None]
) -> tuple[int, int, bool]:
    """Starts the processes and ends with them.

    Returns:
      The number and the status of the one that failed, and true if SIGTERM has come.
    """
    port, (end, kept) = _free_port(), os.pipe()
    children: list[subprocess.Popen] = []

    def hand_on(number: int) -> None:
        for child in children:
            child.send_signal(number)

    with tempfile.TemporaryDirectory() as folder, caught(hand_on) as asked:
        try:
            for rank in range(processes):
                found = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
                found |= {"MASTER_PORT": port, PARENT: end}
                environment = os.environ | {name: str(value) for name, value in found.items()}
                quiet: dict[str, Any] = {}
                with open(os.path.join(folder, str(rank)), "wb") as errors:
                    if rank:
                        quiet = {"stdout": subprocess.DEVNULL, "stderr": errors}
                    # In a session of its own, so that Ctrl-C reaches the parent alone.
                    children.append(
                        subprocess.Popen(
                            command,
                            env=environment,
                            pass_fds=(end,),
                            start_new_session=True,
                            **quiet,
                        )
                    )
            if asked.is_set():  # before all of them were there
                hand_on(signal.SIGTERM)
            rank, status = _first_failure(children)
            if status and not asked.is_set():
                say(f"process {rank} of {processes} {_in_words(status)}")
                if rank and status in (*FINAL, LEFT):
                    with open(os.path.join(folder, str(rank)), errors="replace") as said:
                        sys.stderr.write(said.read())
            return rank, status if status >= 0 else 128 - status, asked.is_set()
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.wait()
            os.close(end)
            os.close(kept)


def _first_failure(children: Sequence[subprocess.Popen]) -> tuple[int, int]:
    """The number and the status of the child that failed; (0, 0) once all have ended well.

    A child that was left by another one fails soon after it, or before it where the other one
    hangs: that is then still there.
    """
    patience = _PATIENCE
    while True:
        statuses = [child.poll() for child in children]
        failed = [(rank, status) for rank, status in enumerate(statuses) if status]
        by_itself = [one for one in failed if one[1] not in (LEFT, -signal.SIGABRT)]
        if by_itself:
            return by_itself[0]
        if failed and patience <= 0:
            hangs = [rank for rank, status in enumerate(statuses) if status is None]
            return (hangs[0], -signal.SIGKILL) if hangs else failed[0]
        if not failed and all(status == 0 for status in statuses):
            return 0, 0
        time.sleep(_INTERVAL)
        patience -= _INTERVAL if failed else 0


def _in_words(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_child() -> bool:
    """True in a process that `supervise` has started."""
    return PARENT in os.environ


def follow_parent() -> None:
    """Ends this process when its parent does, if `supervise` has started it."""
    if not is_child():
        return
    end = int(os.environ[PARENT])

    def wait() -> None:
        os.read(end, 1)  # nothing is ever written: it returns when the other end closes
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
