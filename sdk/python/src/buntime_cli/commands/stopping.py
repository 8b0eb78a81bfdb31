"""Signals that end a command: Ctrl-C, `kill`, a closed terminal."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal arrived, so the command must stop now. Not an `Exception`, like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Signals raise Stopped in the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def whole() -> Iterator[None]:
    """Lets the block finish: a signal that arrives meanwhile raises Stopped afterwards.

    The block must end on its own.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    with _handled_by(remember):
        yield
    if came:
        raise Stopped(came[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Ignored signals stay ignored: `nohup` relies on it, and so do shells that start background commands."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
