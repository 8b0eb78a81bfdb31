"""What the server accepts and returns, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from functools import cache
from os import PathLike
from typing import Any, Literal, Self, TypeAlias, TypeVar

from buntime_sdk.errors import ExecutionFailed

T = TypeVar("T")

SessionState: TypeAlias = Literal["active", "idle", "deep-sleep"]
FileType: TypeAlias = Literal["file", "directory", "symlink", "other"]
ProcessStatus: TypeAlias = Literal["running", "exited", "lost"]


def _each(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: tuple(from_wire(kind, one) for one in told)


def _one(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: None if told is None else from_wire(kind, told)


def _time(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)


def _wire(read: Callable[[Any], Any], name: str | None = None, **more: Any) -> Any:
    """A field that `read` parses from JSON. `name`: its JSON name, if that is not its own name in camelCase."""
    return field(metadata={"read": read, "name": name}, **more)


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
    ports: Sequence[int] = _wire(tuple, default=(8080,))


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`egress`: `internet` (public addresses only) or `none`. `allow`, `deny`: networks and domain names; deny wins."""

    egress: Literal["internet", "none"] = "internet"
    allow: Sequence[str] = _wire(tuple, default=())
    deny: Sequence[str] = _wire(tuple, default=())


@dataclass(frozen=True, slots=True)
class Image:
    """What sessions can stand on. `image_id` names the content. `size_bytes`: of all its files."""

    image_id: str
    name: str
    size_bytes: int
    created_at: datetime = _wire(_time)


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
    expires_at: datetime = _wire(_time)


@dataclass(frozen=True, slots=True)
class Woken:
    """The state that the session woke from, and how many milliseconds that took."""

    woke_from: SessionState
    wake_time_ms: int


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
    files_written: Sequence[str] = _wire(tuple)
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
    columns: Sequence[str] = _wire(tuple)
    rows: Sequence[Sequence[Any]] = _wire(lambda rows: tuple(tuple(row) for row in rows))


@dataclass(frozen=True, slots=True)
class Forms:
    """A value in each form that it has. `text`: as `console.log` shows it. `png`: in base64. `cut`: forms too large."""

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
    """The result of a run in a context.

    `result`: the value of the last expression, or None if it was undefined. `displayed`: the values passed to
    `display(value)`. `error`: what the code threw. `context_survived`: set when the run was stopped; whether the
    context kept its variables.
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
    modified: datetime = _wire(_time)
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
    ranges: Sequence[tuple[int, int]] = _wire(lambda told: tuple(tuple(one) for one in told), default=())
    path_base64: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`truncated`: there are more matches, or may be."""

    matches: Sequence[SearchMatch] = _wire(_each(SearchMatch))
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
    from_path: str | None = _wire(str, "from", default=None)
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
    time: datetime = _wire(_time)
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

    entries: Sequence[LogEntry] = _wire(_each(LogEntry))
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
    created_at: datetime = _wire(_time)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TerminalEnd:
    """`exit`: the shell ended, with `exit_code`. `detached`: another client took the terminal over."""

    type: Literal["exit", "detached"]
    exit_code: int | None = None
    reason: str | None = None


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def from_wire(kind: type[T], told: Mapping[str, Any]) -> T:
    """Builds a `kind` from a JSON object, without the fields that this version does not know.

    Raises KeyError if a required field is missing.
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
    """For each field: its name, its JSON name, its parser, and whether it is required."""
    return tuple(
        (
            one.name,
            one.metadata.get("name") or camel(one.name),
            one.metadata.get("read"),
            one.default is MISSING and one.default_factory is MISSING,
        )
        for one in fields(kind)
    )
