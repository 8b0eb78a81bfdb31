"""Volumes on their way to or from the archive, in threads that another thread may interrupt."""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import cast

from buntime import errors

INTERRUPT_SECONDS, INTERRUPT_LOOK_SECONDS = 20.0, 0.002
RETRY_SECONDS = 10  # told to clients while the archive cannot be reached, or a stream does not end


class Interrupted(Exception):
    """The transfer gave way to a wake or a delete, or the server stops. Never shown."""


class Transfer:
    """One volume on its way. Another thread may interrupt it."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()
        self._lock = threading.Lock()
        self._stream: Generator[bytes] | None = None

    def open(self, stream: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """The pieces of the stream. Raises Interrupted."""
        with self._lock:
            self.check()
            self._stream = _pieces(stream())
        return self.watch(self._stream)

    def watch(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces. Raises Interrupted, so an interrupted stream never looks complete."""
        try:
            for piece in pieces:
                self.check()
                yield piece
        except ValueError:  # the stream is being closed by `interrupt`
            self.check()
            raise
        self.check()

    def check(self) -> None:
        """Raises Interrupted."""
        if self._interrupted.is_set():
            raise Interrupted

    def interrupt(self) -> None:
        """When this returns, nothing reads the volume any more, even if the archive does not answer.

        Blocking. Raises Unavailable when the host does not let go of the stream.
        """
        self._interrupted.set()
        self.close()

    def close(self) -> None:
        """When this returns, the stream has ended, also if another thread is closing it. Raises as `interrupt`."""
        pause = threading.Event()
        with self._lock:
            for _ in range(int(INTERRUPT_SECONDS / INTERRUPT_LOOK_SECONDS)):
                try:
                    if self._stream is not None:
                        self._stream.close()
                except ValueError:  # the generator is running
                    pause.wait(INTERRUPT_LOOK_SECONDS)
                else:
                    self._stream = None
                    return
        raise errors.Unavailable("The session's files are still being read.", RETRY_SECONDS)


class Threads:
    """A thread for each piece of work. Nothing waits for a thread that hangs, not even the end of the program."""

    def __init__(self) -> None:
        self._closed = False
        self._awaited: set[asyncio.Future[object]] = set()

    async def run[T, *Ts](self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Returns or raises what `work` does. Raises Interrupted as soon as this is closed."""
        if self._closed:
            raise Interrupted
        loop, outcome = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def settle(result: T | None, failure: BaseException | None) -> None:
            if outcome.done():
                return
            if failure is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(failure)

        def body() -> None:
            result, failure = None, None
            try:
                result = work(*args)
            except BaseException as raised:  # noqa: BLE001 - handed over whole, raised at the caller
                failure = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, failure)

        self._awaited.add(outcome)
        try:
            threading.Thread(target=body, name="transfer", daemon=True).start()
            return cast(T, await outcome)
        finally:
            self._awaited.discard(outcome)

    def close(self) -> None:
        self._closed = True
        for outcome in self._awaited:
            if not outcome.done():
                outcome.set_exception(Interrupted())


def _pieces(stream: Iterator[bytes]) -> Generator[bytes]:
    yield from stream
