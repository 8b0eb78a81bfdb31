"""The fake's endpoints for runs, processes and contexts."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from buntime_sdk._fake.answers import Answer, Parts, error_object, event, events, refuse
from buntime_sdk._fake.file_routes import page_of
from buntime_sdk._fake.files import absolute, shown
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.scripts import FakeResult, FakeRun, RunKind, Scripts, content_of, forms, lines_of, told
from buntime_sdk._fake.session import Clock, FakeProcess, FakeSession, stamp
from buntime_sdk.errors import BuntimeError

FIRST_PID = 100
SILENT = FakeResult(running=True)
ADDRESS_IN_USE = FakeResult(stderr="error: listen EADDRINUSE\n", exit_code=1)


@dataclass(frozen=True, slots=True)
class Tools:
    """What routes need besides the session."""

    scripts: Scripts
    clock: Clock
    new_id: Callable[[str], str]


RunRoute: TypeAlias = Callable[[FakeSession, FakeRequest, Tools], dict[str, Any] | Answer]


def _execute(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any] | Answer:
    asked = request.fields
    is_streamed = asked.get("stream") is True
    kind: RunKind = "context" if "contextId" in asked else "stream" if is_streamed else "execute"
    run = _run(session, asked, kind)
    if run.context_id is not None:
        session.context(run.context_id)["runs"] += 1
    for file in asked.get("files") or ():
        session.files.write(file["path"], content_of(file), mode=file.get("mode"))
    if is_streamed:
        is_detached = asked.get("detach") is True
        return events(_refusing(_detached(session, asked, tools) if is_detached else _attached(session, run, tools)))
    with session.used():
        result = tools.scripts.play(run)
    return {**told(run, result, _written(session, run, result)), "stdout": result.stdout, "stderr": result.stderr}


def _start(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    asked = request.fields
    port = (asked.get("waitFor") or {}).get("port")
    is_taken = port is not None and session.listens(port)
    process = _started(session, asked, tools, ADDRESS_IN_USE if is_taken else SILENT)
    if "waitFor" not in asked:
        return process.told
    if port is None:
        return {**process.told, "ready": process.is_running or bool(process.log)}
    process.port = None if is_taken else port
    is_ready = process.is_running and not is_taken
    return {**process.told, "ready": is_ready, **({"portWasInUse": True} if is_taken else {})}


def _list(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    every = [process.told for process in reversed(session.processes.values())]
    return {"processes": page_of(every, request.query), "total": len(every)}


def _get(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    return session.process(request.query["processId"]).told


def _input(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    asked = request.fields
    process = session.process(asked["processId"])
    if not process.is_running:
        refuse("invalid_state", "The process has ended.", processId=asked["processId"])
    if process.input_is_closed:
        refuse("invalid_state", "The input of this process is closed.", processId=asked["processId"])
    if "data" in asked:
        is_encoded = asked.get("encoding") == "base64"
        process.written.append(base64.b64decode(asked["data"]) if is_encoded else asked["data"].encode())
    process.input_is_closed = asked.get("close") is True
    return process.told


def _signal(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    process = session.process(request.fields["processId"])
    process.signal(request.fields.get("signal", "SIGTERM"))
    return process.told


def _logs(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any] | Answer:
    process = session.process(request.query["processId"])
    cursor = int(request.query.get("cursor", 0))
    if request.query.get("follow") == "true":
        return events(_followed(process, cursor))
    room, entries = int(request.query.get("limit", 1 << 18)), []
    for end, entry in process.log:
        if end > cursor and room > 0:
            entries.append(entry)
            room -= end - cursor
            cursor = end
    end = process.log[-1][0] if process.log else 0
    return {"entries": entries, "cursor": cursor, "end": end, "dropped": 0, **_exit(process)}


def _create_context(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    made = {
        "contextId": tools.new_id("ctx"),
        "createdAt": stamp(tools.clock()),
        "workingDir": absolute(request.fields.get("workingDir") or "/workspace"),
    }
    session.contexts[made["contextId"]] = {**made, "status": "running", "reason": None, "runs": 0}
    return made


def _list_contexts(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    return {"contexts": list(session.contexts.values())}


def _delete_context(session: FakeSession, request: FakeRequest, tools: Tools) -> dict[str, Any]:
    context_id = request.query["contextId"]
    if session.contexts.pop(context_id, None) is None:
        refuse("context_not_found", "This session has no context with this id.", contextId=context_id)
    return {"deleted": True, "contextId": context_id}


def _run(session: FakeSession, asked: Mapping[str, Any], kind: RunKind) -> FakeRun:
    code, command = asked.get("code"), asked.get("command")
    if (code is None) == (command is None):
        refuse("invalid_request", "Exactly one of code and command is needed.", field="code")
    return FakeRun(
        kind=kind,
        session_id=session.id,
        code=code,
        command=command,
        context_id=asked.get("contextId"),
        env={**session.env, **(asked.get("env") or {})},
        files={file["path"]: content_of(file) for file in asked.get("files") or ()},
        stdin=asked.get("stdin") or "",
        working_dir=asked.get("workingDir") or "/workspace",
        timeout=asked.get("timeout"),
    )


def _written(session: FakeSession, run: FakeRun, result: FakeResult) -> list[str]:
    """Writes the script's files. Returns the paths of all files that the run wrote."""
    for path, content in result.files.items():
        session.files.write(path, content.encode() if isinstance(content, str) else content)
    return sorted({shown(absolute(path)) for path in (*run.files, *result.files, *result.files_written)})


