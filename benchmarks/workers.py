"""One process on each core, for benchmarks in which every side may use the whole machine."""

import multiprocessing
import os
import time
from collections.abc import Callable

CORES = 2

#: Name of a task and what it is prepared for -> the run.
Tasks = dict[str, Callable[..., Callable[[], object]]]


def _work(pipe, core: int, make_tasks: Callable[..., Tasks], arguments: tuple) -> None:
    """Runs the tasks that it is told to, and says when each is done."""
    os.sched_setaffinity(0, {core})
    tasks = make_tasks(*arguments)
    ready = {}
    while order := pipe.recv():
        name, given = order
        if order not in ready:
            ready[order] = tasks[name](*given)
        start = time.process_time()
        ready[order]()
        pipe.send(time.process_time() - start)


class Workers:
    """Processes that do the same task at the same time.

    Args:
      make_tasks: a function of a module, called in every process.
      arguments: of that function.
    """

    def __init__(self, make_tasks: Callable[..., Tasks], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        cores = sorted(os.sched_getaffinity(0))[:CORES]
        self.pipes, self.processes = [], []
        for core in cores:
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, core, make_tasks, arguments), daemon=True
            )
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, name: str, *given: object) -> float:
        """Runs one task, prepared for `given`, in all processes; their mean CPU seconds."""
        for pipe in self.pipes:
            pipe.send((name, given))
        return sum(pipe.recv() for pipe in self.pipes) / len(self.pipes)

    def close(self) -> None:
        """Ends the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()
