"""What the core asks of the world. Each docstring is the contract; one suite in `tests/contracts`
runs against the fake (`testing/`) and the real thing.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from buntime.account import Account, AccountStatus, Key
from buntime.inside import Contexts, Files, Processes, Sink, Terminals
from buntime.plan import Limits
from buntime.session import Network, Session, State

# --- Store -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """The first final answer to an idempotent request, kept to be given again."""

    account: str
    key: str
    fingerprint: str  # of method, path, query and canonical body
    status: int
    body: bytes
    created_at: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """Opens a session's previews, as it is stored: the secret itself is shown once and never kept."""

    hash: str  # sha256 of the whole token, hex
    session: str
    port: int | None  # None: every port
    created_at: int  # Unix seconds
    expires_at: int


class Store(Protocol):
    """Durable truth about accounts, keys, sessions, preview tokens and idempotent answers.

    A coroutine that changes something returns when the change would survive power loss, or raises
    and has changed nothing. It raises Unavailable when the host cannot store it now and after `close`. A
    caller that is cancelled only stops waiting: its change is made whole or not at all. Reads see every
    change acknowledged before. Another process (the command line) may change accounts and keys at any
    time: the next read here sees it.
    """

    async def close(self) -> None:
        """Waits for the changes under way and notes the last activity. Idempotent."""
        ...

    # accounts and keys
    async def add_account(self, account: Account) -> None:
        """Raises ValueError when the id is taken."""
        ...

    async def get_account(self, account_id: str) -> Account | None:
        """In whatever status, DELETED too."""
        ...

    async def list_accounts(self) -> Sequence[Account]:
        """In whatever status, oldest first (ties by id)."""
        ...

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        """False where there is no such account. Deleted is final: a change of it is False too."""
        ...

    async def add_key(self, key: Key) -> None:
        """Raises ValueError when the id or the hash is taken or there is no such account."""
        ...

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        """Those of one account, or all; oldest first (ties by id), revoked ones too."""
        ...

    async def revoke_key(self, key_id: str, now: int) -> bool:
        """False where there is no such key that is not revoked yet."""
        ...

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        """The key that is not revoked, and its account in whatever status. Fast: asked on every call."""
        ...

    # sessions
    async def add_session(self, session: Session, answer: Answer | None, limit: int) -> None:
        """Stores the session and the answer (if any) together, or neither.

        Raises SessionLimitExceeded (plan name "" – the caller words it) when the account already
        has `limit` sessions that are not DELETING; IdempotencyInProgress when another answer to the same
        key was stored meanwhile; ValueError when the id is taken.
        """
        ...

    async def get_session(self, session_id: str) -> Session | None:
        """In whatever state, DELETING too."""
        ...

    async def list_sessions(
        self,
        account_id: str,
        *,
        now: int,
        state: State | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Session], int]:
        """A page, newest first (ties by id), and how many there are in all. Without DELETING ones
        and those whose `expires_at` has come. `metadata`: top-level string values that must be equal;
        numbers and booleans match their JSON text."""
        ...

    async def count_sessions(self, account_id: str) -> int:
        """Those not DELETING, expired ones included until they are deleted."""
        ...

    async def all_sessions(self) -> Sequence[Session]:
        """Every session of every account, DELETING ones too: for recovery."""
        ...

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        """Every session of one account, DELETING ones too."""
        ...

    async def changed_sessions(self) -> Sequence[Session]:
        """As they are now: those added or changed since the last call; at the first call, all. Noted activity alone
        is no change. For one caller, the keeper: what it costs depends on what changed, not on how many there are."""
        ...

    async def change_session(self, old: Session, new: Session) -> Session:
        """Replaces `old` by `new` and returns it with its version raised by one.

        Activity noted meanwhile is kept: `last_active` never goes back. Raises StaleSession when the
        stored version is not `old.version` or the session is gone, ValueError when `new` has another id or
        account.
        """
        ...

    async def touch_session(self, session_id: str, now: int) -> None:
        """Notes activity, at once for reads and durably within seconds. Not a change of version; an earlier
        time than the noted one and unknown ids are ignored."""
        ...

    async def remove_session(self, session_id: str) -> None:
        """Forgets the session and its preview tokens for good. Idempotent."""
        ...

    # preview tokens
    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        """Stores the token and the answer (if any) together, or neither.

        Raises SessionNotFound where there is no such session or it is DELETING; TooManyTokens when it already has
        `limit` tokens that have not expired at `token.created_at`; IdempotencyInProgress as `add_session`; ValueError
        when the hash is taken.
        """
        ...

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        """However old, until it is dropped. Fast: asked on every preview that is not public."""
        ...

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        """One token of the session, or all; how many there were."""
        ...

    async def drop_preview_tokens(self, now: int) -> int:
        """Forgets those that have expired; how many."""
        ...

    # idempotency
    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        """However old, until it is dropped."""
        ...

    async def add_answer(self, answer: Answer) -> None:
        """Keeps the first one: a second for the same account and key changes nothing."""
        ...

    async def drop_answers(self, before: int) -> int:
        """Forgets answers older than `before` (Unix seconds); how many."""
        ...


