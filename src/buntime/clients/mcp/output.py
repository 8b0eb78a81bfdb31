"""Output of any length, in what a model can read: its beginning and its end, and a file with more of it."""

from collections import deque

SHOWN = 16_000  # characters of one stream in a result
KEPT = 4_000_000  # characters of the beginning, and as many of the end, that the file has


class Kept:
    """What a program writes to one stream, as it comes; of very much the beginning and the end."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_size = self._tail_size = self._dropped = 0

    def add(self, text: str) -> None:
        room = KEPT - self._head_size
        if room > 0:
            self._head.append(text[:room])
            self._head_size += len(text[:room])
            text = text[room:]
        if not text:
            return
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size - len(self._tail[0]) >= KEPT:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._dropped += gone

    def whole(self) -> str:
        """What is kept, and where something is missing."""
        gap = f"\n… {self._dropped} characters are not kept …\n" if self._dropped else ""
        return "".join(self._head) + gap + "".join(self._tail)

    def last_line(self) -> str:
        """For whoever watches."""
        last = self._tail[-1] if self._tail else self._head[-1] if self._head else ""
        return last.rstrip().rpartition("\n")[2][-200:]


def cut(text: str, more: str, shown: int = SHOWN) -> str:
    """`more`: how to read what is left out."""
    if len(text) <= shown:
        return text
    head, tail = shown * 2 // 3, shown // 3
    return f"{text[:head]}\n… {len(text) - head - tail} characters left out: {more} …\n{text[-tail:]}"
