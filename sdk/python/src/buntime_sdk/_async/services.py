"""Services: programs that a session declares, and that run whenever it is awake."""

import builtins
from collections.abc import Sequence
from urllib.parse import quote

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk.arguments import require_id
from buntime_sdk.errors import ServiceNotFound
from buntime_sdk.from_json import from_wire
from buntime_sdk.service_shapes import Service


class AsyncServices:
    """The services of one session. Each call wakes it. Set what it declares with `create` and `update`."""

    def __init__(self, calls: AsyncCalls, session_id: str) -> None:
        self._calls = calls
        self._session_id = session_id

    async def list(self) -> builtins.list[Service]:
        """Shows how they are, in the order in which the session declares them."""
        told = await self._calls.json(Call("GET", self._path()))
        return [from_wire(Service, one) for one in told["services"]]

    async def get(self, name: str) -> Service:
        """Shows how the service with this `name` is. Raises ServiceNotFound."""
        return _named(await self.list(), name)

    async def start(self, name: str) -> Service:
        """Starts the service `name` that has exited or was stopped. One that runs stays as it is.

        Raises ServiceNotFound, ResourceLimitExceeded.
        """
        return await self._ask(name, "start")

    async def stop(self, name: str) -> Service:
        """Stops the service `name`: SIGTERM, and SIGKILL 5 seconds later.

        It stays stopped until it is started, or the session wakes from deep sleep. Raises ServiceNotFound.
        """
        return await self._ask(name, "stop")

    async def restart(self, name: str) -> Service:
        """Stops the service `name` and starts it again, with the session's variables as they are now.

        Raises ServiceNotFound, ResourceLimitExceeded.
        """
        return await self._ask(name, "restart")

    async def _ask(self, name: str, what: str) -> Service:
        require_id("name", name)
        call = Call("POST", self._path(f"/{quote(name, safe='')}/{what}"), repeatable=what != "restart")
        return from_wire(Service, await self._calls.json(call))

    def _path(self, rest: str = "") -> str:
        return f"/sessions/{quote(self._session_id, safe=':')}/services{rest}"


def _named(services: Sequence[Service], name: str) -> Service:
    for service in services:
        if service.name == name:
            return service
    raise ServiceNotFound("This session has no service with this name.", code="service_not_found")
