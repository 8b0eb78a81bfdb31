"""A transfer that another thread interrupts."""

import threading
from collections.abc import Iterator

import pytest

from buntime.lifecycle.transfers import Interrupted, Transfer


def test_a_reader_whose_stream_is_being_closed_is_interrupted() -> None:
    closing, closed = threading.Event(), threading.Event()

    def stream() -> Iterator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:  # as long as the process behind it takes to end
            closing.set()
            assert closed.wait(20)

    transfer = Transfer()
    pieces = transfer.open(stream)
    assert next(pieces) == b"piece"
    interrupting = threading.Thread(target=transfer.interrupt)
    interrupting.start()
    assert closing.wait(20)
    try:
        with pytest.raises(Interrupted):
            next(pieces)
    finally:
        closed.set()
        interrupting.join(20)
