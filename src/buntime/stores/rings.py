"""Records of one size in a ring, which is a part of a file.

The time of a record says where it is, so nothing else says where the ring begins. A record replaces the one that was
in its slot before. What was never written takes no disk. A record has a checksum: one that was written in part, or was
damaged, counts as absent. Blocking, quick.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

SEED = crc32(b"buntime measurements 1")  # a checksum of zeros must not be 0, and another form has another one
CHECKSUM = Struct("<I")


@dataclass(frozen=True, slots=True)
class Ring[T]:
    """`form`: the fields of a record. The first is its time in Unix seconds, which is never 0."""

    offset: int  # bytes before it in the file
    slots: int
    seconds: int  # that a slot stands for
    form: Struct
    numbers: Callable[[T], Sequence[int]]
    record: Callable[[Sequence[int]], T]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.slots * self._record_size

    @property
    def _record_size(self) -> int:
        return self.form.size + CHECKSUM.size

    def put(self, file: int, record: T) -> None:
        """Raises OSError."""
        numbers = self.numbers(record)
        content = self.form.pack(*numbers)
        os.pwrite(file, content + CHECKSUM.pack(crc32(content, SEED)), self._place(self._slot(numbers[0])))

    def get(self, file: int, at: int) -> T | None:
        """The record of the slot's time that `at` is in."""
        found = self._read(file, self._slot(at), 1)
        return self.record(found[0]) if found and found[0][0] // self.seconds == at // self.seconds else None

    def within(self, file: int, first: int, last: int) -> list[T]:
        """Records of these seconds, `last` not included, in the order of their slots in the file."""
        found = self._near(file, first, last)
        return [self.record(numbers) for numbers in found if first <= numbers[0] < last]

    def beside(self, file: int, first: int, last: int) -> list[T]:
        """Records of other times that are in the slots of these seconds, which may replace them."""
        found = self._near(file, first, last)
        return [self.record(numbers) for numbers in found if not first <= numbers[0] < last]

    def _near(self, file: int, first: int, last: int) -> list[tuple[int, ...]]:
        """What is in the slots of these seconds."""
        begin, end = first // self.seconds, -(-last // self.seconds)
        if end - begin >= self.slots:
            return self._read(file, 0, self.slots)
        slot, count = begin % self.slots, end - begin
        ahead = min(count, self.slots - slot)
        return self._read(file, slot, ahead) + self._read(file, 0, count - ahead)

    def _read(self, file: int, slot: int, count: int) -> list[tuple[int, ...]]:
        size, whole = self._record_size, self.form.size
        content = os.pread(file, count * size, self._place(slot)) if count > 0 else b""
        found = []
        for start in range(0, len(content) - size + 1, size):
            numbers = self.form.unpack_from(content, start)
            if (
                numbers[0]
                and CHECKSUM.unpack_from(content, start + whole)[0] == crc32(content[start : start + whole], SEED)
                and self._slot(numbers[0]) == slot + start // size
            ):
                found.append(numbers)
        return found

    def _slot(self, at: int) -> int:
        return at // self.seconds % self.slots

    def _place(self, slot: int) -> int:
        return self.offset + slot * self._record_size
