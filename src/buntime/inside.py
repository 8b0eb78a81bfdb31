"""What the core asks of the inside of a sandbox, beside one run and plain files. Each docstring is the contract.

Every method raises SandboxGone as those of `ports.Sandbox` do. What comes back is the session's own word, checked for
size and shape. An iterator that is closed, or whose task is cancelled, ends what it was fed by.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

Stream = Literal["stdout", "stderr"]


class Sink(Protocol):
    """Takes output of a run as it comes. The program waits while this does; a failure here ends the run."""

    async def __call__(self, stream: Stream, content: bytes) -> None: ...


# --- processes -------------------------------------------------------------------------------

Status = Literal["running", "exited", "lost"]
Reason = Literal["deep_sleep", "runtime_ended", "timeout"]


@dataclass(frozen=True, slots=True)
class NewProcess:
    """Exactly one of `code` and `command`. The id is ours: `proc_` and 18 of a-z0-9, later ones greater."""

    id: str
    code: str | None = None
    command: str | None = None
    name: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"
    log_bytes: int = 16 << 20  # that are kept of its output: the newest
    all_log_bytes: int = 64 << 20  # of all of the session: those of what has ended give way first
    timeout: float | None = None  # seconds that the session is awake, after which it is killed
    stdin: bytes | None = None  # all there is; None: it stays open for `input`


@dataclass(frozen=True, slots=True)
class Process:
    """`exit_code`: 128 + signal when killed; None while it runs and where nobody saw its end (`lost`).
    `reason`: why it ended, where it was not by itself."""

    id: str
    pid: int  # inside the session
    status: Status
    started_at: int  # Unix milliseconds
    command: str  # what was started, cut to 1,000 characters
    name: str | None = None
    exit_code: int | None = None
    ended_at: int | None = None  # Unix milliseconds
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    stream: Stream
    content: bytes  # no character is split between entries
    time: int  # Unix milliseconds


@dataclass(frozen=True, slots=True)
class LogPage:
    """`cursor`: where the next page begins. `dropped`: bytes of output between the cursor that was asked for and the
    first entry that are not kept any more. `process` as it was after the entries. `last`: it has ended, and there is
    nothing after this page. `end`: the cursor after all that there is now."""

    entries: Sequence[LogEntry]
    cursor: int
    dropped: int
    process: Process
    last: bool
    end: int


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """By the kernel's word, of the process and all that it has started."""

    cpu_ms: int
    peak_memory: int  # bytes
    memory_kills: int
    met_process_limit: bool  # the kernel refused it a process


class Attended(Protocol):
    """A process whose figures are kept as long as somebody waits for its end."""

    @property
    def process(self) -> Process:
        """As it was started."""
        ...

    async def ended(self) -> ProcessUsage:
        """To be asked when it has ended. What it has left is ended, too, where it met the limit on processes."""
        ...


class Processes(Protocol):
    """Processes of the session, whether they run or not: until the session ends.

    Methods that name one raise ProcessNotFound.
    """

    async def start(self, new: NewProcess) -> Process:
        """Raises FileConflict and InvalidRequest as a run does."""
        ...

    def attend(self, new: NewProcess) -> AbstractAsyncContextManager[Attended]:
        """The same; leaving the block changes nothing for the process."""
        ...

    async def list(self, limit: int, offset: int) -> tuple[Sequence[Process], int]:
        """The newest first, and how many there are."""
        ...

    async def get(self, process_id: str) -> Process: ...

    async def input(self, process_id: str, content: bytes, *, close: bool) -> None:
        """Into its standard input. Raises InvalidState where that is closed or the process has ended, SessionBusy where
        it does not read what was sent before."""
        ...

    async def signal(self, process_id: str, number: int) -> None:
        """To the process and all it has started. Raises InvalidState where it has ended."""
        ...

    async def logs(self, process_id: str, cursor: int, limit: int) -> LogPage:
        """At most about `limit` bytes from there. Raises InvalidRequest for a cursor that none of its pages gave."""
        ...

    def follow(self, process_id: str, cursor: int) -> AbstractAsyncContextManager[AsyncIterator[LogPage]]:
        """Pages as they come, until the last. Nothing is read ahead of the caller."""
        ...

    async def is_listening(self, port: int) -> bool:
        """Whether something in the session listens on it, on any address."""
        ...

    async def ending(self, reason: Reason) -> None:
        """What ends from now on, for some seconds, does so for this reason."""
        ...

    async def settle(self) -> None:
        """Until the end of all that have ended is recorded, for a moment at the most."""
        ...


