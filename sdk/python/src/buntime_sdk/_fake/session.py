"""One fake session: its state, files, processes, contexts and terminals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.files import Entry, FakeFiles
from buntime_sdk._fake.scripts import FakeResult, lines_of
from buntime_sdk._fake.services import FakeServices

DAY = 86_400
DEFAULT_IMAGE = "default"
SHORTEST_TTL = 300
NEVER = "never"
SHORTEST_WAIT, LONGEST_CHECKPOINT = 5, 86400
WAITS = {"idleAfter": 300, "deepSleepAfter": 1800, "checkpointEvery": NEVER}
LIMITS = {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}
KILLED_BY_SLEEP = 143
# The signals that a process can get; by default, only those with a number end it.
ENDING = {"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGKILL": 9, "SIGUSR1": 10, "SIGUSR2": 12, "SIGTERM": 15}
SIGNALS = (*ENDING, "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGWINCH")

Clock: TypeAlias = Callable[[], datetime]
Exited: TypeAlias = Callable[[Mapping[str, Any]], None]


def stamp(time: datetime, later: float = 0) -> str:
    """Formats a time as responses have it. `later`: seconds to add."""
    return (time + timedelta(seconds=later)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a session begins with. `image_env`: the variables of its image."""

    image: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    image_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(entry.content or b"") for entry in self.entries.values())


@dataclass(frozen=True, slots=True)
class Records:
    """Those of processes and contexts, at one moment. A process: as responses have it, and its log."""

    processes: Sequence[tuple[Mapping[str, Any], Sequence[tuple[int, dict[str, Any]]]]]
    contexts: Sequence[Mapping[str, Any]]


class FakeProcess:
    """`told`: as responses have it. `log`: each entry with its end offset in bytes. `written`: what
    its input received. `port`: where it listens while it runs. `exited`: gets `told` when the process ends, but not by
    deep sleep.
    """

    def __init__(self, told: dict[str, Any], clock: Clock, exited: Exited) -> None:
        self.told = told
        self.log: list[tuple[int, dict[str, Any]]] = []
        self.written: list[bytes] = []
        self.input_is_closed = False
        self.port: int | None = None
        self._clock = clock
        self._exited = exited

    @property
    def is_running(self) -> bool:
        return bool(self.told["status"] == "running")

    def play(self, result: FakeResult) -> None:
        """Prints the script's output and ends, unless the script says `running`."""
        end = 0
        for stream in ("stdout", "stderr"):
            for line in lines_of(getattr(result, stream)):
                end += len(line.encode())
                self.log.append((end, {"stream": stream, "data": line, "time": stamp(self._clock())}))
        if not result.running:
            self.end(result.code)

    def end(self, exit_code: int, reason: str | None = None) -> None:
        if self.is_running:
            self.told |= {
                "status": "exited",
                "exitCode": exit_code,
                "reason": reason,
                "endedAt": stamp(self._clock()),
            }
            if reason != "deep_sleep":
                self._exited(self.told)

    def signal(self, name: str) -> None:
        if name not in SIGNALS:
            message = f"signal must be {', '.join(SIGNALS[:-1])} or {SIGNALS[-1]}, not {name!r}."
            refuse("invalid_request", message, field="signal")
        if not self.is_running:
            refuse("invalid_state", "The process has ended.", processId=self.told["processId"])
        if name in ENDING:
            self.end(128 + ENDING[name])


