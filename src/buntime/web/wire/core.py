"""The JSON shapes of every request and answer, as the contract has them.

Requests are strict: an unknown field, a null where none is allowed or a number in quotes is refused.
The descriptions and bounds here are what `/openapi.json` shows. Bounds that depend on the caller's plan
are checked by `buntime.requests`.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
LARGEST_OFFSET = (1 << 53) - 1  # beyond it JavaScript clients, and the guest, cannot count

SESSION_ID = "The session's id, `ses_` and 18 lower-case letters and digits."
PATH = "Relative to `/workspace`, or absolute inside the session."


def iso(seconds: int) -> str:
    """Unix seconds → `2024-01-19T10:30:00Z`. A time out of the calendar's range becomes its end."""
    return datetime.fromtimestamp(min(max(seconds, 0), LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: float) -> float:
    """Whole numbers without a point, as a client wrote them."""
    return int(value) if value == int(value) else value


def encode(answer: object) -> bytes:
    """Compact JSON. Text from inside a session that is not valid Unicode becomes U+FFFD."""
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError:
        return msgspec.json.encode(_valid_text(msgspec.to_builtins(answer)))


def _valid_text(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        case list() | tuple():
            return [_valid_text(item) for item in value]
        case dict():
            return {_valid_text(key): _valid_text(item) for key, item in value.items()}
    return value


class Request(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a client sends."""


class Shown(Struct, rename="camel", kw_only=True):
    """What a client gets."""


Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="UTC, whole seconds, with `Z`.")]
Text = Annotated[str, Meta()]
Default = "default"

# --- pieces of sessions ---


class ResourceLimitsRequest(Request):
    memory: Annotated[int, Meta(description="MB; 64 up to the plan's most.", extra_json_schema={Default: 1024})] | (
        UnsetType
    ) = UNSET
    cpu: Annotated[float, Meta(description="Cores; 0.05 up to the plan's most.", extra_json_schema={Default: 0.25})] | (
        UnsetType
    ) = UNSET
    timeout: (
        Annotated[
            int,
            Meta(
                description="Seconds for a run that names no timeout; 1 up to the plan's most.",
                extra_json_schema={Default: 30},
            ),
        ]
        | UnsetType
    ) = UNSET
    disk: Annotated[int, Meta(description="MB; 16 up to the plan's most.", extra_json_schema={Default: 1024})] | (
        UnsetType
    ) = UNSET


class PreviewRequest(Request):
    visibility: Annotated[
        Literal["public", "private"],
        Meta(description="`public`: the ports below are open to whoever has the URL. `private`: none is."),
    ] = "public"
    ports: Annotated[
        list[int],
        Meta(description="Up to 64 different ports, 1024 to 65535.", extra_json_schema={Default: [8080]}),
    ] = field(default_factory=lambda: [8080])


class NetworkRequest(Request):
    egress: Annotated[
        Literal["internet", "none"], Meta(description="`internet`: public addresses only. `none`: nothing.")
    ] = "internet"
    allow: Annotated[
        list[str],
        Meta(
            description="At most 100 IPv4 networks (`192.0.2.0/24`) and domain names (`example.com`; "
            "`*.example.com`: all names below it). With any, nothing else is reachable and no other name is resolved. "
            "Without effect where `egress` is `none`."
        ),
    ] = []
    deny: Annotated[
        list[str],
        Meta(
            description="The same, never reachable, whatever is allowed: names are not resolved, and neither are "
            "their addresses reachable as far as they are known."
        ),
    ] = []


Ttl = Annotated[
    int,
    Meta(
        description="Seconds until the session expires; 300 up to the plan's longest.",
        extra_json_schema={Default: 86400},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    Meta(
        description="Any JSON object of at most 16,384 bytes as compact UTF-8 and 64 levels.",
        extra_json_schema={Default: {}},
    ),
]
OnWake = Annotated[
    str | None,
    Meta(
        description="A shell command that is run after each wake from deep sleep, at most 65,536 bytes.",
        extra_json_schema={Default: None},
    ),
]
SessionEnv = Annotated[
    dict[str, str],
    Meta(
        description="Environment of every run of the session: at most 100 entries, values of at most 65,536 bytes. "
        "Answers show only the names.",
        extra_json_schema={Default: {}},
    ),
]


class CreateSession(Request):
    ttl: Ttl | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    resource_limits: (
        Annotated[ResourceLimitsRequest, Meta(description="Not allowed on the free plan (403).")] | UnsetType
    ) = UNSET
    preview: PreviewRequest | UnsetType = UNSET
    network: NetworkRequest | UnsetType = UNSET
    on_wake: OnWake | UnsetType = UNSET
    env: SessionEnv | UnsetType = UNSET


class PatchSession(Request):
    """Each field given replaces the old value whole; null puts the default back."""

    ttl: Annotated[int | None, Meta(description="Seconds from now; 300 up to the plan's longest.")] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    preview: PreviewRequest | UnsetType | None = UNSET
    network: NetworkRequest | UnsetType | None = UNSET
    on_wake: str | UnsetType | None = UNSET
    env: dict[str, str] | UnsetType | None = UNSET


class ResourceLimits(Shown):
    memory: Annotated[int, Meta(description="MB")]
    cpu: Annotated[float, Meta(description="Cores")]
    timeout: Annotated[int, Meta(description="Seconds")]
    disk: Annotated[int, Meta(description="MB")]


class Preview(Shown):
    visibility: Literal["public", "private"]
    ports: list[int]


class Network(Shown):
    egress: Literal["internet", "none"]
    allow: list[str]
    deny: list[str]


class Created(Shown):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    expires_at: Time
    preview_url: Annotated[str, Meta(description="Where port 8080 of the session is seen.")]
    created_at: Time
    resource_limits: ResourceLimits


SessionState = Literal["active", "idle", "deep-sleep"]


class Session(Shown):
    session_id: str
    created_at: Time
    expires_at: Time
    last_active: Time
    state: SessionState
    files_count: Annotated[int, Meta(description="Files under `/workspace`, as last seen.")]
    active_processes: Annotated[int, Meta(description="The session's own processes, as last seen.")]
    metadata: dict[str, Any]
    preview_url: str
    resource_limits: ResourceLimits
    preview: Preview
    network: Network
    on_wake: str | None
    env_names: Annotated[list[str], Meta(description="Sorted.")]


class CreatePreviewToken(Request):
    port: Annotated[int, Meta(description="1024 to 65535. Without it, every port of the session.")] | UnsetType = UNSET
    ttl: (
        Annotated[int, Meta(description="Seconds, at least 60; 3600 without it. It ends with the session.")] | UnsetType
    ) = UNSET


class PreviewTokenMade(Shown):
    url: Annotated[str, Meta(description="Opens the preview in a browser, which keeps the token as a cookie.")]
    token: Annotated[str, Meta(description="For the header `X-Preview-Token`. Shown this once.")]
    expires_at: Time


class RevokePreviewToken(Request):
    token: Annotated[str, Meta(description="Without it, all of the session's.")] | UnsetType = UNSET


class PreviewTokensRevoked(Shown):
    revoked: Annotated[int, Meta(ge=0, description="How many were valid or had expired lately.")]


class Sleep(Request):
    depth: Annotated[Literal["idle", "deep-sleep"], Meta(description="`deep-sleep` ends its processes.")] = "idle"


class Woken(Session):
    woke_from: Annotated[SessionState, Meta(description="Its state before.")]
    wake_time_ms: Annotated[int, Meta(ge=0)]


class Sessions(Shown):
    sessions: list[Session]
    total: int


class Deleted(Shown):
    deleted: bool
    session_id: str


Limit = Annotated[int, Meta(ge=1, le=100, description="Entries in one answer.")]
Offset = Annotated[int, Meta(ge=0, le=LARGEST_OFFSET, description="Entries to pass over.")]


class SessionsQuery(Request):
    state: Annotated[SessionState, Meta(description="Only sessions in this state.")] | UnsetType = UNSET
    limit: Limit = 50
    offset: Offset = 0


# --- execution ---

Mode = Annotated[
    str, Meta(pattern="^[0-7]{3,4}$", description='Permission bits in octal, for example "755".', examples=["755"])
]
Encoding = Annotated[
    Literal["utf8", "base64"], Meta(description="How `content` is written; base64 is strict, with its padding.")
]


PathBytes = Annotated[str, Meta(description="The path's bytes in base64, only where they are not UTF-8.")]
GivenBytes = Annotated[str, Meta(description="The path's bytes in base64, in its place, where they are not UTF-8.")]


class FileRequest(Request):
    path: Annotated[str, Meta(description=PATH)]
    content: str
    encoding: Encoding = "utf8"
    mode: Mode | UnsetType = UNSET


class Execute(Request):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    code: Annotated[str, Meta(description="TypeScript or JavaScript for Bun; exactly one of code and command.")] | (
        UnsetType
    ) = UNSET
    command: Annotated[str, Meta(description="Run by `bash -c`; exactly one of code and command.")] | UnsetType = UNSET
    files: (
        Annotated[
            list[FileRequest],
            Meta(
                description="Written before the run, all or none; 100 (free) or 1,000 (paid) at most.",
                extra_json_schema={Default: []},
            ),
        ]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[
            dict[str, str],
            Meta(description="For this run only; at most 100 entries.", extra_json_schema={Default: {}}),
        ]
        | UnsetType
    ) = UNSET
    timeout: (
        Annotated[int, Meta(description="Seconds; 1 up to the plan's most. Without it, the session's `timeout`.")]
        | UnsetType
    ) = UNSET
    working_dir: Annotated[str, Meta(description=PATH)] = "/workspace"
    stream: Annotated[bool, Meta(description="The answer as Server-Sent Events.")] = False
    detach: Annotated[bool, Meta(description="With `stream`: a process, which goes on when the client leaves.")] = False
    stdin: Annotated[str, Meta(description="What the program reads from its standard input.")] = ""
    context_id: (
        Annotated[str, Meta(description="Run `code` in this context; without `env`, `workingDir` and `stdin`.")]
        | UnsetType
    ) = UNSET


class Output(Shown):
    data: Annotated[str, Meta(description="No character is split; bytes that are not UTF-8 are U+FFFD.")]


class Ended(Shown):
    exit_code: Annotated[int, Meta(description="128 + signal when killed, 124 on timeout.")]
    execution_time: Annotated[int, Meta(description="Milliseconds by the clock.")]
    memory_used: Annotated[int, Meta(description="Peak bytes of the run.")]
    cpu_time: Annotated[int, Meta(description="Milliseconds of CPU.")]
    timed_out: bool
    files_written: Annotated[
        list[str], Meta(description="Relative to `/workspace`; `node_modules` and `.git` left out; at most 1,000.")
    ]
    truncated: Annotated[bool, Meta(description="Only where output was cut.")] | UnsetType = UNSET
    files_written_truncated: Annotated[bool, Meta(description="Only where the list was cut.")] | UnsetType = UNSET
    process_limit_exceeded: (
        Annotated[
            bool,
            Meta(
                description="Only where the run met the limit of 448 processes and threads, or the session its own of "
                "512. Everything that the run started has been killed."
            ),
        ]
        | UnsetType
    ) = UNSET


class Executed(Ended, kw_only=True):
    stdout: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]
    stderr: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]


# --- files ---


class WriteFile(Request, kw_only=True):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    path: Annotated[str, Meta(description=PATH)] | UnsetType = UNSET
    path_base64: GivenBytes | UnsetType = UNSET
    content: str
    encoding: Encoding = "utf8"
    mode: Mode | UnsetType = UNSET
    append: Annotated[bool, Meta(description="Add to the end instead of replacing the file.")] = False


class FileWritten(Shown, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes of the file afterwards.")]


class ListFilesQuery(Request):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    path: Annotated[str, Meta(description=PATH)] = "."
    recursive: Annotated[bool, Meta(description="`true`: everything below, not one level.")] = False
    limit: Limit = 50
    offset: Offset = 0


class FileEntry(Shown, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes")]
    modified: Time
    type: Annotated[
        Literal["file", "directory", "symlink", "other"], Meta(description="`other`: FIFOs, sockets, devices.")
    ]


class Files(Shown):
    files: list[FileEntry]
    total: int


class ReadFileQuery(Request):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    path: Annotated[str, Meta(description=PATH)]


class FileContent(Shown, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    content: str
    size: Annotated[int, Meta(description="Bytes of the file.")]
    encoding: Annotated[Literal["utf8", "base64"], Meta(description="`base64` where the file is not UTF-8.")]


class DeleteFileQuery(Request):
    session_id: Annotated[str, Meta(description=SESSION_ID)]
    path: Annotated[str, Meta(description=PATH)]
    recursive: Annotated[bool, Meta(description="`true`: a directory with all that is in it.")] = False


class FileDeleted(Shown, kw_only=True):
    deleted: bool
    path: str
    path_base64: PathBytes | UnsetType = UNSET


# --- operations ---


class Health(Shown):
    status: Literal["ok"]


class Readiness(Shown):
    ready: bool
    checks: dict[str, bool]


class NoQuery(Request):
    pass


class Failure(Shown):
    code: str
    retryable: Annotated[bool, Meta(description="Whether the same request may succeed later.")]
    message: str
    details: dict[str, Any]


class FailureAnswer(Shown):
    error: Failure
