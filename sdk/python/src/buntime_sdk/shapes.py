"""What the server accepts and returns, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Self, TypeAlias

from buntime_sdk.errors import ExecutionFailed
from buntime_sdk.from_json import each, one_or_none, read_by, time_or_none

SessionState: TypeAlias = Literal["active", "idle", "deep-sleep"]
FileType: TypeAlias = Literal["file", "directory", "symlink", "other"]
Scope: TypeAlias = Literal[
    "sessions:read", "sessions:write", "account:read", "account:write", "secrets:use", "secrets:write", "operator"
]
ProcessStatus: TypeAlias = Literal["running", "exited", "lost"]


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """`memory` and `disk` are in MB, `cpu` in cores. `timeout`: seconds for a run without its own timeout."""

    memory: int
    cpu: float
    timeout: int
    disk: int


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """`public` opens the `ports` to anyone with the URL; `private` opens none."""

    visibility: Literal["public", "private"] = "public"
    ports: Sequence[int] = read_by(tuple, default=(8080,))


@dataclass(frozen=True, slots=True)
class SleepPolicy:
    """When a session sleeps. `idle_after`: seconds without activity, after which it is suspended. `deep_sleep_after`:
    the same for its deep sleep. Both from 5 to the plan's longest, or `never`. `checkpoint_every`: seconds within which
    changes of an awake session are archived, 5 to 86400, or `never`. `awake_while`: what is activity: `requests`, or
    `processes`, which counts the work of its own processes too.
    """

    idle_after: int | Literal["never"]
    deep_sleep_after: int | Literal["never"]
    checkpoint_every: int | Literal["never"]
    awake_while: Literal["requests", "processes"] = "requests"


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`egress`: `internet` (public addresses only) or `none`. `allow`, `deny`: networks and domain names; deny wins."""

    egress: Literal["internet", "none"] = "internet"
    allow: Sequence[str] = read_by(tuple, default=())
    deny: Sequence[str] = read_by(tuple, default=())


