"""What the server writes to the edge, and when."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from buntime.web.serving import LARGE, HeadFirst

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Written:
    """A transport that keeps what is written, by system calls."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.calls.append([data])

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.calls.append(list(parts))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def transport(written: Written) -> HeadFirst:
    sink: Any = written
    return HeadFirst(sink)


async def test_a_head_goes_out_with_the_body_that_follows_at_once(written: Written, transport: HeadFirst) -> None:
    transport.write(HEAD)
    transport.write(b"{}")
    transport.write(b"more")
    await asyncio.sleep(0)
    assert written.calls == [[HEAD + b"{}"], [b"more"]]


async def test_a_head_without_a_body_waits_for_nothing(written: Written, transport: HeadFirst) -> None:
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert written.calls == [[HEAD]]
    transport.write(b"{}")
    assert written.calls == [[HEAD], [b"{}"]]


async def test_a_large_body_is_not_copied(written: Written, transport: HeadFirst) -> None:
    body = bytes(LARGE + 1)
    transport.write(HEAD)
    transport.write(body)
    assert written.calls == [[HEAD, body]]
    assert written.calls[0][1] is body


async def test_a_head_whose_client_has_left_is_dropped(written: Written, transport: HeadFirst) -> None:
    transport.write(HEAD)
    written.is_closed = True
    await asyncio.sleep(0)
    assert written.calls == []


async def test_a_close_sends_the_head_first(written: Written, transport: HeadFirst) -> None:
    transport.write(HEAD)
    assert not transport.is_closing()
    transport.close()
    await asyncio.sleep(0)
    assert transport.is_closing()
    assert written.calls == [[HEAD]]
