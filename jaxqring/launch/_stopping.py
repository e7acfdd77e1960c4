"""SIGTERM as a request: the processes of a job stop at a step that they have in common."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

#: Exit status of a process that stopped on request: 128 plus the number of SIGTERM.
STOPPED = 128 + signal.SIGTERM


class Stopped(SystemExit):
    """Raised where a job has stopped on request; ends the process with status 143 if not caught."""

    def __init__(self, where: str) -> None:
        super().__init__(STOPPED)
        self.where = where


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Takes SIGTERM for a request, and gives a function that is true where it is to be met.

    Every process calls that function once after each step; it is true on all of them after the
    same step. Over several processes JAX's preemption service agrees on that step, if
    `jaxqring.launch.initialize(preemption=True)` has asked for it. A single process hears the
    signal by itself, as `caught` does.
    """
    if jax.process_count() > 1:
        served = jax.config.jax_enable_preemption_service  # type: ignore[attr-defined]
        yield _of_all() if served else lambda: False
        return
    with caught(lambda number: None) as asked:
        yield asked.is_set


@contextlib.contextmanager
def caught(also: Callable[[int], Any]) -> Iterator[threading.Event]:
    """Sets an event when SIGTERM comes, and calls a function with the number of the signal.

    Only the main thread of a program may take signals; in another one nothing is caught.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        asked.set()
        also(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _of_all() -> Callable[[], bool]:
    calls = 0

    def asked() -> bool:
        nonlocal calls
        calls += 1
        return multihost_utils.reached_preemption_sync_point(calls)

    return asked
