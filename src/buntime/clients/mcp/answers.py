"""Results of tools: text for the model, and the same as values for programs."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from buntime_sdk import BuntimeError
from mcp.types import CallToolResult, ImageContent, TextContent


class Answer(TypedDict):
    """`session`: give it back as `session` to go on in the same one. `note`: what has to be known of it."""

    session: str
    note: NotRequired[str]


class Ran(Answer):
    """`stdoutFile`, `stderrFile`: in the session, where the output was too long to show. `filesWrittenMore`: how many
    there are beside those that are named. `processLimitExceeded`: all that the run started has been killed.
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
    """`value`: of the last expression, as text; `error`: what the code threw; `context`: where its names are kept.

    `displayedFile`: in the session, where what was displayed was too long to show.
    """

    context: str
    displayed: NotRequired[str]
    displayedFile: NotRequired[str]
    value: NotRequired[str]
    error: NotRequired[str]


class Content(Answer):
    """`size`: of the file, where it is known: what /proc has, and links, do not say it before their end."""

    path: str
    content: str
    size: NotRequired[int]
    nextOffset: NotRequired[int]


class Written(Answer):
    path: str
    size: int


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


class Started(Answer):
    process: ProcessShown
    ready: NotRequired[bool]
    output: str


class Processes(Answer):
    processes: list[ProcessShown]


class Logs(Answer):
    """`cursor`: give it back to read what comes after."""

    output: str
    cursor: int
    dropped: int
    status: str
    exitCode: int | None


class Previewed(Answer):
    url: str
    port: int
    open: bool


class SessionShown(TypedDict):
    session: str
    state: str
    expiresAt: str
    current: bool


class Sessions(TypedDict):
    sessions: list[SessionShown]


class SessionState(Answer):
    state: str
    expiresAt: NotRequired[str]


ADVICE: Mapping[str, str] = {
    "unauthorized": "The user has to give a valid key: BUNTIME_API_KEY, or the Authorization header over HTTP.",
    "connection_failed": "The buntime server does not answer. The user has to start it, or set BUNTIME_URL.",
    "session_not_found": "Leave out `session`: then a new one is made. Its files are gone.",
    "session_limit_exceeded": "End one that is not needed: list_sessions, delete_session.",
    "file_not_found": "Look with list_files. Paths are relative to /workspace.",
    "file_conflict": "Look with list_files what is there.",
    "process_not_found": "Look with list_processes.",
    "context_not_found": "Leave out `context_id`: then a new one is made, without the variables.",
    "context_lost": "Call run_in_context again without `context_id`: it is a new one. Define what is needed again.",
    "memory_limit_exceeded": "Work on less at a time.",
    "disk_full": "Delete files that are not needed.",
    "payload_too_large": "Write it in parts with append, or let a program make it.",
    "resource_limit_exceeded": "End one first: list_processes, stop_process.",
    "session_busy": "Try again in a moment.",
    "rate_limit_exceeded": "Wait before the next call.",
    "invalid_request": "Correct the argument.",
    "invalid_state": "Look with list_processes and list_sessions how things stand.",
    "forbidden": "The account's plan does not allow it: ask for less, or tell the user.",
    "execution_timeout": "Use start_process for what takes long, and process_logs to follow it.",
    "request_timeout": "It may have been done all the same: look before you do it again.",
    "unavailable": "The server has no room now: try again in a few seconds.",
    "internal_error": "The server failed: try once more, then tell the user.",
}


def answer(text: str, values: Mapping[str, Any], images: Sequence[str] = ()) -> CallToolResult:
    """`values` as the tool's output schema has them. `images`: PNG in base64."""
    parts = [text.rstrip("\n"), *_about(values)]
    shown = "\n\n".join(part for part in parts if part)
    shown_images = [ImageContent(type="image", data=image, mime_type="image/png") for image in images]
    return CallToolResult(
        content=[TextContent(type="text", text=shown), *shown_images], structured_content=dict(values)
    )


def refusal(failure: BuntimeError) -> CallToolResult:
    """What went wrong and what to do, for the model to act on."""
    output = "\n".join(str(failure.details[name]) for name in ("stdout", "stderr") if failure.details.get(name))
    text = f"{told(failure)}\n\nIts output so far:\n{output[-4000:]}" if output else told(failure)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def told(failure: BuntimeError) -> str:
    """A failure in one line, with what to do."""
    advice = ADVICE.get(failure.code, "")
    after = f"Try again in {failure.retry_after:.0f} s." if failure.retry_after is not None else ""
    return " ".join(part for part in (f"{failure.code}: {failure.message}", advice, after) if part)


def _about(values: Mapping[str, Any]) -> list[str]:
    """The session's name, in every result that has one."""
    if "session" not in values:
        return []
    note = f" {values['note']}" if values.get("note") else ""
    return [f"[session {values['session']}]{note}"]
