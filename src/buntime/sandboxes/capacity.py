"""Whether this host can hold another sandbox, and what it is short of."""

import shutil
from collections.abc import Mapping

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import Budget, NoRoom, Strain
from buntime.sandboxes.cache import VolumeCache
from buntime.sandboxes.containers import Settings
from buntime.sandboxes.kernel.host import host_disk_free, memory_available, total_memory
from buntime.sandboxes.kernel.volume import Volumes

SPARE_MEMORY, SPARE_DISK = 256 * MB, 1024 * MB  # beyond the reserves: the keeper frees these before a create is refused
MESSAGES: Mapping[NoRoom, tuple[str, int]] = {  # with the seconds after which to try again
    NoRoom.NETWORK_RULES: ("This host's network rules cannot be put in force, so no session starts.", 10),
    NoRoom.MEMORY: ("This host has no memory free for another session.", 10),
    NoRoom.DISK: ("This host has no disk free for another session.", 60),
}


class Capacity:
    def __init__(self, settings: Settings, volumes: Volumes, cache: VolumeCache) -> None:
        self._settings = settings
        self._volumes = volumes
        self._cache = cache
        self.rules_hold = True  # whether the network's rules are in force; no sandbox starts without them
        self.refused = dict.fromkeys(MESSAGES, 0)  # since the start

    def require(self) -> None:
        """Raises Unavailable when this host cannot hold another sandbox."""
        self._refuse(self._lacks())

    def require_disk(self) -> None:
        self._refuse(self._lacks_disk())

    def is_there(self) -> bool:
        return self._lacks() is None

    def _refuse(self, lacks: NoRoom | None) -> None:
        if lacks is not None:
            self.refused[lacks] += 1
            raise Unavailable(*MESSAGES[lacks])

    def _lacks(self) -> NoRoom | None:
        if not self.rules_hold:
            return NoRoom.NETWORK_RULES
        if memory_available() < self._settings.memory_reserve:
            return NoRoom.MEMORY
        return self._lacks_disk()

    def _lacks_disk(self) -> NoRoom | None:
        return NoRoom.DISK if self._free_disk() < self._settings.disk_reserve else None

    def strain(self) -> Strain:
        settings = self._settings
        disk, cached = settings.disk_reserve + SPARE_DISK - self._free_disk(), self._cache.bytes
        return Strain(
            memory=max(0, settings.memory_reserve + SPARE_MEMORY - memory_available()),
            disk=max(0, disk, cached - settings.cache) if cached else 0,
            sandboxes=1 if settings.keeps_suspended and disk > 0 and not cached else 0,
        )

    def memory(self) -> Budget:
        total = total_memory()
        return Budget(total, total - memory_available(), self._settings.memory_reserve)

    def host_disk(self) -> Budget:
        total = shutil.disk_usage(self._settings.data_dir).total
        return Budget(total, total - host_disk_free(self._settings.data_dir), self._settings.disk_reserve)

    def volumes_disk(self) -> Budget:
        total = self._volumes.size()
        return Budget(total, total - self._volumes.free(), self._settings.disk_reserve)

    def _free_disk(self) -> int:
        """Bytes free on the host's disk or in the volumes' file system, whichever is less."""
        return min(host_disk_free(self._settings.data_dir), self._volumes.free())
