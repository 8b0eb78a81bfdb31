"""The JSON shapes of processes and their logs."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import LARGEST_OFFSET, Limit, Offset, Path, SessionId, Time
from buntime.web.wire.shapes import Request, Response

PROCESS_ID = "The process's id: `proc_` and 18 lower-case letters and digits."
LOG_LIMIT, MOST_LOG = 262144, 1048576  # bytes

ProcessId = Annotated[str, Meta(description=PROCESS_ID)]
Status = Annotated[
    Literal["running", "exited", "lost"],
    Meta(description="`lost`: the session's runtime ended before the process did, so its exit code is unknown."),
]
ExitCode = Annotated[
    int | None,
    Meta(description="128 + signal number if killed, 124 on timeout. Null while the process runs and if it is lost."),
]
Reason = Annotated[
    Literal["deep_sleep", "runtime_ended", "timeout"] | None,
    Meta(description="Why the process ended, if it did not end on its own."),
]
Cursor = Annotated[
    int, Meta(ge=0, le=LARGEST_OFFSET, description="A position in the output: the number of bytes before it.")
]


class WaitForRequest(Request):
    port: (
        Annotated[int, Meta(description="Wait until a new socket in the session listens on this port, 1 to 65535.")]
        | UnsetType
    ) = UNSET
    output: (
        Annotated[
            str,
            Meta(
                description="Wait until a line of output matches this regular expression (ripgrep syntax, at most "
                "1,000 characters)."
            ),
        ]
        | UnsetType
    ) = UNSET
    timeout: Annotated[int, Meta(description="Seconds to wait, 1 to 300. The process continues after that.")] = 30


class StartProcess(Request):
    session_id: SessionId
    code: Annotated[
        str, Meta(description="TypeScript or JavaScript for Bun. Give exactly one of `code` and `command`.")
    ] | (UnsetType) = UNSET
    command: (
        Annotated[str, Meta(description="A command for `bash -c`. Give exactly one of `code` and `command`.")]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[
            dict[str, str],
            Meta(
                description="Environment variables, at most 100. They override the session's.",
                extra_json_schema={"default": {}},
            ),
        ]
        | UnsetType
    ) = UNSET
    working_dir: Path = "/workspace"
    name: Annotated[str, Meta(description="A label of 1 to 200 characters.")] | UnsetType = UNSET
    timeout: (
        Annotated[
            int,
            Meta(
                description="Seconds after which the process is killed, 1 to 604800. Time while the session is "
                "suspended does not count. Omit it to let the process run until it ends."
            ),
        ]
        | UnsetType
    ) = UNSET
    wait_for: (
        Annotated[
            WaitForRequest,
            Meta(description="Respond when the process is ready. Give exactly one of `port` and `output`."),
        ]
        | UnsetType
    ) = UNSET


class Process(Response):
    process_id: ProcessId
    pid: Annotated[int, Meta(description="The process id inside the session.")]
    status: Status
    exit_code: ExitCode
    reason: Reason
    started_at: Time
    ended_at: Time | None
    command: Annotated[str, Meta(description="The command or code, cut to 1,000 characters.")]
    name: str | None


class StartedProcess(Process, kw_only=True):
    ready: (
        Annotated[
            bool, Meta(description="With `waitFor`: whether the process was ready in time. If not, see `status`.")
        ]
        | UnsetType
    ) = UNSET
    port_was_in_use: (
        Annotated[
            bool,
            Meta(
                description="`true` if the process is not ready and something listened on `waitFor.port` before it "
                "started. Absent otherwise."
            ),
        ]
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
    data: Annotated[str, Meta(description="At most 1 MiB in one request.")] = ""
    encoding: Annotated[
        Literal["utf8", "base64"], Meta(description="How `data` is encoded. Base64 is strict and needs its padding.")
    ] = "utf8"
    close: Annotated[bool, Meta(description="Close the input after this data.")] = False


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
    signal: Annotated[SignalName, Meta(description="Sent to the process and everything that it started.")] = "SIGTERM"


class LogsQuery(Request):
    session_id: SessionId
    process_id: ProcessId
    cursor: Annotated[
        Cursor, Meta(description="Where to start: the cursor of an earlier response, or 0 for everything kept.")
    ] = 0
    limit: Annotated[
        int, Meta(ge=1, le=MOST_LOG, description="Approximate bytes of output in one response. Ignored with `follow`.")
    ] = LOG_LIMIT
    follow: Annotated[bool, Meta(description="`true`: send Server-Sent Events until the process ends.")] = False


class LogEntry(Response):
    stream: Literal["stdout", "stderr"]
    data: Annotated[str, Meta(description="Text. A character is never split. Bytes that are not UTF-8 become U+FFFD.")]
    time: Time


class Logs(Response):
    entries: list[LogEntry]
    cursor: Annotated[Cursor, Meta(description="Where the next response starts.")]
    end: Annotated[Cursor, Meta(description="The cursor after the last byte written so far.")]
    dropped: Annotated[
        int,
        Meta(ge=0, description="Bytes between the requested cursor and the first entry that are no longer kept."),
    ]
    status: Status
    exit_code: ExitCode
    reason: Reason


class LogOutput(Response):
    data: Annotated[str, Meta(description="Text. A character is never split. Bytes that are not UTF-8 become U+FFFD.")]
    time: Time


class Dropped(Response):
    bytes: Annotated[int, Meta(ge=1, description="Bytes of output before the next event that are no longer kept.")]


class Exit(Response):
    status: Status
    exit_code: ExitCode
    reason: Reason


class Detached(Response):
    process_id: ProcessId