class FakeSession:
    def __init__(
        self, session_id: str, fields: Mapping[str, Any], origin: Origin, clock: Clock, exited: Exited
    ) -> None:
        """`exited`: as for its processes."""
        now = clock()
        self.exited = exited
        self._clock = clock
        self._image_env = origin.image_env
        self._runs = 0
        self.runs_begun = 0
        self.files = FakeFiles(self._now, origin.entries)
        self.processes: dict[str, FakeProcess] = {}
        self.services = FakeServices(self.processes, self._new_process, FakeProcess.end, self._now)
        self.contexts: dict[str, dict[str, Any]] = {}
        self.terminals: set[str] = set()
        self.tokens: set[str] = set()
        self._env: dict[str, str] = {}
        self.expires: datetime | None = now + timedelta(seconds=DAY)
        self._told: dict[str, Any] = {
            "sessionId": session_id,
            "name": None,
            "createdAt": stamp(now),
            "lastActive": stamp(now),
            "state": "active",
            "metadata": {},
            "previewUrl": f"http://{session_id.replace('_', '-')}.localhost:8000",
            "resourceLimits": {**LIMITS, **(fields.get("resourceLimits") or {})},
            "preview": _preview(None),
            "network": _network(None),
            "onWake": None,
            "sleepPolicy": _policy(None),
            "checkpointedAt": None,
            "envNames": [],
            "image": origin.image,
            "snapshotId": fields.get("snapshotId"),
        }
        self.update(fields)

    @property
    def id(self) -> str:
        return str(self._told["sessionId"])

    @property
    def name(self) -> str | None:
        name: str | None = self._told["name"]
        return name

    @property
    def image(self) -> str:
        return str(self._told["image"])

    @property
    def env(self) -> dict[str, str]:
        """The variables of every run."""
        return {**self._image_env, **self._env}

    @property
    def state(self) -> str:
        return str(self._told["state"])

    @property
    def is_expired(self) -> bool:
        return self.expires is not None and self._clock() >= self.expires

    @property
    def made(self) -> dict[str, Any]:
        """The response to its creation."""
        names = ("sessionId", "expiresAt", "previewUrl", "createdAt", "resourceLimits")
        return {name: self.told[name] for name in names}

    @property
    def told(self) -> dict[str, Any]:
        running = sum(process.is_running for process in self.processes.values())
        counts = {"filesCount": self.files.count, "activeProcesses": running}
        expires = None if self.expires is None else stamp(self.expires)
        return {**self._told, "services": self.services.shown, "expiresAt": expires, **counts}

    def listens(self, port: int) -> bool:
        return any(process.port == port and process.is_running for process in self.processes.values())

    def update(self, fields: Mapping[str, Any]) -> None:
        """Updates the settings. None restores a default."""
        if "name" in fields:
            self._told["name"] = fields["name"]
        if "ttl" in fields:
            ttl = DAY if fields["ttl"] is None else fields["ttl"]
            if ttl != NEVER and ttl < SHORTEST_TTL:
                message = f"ttl must be at least {SHORTEST_TTL} seconds, or never."
                refuse("invalid_request", message, field="ttl", limit=SHORTEST_TTL)
            self.expires = None if ttl == NEVER else self._clock() + timedelta(seconds=ttl)
        if "metadata" in fields:
            self._told["metadata"] = fields["metadata"] or {}
        if "preview" in fields:
            self._told["preview"] = _preview(fields["preview"])
        if "network" in fields:
            self._told["network"] = _network(fields["network"])
        if "onWake" in fields:
            self._told["onWake"] = fields["onWake"]
        if "sleepPolicy" in fields:
            self._told["sleepPolicy"] = _policy(fields["sleepPolicy"])
        if "services" in fields:
            self.services.declare(fields["services"] or [], awake=self.state == "active")
        if "env" in fields:
            self._env = fields["env"] or {}
            self._told["envNames"] = sorted(self._env)

    @contextmanager
    def used(self) -> Iterator[None]:
        """A run uses the session within the block."""
        self._runs += 1
        self.runs_begun += 1
        try:
            yield
        finally:
            self._runs -= 1

    def require_unused(self) -> None:
        """Raises SessionBusy while a run uses the session."""
        if self._runs:
            refuse("session_busy", "The session is in use. Try again when its requests have ended.")

    def origin(self) -> Origin:
        """What a session with the files of this one begins with."""
        return Origin(self.image, self.files.entries, self._image_env)

    def settings(self) -> dict[str, Any]:
        """What a fork inherits, in the form of a request."""
        names = ("resourceLimits", "preview", "network", "onWake", "sleepPolicy")
        return {**{name: self._told[name] for name in names}, "env": self._env, "services": self.services.declared}

    def records(self) -> Records:
        processes = [(dict(process.told), list(process.log)) for process in self.processes.values()]
        return Records(processes, [dict(context) for context in self.contexts.values()])

    def begin_again(self, origin: Origin, records: Records) -> None:
        """Gives the session the files and records of a moment. It is active again if it was active."""
        was_active = self.state == "active"
        self.end()
        self.processes.clear()
        for told, log in records.processes:
            process = self.processes[told["processId"]] = FakeProcess(_lost(told), self._clock, self.exited)
            process.log.extend(log)
        self.contexts = {context["contextId"]: _lost(context) for context in records.contexts}
        self.files = FakeFiles(self._now, origin.entries)
        self._told["image"], self._image_env = origin.image, origin.image_env
        self._told["checkpointedAt"] = None
        if was_active:
            self.wake()

    def sleep(self, depth: str) -> None:
        self._told["state"] = depth
        if depth == "idle":
            return
        self._told["checkpointedAt"] = self._now()
        for process in self.processes.values():
            process.end(KILLED_BY_SLEEP, "deep_sleep")
        self.services.ended()
        for context in self.contexts.values():
            if context["status"] == "running":
                context |= {"status": "lost", "reason": "deep_sleep"}
        self.terminals.clear()

    def end(self) -> None:
        """Ends everything that still listens to the session."""
        self.sleep("deep-sleep")
        self.files.end_watches()

    def wake(self) -> None:
        self._told |= {"state": "active", "lastActive": stamp(self._clock())}
        self.services.begin()

    def _new_process(self, name: str, command: str, port: int | None, process_id: str, pid: int) -> FakeProcess:
        told = {"processId": process_id, "pid": pid, "status": "running", "exitCode": None, "reason": None}
        shown = {"startedAt": self._now(), "endedAt": None, "command": command, "name": name}
        process = FakeProcess({**told, **shown}, self._clock, self.exited)
        process.port = port
        return process

    def _now(self) -> str:
        return stamp(self._clock())

    def process(self, process_id: str) -> FakeProcess:
        if process_id not in self.processes:
            refuse("process_not_found", "This session has no process with this id.", processId=process_id)
        return self.processes[process_id]

    def context(self, context_id: str) -> dict[str, Any]:
        """Returns a context that still has its variables."""
        context = self.contexts.get(context_id)
        if context is None:
            refuse("context_not_found", "This session has no context with this id.", contextId=context_id)
        if context["status"] == "lost":
            message = "This context and its variables are gone."
            refuse("context_lost", message, contextId=context_id, reason=context["reason"])
        return context


def _lost(told: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a process or context that ran in another runtime, or had ended."""
    return {**told, **({"status": "lost", "reason": "runtime_ended"} if told["status"] == "running" else {})}


def _policy(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The archive of the fake server is a directory, so it takes no checkpoints unless it is asked to."""
    policy = {**WAITS, "awakeWhile": "requests", **(given or {})}
    for name in WAITS:
        seconds, most = policy[name], LONGEST_CHECKPOINT if name == "checkpointEvery" else None
        if seconds != NEVER and (seconds < SHORTEST_WAIT or (most is not None and seconds > most)):
            bounds = f"at least {SHORTEST_WAIT}" if most is None else f"{SHORTEST_WAIT} to {most}"
            refuse("invalid_request", f"{name} must be {bounds} seconds, or never.", field=f"sleepPolicy.{name}")
    return policy


def _preview(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"visibility": "public", "ports": [8080], **(given or {})}


def _network(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"egress": "internet", "allow": [], "deny": [], **(given or {})}