def _attached(session: FakeSession, run: FakeRun, tools: Tools) -> Parts:
    with session.used():
        result = tools.scripts.play(run)
        for stream in ("stdout", "stderr"):
            for line in lines_of(getattr(result, stream)):
                yield event(stream, {"data": line})
        for value in result.displayed:
            yield event("displayed", forms(value))
    numbers = told(run, result, _written(session, run, result))
    numbers.pop("displayed", None)
    yield event("result", numbers)


def _detached(session: FakeSession, asked: Mapping[str, Any], tools: Tools) -> Parts:
    process = _started(session, asked, tools)
    yield event("process", {"processId": process.told["processId"]})
    for logged in _log(process, 0):
        yield logged and event(logged[1]["stream"], {"data": logged[1]["data"]})
    run = _run(session, asked, "process")
    yield event("result", told(run, FakeResult(exit_code=process.told["exitCode"]), []))


def _refusing(parts: Parts) -> Parts:
    """Turns a failure into an event of the stream, since the response has begun."""
    try:
        yield from parts
    except BuntimeError as failure:
        if failure.code in ("connection_failed", "request_timeout"):
            raise
        yield event("error", error_object(failure))


def _started(
    session: FakeSession, asked: Mapping[str, Any], tools: Tools, unscripted: FakeResult = SILENT
) -> FakeProcess:
    """Starts a process. Without a script it acts as a server: it runs silently until it gets a signal."""
    run = _run(session, asked, "process")
    result = tools.scripts.find(run) or unscripted
    process_id = tools.new_id("proc")
    shape: dict[str, Any] = {
        "processId": process_id,
        "pid": FIRST_PID + len(session.processes),
        "status": "running",
        "exitCode": None,
        "reason": None,
        "startedAt": stamp(tools.clock()),
        "endedAt": None,
        "command": run.program,
        "name": asked.get("name"),
    }
    process = session.processes[process_id] = FakeProcess(shape, tools.clock, session.exited)
    _written(session, run, result)
    process.play(result)
    return process


def _exit(process: FakeProcess) -> dict[str, Any]:
    return {name: process.told[name] for name in ("status", "exitCode", "reason")}


def _followed(process: FakeProcess, cursor: int) -> Parts:
    for logged in _log(process, cursor):
        if logged is None:
            yield None
            continue
        cursor, entry = logged
        yield event(entry["stream"], {"data": entry["data"], "time": entry["time"]}, cursor)
    yield event("exit", _exit(process), cursor)


def _log(process: FakeProcess, cursor: int) -> Iterator[tuple[int, dict[str, Any]] | None]:
    """Yields the process's output until it ends; None: nothing new yet."""
    yield from (logged for logged in process.log if logged[0] > cursor)
    while process.is_running:
        yield None


RUN_ROUTES: Mapping[str, RunRoute] = {
    "POST /execute": _execute,
    "POST /processes/start": _start,
    "GET /processes/list": _list,
    "GET /processes/get": _get,
    "POST /processes/input": _input,
    "POST /processes/signal": _signal,
    "GET /processes/logs": _logs,
    "POST /contexts/create": _create_context,
    "GET /contexts/list": _list_contexts,
    "DELETE /contexts/delete": _delete_context,
}
