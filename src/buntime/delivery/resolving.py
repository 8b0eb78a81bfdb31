"""Resolves the names of receivers, as every program of this host does: also by /etc/hosts."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

THREADS = 64  # a name server that does not answer holds one for each name


class NoSuchName(Exception):
    """The name has no address, or no name server answers."""


class Resolver:
    """Looks up each name once at a time, in threads of its own: a lookup cannot be cut off."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "webhook-names")
        self._running: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def addresses(self, name: str, port: int) -> Sequence[str]:
        """The IP addresses of a name, or the address that `name` is. Raises NoSuchName."""
        asked = (name, port)
        found = self._running.get(asked)
        if found is None:
            loop = asyncio.get_running_loop()
            found = self._running[asked] = loop.run_in_executor(self._threads, _look_up, name, port)
            found.add_done_callback(lambda ended: self._end(asked, ended))
        return await asyncio.shield(found)

    def _end(self, asked: tuple[str, int], ended: asyncio.Future[Sequence[str]]) -> None:
        del self._running[asked]
        if not ended.cancelled():
            ended.exception()  # so that asyncio does not report it as never retrieved

    def close(self) -> None:
        """Does not wait for lookups that are under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str, port: int) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a part of the name is too long
        raise NoSuchName from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
