"""Results of tools: text for the model, and the same content as values for programs."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NotRequired, TypedDict

from buntime_sdk import BuntimeError
from mcp.types import CallToolResult, ImageContent, TextContent


class Answer(TypedDict):
    """`session`: pass this id as `session` to continue in the same session. `note`: what to know about it."""

    session: str
    note: NotRequired[str]


class Ran(Answer):
    """`stdoutFile`, `stderrFile`: files in the session with the whole output, if it was too long to show.
    `filesWrittenMore`: the number of written files beyond the listed ones. `processLimitExceeded`: everything that the
    run started was killed.
    """

    exitCode: int
    timedOut: bool
    executionTimeMs: int
    stdout: str
    stderr: str
    filesWritten: list[str]
    filesWrittenMore: NotRequired[int]
    processLimitExceeded: NotRequired[bool]
    stdoutFile: NotRequired[str]
    stderrFile: NotRequired[str]


class Evaluated(Ran):
    """`value`: the last expression as text. `error`: what the code threw. `context`: the context that has the
    variables.

    `displayedFile`: a file in the session with all displayed values, if they were too long to show.
    """

    context: str
    displayed: NotRequired[str]
    displayedFile: NotRequired[str]
    value: NotRequired[str]
    error: NotRequired[str]


class Content(Answer):
    """`size`: the file's size, if known. Links and files in /proc do not report it before their end is read.
    `nextLine`, `nextOffset`: where to continue, as start_line or offset, if the file goes on.
    """

    path: str
    content: str
    size: NotRequired[int]
    nextOffset: NotRequired[int]
    nextLine: NotRequired[int]


class Written(Answer):
    path: str
    size: int


class Edited(Written):
    """`replaced`: the number of replaced occurrences."""

    replaced: int


class Entry(TypedDict):
    path: str
    type: str
    size: int


class Listed(Answer):
    files: list[Entry]
    total: int


class Match(TypedDict):
    path: str
    line: NotRequired[int]
    text: NotRequired[str]


class Found(Answer):
    matches: list[Match]
    truncated: bool


class ProcessShown(TypedDict):
    process: str
    name: str | None
    status: str
    exitCode: int | None
    reason: str | None
    command: str


class ProcessState(Answer):
    process: ProcessShown


class Started(ProcessState):
    ready: NotRequired[bool]
    portWasInUse: NotRequired[bool]
    output: str


class ServiceShown(TypedDict):
    name: str
    state: str
    port: int | None
    restarts: int
    lastExitCode: int | None
    process: str | None


class Services(Answer):
    services: list[ServiceShown]


class Processes(Answer):
    processes: list[ProcessShown]


class Logs(Answer):
    """`cursor`, `skip`: pass them back to read the output that follows."""

    output: str
    cursor: int
    skip: NotRequired[int]
    dropped: int
    status: str
    exitCode: int | None


class Previewed(Answer):
    """`open`: anyone with the URL may see the port. Otherwise the URL has a token. `listening`: whether a program
    listens on the port, if that could be found out.
    """

    url: str
    port: int
    open: bool
    listening: NotRequired[bool]


class SessionShown(TypedDict):
    session: str
    name: str | None
    state: str
    expiresAt: str | None
    current: bool


class Sessions(TypedDict):
    sessions: list[SessionShown]


class SessionState(Answer):
    state: str
    expiresAt: NotRequired[str | None]


class SnapshotTaken(Answer):
    """`size`: bytes of disk that a session with these files needs."""

    snapshot: str
    name: str | None
    size: int


class SnapshotShown(TypedDict):
    snapshot: str
    name: str | None
    session: str
    takenAt: str
    size: int


class Snapshots(TypedDict):
    snapshots: list[SnapshotShown]


class Restored(Answer):
    snapshot: str
    state: str


class Forked(Answer):
    """`fork`: pass this id as `session` to use the new session. `session`: the one that it was made of."""

    fork: str
    expiresAt: str | None


ADVICE: Mapping[str, str] = {
    "unauthorized": "The user must provide a valid key: BUNTIME_API_KEY, or the Authorization header over HTTP.",
    "connection_failed": "The buntime server does not answer. The user must start it or set BUNTIME_URL.",
    "session_not_found": "Find it with list_sessions, or omit `session`. The files of a deleted session are gone.",
    "session_limit_exceeded": "Delete a session that is no longer needed: list_sessions, delete_session.",
    "file_not_found": "Find the path with list_files. Paths are relative to /workspace.",
    "file_conflict": "See what exists with list_files.",
    "process_not_found": "Find the process with list_processes.",
    "context_not_found": "Omit `context_id` to get a new context. It has none of the old variables.",
    "image_not_found": "Omit `image`, or ask the user for its name.",
    "snapshot_not_found": "Find it with list_snapshots.",
    "context_lost": "Call run_in_context again without `context_id` for a new context, and define the variables again.",
    "memory_limit_exceeded": "Process less data at a time.",
    "disk_full": "Delete files that are not needed.",
    "payload_too_large": "Write the file in parts with append, or let a program create it.",
    "session_busy": "Try again in a moment.",
    "rate_limit_exceeded": "Wait before the next call.",
    "invalid_state": "Check the state with list_processes and list_sessions.",
    "forbidden": "The account's plan does not allow this. Ask for less, or tell the user.",
    "execution_timeout": "Use start_process for long work, and process_logs to follow it.",
    "request_timeout": "The request may still have succeeded. Check before you retry.",
    "unavailable": "The server has no capacity now. Try again in a few seconds.",
    "internal_error": "The server failed. Retry once, then tell the user.",
}

LIMIT_ADVICE: Mapping[str, str] = {  # for resource_limit_exceeded, by the resource
    "processes": "End a process first: list_processes, stop_process.",
    "contexts": "Pass the `context_id` of an earlier result, or use new_session. Deep sleep ends a session's contexts.",
    "open streams": "Wait until another call has ended.",
}
ARGUMENTS: Mapping[str, str] = {  # the tools' names of the API's fields
    "workingDir": "working_dir",
    "waitFor.port": "wait_for_port",
    "waitFor.output": "wait_for_output",
    "waitFor.timeout": "wait_seconds",
    "ignoreCase": "ignore_case",
    "sessionId": "session",
    "processId": "process",
    "contextId": "context_id",
    "snapshotId": "snapshot",
    "data": "text",
}
BEGINNING = re.compile(r"\A[A-Za-z]+(\.[A-Za-z]+)*")  # the name of a field, if a message begins with one
NO_FOLDER = "buntime: workingDir "  # begins the output of a program whose folder does not exist


def stamp(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def ending(expires: str | None) -> str:
    return "never expires" if expires is None else f"expires at {expires}"


def answer(text: str, values: Mapping[str, Any], images: Sequence[str] = ()) -> CallToolResult:
    """`values` match the tool's output schema. `images` are PNG in base64."""
    parts = [text.rstrip("\n"), *_about(values)]
    shown = "\n\n".join(part for part in parts if part)
    shown_images = [ImageContent(type="image", data=image, mime_type="image/png") for image in images]
    return CallToolResult(
        content=[TextContent(type="text", text=shown), *shown_images], structured_content=dict(values)
    )


