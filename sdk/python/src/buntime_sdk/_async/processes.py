"""Processes: programs that keep running after the call that started them."""

import base64
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from os import PathLike
from typing import Any, Self

from buntime_sdk._async.calls import AsyncCalls, Call, broken_stream, key_or_new
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk.arguments import working_dir_text
from buntime_sdk.deadlines import NEVER, Deadline
from buntime_sdk.errors import BuntimeError, ConnectionFailed, RequestTimeout
from buntime_sdk.events import ServerEvent
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import LogEntry, LogEvent, LogPage, LogsDropped, ProcessExit, ProcessStatus

WAIT_SECONDS = 30  # default time for a process to become ready
AWAY_SECONDS, LONGEST_PAUSE = 60.0, 5.0  # time allowed for a server restart; longest pause in it
MOST_DOUBLINGS = 16
LASTING_SECONDS = 10.0  # a connection that lasted this long resets the count of failures
SHORTEST_LOOK, LONGEST_LOOK = 0.05, 3.0  # seconds between two polls of a process; polls count against the rate limit


class AsyncProcess:
    """A process, as last seen. `refresh` asks the server again."""

    def __init__(self, calls: AsyncCalls, session_id: str, told: Mapping[str, Any]) -> None:
        self._calls = calls
        self._session_id = session_id
        self._told = told

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """Its id, `proc_…`."""
        return str(self._told["processId"])

    @property
    def pid(self) -> int:
        """Its process id inside the session."""
        return int(self._told["pid"])

    @property
    def status(self) -> ProcessStatus:
        """`running`, `exited`, or `lost`: the session's runtime ended before the process's end was seen."""
        status: ProcessStatus = self._told["status"]
        return status

    @property
    def exit_code(self) -> int | None:
        """128 + signal if killed, 124 after its timeout; None while it runs or if it is lost."""
        code: int | None = self._told["exitCode"]
        return code

    @property
    def reason(self) -> str | None:
        """`deep_sleep`, `runtime_ended` or `timeout`, if the process did not end by itself."""
        reason: str | None = self._told["reason"]
        return reason

    @property
    def command(self) -> str:
        """The command that it runs."""
        return str(self._told["command"])

    @property
    def name(self) -> str | None:
        """Your name for it."""
        name: str | None = self._told["name"]
        return name

    @property
    def started_at(self) -> datetime:
        """When it started, in UTC."""
        return datetime.fromisoformat(self._told["startedAt"])

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, in UTC; None while it runs."""
        ended = self._told["endedAt"]
        return None if ended is None else datetime.fromisoformat(ended)

    @property
    def ready(self) -> bool | None:
        """Whether it became ready in time; None if `start` did not wait for it."""
        ready: bool | None = self._told.get("ready")
        return ready

    @property
    def port_was_in_use(self) -> bool:
        """Whether it is not ready and something listened on `wait_for_port` before it started."""
        return bool(self._told.get("portWasInUse"))

    async def refresh(self) -> Self:
        """Asks the server for the process's current state. Raises ProcessNotFound."""
        return await self._look(NEVER)

    async def wait(self, timeout: float | None = None) -> Self:
        """Waits until the process has ended. This keeps its session awake.

        `timeout`: seconds to wait, from 0; None, the default, is no bound. Past it, the process goes on running. Raises
        TimeoutError then, and ProcessNotFound.
        """
        deadline, look = Deadline.after(timeout), SHORTEST_LOOK
        while (await self._look(deadline)).status == "running":
            if deadline.is_past:
                raise self._late(deadline)
            await self._calls.wait(min(look, deadline.left))
            look = min(look * 1.5, LONGEST_LOOK)
        return self

    async def input(self, content: str | bytes, *, close: bool = False) -> Self:
        """Writes to standard input. `content`: at most 1 MiB a call. `close`: close standard input afterwards.

        Raises InvalidState if standard input is closed, SessionBusy if the process does not read, ProcessNotFound.
        """
        data = content if isinstance(content, str) else base64.b64encode(content).decode()
        encoding = None if isinstance(content, str) else "base64"
        request = {**self._names(), "data": data, "encoding": encoding, "close": close or None}
        return self._seen(await self._calls.json(Call("POST", "/processes/input", json=request)))

    async def close_input(self) -> Self:
        """Closes standard input. Raises ProcessNotFound."""
        request = {**self._names(), "close": True}
        return self._seen(await self._calls.json(Call("POST", "/processes/input", json=request)))

    async def signal(self, signal: str = "SIGTERM") -> Self:
        """Signals the process and everything that it started. `signal`: its name, such as `"SIGINT"`.

        Raises InvalidState if the process has ended, InvalidRequest for an unknown signal, ProcessNotFound.
        """
        request = {**self._names(), "signal": signal}
        return self._seen(await self._calls.json(Call("POST", "/processes/signal", json=request)))

    async def kill(self) -> Self:
        """Sends `SIGKILL`."""
        return await self.signal("SIGKILL")

    async def logs(self, *, cursor: int | None = None, limit: int | None = None) -> LogPage:
        """Returns a page of its output.

        `cursor`: where the page begins, such as the `cursor` of the page before; the start by default. `limit`: bytes,
        about; 256 KiB by default. Raises ProcessNotFound.
        """
        query = {**self._names(), "cursor": cursor, "limit": limit}
        return from_wire(LogPage, await self._calls.json(Call("GET", "/processes/logs", query)))

    async def follow(self, *, cursor: int = 0, timeout: float | None = None) -> AsyncGenerator[LogEvent]:
        """Streams its output. The last event is its `ProcessExit`.

        `cursor`: where to begin; the start by default. `timeout`: seconds from the first read that following may take
        in all, from 0; None, the default, is no bound. Past it, the process goes on running, and the `cursor` of the
        last event is where to follow on.

        A broken connection resumes where it stopped: no output is lost or repeated. While the server restarts,
        reconnecting goes on for a minute. Raises ConnectionFailed after that, TimeoutError, and ProcessNotFound.
        """
        deadline, failed, waited = Deadline.after(timeout), 0, 0.0
        while True:
            began = time.monotonic()
            try:
                async with aclosing(self._followed(cursor, deadline)) as events:
                    async for event in events:
                        failed, waited = 0, 0.0
                        yield event
                        if isinstance(event, ProcessExit):
                            return
                        cursor = cursor if event.cursor is None else event.cursor
                raise broken_stream()
            except BuntimeError as failure:
                if deadline.is_past:
                    raise self._late(deadline) from failure
                if time.monotonic() - began > LASTING_SECONDS:
                    failed, waited = 0, 0.0
                failed += 1
                delay = self._calls.delay_before(failure, 1 if waited < AWAY_SECONDS else failed)
                if delay is None:
                    raise
            delay = max(delay, min(max(delay, SHORTEST_LOOK) * 2 ** min(failed - 1, MOST_DOUBLINGS), LONGEST_PAUSE))
            delay = min(delay, deadline.left)
            waited += delay
            await self._calls.wait(delay)

    async def _followed(self, cursor: int, deadline: Deadline) -> AsyncGenerator[LogEvent]:
        query = {**self._names(), "cursor": cursor or None, "follow": True}
        call = Call("GET", "/processes/logs", query, is_retried=False, deadline=deadline)  # `follow` retries by itself
        async with self._calls.events(call) as events, aclosing(events):
            async for event in events:
                told = _log_event(event)
                if told is not None:
                    yield told

    async def _look(self, deadline: Deadline) -> Self:
        try:
            return self._seen(await self._calls.json(Call("GET", "/processes/get", self._names(), deadline=deadline)))
        except (ConnectionFailed, RequestTimeout) as failure:
            if deadline.is_past:
                raise self._late(deadline) from failure
            raise

    def _late(self, deadline: Deadline) -> TimeoutError:
        return TimeoutError(f"Process {self.id} was still running after {deadline.seconds:g} seconds.")

    def _names(self) -> dict[str, Any]:
        return {"sessionId": self._session_id, "processId": self.id}

    def _seen(self, told: Mapping[str, Any]) -> Self:
        self._told = {**self._told, **told}
        return self


