"""The services of one fake session. Their programs run, silent, until they are stopped."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Generic, TypeVar

from buntime_sdk._fake.answers import refuse

MOST = 8
FIRST_PID = 1000
KILLED = 143

Process = TypeVar("Process")


class FakeServices(Generic[Process]):
    """`new_process` makes one that runs, from its name, command, id and pid. `end` ends it."""

    def __init__(
        self,
        processes: MutableMapping[str, Process],
        new_process: Callable[[str, str, int | None, str, int], Process],
        end: Callable[[Process, int], None],
        now: Callable[[], str],
    ) -> None:
        self._processes = processes
        self._new_process = new_process
        self._end = end
        self._now = now
        self._made = 0
        self.declared: list[Mapping[str, Any]] = []  # as requests have them
        self._told: dict[str, dict[str, Any]] = {}  # by name, as responses have them

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What the session declares, as responses have it."""
        return [
            {
                "name": one["name"],
                "command": one["command"],
                "port": one.get("port"),
                "workingDir": one.get("workingDir", "/workspace"),
                "envNames": sorted(one.get("env") or {}),
                "restart": one.get("restart", "always"),
            }
            for one in self.declared
        ]

    def declare(self, services: Sequence[Mapping[str, Any]], *, awake: bool) -> None:
        """Stops what is not declared any more or has changed, and starts what is new."""
        names = [one.get("name") for one in services]
        if len(services) > MOST or len({*names}) < len(names):
            refuse("invalid_request", f"services may have {MOST} entries, of different names.", field="services")
        kept = [one["name"] for one in self.declared if one in services]
        self.declared = [*services]
        for name in [name for name in self._told if name not in kept]:
            self._over(name, "stopped")
            del self._told[name]
        if awake:
            self.begin()

    def begin(self) -> None:
        """The session has woken: all run that do not."""
        for one in self.declared:
            if one["name"] not in self._told:
                self._start(one)

    def ended(self) -> None:
        """Deep sleep has ended them."""
        self._told.clear()

    def list(self) -> list[dict[str, Any]]:
        return [self._told[one["name"]] for one in self.declared]

    def act(self, name: str, what: str) -> dict[str, Any]:
        declared = next((one for one in self.declared if one["name"] == name), None)
        if declared is None:
            refuse("service_not_found", "This session has no service with this name.", name=name)
        if what != "start":
            self._over(name, "stopped")
        if what != "stop" and self._told[name]["state"] != "running":
            self._start(declared)
        return self._told[name]

    def _start(self, declared: Mapping[str, Any]) -> None:
        self._made += 1
        process_id, pid, name = f"proc_s{self._made:017}", FIRST_PID + self._made, declared["name"]
        port = declared.get("port")
        self._processes[process_id] = self._new_process(name, declared["command"], port, process_id, pid)
        self._told[name] = {
            "name": name,
            "state": "running",
            "pid": pid,
            "port": port,
            "restarts": 0,
            "startedAt": self._now(),
            "lastExit": None,
            "processId": process_id,
        }

    def _over(self, name: str, state: str) -> None:
        told = self._told[name]
        if told["state"] != "running":
            return
        process = self._processes.get(told["processId"])
        if process is not None:
            self._end(process, KILLED)
        told |= {"state": state, "pid": None, "lastExit": {"exitCode": KILLED, "endedAt": self._now()}}
