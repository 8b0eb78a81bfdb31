"""What ends a command from outside: Ctrl-C, `kill`, a terminal that is closed."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal came: what was begun is to be ended now. No `Exception`, as KeyboardInterrupt is none."""

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
    """What the block does is done whole: a signal that comes meanwhile raises Stopped at its end.

    The block has to have an end of its own.
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
    """What is ignored stays so: `nohup`, and shells that start a command in the background, mean it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
