"""Progress bars on a console, and silence without one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxqring._extras import needs

if TYPE_CHECKING:
    from rich.console import Console

#: `advance(count, note=None)` moves a bar on, and changes what is written beside it.
Advance = Callable[..., None]


@contextmanager
def progress_bars(console: "Console | None") -> Iterator[Callable[..., Advance]]:
    """Shows bars, one below the other, until the context ends.

    Args:
      console: that shows them; None for silence, which needs no further package.

    Yields:
      `bar(name, total, done=0, note="") -> advance`, which starts another bar.

    >>> with progress_bars(None) as bar:
    ...     advance = bar("points", total=10, done=2)
    ...     advance(3, note="three more")
    """
    if console is None:
        yield lambda name, total, done=0, note="": lambda count, note=None: None
        return
    with needs("train", "A progress bar"):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    columns = (
        TextColumn("{task.description:>12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:

        def bar(name: str, total: int, done: int = 0, note: str = "") -> Advance:
            task = progress.add_task(name, total=total, completed=done, note=note)

            def advance(count: int, note: str | None = None) -> None:
                if note is not None:
                    progress.update(task, note=note)
                progress.advance(task, count)

            return advance

        yield bar