class AsyncProcesses:
    """The processes of one session."""

    def __init__(self, calls: AsyncCalls, session_id: str) -> None:
        self._calls = calls
        self._session_id = session_id

    async def start(
        self,
        command: str | None = None,
        *,
        code: str | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | PathLike[str] | None = None,
        name: str | None = None,
        timeout: int | None = None,
        wait_for_port: int | None = None,
        wait_for_output: str | None = None,
        wait_timeout: int | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncProcess:
        """Starts a process that keeps running after the call.

        `command`, `code`: the program; set exactly one. `env`: variables for it. `working_dir`: relative to
        `/workspace`, or absolute. `name`: a label for people. `timeout`: seconds after which the process is killed;
        none by default. `wait_for_port`: return when a new socket listens on this port. `wait_for_output`: return when
        a line of output matches this regular expression. `wait_timeout`: seconds to wait for either, 1 to 300; 30 by
        default. After that the process keeps running and its `ready` is False. `idempotency_key`: one is generated by
        default, so a retry starts nothing twice.

        Raises InvalidRequest, and ResourceLimitExceeded when the plan's processes are all running.
        """
        request: dict[str, object] = {
            "sessionId": self._session_id,
            "command": command,
            "code": code,
            "env": env,
            "workingDir": working_dir_text(working_dir),
            "name": name,
            "timeout": timeout,
        }
        waits = 0
        if wait_for_port is not None or wait_for_output is not None:
            wanted: dict[str, object] = {"port": wait_for_port, "output": wait_for_output, "timeout": wait_timeout}
            request["waitFor"] = {key: value for key, value in wanted.items() if value is not None}
            waits = wait_timeout or WAIT_SECONDS
        key = key_or_new(idempotency_key)
        told = await self._calls.json(Call("POST", "/processes/start", json=request, key=key, waits=waits))
        return AsyncProcess(self._calls, self._session_id, told)

    def list(self, *, page_size: int | None = None) -> AsyncPages[AsyncProcess]:
        """Lists processes, newest first, including those that have ended. `page_size`: 1 to 100; 50 by default."""

        async def fetch(offset: int) -> tuple[Sequence[AsyncProcess], int]:
            query = {"sessionId": self._session_id, "limit": page_size, "offset": offset or None}
            told = await self._calls.json(Call("GET", "/processes/list", query))
            return [AsyncProcess(self._calls, self._session_id, one) for one in told["processes"]], told["total"]

        return AsyncPages(fetch, lambda process: process.id)

    async def get(self, process_id: str) -> AsyncProcess:
        """Returns the process with the id `process_id`. Raises ProcessNotFound."""
        query = {"sessionId": self._session_id, "processId": process_id}
        return AsyncProcess(self._calls, self._session_id, await self._calls.json(Call("GET", "/processes/get", query)))


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
