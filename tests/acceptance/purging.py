"""Purges a data directory as `buntime purge --yes` does, in a fork of a process that has imported all it needs.

Tests purge some hundred times, and most of the time of the command is its imports. The command has tests of its own.
"""

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path

from buntime.config import from_environment

SECONDS = 120.0  # a guard against a hang

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["buntime.admin.purging", "tests.acceptance.purging"])


def purge(environment: Mapping[str, str], log: Path) -> int | None:
    """Returns the exit code, or None if the purge does not end. Its stderr is appended to the log."""
    process = _forks.Process(target=_purge, args=(dict(environment), log), name="purge")
    process.start()
    process.join(SECONDS)
    return process.exitcode


def _purge(environment: Mapping[str, str], log: Path) -> None:
    from buntime.admin.purging import purge

    with log.open("ab") as stderr:
        os.dup2(stderr.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    purge(from_environment(os.environ))
