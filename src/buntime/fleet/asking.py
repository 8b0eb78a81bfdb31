"""How a host asks another one to count requests: by HTTP over the mutual TLS that hosts speak anyway."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from anyio import fail_after
from httpcore2 import AsyncConnectionPool, NetworkError, ProtocolError, TimeoutException

from buntime.fleet.rates import Asked, PeerAway
from buntime.fleet.standings import body_of, counted_of
from buntime.ports import Peer
from buntime.rates import Standings

PATH = "/.hosts/count"
ANSWER_SECONDS = 1.0  # to answer, with the connection
KEPT_SECONDS = 30.0


class PeerHome:
    """Implements `fleet.rates.Home`. One connection for each host."""

    def __init__(self, trusted: Callable[[], ssl.SSLContext]) -> None:
        """`trusted`: makes what this host shows and believes. It is made again after a failure, since certificates are
        renewed."""
        self._trusted = trusted
        self._pools: dict[Peer, AsyncConnectionPool] = {}

    async def count(self, peer: Peer, asked: Sequence[Asked]) -> Sequence[Standings]:
        body = body_of(asked)
        headers: dict[bytes | str, bytes | str] = {
            "Host": "hosts",
            "Content-Type": "application/json",
            "X-Buntime-Peer": peer.id,
        }
        try:
            with fail_after(ANSWER_SECONDS):
                answer = await self._pool(peer).request(
                    "POST",
                    f"https://{peer.address}{PATH}",
                    headers=headers,
                    content=body,
                    extensions={"sni_hostname": peer.id},
                )
            if answer.status != 200:
                raise PeerAway(f"It answered with status {answer.status}.")
            return counted_of(answer.content, len(asked))
        except (TimeoutError, TimeoutException, NetworkError, ProtocolError, OSError, msgspec.DecodeError) as failure:
            await self._forget(peer)
            raise PeerAway(f"{type(failure).__name__}: {failure}") from None

    async def close(self) -> None:
        for peer in list(self._pools):
            await self._forget(peer)

    def _pool(self, peer: Peer) -> AsyncConnectionPool:
        if peer not in self._pools:
            self._pools[peer] = AsyncConnectionPool(
                ssl_context=self._trusted(), max_connections=1, keepalive_expiry=KEPT_SECONDS
            )
        return self._pools[peer]

    async def _forget(self, peer: Peer) -> None:
        if (pool := self._pools.pop(peer, None)) is not None:
            await pool.aclose()


@asynccontextmanager
async def asking(trusted: Callable[[], ssl.SSLContext]) -> AsyncIterator[PeerHome]:
    home = PeerHome(trusted)
    try:
        yield home
    finally:
        await home.close()
