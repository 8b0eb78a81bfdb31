"""Connects to receivers, by addresses that were checked.

A name is resolved once, every address of it is checked, and the connection goes to a checked one. So a name that
changes between the check and the connection leads nowhere else. The name stays in `Host`, in SNI and in the
certificate.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from ssl import SSLContext
from typing import Any

from anyio import CancelScope
from httpcore2 import SOCKET_OPTION, AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream, ConnectError, ConnectTimeout

from buntime.webhook import Network, is_allowed, is_named

ADDRESSES = 3  # of a name that are tried
CONNECT_SECONDS = 4.0  # for each of them
LARGEST_ANSWER = 16 << 10  # bytes of an answer that are read, with its headers and whatever comes before it
MOST_READS = 100  # of one answer, which may come a byte at a time
READ_BYTES = 4 << 10  # at once. The library parses what one read brings before anything else runs

type Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotAllowed(Exception):
    """An address of the receiver is not public, and in none of the operator's networks."""


class TooLong(Exception):
    """The answer has more than LARGEST_ANSWER bytes, or came in more than MOST_READS pieces."""


class CheckedBackend(AsyncNetworkBackend):
    def __init__(self, resolve: Resolve, networks: Sequence[Network]) -> None:
        """`resolve`: a name and a port → addresses."""
        self._resolve = resolve
        self._networks = networks
        self._sockets = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Raises NotAllowed, NoSuchName and what httpcore2 raises. Ignores `timeout`: the whole attempt has one."""
        addresses = await self._resolve(host, port)
        if not addresses or not all(is_allowed(address, self._networks) for address in addresses):
            raise NotAllowed
        *others, last = addresses[:ADDRESSES]
        for address in others:
            try:
                return await self._connected(address, port, CONNECT_SECONDS)
            except (ConnectError, ConnectTimeout):
                continue
        return await self._connected(last, port, None)

    async def _connected(self, address: str, port: int, seconds: float | None) -> AsyncNetworkStream:
        stream = await self._sockets.connect_tcp(address, port, seconds)
        try:
            if _is_of_this_host(stream) and not is_named(address, self._networks):
                raise NotAllowed
        except BaseException:
            await stream.aclose()
            raise
        return _Bounded(stream)


class _Bounded(AsyncNetworkStream):
    """A connection that reads a bounded answer to each request, so that parsing what a receiver sends stops no other.

    It is closed when its TLS handshake does not end well, also when that is cancelled.
    """

    def __init__(self, inner: AsyncNetworkStream) -> None:
        self._inner = inner
        self._bytes = self._reads = 0  # of the answer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises TooLong and what httpcore2 raises."""
        if self._bytes >= LARGEST_ANSWER or self._reads >= MOST_READS:
            raise TooLong
        got = await self._inner.read(min(max_bytes, READ_BYTES, LARGEST_ANSWER - self._bytes), timeout)
        self._bytes += len(got)
        self._reads += 1
        return got

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._bytes = self._reads = 0  # a request: what is read after it is its answer
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncNetworkStream:
        try:
            return _Bounded(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            with CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _is_of_this_host(stream: AsyncNetworkStream) -> bool:
    """Whether the connection leads back to this host, by a public address of its own. Behind it may be services that a
    firewall keeps from strangers. Raises ConnectError for a connection that is broken already."""
    ours, theirs = stream.get_extra_info("client_addr"), stream.get_extra_info("server_addr")
    if ours is None or theirs is None:
        raise ConnectError("The connection was reset.")
    return ip_address(ours[0]) == ip_address(theirs[0])
