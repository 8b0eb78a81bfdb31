"""Which volumes no sandbox uses, and how much of the disk they and the parents of all volumes take. Once such a volume
is archived, it is a cache. A parent always is.
"""

from collections.abc import Mapping

from buntime.sandboxes.kernel.volume import Volumes


class VolumeCache:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._sizes: dict[str, int] = {}  # volume id → bytes, with its parents
        self._sum = 0

    @property
    def bytes(self) -> int:
        """Of all of them, and what only the parents of volumes in use have."""
        own = self._volumes.parents.own
        return self._sum + sum(size for volume, size in list(own.items()) if volume not in self._sizes)

    def sizes(self) -> Mapping[str, int]:
        """Volume id → bytes."""
        return self._sizes

    def add(self, volume_id: str) -> None:
        """No sandbox uses the volume any more, if it exists."""
        self.drop(volume_id)
        if self._volumes.exists(volume_id):
            self._put(volume_id, self._volumes.disk_bytes(volume_id))

    def refresh(self, volume_id: str, mark: str) -> None:
        """Only the parent with this mark is left of the volume's parents; "": none is. The parent has what the volume
        has, and the kernel frees the rest a little later."""
        if volume_id in self._sizes and self._volumes.exists(volume_id):
            size, parents = self._volumes.disk_bytes(volume_id), self._volumes.parents
            if mark in parents.marks(volume_id):
                size = min(size, self._volumes.parent_size(volume_id, mark))
            self.drop(volume_id)
            self._put(volume_id, size)

    def drop(self, volume_id: str) -> None:
        """A sandbox uses the volume, or it is gone."""
        self._sum -= self._sizes.pop(volume_id, 0)

    def _put(self, volume_id: str, size: int) -> None:
        self._sizes[volume_id] = size
        self._sum += size
