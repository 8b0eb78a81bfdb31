"""Services of the session, by way of its guest. Implements `inside.Services`.

`guest/native/processes/services.c` describes the protocol.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from buntime.errors import InvalidState
from buntime.inside import NewService, ServiceState, ServiceStatus
from buntime.sandboxes.guest.client import Count, Guest, Nothing
from buntime.sandboxes.guest.failures import Impostor, NotKnown
from buntime.sandboxes.inside.ends import Ends
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare

MOST = 32  # that a guest lists …
LARGEST_LIST = 1 << 16  # … in so many bytes
STOP_SECONDS = 15.0  # the guest waits up to 12 s for a program to start and to end

type Pid = Annotated[int, Meta(ge=1, lt=1 << 22)]
type ExitCode = Annotated[int, Meta(ge=0, le=255)]


class _Service(msgspec.Struct, rename="camel"):
    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    revision: Annotated[str, Meta(pattern="^[0-9a-f]{1,64}$")]
    state: ServiceState
    process: Annotated[str, Meta(pattern="^proc_[a-z0-9]{18}$")]
    pid: Pid | None
    restarts: Count
    started_at: Count
    exit_code: ExitCode | None
    exited_at: Count | None

    def checked(self) -> ServiceStatus:
        """Raises Impostor for an impossible service."""
        if (self.exit_code is None) != (self.exited_at is None):
            raise Impostor("it describes an impossible service")
        return ServiceStatus(**{name: getattr(self, name) for name in self.__struct_fields__})


class _Services(msgspec.Struct):
    services: Annotated[list[_Service], Meta(max_length=MOST)]


class GuestServices:
    def __init__(self, guest: Guest, launcher: Launcher, ends: Ends) -> None:
        self._guest = guest
        self._launcher = launcher
        self._ends = ends

    async def list(self) -> Sequence[ServiceStatus]:
        try:
            asking = self._guest.call("GET", "/services", {}, _Services, most=LARGEST_LIST)
            found = await self._launcher.in_time(asking, ANSWER_SECONDS)
        except NotKnown:
            raise InvalidState(
                "The session's runtime was started by an earlier version of the server. Its services start after its "
                "next deep sleep."
            ) from None
        async with self._launcher.ending_an_impostor():
            return [service.checked() for service in found.services]

    async def start(self, new: NewService) -> ServiceStatus:
        body = msgspec.json.encode(
            {
                "id": new.id,
                "name": new.name,
                "revision": new.revision,
                "command": new.command,
                "restart": new.restart,
                "env": {**self._launcher.env, **new.env},
                "cwd": new.working_dir,
                "logBytes": new.log_bytes,
                "allLogBytes": new.all_log_bytes,
            }
        )

        async def start(spare: Spare) -> ServiceStatus:
            query = {"spare": str(spare.pid)}
            started = (await self._guest.call("POST", "/services/start", query, _Service, body)).checked()
            if started.name != new.name or started.process != new.id:
                raise Impostor("it describes another service")
            return started

        with self._ends.awaiting(new.id, new.name):
            started, _ = await self._launcher.background("processes", start)
        return started

    async def stop(self, name: str, *, forget: bool = False) -> None:
        query = {"name": name, "forget": str(int(forget))}
        stopping = self._guest.call("POST", "/services/stop", query, Nothing)
        await self._launcher.in_time(stopping, STOP_SECONDS)
