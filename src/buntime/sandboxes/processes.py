"""The session's processes, by way of its guest. Implements `inside.Processes`."""

from buntime.inside import Reason
from buntime.sandboxes.guest import Guest
from buntime.sandboxes.launcher import Launcher
from buntime.sandboxes.machinery import Machinery


class GuestProcesses:
    def __init__(self, guest: Guest, launcher: Launcher, machinery: Machinery) -> None:
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery

    async def ending(self, reason: Reason) -> None: ...
