"""Implements `ports.History`: one file of two rings for each session.

The first ring has the measurements of 24 hours, the second the points of a week. Before a measurement goes to slots
that have those of 24 hours or more ago, these become a point of the second ring. So a crash loses neither. Nothing
waits for the disk: the kernel writes files out within seconds, and a power loss may take what it has not written.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct

from buntime.config import Config
from buntime.errors import Unavailable
from buntime.ids import SESSION_PREFIX
from buntime.measurement import (
    COARSE,
    FINE_SECONDS,
    INTERVAL,
    KEPT_SECONDS,
    Measurement,
    Point,
    better,
    in_steps,
    points_of,
)
from buntime.stores.rings import Ring

KIB = 1024
BLOCK = 4096


def _fine_numbers(one: Measurement) -> Sequence[int]:
    levels = one.memory // KIB, one.disk // KIB, one.processes
    return one.at, one.span, one.cpu, one.bytes_in, one.bytes_out, *levels


def _fine(numbers: Sequence[int]) -> Measurement:
    at, span, cpu, bytes_in, bytes_out, memory, disk, processes = numbers
    return Measurement(at, span, cpu, bytes_in, bytes_out, memory * KIB, disk * KIB, processes)


def _coarse_numbers(one: Point) -> Sequence[int]:
    return (
        *(one.at, one.span, one.cpu, one.bytes_in, one.bytes_out),
        *(one.memory // KIB, one.disk // KIB, one.processes),
        *(one.most_cpu, one.most_bytes_in, one.most_bytes_out),
        *(one.most_memory // KIB, one.most_disk // KIB, one.most_processes),
    )


def _coarse(numbers: Sequence[int]) -> Point:
    at, span, cpu, bytes_in, bytes_out, memory, disk, processes, *most = numbers
    most_cpu, most_in, most_out, most_memory, most_disk, most_processes = most
    levels = memory * KIB, disk * KIB, processes
    return Point(
        *(at, span, cpu, bytes_in, bytes_out, *levels, most_cpu, most_in, most_out),
        *(most_memory * KIB, most_disk * KIB, most_processes),
    )


FINE = Ring(0, FINE_SECONDS // INTERVAL, INTERVAL, Struct("<IIQQQIII"), _fine_numbers, _fine)
COARSE_AT = -(-FINE.size // BLOCK) * BLOCK
WEEK = Ring(COARSE_AT, KEPT_SECONDS // COARSE, COARSE, Struct("<IIQQQQQQIQQIII"), _coarse_numbers, _coarse)
LARGEST = COARSE_AT + WEEK.size  # bytes of a session's file


def history_of(config: Config) -> "FileHistory":
    return FileHistory(config.data_dir / "measurements")


class FileHistory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._coarse: dict[str, int] = {}  # session → the step whose slots have nothing older any more

    async def add(self, measurements: Mapping[str, Measurement]) -> None:
        await asyncio.to_thread(self._add_all, measurements)

    async def read(self, session_id: str, first: int, last: int, step: int) -> Sequence[Point]:
        return await asyncio.to_thread(self._read, session_id, first, last, step)

    async def remove(self, session_id: str) -> None:
        await asyncio.to_thread(self._remove, session_id)

    async def keep(self, session_ids: Collection[str]) -> None:
        await asyncio.to_thread(self._keep, session_ids)

    def _add_all(self, measurements: Mapping[str, Measurement]) -> None:
        failure = None
        for session_id, measurement in measurements.items():
            try:
                self._add(session_id, measurement)
            except OSError as failed:  # those of the others may fit
                failure = failed
        if failure is not None:
            raise Unavailable(f"Measurements cannot be written: {failure.strerror}.") from failure

    def _add(self, session_id: str, one: Measurement) -> None:
        with self._opened(session_id, os.O_RDWR | os.O_CREAT) as file:
            step = one.at // COARSE * COARSE
            if self._coarse.get(session_id) != step:
                self._make_coarse(file, step)
                self._coarse[session_id] = step
            before = FINE.get(file, one.at)
            FINE.put(file, before.and_then(one) if before else one)

    def _make_coarse(self, file: int, step: int) -> None:
        """Keeps what the slots of this step have of earlier days."""
        earlier = defaultdict[int, list[Measurement]](list)
        for one in FINE.beside(file, step, step + COARSE):
            earlier[one.at // COARSE].append(one)
        oldest = (step - KEPT_SECONDS) // COARSE  # what is older would take the slot of what is newer
        for at in sorted(at for at in earlier if at >= oldest):
            (point,) = points_of(earlier[at], COARSE)
            if better(point, WEEK.get(file, point.at)) is point:
                WEEK.put(file, point)

    def _read(self, session_id: str, first: int, last: int, step: int) -> Sequence[Point]:
        try:
            with self._opened(session_id, os.O_RDONLY) as file:
                if step % COARSE:
                    return points_of(FINE.within(file, first, last), step)
                return in_steps(self._all_coarse(file, first, last), step)
        except FileNotFoundError:
            return []
        except OSError as failed:
            raise Unavailable(f"Measurements cannot be read: {failed.strerror}.") from failed

    @staticmethod
    def _all_coarse(file: int, first: int, last: int) -> list[Point]:
        """From both rings: what has not been replaced yet is in the first one alone."""
        found = {point.at: point for point in points_of(FINE.within(file, first, last), COARSE)}
        for point in WEEK.within(file, first, last):
            known = better(found.get(point.at), point)
            if known is not None:
                found[point.at] = known
        return list(found.values())

    def _remove(self, session_id: str) -> None:
        self._coarse.pop(session_id, None)
        try:
            self._file(session_id).unlink(missing_ok=True)
        except OSError as failed:
            raise Unavailable(f"Measurements cannot be removed: {failed.strerror}.") from failed

    def _keep(self, session_ids: Collection[str]) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for entry in list(os.scandir(self._directory)):
            if entry.name.startswith(SESSION_PREFIX) and entry.name not in session_ids:
                with suppress(OSError):  # the next start tries again
                    Path(entry.path).unlink()

    @contextmanager
    def _opened(self, session_id: str, flags: int) -> Iterator[int]:
        file = os.open(self._file(session_id), flags | os.O_CLOEXEC, 0o600)
        try:
            yield file
        finally:
            os.close(file)

    def _file(self, session_id: str) -> Path:
        return self._directory / session_id
