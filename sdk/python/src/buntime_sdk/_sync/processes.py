# Made by `generate` from ../_async/processes.py: change that.
"""Processes: what goes on when the call that started it has ended."""

import base64
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Self

from buntime_sdk._sync.calls import Call, Calls, broken_stream, new_key
from buntime_sdk._sync.pages import Pages
from buntime_sdk.errors import BuntimeError
from buntime_sdk.events import ServerEvent
from buntime_sdk.shapes import LogEntry, LogEvent, LogPage, LogsDropped, ProcessExit, ProcessStatus, from_wire

WAIT_SECONDS = 30  # for a process to be ready, where nothing else is said
AWAY_SECONDS, LONGEST_PAUSE = 60.0, 5.0  # that a server may be away while it is started again, and between two looks
MOST_DOUBLINGS = 16
LASTING_SECONDS = 10.0  # a connection that held so long counts as a new beginning when it breaks
SHORTEST_LOOK, LONGEST_LOOK = 0.05, 3.0  # seconds between two looks at a process that is waited for: plans count them


class Process:
    """A process, as it was seen last: `refresh` looks again."""

    def __init__(self, calls: Calls, session_id: str, told: Mapping[str, Any]) -> None:
        self._calls = calls
        self._session_id = session_id
        self._told = told

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        return str(self._told["processId"])

    @property
    def pid(self) -> int:
        return int(self._told["pid"])

    @property
    def status(self) -> ProcessStatus:
        """`running`, `exited`, or `lost`: the session's runtime ended before anybody saw its end."""
        status: ProcessStatus = self._told["status"]
        return status

    @property
    def exit_code(self) -> int | None:
        """128 + signal when killed, 124 at its timeout; None while it runs and where it is lost."""
        code: int | None = self._told["exitCode"]
        return code

    @property
    def reason(self) -> str | None:
        """`deep_sleep`, `runtime_ended` or `timeout`, where it did not end by itself."""
        reason: str | None = self._told["reason"]
        return reason

    @property
    def command(self) -> str:
        return str(self._told["command"])

    @property
    def name(self) -> str | None:
        name: str | None = self._told["name"]
        return name

    @property
    def started_at(self) -> datetime:
        return datetime.fromisoformat(self._told["startedAt"])

    @property
    def ended_at(self) -> datetime | None:
        ended = self._told["endedAt"]
        return None if ended is None else datetime.fromisoformat(ended)

    @property
    def ready(self) -> bool | None:
        """Whether it was ready in time; None where it was not waited for."""
        ready: bool | None = self._told.get("ready")
        return ready

    def refresh(self) -> Self:
        return self._seen(self._calls.json(Call("GET", "/processes/get", self._names())))

    def wait(self) -> Self:
        """Until it has ended. Its session is kept awake meanwhile."""
        look = SHORTEST_LOOK
        while (self.refresh()).status == "running":
            self._calls.wait(look)
            look = min(look * 1.5, LONGEST_LOOK)
        return self

    def input(self, content: str | bytes, *, close: bool = False) -> Self:
        """To its standard input, at most 1 MiB at a time. `close`: its end comes after this.

        Raises InvalidState where it is closed, SessionBusy where the process does not read.
        """
        data = content if isinstance(content, str) else base64.b64encode(content).decode()
        encoding = None if isinstance(content, str) else "base64"
        request = {**self._names(), "data": data, "encoding": encoding, "close": close or None}
        return self._seen(self._calls.json(Call("POST", "/processes/input", json=request)))

    def close_input(self) -> Self:
        """The end of its standard input."""
        request = {**self._names(), "close": True}
        return self._seen(self._calls.json(Call("POST", "/processes/input", json=request)))

    def signal(self, signal: str = "SIGTERM") -> Self:
        """To it and all that it has started."""
        request = {**self._names(), "signal": signal}
        return self._seen(self._calls.json(Call("POST", "/processes/signal", json=request)))

    def kill(self) -> Self:
        return self.signal("SIGKILL")

    def logs(self, *, cursor: int | None = None, limit: int | None = None) -> LogPage:
        """A page of its output from the cursor on, about `limit` bytes (262144)."""
        query = {**self._names(), "cursor": cursor, "limit": limit}
        return from_wire(LogPage, self._calls.json(Call("GET", "/processes/logs", query)))

    def follow(self, *, cursor: int = 0) -> Generator[LogEvent]:
        """Its output as it comes, from the cursor on, and last its `ProcessExit`.

        A connection that breaks is made again where it was, so nothing is missed and nothing comes twice; a server that
        is started again is waited for, for a minute.
        """
        failed, waited = 0, 0.0
        while True:
            began = time.monotonic()
            try:
                with closing(self._followed(cursor)) as events:
                    for event in events:
                        failed, waited = 0, 0.0
                        yield event
                        if isinstance(event, ProcessExit):
                            return
                        cursor = cursor if event.cursor is None else event.cursor
                raise broken_stream()
            except BuntimeError as failure:
                if time.monotonic() - began > LASTING_SECONDS:
                    failed, waited = 0, 0.0
                failed += 1
                delay = self._calls.delay_before(failure, 1 if waited < AWAY_SECONDS else failed)
                if delay is None:
                    raise
            delay = max(delay, min(max(delay, SHORTEST_LOOK) * 2 ** min(failed - 1, MOST_DOUBLINGS), LONGEST_PAUSE))
            waited += delay
            self._calls.wait(delay)

    def _followed(self, cursor: int) -> Generator[LogEvent]:
        query = {**self._names(), "cursor": cursor or None, "follow": True}
        call = Call("GET", "/processes/logs", query, is_retried=False)  # `follow` does that
        with self._calls.events(call) as events, closing(events):
            for event in events:
                told = _log_event(event)
                if told is not None:
                    yield told

    def _names(self) -> dict[str, Any]:
        return {"sessionId": self._session_id, "processId": self.id}

    def _seen(self, told: Mapping[str, Any]) -> Self:
        self._told = {**self._told, **told}
        return self


