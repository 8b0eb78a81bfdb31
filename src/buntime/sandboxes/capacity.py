"""Whether this host can hold another sandbox, and what it is short of."""

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import Strain
from buntime.sandboxes.containers import Settings
from buntime.sandboxes.kernel.host import host_disk_free, memory_available
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.stopped import StoppedVolumes

SPARE_MEMORY, SPARE_DISK = 256 * MB, 1024 * MB  # beyond the reserves: the keeper frees these before a create is refused


class Capacity:
    def __init__(self, settings: Settings, volumes: Volumes, stopped: StoppedVolumes) -> None:
        self._settings = settings
        self._volumes = volumes
        self._stopped = stopped
        self.rules_hold = True  # whether the network's rules are in force; no sandbox starts without them

    def require(self) -> None:
        """Raises Unavailable when this host cannot hold another sandbox."""
        if not self.rules_hold:
            raise Unavailable("This host's network rules cannot be put in force, so no session starts.", 10)
        if memory_available() < self._settings.memory_reserve:
            raise Unavailable("This host has no memory free for another session.", 10)
        self.require_disk()

    def require_disk(self) -> None:
        if self._free_disk() < self._settings.disk_reserve:
            raise Unavailable("This host has no disk free for another session.", 60)

    def is_there(self) -> bool:
        try:
            self.require()
        except Unavailable:
            return False
        return True

    def strain(self) -> Strain:
        settings = self._settings
        disk = settings.disk_reserve + SPARE_DISK - self._free_disk()
        return Strain(
            memory=max(0, settings.memory_reserve + SPARE_MEMORY - memory_available()),
            disk=max(0, disk, self._stopped.bytes - settings.cache) if self._stopped.bytes else 0,
        )

    def _free_disk(self) -> int:
        """Bytes free on the host's disk or in the volumes' file system, whichever is less."""
        return min(host_disk_free(self._settings.data_dir), self._volumes.free())
