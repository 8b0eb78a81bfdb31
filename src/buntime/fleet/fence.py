"""What keeps a host silent, as the fleet asks of this machine."""

from typing import Protocol


class Fence(Protocol):
    """The sandboxes' network and the edge are open for a time, and then close without anybody's help: the kernel counts
    it. The watchdog and the server both close. The server alone lifts. Methods are idempotent and block. They put back
    what somebody else has removed. They raise OSError, or HostCommandFailed.
    """

    def prepare(self) -> None:
        """Puts a closed fence in force, and freezes what runs. Nothing of a host that joins acts before this."""
        ...

    def close(self) -> None:
        """Cuts the network and the edge, then freezes every sandbox. Kills those that are not frozen within a
        second. Then it resets the edge's connections."""
        ...

    def extend(self, seconds: float) -> None:
        """Keeps the network and the edge open for so long from now."""
        ...

    def thaw(self) -> None:
        """Lets the sandboxes go on. Those that the server has frozen itself stay frozen."""
        ...

    def remove(self) -> None:
        """Leaves the host as it was, when no sandbox is left or the host is in no fleet any more."""
        ...
