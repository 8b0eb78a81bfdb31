"""Files of any size, by way of the guest. Implements `inside.Files`."""

from typing import Protocol

from buntime.inside import Sink
from buntime.ports import Run, RunResult
from buntime.sandboxes.guest import Guest
from buntime.sandboxes.launcher import Launcher


class Runner(Protocol):
    async def run(self, run: Run, sink: Sink | None = None) -> RunResult: ...


class GuestFiles:
    def __init__(self, guest: Guest, launcher: Launcher, runner: Runner) -> None:
        self._guest = guest
        self._launcher = launcher
        self._runner = runner