@dataclass(frozen=True, slots=True)
class Image:
    """What sessions can stand on. `image_id` names the content. `size_bytes`: of all its files."""

    image_id: str
    name: str
    size_bytes: int
    created_at: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a session as they were at one moment. `session_id`: the session, which may be gone. `image`: the
    name of the image that it stood on. `size_bytes`: how much of its disk limit a session with these files needs.
    `expires_at`: None if it stays until it is deleted.
    """

    snapshot_id: str
    session_id: str
    name: str | None
    metadata: Mapping[str, Any]
    image: str
    size_bytes: int
    created_at: datetime = read_by(time_or_none)
    expires_at: datetime | None = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKey:
    """The key that a client sends. `scopes`: what it may do. `expires_at`: None if it does not expire."""

    key_id: str
    name: str | None
    scopes: Sequence[Scope] = read_by(tuple)
    expires_at: datetime | None = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(OwnKey):
    """`hint`: the first characters of the secret, to tell keys apart."""

    hint: str
    created_at: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKey(Key):
    """`key`: the secret, which a client takes as `api_key`. The server does not show it again."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What the plan allows. `sessions`, `snapshots`, `images`, `keys`, `webhooks`: at a time. `longest_ttl`,
    `shortest_ttl`: of a session, in seconds, or `never`. `requests_per_minute`: with one key. `file_megabytes`,
    `body_megabytes`: MB of a single file inside JSON, and of a JSON body. `snapshot_gigabytes`: GB that snapshots and
    images alone may keep. `idle_after_most`, `deep_sleep_after_most`, `may_await_processes`: what a session's
    `sleep_policy` may ask for.
    """

    sessions: int
    longest_ttl: int | Literal["never"]
    shortest_ttl: int
    requests_per_minute: int
    file_megabytes: int
    files_per_request: int
    body_megabytes: int
    snapshots: int
    snapshot_gigabytes: int
    fork_count: int
    images: int
    keys: int
    webhooks: int
    may_set_resource_limits: bool
    idle_after_most: int | Literal["never"]
    deep_sleep_after_most: int | Literal["never"]
    may_await_processes: bool
    default_resource_limits: ResourceLimits = read_by(one_or_none(ResourceLimits))
    most_resource_limits: ResourceLimits = read_by(one_or_none(ResourceLimits))


@dataclass(frozen=True, slots=True)
class AccountUsage:
    """How many there are now. `images`: those of the account itself."""

    sessions: int
    snapshots: int
    images: int


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a client. `plan`: the plan's name. `key`: the key that the client sends."""

    account_id: str
    plan: str
    limits: AccountLimits = read_by(one_or_none(AccountLimits))
    usage: AccountUsage = read_by(one_or_none(AccountUsage))
    key: OwnKey = read_by(one_or_none(OwnKey))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The key's requests a minute, those left in this minute, and when the count resets (Unix seconds)."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """`url` opens the preview in a browser. Send `token` in the header `X-Preview-Token`."""

    url: str
    token: str
    expires_at: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a session did. `time`: of a point, where its step begins; else when it was measured. `seconds`: how many
    were measured. `cpu`: cores on average. `memory`, `disk`: bytes. `bytes_in`, `bytes_out`: in those seconds.
    """

    time: datetime = read_by(time_or_none)
    seconds: float
    cpu: float
    memory: int
    disk: int
    processes: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPoint(Metrics):
    """What a session did in one step. The most of each are those of the 10 seconds with the most; `bytes_in_max` and
    `bytes_out_max` are bytes a second.
    """

    cpu_max: float
    memory_max: int
    disk_max: int
    processes_max: int
    bytes_in_max: int
    bytes_out_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMetrics:
    """What a session did over time. `step`: seconds of each point. A step in which it did not run has no point."""

    session_id: str
    since: datetime = read_by(time_or_none, name="from")
    until: datetime = read_by(time_or_none, name="to")
    step: int
    points: Sequence[MetricsPoint] = read_by(each(MetricsPoint))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSession:
    """A session and what it does now. `metrics`: None if it sleeps, or has woken within the last 12 seconds."""

    session_id: str
    name: str | None
    state: SessionState
    created_at: datetime = read_by(time_or_none)
    expires_at: datetime | None = read_by(time_or_none)
    last_active: datetime = read_by(time_or_none)
    resource_limits: ResourceLimits = read_by(one_or_none(ResourceLimits))
    metrics: Metrics | None = read_by(one_or_none(Metrics))


@dataclass(frozen=True, slots=True)
class Woken:
    """The state that the session woke from, and how many milliseconds that took."""

    woke_from: SessionState
    wake_time_ms: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """When the state of the files was taken that a recovered session continues from, and its age then. What changed
    since is lost.
    """

    age_seconds: int
    recovered_from: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True)
class File:
    """A file to write before a run. `mode`: permission bits in octal, such as `"755"`."""

    path: str | PathLike[str]
    content: str | bytes
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """How a run ended.

    `exit_code`: 128 + signal if killed, 124 on timeout. `execution_time`, `cpu_time`: milliseconds. `memory_used`: peak
    bytes. `files_written`: relative to `/workspace`. `truncated`, `files_written_truncated`: the output or the list was
    cut. `process_limit_exceeded`: the run reached the limit of 448 processes and threads, or the session its limit of
    512; everything that the run started was killed.
    """

    exit_code: int
    execution_time: int
    memory_used: int
    cpu_time: int
    timed_out: bool
    files_written: Sequence[str] = read_by(tuple)
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    files_written_truncated: bool = False
    process_limit_exceeded: bool = False

    @property
    def ok(self) -> bool:
        """Whether the program ended in time with exit code 0."""
        return self.exit_code == 0 and not self.timed_out

    def check(self) -> Self:
        """Returns the result itself if it is `ok`. Raises ExecutionFailed, which shows the end of the output."""
        if not self.ok:
            raise ExecutionFailed(self)
        return self


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str] = read_by(tuple)
    rows: Sequence[Sequence[Any]] = read_by(lambda rows: tuple(tuple(row) for row in rows))


@dataclass(frozen=True, slots=True)
class Forms:
    """A value in each form that it has. `text`: as `console.log` shows it. `png`: in base64. `cut`: forms too large."""

    text: str
    json: Any = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    png: str | None = None
    table: Table | None = read_by(one_or_none(Table), default=None)
    cut: Sequence[str] = read_by(tuple, default=())


@dataclass(frozen=True, slots=True)
class Thrown:
    name: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class Evaluation(ExecutionResult):
    """The result of a run in a context.

    `result`: the value of the last expression, or None if it was undefined. `displayed`: the values passed to
    `display(value)`. `error`: what the code threw. `context_survived`: set when the run was stopped; whether the
    context kept its variables.
    """

    result: Forms | None = read_by(one_or_none(Forms), default=None)
    displayed: Sequence[Forms] = read_by(each(Forms), default=())
    error: Thrown | None = read_by(one_or_none(Thrown), default=None)
    context_survived: bool | None = None


@dataclass(frozen=True, slots=True)
class Stdout:
    data: str


@dataclass(frozen=True, slots=True)
class Stderr:
    data: str


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """First event of a detached run. This process keeps running when you leave the stream."""

    process_id: str


@dataclass(frozen=True, slots=True)
class Displayed:
    """In a context: a value passed to `display(value)`."""

    value: Forms


@dataclass(frozen=True, slots=True)
class Result:
    """Last event of a run: how it ended, without the output."""

    result: ExecutionResult


RunEvent: TypeAlias = Stdout | Stderr | ProcessStarted | Displayed | Result


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`size` is in bytes. `path_base64`: only if the path is not UTF-8."""

    path: str
    size: int
    type: FileType
    modified: datetime = read_by(time_or_none)
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileStatus(FileEntry):
    """`mode`: permission bits in octal. `target`: where a symbolic link points."""

    mode: str = ""
    target: str | None = None
    target_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileWritten:
    """`size`: the file's size afterwards, in bytes."""

    path: str
    size: int
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class SearchMatch:
    """With a query: `line` counts from 1; `ranges` has the start and end of each match in `text`, in characters."""

    path: str
    line: int | None = None
    text: str | None = None
    ranges: Sequence[tuple[int, int]] = read_by(lambda told: tuple(tuple(one) for one in told), default=())
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`truncated`: there are more matches, or may be."""

    matches: Sequence[SearchMatch] = read_by(each(SearchMatch))
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Watching:
    """First event of a watch: changes from now on are reported."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """`type`: None if nothing is at the path any more. `from_path`: the old path of something `renamed`."""

    event: Literal["created", "changed", "deleted", "renamed"]
    path: str
    type: FileType | None = None
    from_path: str | None = read_by(str, "from", default=None)
    path_base64: str | None = None
    from_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileOverflow:
    """Changes below `path` were lost or are not watched. List the directory again."""

    reason: Literal["lost", "unwatched"]
    path: str


FileEvent: TypeAlias = Watching | FileChange | FileOverflow


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """A process's status. `lost`: the session's runtime ended before the process's end was seen.

    `exit_code`: None while it runs or if it is lost. `reason`: `deep_sleep`, `runtime_ended` or `timeout`, if the
    process did not end by itself.
    """

    status: ProcessStatus
    exit_code: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`cursor`: where to resume after it. None in a page of logs, which has its own cursor."""

    stream: Literal["stdout", "stderr"]
    data: str
    time: datetime = read_by(time_or_none)
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class LogsDropped:
    """This many bytes are no longer kept."""

    bytes: int
    cursor: int | None = None


LogEvent: TypeAlias = LogEntry | LogsDropped | ProcessExit


@dataclass(frozen=True, slots=True)
class LogPage:
    """`cursor`: where the next page begins. `end`: the cursor after all output so far. `dropped`: bytes discarded."""

    entries: Sequence[LogEntry] = read_by(each(LogEntry))
    cursor: int = 0
    end: int = 0
    dropped: int = 0
    status: ProcessStatus = "running"
    exit_code: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """`status`: `running` or `lost`; `reason` says why it was lost. `runs`: how many so far."""

    context_id: str
    status: Literal["running", "lost"]
    working_dir: str
    runs: int
    created_at: datetime = read_by(time_or_none)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TerminalEnd:
    """`exit`: the shell ended, with `exit_code`. `detached`: another client took the terminal over."""

    type: Literal["exit", "detached"]
    exit_code: int | None = None
    reason: str | None = None
