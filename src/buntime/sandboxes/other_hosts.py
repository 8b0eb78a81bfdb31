"""Keeps sessions away from the other hosts of the fleet, and ends connections to hosts that are silent.

A host that lost its power or its network ends no connection. What waits for its answer would wait for an hour. It
answers nothing once its lease is over, so nginx may know then.
"""

import asyncio
from collections.abc import Callable, Collection

import structlog

from buntime.fleet.neighbours import Endpoint, Neighbours
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network.disconnecting import end_connections_to

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LOOKS = 30  # at a silent host: by then nothing can be connected to it


class OtherHosts:
    def __init__(self, seen: Callable[[], Neighbours], close: Callable[[Collection[Endpoint]], None]) -> None:
        """`seen`: as of the last list of the hosts. `close`: see `Network.close_hosts`."""
        self._seen, self._close = seen, close
        self._closed: frozenset[Endpoint] = frozenset()
        self._looks: dict[Endpoint, int] = {}  # silent host → looks since it is silent

    async def keep(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """What fails is done by the next look."""
        found = self._seen()
        try:
            if found.every != self._closed:
                await asyncio.to_thread(self._close, found.every)
                self._closed = found.every
            self._looks = {each: self._looks.get(each, 0) + 1 for each in found.silent}
            for each in (each for each, looks in self._looks.items() if looks <= LOOKS):
                if ended := await asyncio.to_thread(end_connections_to, each):
                    log.warning("connections_to_host_ended", host=str(each.address), port=each.port, count=ended)
        except HostCommandFailed as failed:
            log.error("other_hosts_not_kept_off", reason=str(failed))
