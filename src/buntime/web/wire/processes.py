"""The JSON shapes of processes and their logs."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import LARGEST_OFFSET, Limit, Offset, Path, SessionId, Time
from buntime.web.wire.shapes import Request, Response

PROCESS_ID = "The process's id, `proc_` and 18 lower-case letters and digits."
LOG_LIMIT, MOST_LOG = 262144, 1048576  # bytes

ProcessId = Annotated[str, Meta(description=PROCESS_ID)]
Status = Annotated[
    Literal["running", "exited", "lost"],
    Meta(description="`lost`: the session's runtime ended before the process did, so nobody knows an exit code."),
]
ExitCode = Annotated[
    int | None,
    Meta(description="128 + signal when killed, 124 at its timeout; null while it runs and where it is lost."),
]
Reason = Annotated[
    Literal["deep_sleep", "runtime_ended", "timeout"] | None,
    Meta(description="Why it ended, where it was not by itself."),
]
Cursor = Annotated[int, Meta(ge=0, le=LARGEST_OFFSET, description="Bytes of output before what is meant.")]


class WaitForRequest(Request):
    port: Annotated[int, Meta(description="Until something in the session listens on it, 1 to 65535.")] | UnsetType = (
        UNSET
    )
    output: (
        Annotated[
            str,
            Meta(
                description="Until a line of its output matches this regular expression of ripgrep's, at most 1,000 "
                "characters."
            ),
        ]
        | UnsetType
    ) = UNSET
    timeout: Annotated[int, Meta(description="Seconds to wait, 1 to 300. The process goes on after that.")] = 30


class StartProcess(Request):
    session_id: SessionId
    code: Annotated[str, Meta(description="TypeScript or JavaScript for Bun; exactly one of code and command.")] | (
        UnsetType
    ) = UNSET
    command: Annotated[str, Meta(description="Run by `bash -c`; exactly one of code and command.")] | UnsetType = UNSET
    env: (
        Annotated[
            dict[str, str],
            Meta(
                description="Over the session's own; at most 100 entries.",
                extra_json_schema={"default": {}},
            ),
        ]
        | UnsetType
    ) = UNSET
    working_dir: Path = "/workspace"
    name: Annotated[str, Meta(description="For people; 1 to 200 characters.")] | UnsetType = UNSET
    timeout: (
        Annotated[
            int,
            Meta(
                description="Seconds after which it is killed, 1 to 604800; while the session is suspended they do not "
                "count. Without it, it runs until it ends."
            ),
        ]
        | UnsetType
    ) = UNSET
    wait_for: (
        Annotated[WaitForRequest, Meta(description="Answer when it is ready; exactly one of port and output.")]
        | UnsetType
    ) = UNSET


class Process(Response):
    process_id: ProcessId
    pid: Annotated[int, Meta(description="Inside the session.")]
    status: Status
    exit_code: ExitCode
    reason: Reason
    started_at: Time
    ended_at: Time | None
    command: Annotated[str, Meta(description="Its command or code, at most 1,000 characters.")]
    name: str | None


class StartedProcess(Process, kw_only=True):
    ready: (
        Annotated[bool, Meta(description="With `waitFor`: whether it was ready in time. See `status` where not.")]
        | UnsetType
    ) = UNSET


class ListProcessesQuery(Request):
    session_id: SessionId
    limit: Limit = 50
    offset: Offset = 0


class Processes(Response):
    processes: list[Process]
    total: int


class ProcessQuery(Request):
    session_id: SessionId
    process_id: ProcessId


class ProcessInput(Request):
    session_id: SessionId
    process_id: ProcessId
    data: Annotated[str, Meta(description="At most 1 MiB at a time.")] = ""
    encoding: Annotated[
        Literal["utf8", "base64"], Meta(description="How `data` is written; base64 is strict, with its padding.")
    ] = "utf8"
    close: Annotated[bool, Meta(description="The end of its input comes after this.")] = False


SignalName = Literal[
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGKILL",
    "SIGUSR1",
    "SIGUSR2",
    "SIGTERM",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGWINCH",
]


class ProcessSignal(Request):
    session_id: SessionId
    process_id: ProcessId
    signal: Annotated[SignalName, Meta(description="To the process and all that it has started.")] = "SIGTERM"


class LogsQuery(Request):
    session_id: SessionId
    process_id: ProcessId
    cursor: Annotated[Cursor, Meta(description="Where to begin: that of an answer before, or 0 for all there is.")] = 0
    limit: Annotated[
        int, Meta(ge=1, le=MOST_LOG, description="Bytes of output in one answer, about. Without meaning to `follow`.")
    ] = LOG_LIMIT
    follow: Annotated[bool, Meta(description="`true`: as Server-Sent Events, to the end of the process.")] = False


class LogEntry(Response):
    stream: Literal["stdout", "stderr"]
    data: Annotated[str, Meta(description="No character is split; bytes that are not UTF-8 are U+FFFD.")]
    time: Time


class Logs(Response):
    entries: list[LogEntry]
    cursor: Annotated[Cursor, Meta(description="Where the next answer begins.")]
    end: Annotated[Cursor, Meta(description="The cursor after all that there is now: once reached, that was read.")]
    dropped: Annotated[
        int,
        Meta(ge=0, description="Bytes between the cursor asked for and the first entry that are not kept any more."),
    ]
    status: Status
    exit_code: ExitCode
    reason: Reason


class LogOutput(Response):
    data: Annotated[str, Meta(description="No character is split; bytes that are not UTF-8 are U+FFFD.")]
    time: Time


class Dropped(Response):
    bytes: Annotated[int, Meta(ge=1, description="Of output before the next event that are not kept any more.")]


class Exit(Response):
    status: Status
    exit_code: ExitCode
    reason: Reason


class Detached(Response):
    process_id: ProcessId