# --- contexts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewContext:
    """The id is ours: `ctx_` and 18 of a-z0-9."""

    id: str
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"


@dataclass(frozen=True, slots=True)
class Context:
    id: str
    status: Literal["running", "lost"]
    created_at: int  # Unix milliseconds
    runs: int  # so far
    working_dir: str
    reason: str | None = None  # why it is lost


@dataclass(frozen=True, slots=True)
class ContextFailure:
    """What the code threw."""

    name: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of one run in a context. `value`: forms of the last expression's value by name (`text`, `json`, `html`,
    `markdown`, `svg`, `png` in base64, `table`, and in `cut` the names of those that were too large), plain JSON
    values, or JSON that is encoded already; None where it was undefined. `displayed`: the same of what the code showed
    on its way, empty with `shows`.
    """

    exit_code: (
        int  # 0; 1 where it threw, 124 on timeout, 130 when interrupted, 128 + signal where the process was killed
    )
    value: Mapping[str, object] | None
    displayed: Sequence[Mapping[str, object]]
    failure: ContextFailure | None
    survived: bool  # whether its variables are still there
    timed_out: bool
    out_of_memory: bool
    disk_full: bool
    met_process_limit: bool  # the kernel refused it a process: then the context has ended, with all it has started
    stdout: bytes  # empty with a sink
    stderr: bytes
    truncated: bool
    wall_ms: int
    cpu_ms: int
    peak_memory: int  # bytes, of the context so far
    files_written: Sequence[str]
    files_written_truncated: bool


class Shows(Protocol):
    """Takes what the code of a run shows on its way, as `Sink` takes its output."""

    async def __call__(self, forms: Mapping[str, object]) -> None: ...


class Contexts(Protocol):
    """Long-lived processes that keep variables between runs. Methods that name one raise ContextNotFound, and
    ContextLost where it once was there."""

    async def create(self, new: NewContext) -> Context:
        """Raises InvalidRequest for a working directory that is none."""
        ...

    async def list(self) -> Sequence[Context]:
        """Oldest first, lost ones too."""
        ...

    async def delete(self, context_id: str) -> None:
        """A lost one too. What runs in it is killed."""
        ...

    async def run(
        self, context_id: str, code: str, timeout: float, sink: Sink | None = None, shows: Shows | None = None
    ) -> Evaluation:
        """Runs that come together wait for each other. A caller who leaves interrupts the run."""
        ...

    async def ending(self) -> None:
        """What ends from now on does so by deep sleep."""
        ...


# --- terminals -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewTerminal:
    """The id is ours: `term_` and 18 of a-z0-9."""

    id: str
    cols: int = 80
    rows: int = 24
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"


@dataclass(frozen=True, slots=True)
class Exit:
    """`code`: 128 + signal when killed; None where the shell was ended by us: `reason` says why."""

    code: int | None
    reason: Reason | None = None


class Attachment(Protocol):
    """One client at a terminal."""

    def output(self) -> AsyncIterator[bytes | Exit]:
        """Output as it comes, the last screenful first; Exit at the end, or none where another client took over.
        Nothing is read ahead of the caller: the program waits."""
        ...

    async def write(self, content: bytes) -> None:
        """In order. Returns when there is room for more, which takes somebody who takes the output."""
        ...

    async def resize(self, cols: int, rows: int) -> None: ...


class Terminals(Protocol):
    """Terminals of the session, each until its shell ends. Then it is forgotten."""

    async def create(self, new: NewTerminal) -> None:
        """A shell at a pseudo-terminal of its own. It goes on when nobody is attached. Raises FileNotFound and
        FileConflict for its directory."""
        ...

    async def end(self, terminal_id: str) -> None:
        """Kills all that it has started. One that is not there is fine."""
        ...

    def attach(self, terminal_id: str) -> AbstractAsyncContextManager[Attachment]:
        """Raises TerminalNotFound. Whoever was attached before is let go."""
        ...

    async def ending(self, reason: Reason) -> None:
        """Ends all of them, for this reason."""
        ...


# --- files -----------------------------------------------------------------------------------

FileKind = Literal["file", "directory", "symlink", "other"]


@dataclass(frozen=True, slots=True)
class FileToWrite:
    path: str  # absolute, normalised (see buntime.paths)
    content: bytes
    mode: int | None = None  # permission bits; None: 0644 for a new file, unchanged for an old one
    append: bool = False


@dataclass(frozen=True, slots=True)
class FileEntry:
    path: str  # relative to /workspace when it is under it, else absolute
    size: int
    modified: int  # Unix seconds
    type: FileKind


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Of the path itself, not of what a symbolic link leads to."""

    path: str
    type: FileKind
    size: int
    modified: int  # Unix seconds
    mode: int  # permission bits
    target: str | None = None  # of a symbolic link


