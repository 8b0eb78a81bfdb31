"""Processes that stand for sandboxes: in cgroups like theirs, without anything else of a sandbox."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from buntime.sandboxes.kernel.cgroup_tree import children_of, pids_of, remove_tree
from buntime.sandboxes.kernel.cgroup_version import ROOT
from buntime.sandboxes.kernel.freezing import Freezer, FreezerV1, FreezerV2
from tests.waiting import until

V1, V2 = ROOT / "freezer", ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"
HIERARCHIES: dict[Path, Callable[[Path], Freezer]] = {V1: FreezerV1, V2: FreezerV2}  # those of these that the host has
AVAILABLE = [root for root in HIERARCHIES if (root / "cgroup.procs").exists()]
COUNT = """
import os, sys, time
file, count = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 0
while True:
    count += 1
    os.pwrite(file, count.to_bytes(8), 0)
    time.sleep(0.002)
"""


class Boxes:
    """One server's, of an instance of the test's own."""

    def __init__(self, root: Path, instance: str) -> None:
        self.group = root / f"buntime-{instance}"
        self._kind = HIERARCHIES[root]
        self.freezer = self.alone()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, box: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        (self.group / box).mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._processes.append(process)
        (self.group / box / "cgroup.procs").write_text(str(process.pid))
        return process

    def alone(self, box: str = "") -> Freezer:
        """Of one sandbox, or of all."""
        return self._kind(self.group / box)

    def close(self) -> None:
        for box in ("", *children_of(self.group)):
            self.alone(box).thaw()
        for process in self._processes:
            process.kill()
        for box in children_of(self.group):
            for pid in pids_of(self.group / box):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
        for process in self._processes:
            process.communicate()
        until(lambda: remove_tree(self.group), "the end of the processes")


class Counter:
    """A process that counts, as long as it runs."""

    def __init__(self, boxes: Boxes, box: str, directory: Path) -> None:
        self._file = directory / f"count-{box}"
        self.process = boxes.start(box, [sys.executable, "-c", COUNT, str(self._file)])

    @property
    def count(self) -> int:
        with suppress(FileNotFoundError):
            return int.from_bytes(self._file.read_bytes())
        return 0

    def goes_on(self) -> None:
        before = self.count
        until(lambda: self.count > before, "the process to go on")
