"""Marker files: the host's own record of what lives in each cgroup of a sandbox. `launcher.py` writes them.

They also tell what an earlier server left running in a sandbox that is not taken over yet, whatever its guest does.
"""

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of

type Lives = Literal["run", "processes", "contexts", "terminals"]

KINDS: Mapping[str, Lives] = {"processes": "processes", "contexts": "contexts", "terminals": "terminals"}


def read_marker(text: str) -> tuple[Lives | None, str]:
    """The kind and the name of what lives in the cgroup. No kind: a run, whose client waits for it."""
    kind, _, name = text.partition(" ")
    return KINDS.get(kind), name


def left_running(directory: str, cgroups: Cgroups, sandbox: str) -> Counter[str]:
    """How many of each kind run in the sandbox, by its marker files in `directory`. Asks no guest.

    Runs do not count: their clients are gone, and who takes the sandbox over ends them. Raises OSError. Blocking.
    """
    found = Counter[str]()
    with suppress(FileNotFoundError):  # it is being removed
        for run in os.listdir(directory):  # noqa: PTH208 - pathlib takes several times as long
            with suppress(FileNotFoundError):
                kind, _ = read_marker(text_of(f"{directory}/{run}"))
                if kind is not None and cgroups.run_processes(sandbox, run):
                    found[kind] += 1
    return found
