"""One method per API operation on the services of a session."""

from collections.abc import Sequence
from dataclasses import dataclass

from buntime import errors
from buntime.caller import Caller
from buntime.inside import ServiceStatus
from buntime.lifecycle.services import Services as Running
from buntime.operations.entrance import Entrance
from buntime.ports import Sandbox
from buntime.service import Service
from buntime.session import Session


@dataclass(frozen=True, slots=True)
class ServiceView:
    """What the session declares, and what its guest says of it: None if that has not been started."""

    service: Service
    status: ServiceStatus | None


class Services:
    """Each method wakes the session. Those that name a service raise ServiceNotFound."""

    def __init__(self, entrance: Entrance, running: Running) -> None:
        self._entrance = entrance
        self._running = running

    async def list(self, caller: Caller, session_id: str) -> Sequence[ServiceView]:
        """In the order in which the session declares them."""
        async with self._entrance.use(caller, session_id) as (session, sandbox):
            return await self._views(session, sandbox)

    async def start(self, caller: Caller, session_id: str, name: str) -> ServiceView:
        """Nothing happens if it runs. Raises ResourceLimitExceeded."""
        async with self._entrance.use(caller, session_id) as (session, sandbox):
            service = _found(session, name)
            async with self._entrance.place(caller, session, sandbox, "processes"):
                await self._running.start(session, sandbox, service)
            return await self._view(session, sandbox, name)

    async def stop(self, caller: Caller, session_id: str, name: str) -> ServiceView:
        """Until it is started, or the session wakes from deep sleep."""
        async with self._entrance.use(caller, session_id) as (session, sandbox):
            await self._running.stop(session, sandbox, _found(session, name))
            return await self._view(session, sandbox, name)

    async def restart(self, caller: Caller, session_id: str, name: str) -> ServiceView:
        """Raises ResourceLimitExceeded, and the service then runs on."""
        async with self._entrance.use(caller, session_id) as (session, sandbox):
            service = _found(session, name)
            status = (await self._running.list(session.id, sandbox)).get(name)
            own = int(status is not None and status.state in ("running", "restarting", "stopping"))
            await self._entrance.check_place(caller, session, sandbox, "processes", without=own)
            await self._running.stop(session, sandbox, service)
            async with self._entrance.place(caller, session, sandbox, "processes"):
                await self._running.start(session, sandbox, service)
            return await self._view(session, sandbox, name)

    async def _views(self, session: Session, sandbox: Sandbox) -> Sequence[ServiceView]:
        there = await self._running.list(session.id, sandbox) if session.services else {}
        return [ServiceView(service, there.get(service.name)) for service in session.services]

    async def _view(self, session: Session, sandbox: Sandbox, name: str) -> ServiceView:
        return next(view for view in await self._views(session, sandbox) if view.service.name == name)


def _found(session: Session, name: str) -> Service:
    for service in session.services:
        if service.name == name:
            return service
    raise errors.ServiceNotFound(name[:64])
