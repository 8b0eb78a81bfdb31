"""The way into a session: checks its owner, wakes it, and bounds how much is open in it at a time."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from buntime import errors
from buntime.account import PREFIX as ACCOUNT
from buntime.caller import Caller
from buntime.inside import FileToWrite
from buntime.lifecycle.leases import Leases
from buntime.operations.guesses import Guesses
from buntime.places import STREAMS, Counts, Places
from buntime.ports import KINDS, AnotherHost, Kind, Owners, Sandbox, Sandboxes, Store
from buntime.session import Session, State

TRIES = 3  # a session may move between a look and a lock


@dataclass(slots=True)
class Entries:
    """What one request has entered. What has entered a session as its owner may have changed it, so another host must
    not do the same work. See `Entrance.wherever` for work that any host can begin again."""

    may_guess: bool  # which host has a session: not where a host has guessed already
    sessions: list[str] = field(default_factory=list)
    has_begun: bool = False  # see `note_begun`


_entries: ContextVar[Entries | None] = ContextVar("entries", default=None)


@contextmanager
def noting_entries(*, may_guess: bool) -> Iterator[Entries]:
    """For the work of the block."""
    entries = Entries(may_guess)
    mark = _entries.set(entries)
    try:
        yield entries
    finally:
        _entries.reset(mark)


def note_begun() -> None:
    """The request that this is work of begins what must not be done twice: from now on, it may have happened."""
    if (entries := _entries.get()) is not None:
        entries.has_begun = True


def has_begun() -> bool:
    """Whether the request that this is work of has begun what must not be done twice."""
    entries = _entries.get()
    return entries is not None and entries.has_begun


class Entrance:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        leases: Leases,
        owners: Owners,
        clock: Callable[[], float],
        places: Places | None = None,
    ) -> None:
        """`places`: where there are other hosts."""
        self._store = store
        self._sandboxes = sandboxes
        self._leases = leases
        self._owners = owners
        self._clock = clock
        self._places = places
        self._guesses = Guesses(owners.host, owners.steady, clock)
        self._streams: Counter[str] = Counter()  # open streams, by session id and by account id
        self._starting: Counter[tuple[str, Kind]] = Counter()  # what is starting and the kernel does not count yet

    @property
    def host(self) -> str:
        """The id of this host."""
        return self._owners.host

    async def find(self, caller: Caller, session_id: str) -> Session:
        """The session, whichever host has it. Raises SessionNotFound, for a session of another account too."""
        session = await self._store.get_session(session_id)
        if (
            session is None
            or session.account != caller.account.id
            or session.state is State.DELETING
            or session.has_expired(self._clock())
        ):
            raise errors.SessionNotFound(session_id)
        return session

    async def own(self, caller: Caller, session_id: str) -> Session:
        """The session, which this host has: for all that needs its files or its sandbox, or changes it. Raises what
        `find` and `Owners.here` raise."""
        entries, account = _entries.get(), caller.account.id
        if entries is not None and entries.may_guess and (peer := self._guesses.of(account, session_id)):
            raise AnotherHost(peer)
        session = await self.find(caller, session_id)
        try:
            mine = session if self._owners.is_mine(session) else await self._owners.here(session)
        except AnotherHost as elsewhere:
            self._guesses.learn(account, session_id, elsewhere.peer)
            raise
        self._guesses.forget(session_id)
        return _noted(mine)

    async def take(self, caller: Caller, session_id: str) -> Session:
        """The same where its newest files may be lost with another host: see `Owners.take`."""
        session = await self.find(caller, session_id)
        mine = session if self._owners.is_mine(session) else await self._owners.take(session)
        self._guesses.forget(session_id)
        return _noted(mine)

    async def wherever[T](self, caller: Caller, session_id: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """What `work` returns for the session that `own` returns. If the session moves before the work can begin, this
        host asks again who has it.

        `work`: raises NotOwner or AnotherHost only where another host may do all of it. Raises what both raise.
        """
        return await self._follow(lambda: self.own(caller, session_id), work)

    async def wherever_lost[T](self, caller: Caller, session_id: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """The same with the session that `take` returns."""
        return await self._follow(lambda: self.take(caller, session_id), work)

    async def _follow[T](self, find: Callable[[], Awaitable[Session]], work: Callable[[Session], Awaitable[T]]) -> T:
        for _ in range(TRIES - 1):
            session = await find()
            try:
                return await work(session)
            except errors.NotOwner:
                _unnoted(session)
            except AnotherHost:
                _unnoted(session)
                raise
        return await work(await find())

    @asynccontextmanager
    async def use(self, caller: Caller, session_id: str) -> AsyncIterator[tuple[Session, Sandbox]]:
        """The session and its sandbox, awake within the block. Raises what `own` and `Leases.use` raise."""
        session = await self.own(caller, session_id)
        async with self._awake(session) as sandbox:
            yield session, sandbox

    @asynccontextmanager
    async def _awake(self, session: Session) -> AsyncIterator[Sandbox]:
        """See `Leases.use`. A session that this host gave up before it was awake here has not been entered."""
        is_awake = False
        try:
            async with self._leases.use(session) as sandbox:
                is_awake = True
                yield sandbox
        except AnotherHost:
            if not is_awake:
                _unnoted(session)
            raise

    @asynccontextmanager
    async def streaming(self, caller: Caller, session_id: str) -> AsyncIterator[tuple[Session, Sandbox]]:
        """The same as `use`, for an answer that streams. Raises ResourceLimitExceeded too."""
        session = await self.own(caller, session_id)
        async with self._stream(caller, session), self._awake(session) as sandbox:
            yield session, sandbox

    @asynccontextmanager
    async def connected[T](
        self, caller: Caller, session_id: str, connect: Callable[[Session, Sandbox], AbstractAsyncContextManager[T]]
    ) -> AsyncIterator[tuple[Session, T]]:
        """The session and what `connect` yields, for an answer that streams for long. The session is kept awake only
        while `connect` is entered; it may go to sleep within the block. Raises the same."""
        session = await self.own(caller, session_id)
        async with self._stream(caller, session), AsyncExitStack() as stack:
            async with self._awake(session) as sandbox:
                connection = await stack.enter_async_context(connect(session, sandbox))
            yield session, connection

    async def write(self, session: Session, sandbox: Sandbox, files: Sequence[FileToWrite]) -> Sequence[int]:
        """See `inside.Files.write_batch`. A snapshot has all of it or nothing."""
        async with self.writing(session):
            return await sandbox.files.write_batch(files)

    def writing(self, session: Session) -> AbstractAsyncContextManager[None]:
        """See `Holds.writing`."""
        return self._leases.writing(session.id)

    async def touched(self, session: Session) -> None:
        """A client sent something on an open connection. That is activity, and wakes a suspended session."""
        await self._leases.touched(session.id)

    async def slept_deep(self, session: Session) -> bool:
        """Whether the session is in deep sleep now, which ends connections to its inside."""
        stored = await self._store.get_session(session.id)
        return stored is not None and stored.state is State.DEEP_SLEEP

    @asynccontextmanager
    async def _stream(self, caller: Caller, session: Session) -> AsyncIterator[None]:
        """Counts one more answer that streams. Raises ResourceLimitExceeded."""
        plan = caller.plan
        self._check("open streams", self._streams[session.id], plan.streams_per_session, "session", caller)
        async with self._counted_stream(caller, session.account, session.id):
            yield

    @asynccontextmanager
    async def account_stream(self, caller: Caller) -> AsyncIterator[None]:
        """Counts one more answer that streams, of no session. Raises ResourceLimitExceeded."""
        async with self._counted_stream(caller, caller.account.id):
            yield

    @asynccontextmanager
    async def _counted_stream(self, caller: Caller, account: str, *session: str) -> AsyncIterator[None]:
        limit, names = caller.plan.streams_per_account, (account, *session)
        self._check("open streams", self._streams[account], limit, "account", caller)
        self._streams.update(names)  # nothing is awaited since the check
        try:
            await self._take_place(caller, account, STREAMS, limit, lambda: self._streams[account])
            yield
        finally:
            self._streams.subtract(names)
            self._forget(self._streams, names)

    @asynccontextmanager
    async def place(self, caller: Caller, session: Session, sandbox: Sandbox, kind: Kind) -> AsyncIterator[None]:
        """Reserves a place for one more of the kind, which the block starts. Asks no guest of another session. Raises
        ResourceLimitExceeded."""
        account = session.account
        names, live = ((session.id, kind), (account, kind)), await self._live_of(account)
        limit = self._check_place(caller, session, sandbox, live, kind)
        self._starting.update(names)  # nothing is awaited since the check
        try:
            await self._take_place(caller, account, kind, limit, lambda: live(kind) + self._starting[account, kind])
            yield
        finally:
            self._starting.subtract(names)
            self._forget(self._starting, names)

    async def check_place(
        self, caller: Caller, session: Session, sandbox: Sandbox, kind: Kind, *, without: int = 0
    ) -> None:
        """Raises ResourceLimitExceeded when this host has no place for one more of the kind, `without` so many of the
        session's that are about to end."""
        self._check_place(caller, session, sandbox, await self._live_of(session.account), kind, without)

    async def find_open(self, awake: Sequence[tuple[str, str]]) -> Callable[[], Counts]:
        """Counts what accounts have open on this host, whenever it is called. `awake`: account and sandbox of each
        session here. Asks no guest."""
        live = await self._sandboxes.live([name for _, name in awake])

        def count() -> Counts:
            counts: Counter[tuple[str, str]] = Counter()
            for account, name in awake:
                counts.update({(account, kind): live(name, kind) for kind in KINDS})
            # both counters have sessions too
            starting = {name: number for name, number in self._starting.items() if name[0].startswith(ACCOUNT)}
            streams = {(name, STREAMS): n for name, n in self._streams.items() if name.startswith(ACCOUNT)}
            counts.update(starting)
            counts.update(streams)
            return counts

        return count

    def _check_place(
        self,
        caller: Caller,
        session: Session,
        sandbox: Sandbox,
        live: Callable[[Kind], int],
        kind: Kind,
        without: int = 0,
    ) -> int:
        """The account's limit. `live`: what the account has. Awaits nothing: a place that another request takes
        meanwhile must count. Raises ResourceLimitExceeded."""
        plan = caller.plan
        here = sandbox.live(kind) + self._starting[session.id, kind] - without
        self._check(kind, here, getattr(plan, f"{kind}_per_session"), "session", caller)
        limit: int = getattr(plan, f"{kind}_per_account")
        everywhere = live(kind) + self._starting[session.account, kind] - without
        self._check(kind, everywhere, limit, "account", caller)
        return limit

    async def _take_place(self, caller: Caller, account: str, kind: str, limit: int, used: Callable[[], int]) -> None:
        """Raises ResourceLimitExceeded where other hosts have what is left."""
        if self._places is not None and not await self._places.take(account, kind, limit, used):
            what = "open streams" if kind == STREAMS else kind
            raise errors.ResourceLimitExceeded(what, limit, "account", caller.plan.name)

    async def _live_of(self, account: str) -> Callable[[Kind], int]:
        """Tells how many of a kind the account has on this host, whenever it is called."""
        names = await self._store.account_sandboxes(account)
        live = await self._sandboxes.live(names)
        return lambda kind: sum(live(name, kind) for name in names)

    @staticmethod
    def _check(what: str, there: int, limit: int, scope: str, caller: Caller) -> None:
        if there >= limit:
            raise errors.ResourceLimitExceeded(what, limit, scope, caller.plan.name)

    @staticmethod
    def _forget[T](counts: Counter[T], names: tuple[T, ...]) -> None:
        for name in names:
            if not counts[name]:
                del counts[name]


def _noted(session: Session) -> Session:
    if (entries := _entries.get()) is not None:
        entries.sessions.append(session.id)
    return session


def _unnoted(session: Session) -> None:
    if (entries := _entries.get()) is not None:
        entries.sessions.remove(session.id)