def in_tool_words(output: str) -> str:
    """A program's output, in which our own words have the tool's name of the folder."""
    return output if not output.startswith(NO_FOLDER) else output.replace("workingDir", "working_dir", 1)


def refusal(failure: BuntimeError, advice: str | None = None) -> CallToolResult:
    """Tells the model what went wrong and what to do. `advice`: in place of the usual one."""
    output = "\n".join(str(failure.details[name]) for name in ("stdout", "stderr") if failure.details.get(name))
    said = told(failure, advice)
    text = f"{said}\n\nOutput so far:\n{output[-4000:]}" if output else said
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def told(failure: BuntimeError, advice: str | None = None) -> str:
    """A failure and its remedy, in one line."""
    advice = _advice(failure) if advice is None else advice
    after = f"Try again in {failure.retry_after:.0f} s." if failure.retry_after is not None else ""
    return " ".join(part for part in (f"{failure.code}: {_sentence(failure)}", advice, after) if part)


def _advice(failure: BuntimeError) -> str:
    if failure.code == "resource_limit_exceeded":
        return LIMIT_ADVICE.get(str(failure.details.get("resource")), "")
    return ADVICE.get(failure.code, "")


def _sentence(failure: BuntimeError) -> str:
    """The message with the tool's name of the argument that it begins with, and with a full stop."""
    message = BEGINNING.sub(lambda field: ARGUMENTS.get(field[0], field[0]), failure.message, count=1)
    return message if message.endswith((".", "!", "?")) else f"{message}."


def _about(values: Mapping[str, Any]) -> list[str]:
    """The line that names the session, for results that have one."""
    if "session" not in values:
        return []
    note = f" {values['note']}" if values.get("note") else ""
    return [f"[session {values['session']}]{note}"]
