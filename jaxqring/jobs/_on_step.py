"""Metrics of a training for other programs, step by step."""

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxqring._extras import needs

#: Called with the name of the run, the step, and the numbers of its line of metrics.
OnStep = Callable[[str, int, dict[str, float]], None]


def tensorboard(folder: str | Path) -> OnStep:
    """A function for `jaxqring.jobs.train` that writes the metrics for TensorBoard.

    Each run has a folder of its own. A run that goes on from a checkpoint says so with the first
    step that it computes, and TensorBoard leaves out what an earlier process wrote of that step and
    of later ones. Every step is in the file when the function returns.

    Args:
      folder: for the folders of the runs; `tensorboard --logdir FOLDER` shows them.

    Returns:
      The function, for `on_step`.

    Raises:
      ImportError: without tensorboardX, of the extra `tensorboard`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     on_step = tensorboard(folder)
    ...     on_step("ideal", 1, {"loss": 2.3})
    ...     [path.name for path in Path(folder).iterdir()]
    ['ideal']
    """
    with needs("tensorboard", "A log for TensorBoard"):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar
    writers: dict[str, Any] = {}

    def on_step(run: str, step: int, metrics: dict[str, float]) -> None:
        if run not in writers:
            place = Path(folder) / run
            place.mkdir(parents=True, exist_ok=True)
            # Not `SummaryWriter`, whose thread may lose the last steps of a process that ends.
            writers[run] = EventsWriter(str(place / "events"), f".from{step}")
            start = SessionLog(status=SessionLog.START)
            writers[run].write_event(Event(wall_time=time.time(), step=step, session_log=start))
        for name, value in metrics.items():
            summary = scalar(name, value)
            writers[run].write_event(Event(wall_time=time.time(), step=step, summary=summary))
        writers[run].flush()

    def close() -> None:
        for writer in writers.values():
            writer.close()

    weakref.finalize(on_step, close)
    return on_step
