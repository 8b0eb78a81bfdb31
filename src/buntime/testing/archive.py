"""A fake archive for tests. It keeps the contract, and breaks it when a test says so."""

import time
from collections.abc import Iterator, Sequence

from buntime.archives import NAME, PREFIX, checked
from buntime.ports import ArchiveUnavailable, ObjectExists, ObjectMissing, Upload

PIECE = 1 << 16  # bytes


class FakeArchive:
    """`ports.Archive` in a dictionary. A test may change its content and behaviour at any time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.left: set[Upload] = set()  # uploads of servers that were killed
        self.unreachable = False
        self.lying = False  # `get` returns content with one wrong bit
        self.seconds_per_piece = 0.0  # how slow `put` and `get` are
        self.capacity: int | None = None  # bytes of all objects; None: no limit

    def put(self, name: str, content: Iterator[bytes]) -> None:
        checked(NAME, name)
        self._require_reachable()
        received = bytearray()
        for piece in content:
            received += piece
            self._take_time()
            if self.capacity is not None and self.used + len(received) > self.capacity:
                raise ArchiveUnavailable("the fake archive is full")
        if self.objects.setdefault(name, bytes(received)) != received:
            raise ObjectExists(name)

    def get(self, name: str) -> Iterator[bytes]:
        checked(NAME, name)
        self._require_reachable()
        if name not in self.objects:
            raise ObjectMissing(name)
        content = self._told(self.objects[name])
        for start in range(0, len(content), PIECE):
            self._take_time()
            yield content[start : start + PIECE]

    def delete(self, name: str) -> None:
        checked(NAME, name)
        self._require_reachable()
        self.objects.pop(name, None)

    def names(self, prefix: str) -> Sequence[str]:
        checked(PREFIX, prefix)
        self._require_reachable()
        return sorted(name for name in self.objects if name.startswith(prefix))

    def uploads(self, prefix: str) -> Sequence[Upload]:
        checked(PREFIX, prefix)
        self._require_reachable()
        return [upload for upload in self.left if upload.name.startswith(prefix)]

    def abort(self, upload: Upload) -> None:
        self._require_reachable()
        self.left.discard(upload)

    @property
    def used(self) -> int:
        """Bytes."""
        return sum(len(content) for content in self.objects.values())

    def _require_reachable(self) -> None:
        if self.unreachable:
            raise ArchiveUnavailable("the fake archive cannot be reached")

    def _take_time(self) -> None:
        """Checked for every piece: the archive may become unreachable in the middle."""
        if self.seconds_per_piece:
            time.sleep(self.seconds_per_piece)
        self._require_reachable()

    def _told(self, content: bytes) -> bytes:
        if not (self.lying and content):
            return content
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
