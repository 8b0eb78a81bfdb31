"""Tells of processes that have ended by themselves, by a signal or at their timeout.

The guest sends ends over one stream, which is open while a process is awaited. `guest/native/processes/ends.c`
describes the frames.

A file on the host says that a process is awaited. It goes when its end is stored. So a server that takes the sandbox
over knows of which ends it has to tell, and a guest can tell of no other ones.
"""

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from buntime.daemon.steps import reached
from buntime.errors import BuntimeError
from buntime.inside import Ended, Reason
from buntime.ports import Exits, SandboxGone
from buntime.sandboxes.guest.client import Answer, Guest
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor, NotKnown
from buntime.sandboxes.guest.frames import Frame, batches
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher
from buntime.sandboxes.machinery import Machinery

log = structlog.get_logger()

MOST = 2000  # processes that are awaited; the ends of more are not told
MOST_UNKNOWN = 1000  # ends of other processes in an hour: such as those whose start failed here, but not in the guest
HOUR_SECONDS = 3600.0
MOST_AT_ONCE, LARGEST_FRAME = 500, 1 << 16  # ends of a frame, and its bytes
LARGEST_LOOK = 1 << 19  # bytes of an answer that ends: those of MOST processes take less
PAUSE_SECONDS = 0.25  # between two reads of a stream
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 60.0  # after a stream that broke off; twice as long each time


class _End(msgspec.Struct, rename="camel"):
    id: Annotated[str, Meta(pattern="^proc_[a-z0-9]{18}$")]
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None
    reason: Reason | None


