"""Cuts output to what a model can read: its beginning and end. A file has the rest."""

from collections import deque

SHOWN = 16_000  # characters of one stream in a result
KEPT = 4_000_000  # characters of the beginning, and of the end, in the file


class Kept:
    """Collects the output of one stream. Of very long output it keeps the beginning and the end."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_size = self._tail_size = self._dropped = 0

    def add(self, text: str) -> None:
        free = KEPT - self._head_size
        if free > 0:
            self._head.append(text[:free])
            self._head_size += len(text[:free])
            text = text[free:]
        if not text:
            return
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size - len(self._tail[0]) >= KEPT:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._dropped += gone

    def whole(self) -> str:
        """The kept text, with a note where something is missing."""
        gap = f"\n… {self._dropped} characters are not kept …\n" if self._dropped else ""
        return "".join(self._head) + gap + "".join(self._tail)

    def last_line(self) -> str:
        """The last line so far, for progress reports."""
        last = self._tail[-1] if self._tail else self._head[-1] if self._head else ""
        return last.rstrip().rpartition("\n")[2][-200:]


def cut(text: str, more: str, shown: int = SHOWN) -> str:
    """Cuts the text to its beginning and end. `more`: how to read what was left out."""
    if len(text) <= shown:
        return text
    head, tail = shown * 2 // 3, shown // 3
    return f"{text[:head]}\n… {len(text) - head - tail} characters left out: {more} …\n{text[-tail:]}"
