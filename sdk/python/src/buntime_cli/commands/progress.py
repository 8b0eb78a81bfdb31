"""Shows the progress of a copy on stderr, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int | None], object]


@contextmanager
def moving(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """The progress callback for the SDK: bytes moved, bytes in total. None if nobody is watching."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        *(progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn()),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=None)
        yield lambda moved, total: shown.update(task, completed=moved, total=total)
