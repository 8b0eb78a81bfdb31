"""Why an image cannot be added, and how much one may hold."""

MOST_ENTRIES = 2_000_000  # files, directories and links of one image
GB = 1 << 30


class ImageRefused(Exception):
    """The source is not an image that sessions can stand on. The message tells the operator why."""


class Budget:
    """Counts the bytes and entries of an image that is read."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes."""
        self._limit = limit
        self.bytes = 0
        self._entries = 0

    def entry(self, size: int = 0) -> None:
        """Counts one entry with `size` bytes. Raises ImageRefused when the image is too large."""
        self._entries += 1
        self.bytes += size
        if self.bytes > self._limit:
            raise ImageRefused(
                f"The image has more than {self._limit / GB:g} GB. BUNTIME_IMAGE_GB sets how much an image may have."
            )
        if self._entries > MOST_ENTRIES:
            raise ImageRefused(f"The image has more than {MOST_ENTRIES:,} files.")