class Processes:
    """The processes of one session."""

    def __init__(self, calls: Calls, session_id: str) -> None:
        self._calls = calls
        self._session_id = session_id

    def start(
        self,
        command: str | None = None,
        *,
        code: str | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        name: str | None = None,
        timeout: int | None = None,
        wait_for_port: int | None = None,
        wait_for_output: str | None = None,
        wait_timeout: int | None = None,
        idempotency_key: str | None = None,
    ) -> Process:
        """Starts a command, or code. It is repeated safely, with an idempotency key of its own.

        `name`: for people. `timeout`: seconds after which it is killed; none by default. `wait_for_port`: the answer
        comes when something listens there; `wait_for_output`: when a line matches this regular expression; see `ready`
        of the process. `wait_timeout`: seconds to wait for that, 1 to 300; 30 by default. The process goes on then.

        Raises ResourceLimitExceeded.
        """
        request: dict[str, object] = {
            "sessionId": self._session_id,
            "command": command,
            "code": code,
            "env": env,
            "workingDir": working_dir,
            "name": name,
            "timeout": timeout,
        }
        waits = 0
        if wait_for_port is not None or wait_for_output is not None:
            wanted: dict[str, object] = {"port": wait_for_port, "output": wait_for_output, "timeout": wait_timeout}
            request["waitFor"] = {key: value for key, value in wanted.items() if value is not None}
            waits = wait_timeout or WAIT_SECONDS
        key = idempotency_key or new_key()
        told = self._calls.json(Call("POST", "/processes/start", json=request, key=key, waits=waits))
        return Process(self._calls, self._session_id, told)

    def list(self, *, page_size: int | None = None) -> Pages[Process]:
        """Newest first, ended ones too."""

        def fetch(offset: int) -> tuple[Sequence[Process], int]:
            query = {"sessionId": self._session_id, "limit": page_size, "offset": offset or None}
            told = self._calls.json(Call("GET", "/processes/list", query))
            return [Process(self._calls, self._session_id, one) for one in told["processes"]], told["total"]

        return Pages(fetch, lambda process: process.id)

    def get(self, process_id: str) -> Process:
        """Raises ProcessNotFound."""
        query = {"sessionId": self._session_id, "processId": process_id}
        return Process(self._calls, self._session_id, self._calls.json(Call("GET", "/processes/get", query)))


def _log_event(event: ServerEvent) -> LogEvent | None:
    told = event.told
    cursor = int(event.id) if event.id else None
    match event.name:
        case "stdout" | "stderr":
            return from_wire(LogEntry, {**told, "stream": event.name, "cursor": cursor})
        case "dropped":
            return LogsDropped(told["bytes"], cursor)
        case "exit":
            return from_wire(ProcessExit, told)
    return None
