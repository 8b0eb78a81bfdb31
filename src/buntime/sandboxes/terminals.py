"""The session's terminals, by way of its guest. Implements `inside.Terminals`."""

from buntime.sandboxes.guest import Guest
from buntime.sandboxes.launcher import Launcher
from buntime.sandboxes.machinery import Machinery


class GuestTerminals:
    def __init__(self, guest: Guest, launcher: Launcher, machinery: Machinery) -> None:
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery
