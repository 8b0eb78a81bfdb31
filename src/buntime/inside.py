"""What the core asks of the inside of a sandbox, besides a run and plain files. Each docstring is the contract.

Every method raises SandboxGone as the methods of `ports.Sandbox` do. What comes back is checked for size and shape, but
it is the session's own claim. Closing an iterator, or cancelling its task, ends its source.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from buntime.service import Restart

Stream = Literal["stdout", "stderr"]


class Sink(Protocol):
    """Takes output of a run as it comes. The program waits meanwhile. A failure here ends the run."""

    async def __call__(self, stream: Stream, content: bytes) -> None: ...


# --- processes -------------------------------------------------------------------------------

Status = Literal["running", "exited", "lost"]
Reason = Literal["deep_sleep", "runtime_ended", "timeout"]


@dataclass(frozen=True, slots=True)
class NewProcess:
    """Has exactly one of `code` and `command`. The host makes the id (`ids.new_process_id`)."""

    id: str
    code: str | None = None
    command: str | None = None
    name: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"
    log_bytes: int = 16 << 20  # newest output that is kept
    all_log_bytes: int = 64 << 20  # the same for all processes of the session; ended processes lose theirs first
    timeout: float | None = None  # seconds until it is killed; time counts only while the session is awake
    stdin: bytes | None = None  # the whole input; None: it stays open for `input`


@dataclass(frozen=True, slots=True)
class Process:
    """`exit_code`: 128 + signal when killed; None while it runs, and when its end was not seen (`lost`).
    `reason`: why it ended, unless it ended by itself."""

    id: str
    pid: int  # inside the session
    status: Status
    started_at: int  # Unix milliseconds
    command: str  # the command or code, cut to 1,000 characters
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
    """`cursor`: where the next page begins. `dropped`: bytes of output between the requested cursor and the first
    entry, which are not kept any more. `process`: its state after the entries. `last`: the process has ended and no
    page follows. `end`: the cursor after the newest output."""

    entries: Sequence[LogEntry]
    cursor: int
    dropped: int
    process: Process
    last: bool
    end: int


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Measured by the kernel, for the process and everything that it started."""

    cpu_ms: int
    peak_memory: int  # bytes
    memory_kills: int
    met_process_limit: bool  # the kernel refused to start another process


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended by itself, by a signal or at its timeout. `exit_code`: 128 + signal when killed."""

    id: str
    name: str | None
    exit_code: int
    reason: Reason | None  # None or "timeout"


class Attended(Protocol):
    """A process whose usage is kept until its end."""

    @property
    def process(self) -> Process:
        """The process as it was started."""
        ...

    async def ended(self) -> ProcessUsage:
        """Call this when the process has ended. If it met the limit on processes, this ends what it left running."""
        ...


class Processes(Protocol):
    """Processes of the session, running or ended, until the session ends.

    Methods that name a process raise ProcessNotFound.
    """

    async def start(self, new: NewProcess) -> Process:
        """Raises FileConflict and InvalidRequest, as a run does."""
        ...

    def attend(self, new: NewProcess) -> AbstractAsyncContextManager[Attended]:
        """The same as `start`. Leaving the block changes nothing for the process."""
        ...

    async def list(self, limit: int, offset: int) -> tuple[Sequence[Process], int]:
        """A page, newest first, and the total."""
        ...

    async def get(self, process_id: str) -> Process: ...

    async def input(self, process_id: str, content: bytes, *, close: bool) -> None:
        """Writes to its standard input. Raises InvalidState when that is closed or the process has ended, SessionBusy
        when the process does not read what was sent before."""
        ...

    async def signal(self, process_id: str, number: int) -> None:
        """Signals the process and everything that it started. Raises InvalidState when it has ended."""
        ...

    async def logs(self, process_id: str, cursor: int, limit: int) -> LogPage:
        """At most about `limit` bytes from the cursor. Raises InvalidRequest for a cursor that no page returned."""
        ...

    def follow(self, process_id: str, cursor: int) -> AbstractAsyncContextManager[AsyncIterator[LogPage]]:
        """Pages as they come, up to the last. Does not read ahead of the caller."""
        ...

    async def listeners(self, port: int) -> Set[int]:
        """The sockets that listen on the port, on any address. A socket keeps its number until it is closed."""
        ...

    async def ending(self, reason: Reason) -> None:
        """Processes that end within the next seconds get this reason."""
        ...

    async def settle(self) -> None:
        """Waits a moment until the ends of all ended processes are recorded."""
        ...


# --- services --------------------------------------------------------------------------------

ServiceState = Literal["running", "restarting", "stopping", "exited", "stopped", "lost"]


@dataclass(frozen=True, slots=True)
class NewService:
    """`revision`: what the caller calls this form of the service, at most 64 of 0-9a-f. The other fields are those of
    its process."""

    id: str
    name: str
    revision: str
    command: str
    restart: Restart
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"
    log_bytes: int = 16 << 20
    all_log_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """`state`: `exited` by its rule, `stopped` by `stop`; `lost` has to be started anew. `process`: the id of a process
    that goes on over restarts, and whose log has the output of all of them."""

    name: str
    revision: str
    state: ServiceState
    process: str
    pid: int | None  # of the program, inside the session; None while it does not run
    restarts: int  # since it was started
    started_at: int  # Unix milliseconds; of the last start
    exit_code: int | None = None  # of the last end; 128 + signal when killed
    exited_at: int | None = None  # Unix milliseconds


class Services(Protocol):
    """Programs that are started again when they end, with growing pauses, until the sandbox ends."""

    async def list(self) -> Sequence[ServiceStatus]: ...

    async def start(self, new: NewService) -> ServiceStatus:
        """To be called for a name that is not in use, or whose service is `exited`, `stopped` or `lost`."""
        ...

    async def stop(self, name: str, *, forget: bool = False) -> None:
        """Ends its program and what that left behind, gently at first. Ignores one that does not run. `forget`: it is
        not listed any more."""
        ...


# --- contexts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewContext:
    """The host makes the id: `ctx_` + 18 of a-z0-9."""

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
    reason: str | None = None  # why it was lost


@dataclass(frozen=True, slots=True)
class ContextFailure:
    """An exception that the code threw."""

    name: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one run in a context.

    `value`: forms of the last expression's value by name: `text`, `json`, `html`, `markdown`, `svg`, `png` (base64),
    `table`, and `cut`, the names of forms that were too large. They are plain JSON values or encoded JSON. None for
    undefined. `displayed`: the same for what the code displayed; empty with `shows`. `exit_code`: 0, 1 when the code
    threw, 124 on timeout, 130 when interrupted, 128 + signal when the process was killed.
    """

    exit_code: int
    value: Mapping[str, object] | None
    displayed: Sequence[Mapping[str, object]]
    failure: ContextFailure | None
    survived: bool  # the context still has its variables
    timed_out: bool
    out_of_memory: bool
    disk_full: bool
    met_process_limit: bool  # the kernel refused to start another process; then the context and its processes ended
    stdout: bytes  # empty with a sink
    stderr: bytes
    truncated: bool
    wall_ms: int
    cpu_ms: int
    peak_memory: int  # bytes, of the context so far
    files_written: Sequence[str]
    files_written_truncated: bool


class Shows(Protocol):
    """Takes what the code of a run displays, as `Sink` takes its output."""

    async def __call__(self, forms: Mapping[str, object]) -> None: ...


class Contexts(Protocol):
    """Long-lived processes that keep variables between runs. Methods that name a context raise ContextNotFound, and
    ContextLost for one that existed."""

    async def create(self, new: NewContext) -> Context:
        """Raises InvalidRequest when the working directory is not a directory."""
        ...

    async def list(self) -> Sequence[Context]:
        """Oldest first, including lost ones."""
        ...

    async def delete(self, context_id: str) -> None:
        """Deletes a context, a lost one too. Kills what runs in it."""
        ...

    async def run(
        self, context_id: str, code: str, timeout: float, sink: Sink | None = None, shows: Shows | None = None
    ) -> Evaluation:
        """One run at a time; others wait. Cancelling the caller interrupts the run."""
        ...

    async def ending(self) -> None:
        """Contexts that end from now on are lost to deep sleep."""
        ...


# --- terminals -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewTerminal:
    """The host makes the id: `term_` + 18 of a-z0-9."""

    id: str
    cols: int = 80
    rows: int = 24
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"


@dataclass(frozen=True, slots=True)
class Exit:
    """`code`: 128 + signal when killed; None when the host ended the shell. Then `reason` says why."""

    code: int | None
    reason: Reason | None = None


class Attachment(Protocol):
    """One client at a terminal."""

    def output(self) -> AsyncIterator[bytes | Exit]:
        """The last screenful, then output as it comes. Exit comes last, unless another client took over. Does not read
        ahead of the caller: the program waits."""
        ...

    async def write(self, content: bytes) -> None:
        """Writes input, in order. Returns when there is room for more, which may require that output is read."""
        ...

    async def resize(self, cols: int, rows: int) -> None: ...


class Terminals(Protocol):
    """Terminals of the session. A terminal exists until its shell ends."""

    async def create(self, new: NewTerminal) -> None:
        """Starts a shell on a pseudo-terminal of its own. It goes on while no client is attached. Raises FileNotFound
        and FileConflict for its directory."""
        ...

    async def end(self, terminal_id: str) -> None:
        """Kills the shell and everything that it started. Ignores a terminal that does not exist."""
        ...

    def attach(self, terminal_id: str) -> AbstractAsyncContextManager[Attachment]:
        """Detaches the client that was attached before. Raises TerminalNotFound."""
        ...

    async def ending(self, reason: Reason) -> None:
        """Ends all terminals, for this reason."""
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
    """Describes the path itself; a symbolic link is not followed."""

    path: str
    type: FileKind
    size: int
    modified: int  # Unix seconds
    mode: int  # permission bits
    target: str | None = None  # of a symbolic link


@dataclass(frozen=True, slots=True)
class Ticket:
    """Lets the edge fetch or bring one body itself. It is good for one connection within a few seconds."""

    address: str  # of the session's guest: address:port
    secret: str  # 32 hexadecimal digits


class NoTickets(Exception):
    """The session's guest, started by an earlier version of the server, knows no tickets."""


class Incoming(Protocol):
    """A file that the edge brings."""

    @property
    def ticket(self) -> Ticket: ...

    async def finish(self) -> int:
        """Puts the file in its place, if the edge has brought all of it. Returns its size. Raises DiskFull,
        FileConflict, SessionBusy, and what calls raise."""
        ...


class Outgoing(Protocol):
    """Output of a program that the edge fetches. Within its block only."""

    @property
    def ticket(self) -> Ticket: ...

    async def complete(self) -> None:
        """Waits for the program, and then ends what the edge fetches. If this raises, or the block ends before, the
        edge gets only a part and is told so."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """A part of a file."""

    total: int  # bytes of the whole file
    start: int
    end: int  # exclusive
    modified: int  # Unix seconds
    version: str  # differs when the content does
    parts: AsyncIterator[bytes]  # exactly end - start bytes, or it fails; nothing if there is a ticket
    ticket: Ticket | None = None  # for these bytes


@dataclass(frozen=True, slots=True)
class Match:
    """A file whose name matched (`line` is None), or a matching line of a file."""

    path: str
    line: int | None = None  # from 1
    text: str | None = None  # the line, cut if it is long
    ranges: Sequence[tuple[int, int]] = ()  # of the matches in `text`, in characters


@dataclass(frozen=True, slots=True)
class FileEvent:
    """`overflow`: more happened below `path` than can be reported, so list it again. With `unwatched`, that directory
    and maybe others are not watched, because there are too many. `from_path`: for `renamed`."""

    kind: Literal["created", "changed", "deleted", "renamed", "overflow"]
    path: str
    type: FileKind | None = None
    from_path: str | None = None
    unwatched: bool = False


class Files(Protocol):
    """Files of the session. Paths are absolute and normalised; paths in answers and errors are as a client sees them
    (`paths.for_client`). Surrogates stand for bytes that are not UTF-8 (`surrogateescape`). Methods raise FileNotFound,
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

    def read(
        self, path: str, start: int | None, end: int | None, *, by_edge: bool = False
    ) -> AbstractAsyncContextManager[Content]:
        """Bytes `start` to `end` (exclusive), clamped to the file. Without `start`: the last `end` bytes. Without both:
        the whole file. Raises RangeNotSatisfiable when the file has nothing of that range. `by_edge`: many bytes come
        with a ticket, valid within the block, unless the guest knows none."""
        ...

    def receive(self, path: str, size: int, mode: int | None) -> AbstractAsyncContextManager[Incoming]:
        """Begins to write a file of `size` bytes that the edge brings. Leaves nothing when the block ends before
        `finish` has. Raises what `write` raises, and NoTickets."""
        ...

    async def write(self, path: str, parts: AsyncIterator[bytes], mode: int | None) -> int:
        """Writes the whole file atomically when all parts have come, and returns its size. Leaves nothing when they
        fail."""
        ...

    async def make_directory(self, path: str) -> bool:
        """Makes the directory and its parents. Returns False when it existed."""
        ...

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        """Moves atomically, and makes missing parents. Raises FileConflict: EEXIST, EINVAL for a directory into itself,
        EXDEV for another file system."""
        ...

    async def status(self, path: str) -> FileStatus: ...

    def pack(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A directory or file as tar.gz, with paths relative to it. Fails midway if it cannot be complete."""
        ...

    def pack_by_edge(self, path: str) -> AbstractAsyncContextManager[Outgoing]:
        """The same for the edge. Begins when the archive does. Raises what `pack` raises, and NoTickets."""
        ...

    async def unpack(self, path: str, parts: AsyncIterator[bytes]) -> int:
        """Unpacks a tar.gz into a directory, which it makes, and returns how many entries it had. After a failure, what
        was unpacked stays. Raises InvalidRequest for a damaged archive, and for names that lead out of the directory.
        """
        ...

    async def unpack_by_edge(self, path: str, size: int, carry: Callable[[Ticket], Awaitable[None]]) -> int:
        """The same for `size` bytes that the edge brings. `carry` returns when it has, or has tried in vain. Raises
        NoTickets too."""
        ...

    async def search(
        self, path: str, *, glob: str | None, query: str | None, ignore_case: bool, limit: int
    ) -> tuple[Sequence[Match], bool]:
        """At most `limit` matches, sorted by path, and whether there are more. Raises InvalidRequest for an invalid
        pattern."""
        ...

    def watch(self, path: str, *, recursive: bool) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        """Changes to the file, or below the directory, from the moment the block is entered. Paths are as in a listing.
        Raises FileNotFound, also when the watched path goes away; SessionBusy when no more can be watched."""
        ...
