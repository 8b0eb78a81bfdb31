"""The session's contexts, by way of its guest. Implements `inside.Contexts`."""

from buntime.sandboxes.guest import Guest
from buntime.sandboxes.launcher import Launcher
from buntime.sandboxes.machinery import Machinery


class GuestContexts:
    def __init__(self, guest: Guest, launcher: Launcher, machinery: Machinery) -> None:
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery

    async def take_over(self) -> None:
        """After a restart of the server: interrupts what ran for somebody who is gone."""
