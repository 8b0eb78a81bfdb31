"""Reads the body of a response until a deadline. The halves of the SDK differ in how a read that waits is ended."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import httpx2

from buntime_sdk.deadlines import Deadline


async def async_parts_until(response: httpx2.Response, deadline: Deadline) -> AsyncGenerator[bytes]:
    """Yields the body's parts. Raises ReadTimeout past the deadline."""
    async with aclosing(response.aiter_bytes()) as parts:
        while True:
            try:
                async with asyncio.timeout(deadline.left if deadline.is_bound else None):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx2.ReadTimeout("", request=response.request) from None
            yield part


def parts_until(response: httpx2.Response, deadline: Deadline) -> Generator[bytes]:
    with _cut_at(deadline, response):
        yield from response.iter_bytes()


async def async_whole_until(response: httpx2.Response, deadline: Deadline) -> bytes:
    """Returns the body. Raises ReadTimeout past the deadline."""
    try:
        async with asyncio.timeout(deadline.left if deadline.is_bound else None):
            return await response.aread()
    except TimeoutError:
        raise httpx2.ReadTimeout("", request=response.request) from None


def whole_until(response: httpx2.Response, deadline: Deadline) -> bytes:
    with _cut_at(deadline, response):
        return response.read()


@contextmanager
def _cut_at(deadline: Deadline, response: httpx2.Response) -> Generator[None]:
    """Shuts the connection at the deadline. The HTTP client's own timeout starts again with each part."""
    stream = response.extensions.get("network_stream")
    if not deadline.is_bound or stream is None:
        yield
        return
    timer = threading.Timer(deadline.left, _shut, (stream.get_extra_info("socket"),))
    timer.daemon = True
    timer.start()
    try:
        yield
    except httpx2.RequestError:
        if not deadline.is_past:
            raise
    finally:
        timer.cancel()
        timer.join()
    if deadline.is_past:  # a body without a length ends in silence
        raise httpx2.ReadTimeout("", request=response.request)


def _shut(connection: Any) -> None:
    with suppress(OSError):  # closed already
        if isinstance(connection, socket.socket):  # not TLS's own, which is not for two threads
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        else:
            connection.shutdown(socket.SHUT_RDWR)
