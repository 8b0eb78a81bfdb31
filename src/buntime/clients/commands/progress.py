"""How far a copy is, on stderr, where a person looks at it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int | None], object]


@contextmanager
def moving(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Gives what is told of the bytes moved so far and of all, as the SDK takes it; None where nobody looks."""
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
