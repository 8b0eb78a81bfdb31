"""Which volumes no sandbox uses, and their sizes. Once such a volume is archived, it is a cache."""

from collections.abc import Mapping

from buntime.sandboxes.kernel.volume import Volumes


class VolumeCache:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._sizes: dict[str, int] = {}  # volume id → bytes
        self.bytes = 0  # of all of them

    def sizes(self) -> Mapping[str, int]:
        """Volume id → bytes."""
        return self._sizes

    def add(self, volume_id: str) -> None:
        """No sandbox uses the volume any more, if it exists."""
        self.drop(volume_id)
        if self._volumes.exists(volume_id):
            self._sizes[volume_id] = self._volumes.used(volume_id)
            self.bytes += self._sizes[volume_id]

    def drop(self, volume_id: str) -> None:
        """A sandbox uses the volume, or it is gone."""
        self.bytes -= self._sizes.pop(volume_id, 0)