ANSWER_SECONDS = 48 * 3600  # how long an idempotent answer is kept; the contract promises 24 hours


# --- Sandboxes -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One program to run. Exactly one of `code` (TypeScript for Bun) and `command` (for bash)."""

    timeout: float  # seconds
    code: str | None = None
    command: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"  # absolute, normalised
    stdin: bytes = b""
    parts: AsyncIterator[bytes] | None = None  # more of it, which comes while it runs


OUTPUT_LIMIT = 10 << 20  # bytes of each stream that are kept


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run. Numbers come from the kernel; output and paths are the session's word."""

    stdout: bytes  # at most OUTPUT_LIMIT
    stderr: bytes
    truncated: bool
    exit_code: int  # 128 + signal when killed, 124 on timeout
    wall_ms: int
    cpu_ms: int
    peak_memory: int  # bytes
    timed_out: bool
    out_of_memory: bool  # the kernel killed a process of this run for memory
    disk_full: bool  # the volume was at its limit when the run ended
    met_process_limit: bool  # the kernel refused it a process: nothing of it is left
    files_written: Sequence[str]  # relative to /workspace, sorted, at most 1,000
    files_written_truncated: bool


Kind = Literal["processes", "contexts", "terminals"]


@dataclass(frozen=True, slots=True)
class Observed:
    files: int  # under /workspace
    processes: int  # of the session's own, by the kernel's count


class Sandbox(Protocol):
    """A running sandbox that serves one session.

    Every method raises SandboxGone when the sandbox does not run or its guest does not answer
    properly: then `Sandboxes.start` puts a new one on the same volume.
    """

    @property
    def id(self) -> str: ...

    @property
    def address(self) -> str:
        """The IPv4 address at which this host, and nobody else, reaches the ports of its programs."""
        ...

    @property
    def processes(self) -> Processes: ...

    @property
    def contexts(self) -> Contexts: ...

    @property
    def terminals(self) -> Terminals: ...

    @property
    def files(self) -> Files: ...

    def live(self, kind: Kind) -> int:
        """How many of this kind run in it, by the kernel's word."""
        ...

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        """To its end; a caller who is cancelled ends it. With a sink output goes there, whole; the result has none."""
        ...

    async def observe(self) -> Observed: ...

    async def freeze(self) -> bool:
        """All its processes stop using CPU. False, and nothing changed, where the kernel does not manage it in time."""
        ...

    async def quiesce(self) -> bool:
        """For deep sleep: its processes are asked to end and get a moment for it, then all is frozen, and what it has
        written is on disk. False as for `freeze`; a thaw lets what is left go on."""
        ...

    async def thaw(self) -> None:
        """They go on as if nothing had been. Idempotent."""
        ...

    async def restrict(self, network: Network) -> None:
        """Puts the session's network rules in force, before anything that it starts from now on and at once
        for what runs. A fresh sandbox has the default rules."""
        ...


class SandboxGone(Exception):
    """The sandbox is not running, or its guest is not to be trusted any more. Never shown."""


@dataclass(frozen=True, slots=True)
class Strain:
    """Bytes that should be freed; 0 where there is enough."""

    memory: int  # by stopping sandboxes of suspended sessions
    disk: int  # by evicting volumes of archived sessions


class Sandboxes(Protocol):
    """The sandboxes of this host. Ids are ours: `sb` + 12 of a-z0-9."""

    async def claim(self, session_id: str, limits: Limits) -> tuple[Sandbox, str]:
        """A fresh sandbox for the session, limits set, and the id of its image. Parked if there is one.

        Until a store names it, it is an orphan that `recover` destroys. Raises Unavailable when
        the host cannot hold one more.
        """
        ...

    async def get(self, sandbox_id: str) -> Sandbox | None:
        """The running one, or None."""
        ...

    async def start(self, session: Session) -> Sandbox:
        """Runs the session's sandbox on its existing volume; the running one where there is one
        already. Callers come one at a time per session. Raises Unavailable or VolumeLost."""
        ...

    async def kill(self, sandbox_id: str) -> None:
        """Ends all its processes at once; nothing of it runs when this returns. Idempotent."""
        ...

    async def disconnect(self, sandbox_id: str) -> None:
        """Ends this host's open connections to its programs, those of visitors' previews, at once; it goes on running.
        Also after `kill`, for ends that nobody told of it. Idempotent; where the kernel does not do it, that is logged.
        """
        ...

    async def stop(self, sandbox_id: str) -> None:
        """Kill, and give everything back but the volume, on which `start` can put a new one: with all that was written
        before `quiesce`, or before it ended by itself, on disk. Idempotent.

        Raises Unavailable when the host does not let go of something: then the next `start` clears it away.
        """
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """Kill, and remove every trace, the volume included. Idempotent; safe to repeat after a crash."""
        ...

    async def recover(self, owned: Mapping[str, Session]) -> None:
        """At start: adopts what runs and is in `owned` (sandbox id → session) or was parked unclaimed; what serves an
        idle session is frozen again, what serves one in deep sleep is stopped.

        Destroys the rest, except volumes of `owned` sessions, which `start` takes up again.
        """
        ...

    # volumes of stopped sandboxes, which are a cache once they are archived

    def has_volume(self, sandbox_id: str) -> bool:
        """Whether the whole volume is on this host."""
        ...

    def cached(self) -> Mapping[str, int]:
        """Sandbox id → bytes, of the volumes on this host whose sandboxes are stopped. Costs nothing."""
        ...

    def strain(self) -> Strain:
        """What this host is short of now. Costs nothing that grows with the number of sessions."""
        ...

    async def touched(self) -> Collection[str]:
        """Ids of sessions that got bytes from clients on open connections within the last few seconds, suspended ones
        too: what the sessions themselves opened does not count, and neither do WebSocket pings and pongs."""
        ...

    def send(self, sandbox_id: str) -> Iterator[bytes]:
        """The volume of a stopped sandbox as a stream that `receive` understands. Blocking, for a thread; memory does
        not grow with the volume. Closing the iterator ends it, and `start` is possible again.

        Raises VolumeLost; VolumeUnsendable where the volume has what the stream cannot hold, or more than is
        reasonable for its limit: a session can make such a volume; Unavailable where the host cannot do it now.
        """
        ...

    def receive(self, session: Session, content: Iterator[bytes]) -> None:
        """Puts the session's volume on this host from what `send` gave: durable, exactly as it was, with the session's
        limit; or not at all. Blocking, for a thread.

        Raises what `content` raises, ValueError where it is no such stream, and Unavailable.
        """
        ...

    async def evict(self, sandbox_id: str) -> None:
        """Removes the volume of a stopped sandbox. Idempotent. The caller has seen that it is archived."""
        ...


class VolumeLost(Exception):
    """The volume of a session is not on this host. Never shown as it is."""


class VolumeUnsendable(Exception):
    """A volume that cannot be archived; the message says why. It stays on the host. Never shown as it is."""


# --- Archive ---------------------------------------------------------------------------------


class Archive(Protocol):
    """Objects by name, in a place that outlives this host or at least its volumes.

    Names are ours: segments of a-z, 0-9, `_` and `-` with `/` between. Blocking, for threads; safe to use by several at
    once. Every method raises ArchiveUnavailable where the archive cannot be reached, is full or refuses.
    """

    def put(self, name: str, content: Iterator[bytes]) -> None:
        """The whole object, durable when this returns. Nothing appears under the name before, nor when `content`
        raises, which is raised on. Memory does not grow with the object. A name is used once."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """The object in pieces, as the archive has it; memory does not grow with it. Raises ObjectMissing, at the call
        or at the first piece."""
        ...

    def delete(self, name: str) -> None:
        """Idempotent."""
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """Of all objects whose names start with `prefix`, which ends with `/` or is empty."""
        ...


class ArchiveUnavailable(Exception):
    """The archive cannot do it now; the message says why, for the log. Never shown as it is."""


class ObjectMissing(Exception):
    """The archive does not have the object. Never shown as it is."""
