"""What the server takes and gives, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Literal

type State = Literal["active", "idle", "deep-sleep"]
type FileType = Literal["file", "directory", "symlink", "other"]
type ProcessStatus = Literal["running", "exited", "lost"]


def _each(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: tuple(from_wire(kind, one) for one in told)


def _one(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: None if told is None else from_wire(kind, told)


def _time(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)


def _wire(read: Callable[[Any], Any], name: str | None = None, **more: Any) -> Any:
    """A field that is read from JSON by `read`, under `name` where that is not its own in camelCase."""
    return field(metadata={"read": read, "name": name}, **more)


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """`memory`, `disk` in MB, `cpu` in cores, `timeout`: seconds that a run has which names none."""

    memory: int
    cpu: float
    timeout: int
    disk: int


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """`public` opens the `ports` to whoever has the URL; `private` opens none."""

    visibility: Literal["public", "private"] = "public"
    ports: Sequence[int] = _wire(tuple, default=(8080,))


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`egress`: `internet` (public addresses only) or `none`. `allow`, `deny`: networks and names; deny wins."""

    egress: Literal["internet", "none"] = "internet"
    allow: Sequence[str] = _wire(tuple, default=())
    deny: Sequence[str] = _wire(tuple, default=())


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Of the key: requests a minute, those left in this one, and when the count starts anew (Unix seconds)."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """`url` opens the preview in a browser; `token` goes into the header `X-Preview-Token`."""

    url: str
    token: str
    expires_at: datetime = _wire(_time)


@dataclass(frozen=True, slots=True)
class Woken:
    """From which state, and how many milliseconds it took."""

    woke_from: State
    wake_time_ms: int


@dataclass(frozen=True, slots=True)
class File:
    """A file that is written before a run. `mode`: permission bits in octal, such as `"755"`."""

    path: str
    content: str | bytes
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """How a run ended.

    `exit_code`: 128 + signal when killed, 124 on timeout. `execution_time`, `cpu_time`: milliseconds. `memory_used`:
    peak bytes. `files_written`: relative to `/workspace`. `truncated`, `files_written_truncated`: something was cut.
    `process_limit_exceeded`: the run met the limit of 448 processes and threads, or the session its own of 512.
    Everything that the run started has been killed.
    """

    exit_code: int
    execution_time: int
    memory_used: int
    cpu_time: int
    timed_out: bool
    files_written: Sequence[str] = _wire(tuple)
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    files_written_truncated: bool = False
    process_limit_exceeded: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str] = _wire(tuple)
    rows: Sequence[Sequence[Any]] = _wire(lambda rows: tuple(tuple(row) for row in rows))


@dataclass(frozen=True, slots=True)
class Forms:
    """A value in the forms that it has. `text`: as `console.log` shows it. `png`: in base64. `cut`: too large."""

    text: str
    json: Any = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    png: str | None = None
    table: Table | None = _wire(_one(Table), default=None)
    cut: Sequence[str] = _wire(tuple, default=())


@dataclass(frozen=True, slots=True)
class Thrown:
    name: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class Evaluation(ExecutionResult):
    """A run in a context.

    `result`: the value of the last expression, None where it was undefined. `displayed`: what `display(value)` was
    called for. `error`: what the code threw. `context_survived`: whether the variables are still there, where the run
    did not end by itself.
    """

    result: Forms | None = _wire(_one(Forms), default=None)
    displayed: Sequence[Forms] = _wire(_each(Forms), default=())
    error: Thrown | None = _wire(_one(Thrown), default=None)
    context_survived: bool | None = None


@dataclass(frozen=True, slots=True)
class Stdout:
    data: str


@dataclass(frozen=True, slots=True)
class Stderr:
    data: str


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """First event of a detached run: it goes on as this process when the stream is left."""

    process_id: str


@dataclass(frozen=True, slots=True)
class Displayed:
    """Of a context: what `display(value)` was called for."""

    value: Forms


@dataclass(frozen=True, slots=True)
class Result:
    """Last event of a run: how it ended, without the output."""

    result: ExecutionResult


type RunEvent = Stdout | Stderr | ProcessStarted | Displayed | Result


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`size` in bytes. `path_base64`: only where the path is not UTF-8."""

    path: str
    size: int
    type: FileType
    modified: datetime = _wire(_time)
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileStatus(FileEntry):
    """`mode`: permission bits in octal. `target`: of a symbolic link."""

    mode: str = ""
    target: str | None = None
    target_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileWritten:
    """`size`: bytes of the file afterwards."""

    path: str
    size: int
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class SearchMatch:
    """With a query: `line` from 1, its `text`, and `ranges`: start and end of each match in it, in characters."""

    path: str
    line: int | None = None
    text: str | None = None
    ranges: Sequence[tuple[int, int]] = _wire(lambda told: tuple(tuple(one) for one in told), default=())
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`truncated`: whether there are more, or may be."""

    matches: Sequence[SearchMatch] = _wire(_each(SearchMatch))
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Watching:
    """First event of watching: what changes from now on is told."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """`type`: None where nothing is there any more. `from_path`: the old path, of `renamed`."""

    event: Literal["created", "changed", "deleted", "renamed"]
    path: str
    type: FileType | None = None
    from_path: str | None = _wire(str, "from", default=None)
    path_base64: str | None = None
    from_base64: str | None = None


@dataclass(frozen=True, slots=True)
class FileOverflow:
    """Below `path` changes were lost, or are not watched: look there."""

    reason: Literal["lost", "unwatched"]
    path: str


type FileEvent = Watching | FileChange | FileOverflow


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process stands. `lost`: the session's runtime ended before it did, so there is no exit code.

    `exit_code`: None while it runs, and where it is lost. `reason`: `deep_sleep`, `runtime_ended` or `timeout`, where
    it did not end by itself.
    """

    status: ProcessStatus
    exit_code: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`cursor`: where to go on after it, None in a page of logs, which has one of its own."""

    stream: Literal["stdout", "stderr"]
    data: str
    time: datetime = _wire(_time)
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class LogsDropped:
    """So many bytes are not kept any more."""

    bytes: int
    cursor: int | None = None


type LogEvent = LogEntry | LogsDropped | ProcessExit


@dataclass(frozen=True, slots=True)
class LogPage:
    """`cursor`: where the next page begins. `end`: that after all there is now. `dropped`: bytes that are not kept."""

    entries: Sequence[LogEntry] = _wire(_each(LogEntry))
    cursor: int = 0
    end: int = 0
    dropped: int = 0
    status: ProcessStatus = "running"
    exit_code: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """`status`: `running` or `lost`, then `reason` says why. `runs`: so far."""

    context_id: str
    status: Literal["running", "lost"]
    working_dir: str
    runs: int
    created_at: datetime = _wire(_time)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TerminalEnd:
    """`exit`: its shell ended, with `exit_code`. `detached`: another client has taken it over."""

    type: Literal["exit", "detached"]
    exit_code: int | None = None
    reason: str | None = None


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def from_wire[T](kind: type[T], told: Mapping[str, Any]) -> T:
    """A value of `kind` from a JSON object; what this version does not know of is left out.

    Raises KeyError where a field is missing that is always there.
    """
    values: dict[str, Any] = {}
    for name, wire_name, read, required in _plan(kind):  # type: ignore[arg-type]  # a type is hashable
        if wire_name in told:
            values[name] = told[wire_name] if read is None else read(told[wire_name])
        elif required:
            raise KeyError(wire_name)
    return kind(**values)


@cache
def _plan(kind: Any) -> Sequence[tuple[str, str, Callable[[Any], Any] | None, bool]]:
    """Of each field: its name, its name on the wire, how it is read, and whether it is always there."""
    return tuple(
        (
            one.name,
            one.metadata.get("name") or camel(one.name),
            one.metadata.get("read"),
            one.default is MISSING and one.default_factory is MISSING,
        )
        for one in fields(kind)
    )
