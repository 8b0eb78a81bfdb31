"""A fake of `inside.Services`. A program runs until a test `ends` it; then its rule says whether it starts again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from buntime.errors import ProcessNotFound
from buntime.inside import NewProcess, NewService, ServiceState, ServiceStatus
from buntime.testing.processes import TIME, FakeProcesses

LIVE = ("running", "restarting", "stopping")


@dataclass(slots=True)
class FakeService:
    new: NewService
    now: ServiceStatus


class FakeServices:
    """Its processes are among `processes`. A command of FakeProcess that ends at once counts as ended."""

    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes
        self.all: dict[str, FakeService] = {}

    async def list(self) -> Sequence[ServiceStatus]:
        return [service.now for service in self.all.values()]

    async def start(self, new: NewService) -> ServiceStatus:
        assert new.name not in self.all or self.all[new.name].now.state not in LIVE, "a service of this name runs"
        self.all.pop(new.name, None)
        process = await self._processes.start(
            NewProcess(new.id, command=new.command, name=new.name, env=new.env, log_bytes=new.log_bytes, stdin=b"")
        )
        running = ServiceStatus(new.name, new.revision, "running", new.id, process.pid, 0, TIME)
        self.all[new.name] = FakeService(new, running)
        if process.id in self._processes.all and self._processes.all[process.id].now.status == "exited":
            self.ends(new.name, self._processes.all[process.id].now.exit_code or 0, again=False)
        return self.all[new.name].now

    async def stop(self, name: str, *, forget: bool = False) -> None:
        service = self.all.get(name)
        if service is not None and service.now.state in LIVE:
            self._over(service, "stopped", 143)
        if forget:
            self.all.pop(name, None)

    def ends(self, name: str, exit_code: int, *, again: bool = True) -> None:
        """The program ends. `again`: it is started again at once if its rule says so."""
        service = self.all[name]
        rule = service.new.restart
        if rule == "never" or (rule == "on-failure" and exit_code == 0) or not again:
            self._over(service, "exited", exit_code)
            return
        now = service.now
        service.now = replace(now, restarts=now.restarts + 1, exit_code=exit_code, exited_at=TIME)

    def loses(self, name: str) -> None:
        """The session kills what would restart it."""
        service = self.all[name]
        service.now = replace(service.now, state="lost", pid=None)

    def _over(self, service: FakeService, state: ServiceState, exit_code: int) -> None:
        service.now = replace(service.now, state=state, pid=None, exit_code=exit_code, exited_at=TIME)
        try:
            process = self._processes.all[service.new.id]
        except KeyError:
            raise ProcessNotFound(service.new.id) from None
        if process.now.status == "running":
            process.ends(exit_code)
