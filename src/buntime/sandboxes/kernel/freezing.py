"""Freezes all sandboxes of a server at once, by the one cgroup above them. Quick, but for what a docstring says.

A sandbox that is frozen by itself stays so when the group above it thaws.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from buntime.sandboxes.kernel.cgroup_tree import children_of, field_of, pids_of, put_if_there, signal_members, text_of
from buntime.sandboxes.kernel.cgroup_version import ROOT

LOOK_SECONDS = 0.01  # between two looks at what is not frozen yet, or has not ended
FREEZE_SECONDS = 1.0  # that ending waits for a freeze, and then for the ends


class Freezer(Protocol):
    def freeze(self) -> None: ...
    def is_frozen(self) -> bool: ...
    def thaw(self) -> None: ...
    def kill_unfrozen(self) -> None:
        """Sends SIGKILL to every process of a sandbox that is not frozen as a whole."""
        ...

    def end(self) -> None:
        """Sends SIGKILL to every process of every sandbox, and then thaws all, also what was frozen by itself."""
        ...

    def is_empty(self) -> bool:
        """Whether no sandbox has a process."""
        ...


class FreezerV1:
    """`group`: in the hierarchy of the freezer. A frozen process dies of SIGKILL when it thaws, before it runs."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def freeze(self) -> None:
        self._group.mkdir(exist_ok=True)  # what is started below it later is frozen too
        (self._group / "freezer.state").write_text("FROZEN")

    def is_frozen(self) -> bool:
        return _is_frozen_v1(self._group)

    def thaw(self) -> None:
        put_if_there(self._group / "freezer.state", "THAWED")

    def kill_unfrozen(self) -> None:
        for name in children_of(self._group):
            sandbox = self._group / name
            if not _is_frozen_v1(sandbox):
                _kill_v1(sandbox)

    def end(self) -> None:
        _kill_v1(self._group)
        for group in _tree(self._group):
            put_if_there(group / "freezer.state", "THAWED")

    def is_empty(self) -> bool:
        return _is_empty(self._group)


class FreezerV2:
    def __init__(self, group: Path) -> None:
        self._group = group

    def freeze(self) -> None:
        self._group.mkdir(exist_ok=True)
        (self._group / "cgroup.freeze").write_text("1")

    def is_frozen(self) -> bool:
        return _is_frozen_v2(self._group)

    def thaw(self) -> None:
        put_if_there(self._group / "cgroup.freeze", "0")

    def kill_unfrozen(self) -> None:
        for name in children_of(self._group):
            sandbox = self._group / name
            if not _is_frozen_v2(sandbox):
                put_if_there(sandbox / "cgroup.kill", "1")

    def end(self) -> None:
        """A frozen process dies of it, too."""
        put_if_there(self._group / "cgroup.kill", "1")
        for group in _tree(self._group):
            put_if_there(group / "cgroup.freeze", "0")

    def is_empty(self) -> bool:
        return _is_empty(self._group)


def find_freezer(instance: str) -> Freezer:
    group = group_above(instance)
    return FreezerV2(group) if group.parent == ROOT else FreezerV1(group)


def group_above(instance: str) -> Path:
    """The cgroup above all sandboxes of a server, in the hierarchy that freezes."""
    name = f"buntime-{instance}"
    return ROOT / name if (ROOT / "cgroup.controllers").exists() else ROOT / "freezer" / name


def freeze_or_kill(freezer: Freezer, seconds: float) -> bool:
    """Returns whether all is frozen within so many seconds. Where it is not, what is not frozen has got SIGKILL.

    Waits for that long at most. The kernel cannot freeze a process that waits in it, for a disk that does not answer.
    """
    deadline = time.monotonic() + seconds
    freezer.freeze()
    while not freezer.is_frozen():
        if time.monotonic() > deadline:
            freezer.kill_unfrozen()
            return False
        time.sleep(LOOK_SECONDS)
        freezer.freeze()  # on cgroup v1 a process that forks meanwhile must be frozen again
    return True


def end_all(freezer: Freezer, seconds: float) -> None:
    """Ends every process of all sandboxes, frozen ones too, and returns when none is left. None of them runs on
    meanwhile, but for what the kernel cannot freeze, and what forks while it is killed.

    Raises TimeoutError when some are left after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not freezer.is_empty():
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of sandboxes have not ended within {seconds:g} seconds")
        freeze_or_kill(freezer, FREEZE_SECONDS)
        freezer.end()
        again = time.monotonic() + FREEZE_SECONDS
        while not freezer.is_empty() and time.monotonic() < again:
            time.sleep(LOOK_SECONDS)


def _is_frozen_v1(group: Path) -> bool:
    try:
        return text_of(group / "freezer.state").strip() == "FROZEN"
    except OSError:  # it ended meanwhile
        return True


def _is_frozen_v2(group: Path) -> bool:
    try:
        return field_of(group / "cgroup.events", "frozen") == 1
    except OSError:
        return True


def _kill_v1(above: Path) -> None:
    for group in _tree(above):
        signal_members(group, pids_of(group), signal.SIGKILL)


def _is_empty(above: Path) -> bool:
    return not any(pids_of(group) for group in _tree(above))


def _tree(group: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)
