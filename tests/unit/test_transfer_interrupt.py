"""A transfer can be interrupted whatever its two threads do."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from buntime.errors import Unavailable
from buntime.lifecycle.transfers import Interrupted, Transfer

PATIENCE = 30.0
SHORT = 0.1  # seconds in which a thread that need not wait returns


class Stream:
    """A volume's stream. It yields pieces while it is open, and records whether it was closed."""

    def __init__(self) -> None:
        self.open = False
        self.giving = threading.Event()
        self.may_give = threading.Event()
        self.may_give.set()

    def __call__(self) -> Iterator[bytes]:
        self.open = True
        try:
            while True:
                self.giving.set()
                assert self.may_give.wait(PATIENCE)
                yield b"piece"
        finally:
            self.open = False


def test_pieces_come_unchanged_until_the_end() -> None:
    transfer = Transfer()
    assert list(transfer.open(lambda: iter([b"a", b"", b"b"]))) == [b"a", b"", b"b"]


def test_an_interrupted_stream_does_not_look_complete() -> None:
    transfer, stream = Transfer(), Stream()
    pieces = transfer.open(stream)
    assert next(pieces) == b"piece"
    transfer.interrupt()
    assert not stream.open
    with pytest.raises(Interrupted):
        next(pieces)


def test_a_stream_that_ends_while_it_is_interrupted_does_not_look_complete() -> None:
    transfer = Transfer()
    pieces = transfer.open(lambda: iter([b"a"]))
    assert next(pieces) == b"a"
    transfer.interrupt()
    with pytest.raises(Interrupted):
        next(pieces)


def test_a_transfer_interrupted_before_it_began_reads_nothing() -> None:
    transfer, stream = Transfer(), Stream()
    transfer.interrupt()
    with pytest.raises(Interrupted):
        transfer.open(stream)
    with pytest.raises(Interrupted):
        next(transfer.watch(iter([b"a"])))
    assert not stream.giving.is_set()


def test_an_interrupt_waits_for_the_piece_that_is_being_read() -> None:
    transfer, stream = Transfer(), Stream()
    stream.may_give.clear()
    pieces = transfer.open(stream)
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(next, pieces)
        assert stream.giving.wait(PATIENCE)
        interrupting = threads.submit(transfer.interrupt)
        assert not interrupting.done()
        stream.may_give.set()
        interrupting.result(PATIENCE)
        assert not stream.open, "nothing must read the volume after `interrupt` returns"
        with pytest.raises(Interrupted):
            reading.result(PATIENCE)


def test_an_interrupt_does_not_wait_for_the_consumer() -> None:
    transfer, stream = Transfer(), Stream()
    hangs, may_go_on = threading.Event(), threading.Event()

    def put() -> list[bytes]:
        """Puts into an archive that does not answer."""
        pieces = transfer.open(stream)
        taken = [next(pieces)]
        hangs.set()
        assert may_go_on.wait(PATIENCE)
        return [*taken, *pieces]

    with ThreadPoolExecutor(1) as threads:
        putting = threads.submit(put)
        assert hangs.wait(PATIENCE)
        transfer.interrupt()
        assert not stream.open
        may_go_on.set()
        with pytest.raises(Interrupted):
            putting.result(PATIENCE)


def test_a_transfer_can_be_interrupted_twice_and_after_its_end() -> None:
    transfer = Transfer()
    assert list(transfer.open(lambda: iter([b"a"]))) == [b"a"]
    transfer.close()
    transfer.interrupt()
    transfer.interrupt()


def test_a_stream_that_the_host_does_not_let_go_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buntime.lifecycle.transfers.INTERRUPT_SECONDS", 0.01)
    transfer, stream = Transfer(), Stream()
    stream.may_give.clear()
    pieces = transfer.open(stream)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(next, pieces)
        assert stream.giving.wait(PATIENCE)
        with pytest.raises(Unavailable):
            transfer.interrupt()
        stream.may_give.set()
        with pytest.raises(Interrupted):
            reading.result(PATIENCE)


class SlowToClose:
    """A stream that closes when it may: as the process behind it takes time to end."""

    def __init__(self) -> None:
        self.closing, self.may_close = threading.Event(), threading.Event()

    def __call__(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            self.closing.set()
            assert self.may_close.wait(PATIENCE)


def test_a_reader_whose_stream_is_being_closed_is_interrupted() -> None:
    transfer, stream = Transfer(), SlowToClose()
    pieces = transfer.open(stream)
    assert next(pieces) == b"piece"
    interrupting = threading.Thread(target=transfer.interrupt)
    interrupting.start()
    assert stream.closing.wait(PATIENCE)
    try:
        with pytest.raises(Interrupted):
            next(pieces)
    finally:
        stream.may_close.set()
        interrupting.join(PATIENCE)


def test_a_close_waits_for_the_thread_that_is_closing_the_stream() -> None:
    transfer, stream = Transfer(), SlowToClose()
    next(transfer.open(stream))
    with ThreadPoolExecutor(2) as threads:
        interrupting = threads.submit(transfer.interrupt)
        assert stream.closing.wait(PATIENCE)
        closing = threads.submit(transfer.close)
        wait([closing], SHORT)
        was_closed = closing.done()
        stream.may_close.set()
        interrupting.result(PATIENCE)
        closing.result(PATIENCE)
    assert not was_closed, "the volume is still being read when `close` returns"
