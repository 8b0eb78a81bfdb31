"""Reads a range of lines from a file of any size, and numbers them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lines:
    """`content`: the lines, from number `first` on. `offset`: the byte after them. `is_end`: the file ends there.

    If the first line alone is too long, `content` is its beginning.
    """

    content: bytes
    first: int
    offset: int
    is_end: bool

    @property
    def next_line(self) -> int | None:
        """The number of the line that follows, None at the file's end or within a line."""
        is_whole = self.content.endswith(b"\n")
        return None if self.is_end or not is_whole else self.first + self.content.count(b"\n")


async def read_lines(chunks: AsyncIterator[bytes], first: int, last: int | None, most: int) -> Lines:
    """Reads the lines `first` to `last`, both included and counted from 1, or whole lines of at most `most` bytes."""
    skipped, to_skip = 0, first - 1
    found = bytearray()
    wanted = None if last is None else max(last - first + 1, 0)
    is_end = True
    async for chunk in chunks:
        begin = 0
        if to_skip:
            begin, to_skip = _after_lines(chunk, to_skip)
            skipped += begin
        found += chunk[begin:]
        if len(found) > most or (wanted is not None and _after_lines(found, wanted)[0] < len(found)):
            is_end = False
            break
    content = bytes(found[: len(found) if wanted is None else _after_lines(found, wanted)[0]])
    if len(content) > most:
        content = content[: content.rfind(b"\n", 0, most) + 1] or content[:most]
    return Lines(content, first - to_skip, skipped + len(content), is_end and len(content) == len(found))


def _after_lines(part: bytes | bytearray, count: int) -> tuple[int, int]:
    """The position after so many line breaks, or the part's end; and how many line breaks were missing."""
    missing = count - part.count(b"\n")
    if missing > 0:
        return len(part), missing
    position = 0
    for _ in range(count):
        position = part.index(b"\n", position) + 1
    return position, 0


def numbered(text: str, first: int) -> str:
    """Each line with its number, as `cat -n` shows it."""
    lines = text.split("\n")
    shown = lines[:-1] if lines[-1] == "" else lines
    return "".join(f"{number:6}\t{line}\n" for number, line in enumerate(shown, first))
