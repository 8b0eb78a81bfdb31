"""Reads an object of the archive in a thread of its own, so that nobody has to wait for an archive that hangs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Queue, ShutDown

PIECES_AHEAD = 2
LOOK_SECONDS = 0.02


def read_ahead(begin: Callable[[], Iterator[bytes]], check: Callable[[], None]) -> Iterator[bytes]:
    """The pieces that `begin` returns, at most PIECES_AHEAD of them read before they are needed.

    `check` is called at every piece, and again and again while there is none; what it raises ends the wait at once. The
    thread that still waits for the archive then ends by itself. Raises what `begin` and its
    pieces raise.
    """
    given: Queue[bytes | _End] = Queue(PIECES_AHEAD)
    threading.Thread(target=_read, args=(begin, given), name="archive", daemon=True).start()
    try:
        while True:
            check()
            try:
                piece = given.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            if isinstance(piece, _End):
                check()
                piece.settle()
                return
            yield piece
    finally:
        given.shutdown(immediate=True)


class _End:
    def __init__(self, failure: BaseException | None) -> None:
        self._failure = failure

    def settle(self) -> None:
        """Raises what the iterator raised."""
        if self._failure is not None:
            raise self._failure


def _read(begin: Callable[[], Iterator[bytes]], given: "Queue[bytes | _End]") -> None:
    failure: BaseException | None = None
    with suppress(ShutDown):  # nobody needs more
        try:
            for piece in begin():
                given.put(piece)
        except ShutDown:
            raise
        except BaseException as raised:  # noqa: BLE001 - handed over whole, raised at the reader
            failure = raised
        given.put(_End(failure))