_ENDS = Annotated[list[_End], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class _Paced:
    """The body of an answer, at the host's pace and not at the guest's, which may send it in crumbs."""

    def __init__(self, answer: Answer, pause: float, most: float) -> None:
        self._answer = answer
        self._pause = pause
        self._most = most
        self._size = 0

    async def read(self) -> bytes:
        """Raises Impostor and SandboxGone."""
        if self._size and self._pause:
            await asyncio.sleep(self._pause)  # ends that come meanwhile share a batch
        part = await self._answer.read()
        self._size += len(part)
        if self._size > self._most:
            raise Impostor("it tells of ends without end")
        return part


class Ends:
    """`directory`: of the files. `session`: the id of the session that has the sandbox."""

    def __init__(
        self, directory: Path, session: Callable[[], str | None], guest: Guest, launcher: Launcher, machinery: Machinery
    ) -> None:
        self._directory = str(directory)  # a path object that is kept takes several times as much memory
        self._session = session
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery
        self._awaited: dict[str, str | None] = {}  # ids, and names
        self._starting: set[str] = set()
        self._before: Set[str] = frozenset()  # those of an earlier server, which may have stored their end
        self._has_directory = False
        self._pause = RETRY_SECONDS
        self._wanted: asyncio.Event | None = None  # a stream, now; None: nothing follows the ends
        self._unknown, self._unknown_until = 0, 0.0
        self._is_deaf = False  # the guest, of an earlier version, does not tell

    async def take_over(self) -> None:
        """Tells of what ended since an earlier server was killed, and of what ends from now on."""
        await self.recall()
        self.listen()

    async def recall(self) -> None:
        """Awaits what an earlier server awaited."""
        self._awaited = await asyncio.to_thread(_awaited_in, Path(self._directory))
        self._before = frozenset(self._awaited)

    @contextmanager
    def awaiting(self, process_id: str, name: str | None) -> Iterator[None]:
        """Within the block, the process is started. Its end is told unless the block fails."""
        if self._is_deaf or len(self._awaited) >= MOST or not self._note(process_id, name):
            yield
            return
        self._starting.add(process_id)
        try:
            yield
        except BaseException:
            self._awaited.pop(process_id, None)
            self._forget([process_id])
            raise
        finally:
            self._starting.discard(process_id)
        self.listen()

    def listen(self) -> None:
        """Begins to follow the ends, if one is awaited and nothing follows them. To be called after a thaw."""
        if self._wanted is not None:
            self._wanted.set()
        elif self._can_listen:
            self._wanted = asyncio.Event()
            self._machinery.tasks.listen(self._listening(self._wanted), f"ends in {self._launcher.sandbox}")

    async def look(self) -> None:
        """Tells of those that have ended by now. Raises SandboxGone, and what else the guest reports."""
        if self._can_listen:
            starting = frozenset(self._starting)
            async with self._batches(follow=False) as found:
                async for frames in found:
                    await self._take(frames, starting)

    @property
    def _can_listen(self) -> bool:
        return bool(self._awaited) and not self._is_deaf

    async def _listening(self, wanted: asyncio.Event) -> None:
        self._pause = RETRY_SECONDS
        try:
            while self._can_listen and self._launcher.is_alive() and not self._launcher.is_asleep:
                try:
                    async with self._launcher.ending_an_impostor():
                        await self._follow()
                except (SandboxGone, BuntimeError) as failed:
                    if not self._launcher.is_alive():
                        return
                    log.info("ends_not_followed", sandbox=self._launcher.sandbox, reason=str(failed))
                    wanted.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(wanted.wait(), self._pause)
                    self._pause = min(2 * self._pause, LONGEST_RETRY_SECONDS)
        finally:
            self._wanted = None

    async def _follow(self) -> None:
        """Returns when none is awaited. Waits without a time limit: a frozen guest tells nothing."""
        asked, starting = frozenset(self._awaited), frozenset(self._starting)
        async with self._batches(follow=True) as found:
            if self._awaited.keys() - asked:
                await self.look()  # they may have ended while the connection was made
            async for frames in found:
                self._pause = RETRY_SECONDS
                await self._take(frames, starting)
                if not self._awaited:
                    await asyncio.sleep(PAUSE_SECONDS)  # one that starts meanwhile needs no stream of its own
                if not self._awaited:
                    return
        raise SandboxGone("it stopped telling which processes end")

    @asynccontextmanager
    async def _batches(self, *, follow: bool) -> AsyncGenerator[AsyncGenerator[Sequence[Frame]]]:
        query, body = {"follow": str(int(follow))}, msgspec.json.encode({"ids": list(self._awaited)})
        try:
            async with AsyncExitStack() as stack:
                # not the launcher's `in_time`, which ends the sandbox: nobody waits for this
                async with asyncio.timeout(ANSWER_SECONDS):
                    asking = self._guest.request("POST", "/processes/ends", query, body)
                    answer = await stack.enter_async_context(asking)
                paced = _Paced(answer, PAUSE_SECONDS, math.inf) if follow else _Paced(answer, 0.0, LARGEST_LOOK)
                yield await stack.enter_async_context(aclosing(batches(paced, LARGEST_FRAME)))
        except TimeoutError:
            raise SandboxGone("the guest does not answer") from None
        except NotKnown:
            self._is_deaf = True
            raise SandboxGone("the guest, of an earlier version, does not tell which processes end") from None

    async def _take(self, frames: Sequence[Frame], starting: Set[str]) -> None:
        """Tells of the ends in the frames. `starting`: those that the guest need not have known when it was asked.
        Raises Impostor for too many of processes that are not awaited."""
        known, unknown = dict[str, _End](), 0
        for end in (end for frame in frames for end in _read(frame)):
            if end.id not in self._awaited or end.id in known or (end.exit_code is None and end.id in starting):
                unknown += 1
            else:
                known[end.id] = end
        await self._tell(known)
        self._count(unknown)

    def _count(self, unknown: int) -> None:
        now = time.monotonic()
        if now > self._unknown_until:
            self._unknown, self._unknown_until = 0, now + HOUR_SECONDS
        self._unknown += unknown
        if self._unknown > MOST_UNKNOWN:
            raise Impostor("it tells of processes that nobody started")

    async def _tell(self, ends: Mapping[str, _End]) -> None:
        names = {process_id: self._awaited.pop(process_id) for process_id in ends}
        told = [
            Ended(process_id, names[process_id], end.exit_code, end.reason)
            for process_id, end in ends.items()
            if end.exit_code is not None and end.reason in (None, "timeout")
        ]
        self._forget(ends.keys() - {ended.id for ended in told})
        session, ids = self._session(), [ended.id for ended in told]
        if told and session is not None:
            again = not self._before.isdisjoint(ids)
            try:
                await self._machinery.reports.exits(Exits(session, told, partial(self._stored, ids), again=again))
            except BaseException:  # the store is away: the guest is asked again
                self._awaited |= {process_id: names[process_id] for process_id in ids}
                self.listen()
                raise

    def _note(self, process_id: str, name: str | None) -> bool:
        """False when the host cannot store it: the sandbox is being removed, or the disk is full."""
        try:
            if not self._has_directory:
                Path(self._directory).mkdir(exist_ok=True)
                self._has_directory = True
            _write(f"{self._directory}/{process_id}", (name or "").encode("utf-8", "surrogatepass"))
        except OSError as failed:
            log.warning("end_not_awaited", sandbox=self._launcher.sandbox, process=process_id, reason=str(failed))
            self._forget([process_id])
            return False
        self._awaited[process_id] = name
        return True

    def _stored(self, process_ids: Iterable[str]) -> None:
        reached("exits: stored")
        self._forget(process_ids)

    def _forget(self, process_ids: Iterable[str]) -> None:
        for process_id in process_ids:
            with suppress(OSError):  # a file that stays is asked about again after a restart
                Path(self._directory, process_id).unlink()


def _read(frame: Frame) -> Sequence[_End]:
    """Raises Impostor."""
    kind, payload = frame
    if kind != b"d":
        raise Impostor("it sent a frame that is not allowed here")
    try:
        return msgspec.json.decode(payload, type=_ENDS)
    except UNREADABLE as wrong:
        raise Impostor("it tells of an end in the wrong form") from wrong


def _write(path: str, content: bytes) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, content)
    finally:
        os.close(file)


def _awaited_in(directory: Path) -> dict[str, str | None]:
    """Blocking."""
    files = sorted(directory.iterdir()) if directory.exists() else []
    return {file.name: file.read_bytes().decode("utf-8", "surrogatepass") or None for file in files}