@dataclass(frozen=True, slots=True)
class Content:
    """A part of a file."""

    total: int  # bytes of the whole file
    start: int
    end: int  # exclusive
    modified: int  # Unix seconds
    version: str  # differs when the content does
    parts: AsyncIterator[bytes]  # exactly end - start bytes, or it fails


@dataclass(frozen=True, slots=True)
class Match:
    """A file whose name matched (`line` is None), or a line in it."""

    path: str
    line: int | None = None  # from 1
    text: str | None = None  # the line, cut where it is long
    ranges: Sequence[tuple[int, int]] = ()  # of the matches in `text`, in characters


@dataclass(frozen=True, slots=True)
class FileEvent:
    """`overflow`: more happened below `path` than could be told, look for yourself; or, with `unwatched`, that
    directory and maybe others are not watched, because there are too many. `from_path`: of `renamed`."""

    kind: Literal["created", "changed", "deleted", "renamed", "overflow"]
    path: str
    type: FileKind | None = None
    from_path: str | None = None
    unwatched: bool = False


class Files(Protocol):
    """Files of the session. Paths are absolute and normalised, those of answers and errors as a client sees them
    (`paths.for_client`); surrogates stand for bytes that are not UTF-8 (`surrogateescape`). Methods raise FileNotFound,
    FileConflict, DiskFull, InvalidRequest and PayloadTooLarge.
    """

    async def write_batch(self, files: Sequence[FileToWrite]) -> Sequence[int]:
        """Writes all files or none. Each appears atomically; missing parents are made. Returns the final sizes."""
        ...

    async def read_whole(self, path: str, limit: int) -> bytes:
        """Raises PayloadTooLarge when the file has more than `limit` bytes."""
        ...

    async def list(self, path: str, *, recursive: bool, limit: int, offset: int) -> tuple[Sequence[FileEntry], int]:
        """A page of the entries below the directory, sorted by path, and how many there are."""
        ...

    async def delete(self, path: str, *, recursive: bool) -> None:
        """A file, a symbolic link itself, an empty directory, or with `recursive` a directory and all in it."""
        ...

    def read(self, path: str, start: int | None, end: int | None) -> AbstractAsyncContextManager[Content]:
        """Bytes `start` to `end` (exclusive); without a start the last `end` bytes, without both the whole. Clamped to
        the file; raises RangeNotSatisfiable where nothing of a part is there."""
        ...

    async def write(self, path: str, parts: AsyncIterator[bytes], mode: int | None) -> int:
        """The whole file from parts, atomically when all have come; its size. Nothing is left where they fail."""
        ...

    async def make_directory(self, path: str) -> bool:
        """Its parents too; whether it was not there before."""
        ...

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        """At once, with the parents that are missing. Raises FileConflict: EEXIST, EINVAL for a directory into itself,
        EXDEV for another file system."""
        ...

    async def status(self, path: str) -> FileStatus: ...

    def pack(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A directory or file as tar.gz, with paths relative to it. It fails on its way where it cannot be whole."""
        ...

    async def unpack(self, path: str, parts: AsyncIterator[bytes]) -> int:
        """A tar.gz into a directory, which is made; how many entries. What came before a failure stays. Raises
        InvalidRequest for what is no such archive, or has names that lead out of the directory."""
        ...

    async def search(
        self, path: str, *, glob: str | None, query: str | None, ignore_case: bool, limit: int
    ) -> tuple[Sequence[Match], bool]:
        """At most `limit` matches, sorted by path, and whether there were more. Raises InvalidRequest for a pattern
        that is none."""
        ...

    def watch(self, path: str, *, recursive: bool) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        """What changes from now on below the directory, or the file. When the context is entered it is watched. Paths
        as those of a listing. Raises FileNotFound, also where what is watched goes away; SessionBusy where no more can
        be watched."""
        ...
