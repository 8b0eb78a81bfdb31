"""Makes the services that run in a sandbox those that its session declares.

The guest restarts a service that ends. This starts it at first: in a new sandbox, after a change, and when the session
has killed the guest's shell that would restart it. All work for one session is done one after another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.daemon.tasks import Tasks
from buntime.ids import new_process_id
from buntime.inside import NewService, ServiceStatus
from buntime.plan import Plan, with_overrides
from buntime.ports import Sandbox, Sandboxes, SandboxGone, Store
from buntime.service import Service
from buntime.session import Session, State

log = structlog.get_logger()

LOOK_SECONDS = 10.0  # while a session is used, its services are looked at this often
SETTLE_SECONDS = 10.0  # a transition waits this long: more than a stop takes, which is gentle at first

AT_ONCE = 3  # starts of the same service that do not wait; then the pauses grow from LOOK_SECONDS …
LONGEST_PAUSE_SECONDS = 600.0  # … to this, and begin anew after twice as long without a start

_AWAKE = (State.ACTIVE, State.IDLE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was made so, or was tried and failed. It holds until `until`, on the loop's clock."""

    sandbox: str
    services: tuple[Service, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Starts:
    """Of a service in one sandbox, by looks alone."""

    sandbox: str
    revision: str
    count: int
    last: float  # on the loop's clock

    @property
    def next(self) -> float:
        """When it may be started again."""
        pause = LOOK_SECONDS * 2 ** min(self.count - AT_ONCE, 20) if self.count >= AT_ONCE else 0.0
        return self.last + min(LONGEST_PAUSE_SECONDS, pause)


class Services:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        plans: Mapping[str, Plan],
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._plans = plans
        self._tasks = tasks
        self._clock = clock
        self._seen: dict[str, Seen] = {}  # by session
        self._starts: dict[str, dict[str, Starts]] = {}  # by session and name
        self._under_way: dict[str, asyncio.Event] = {}  # the newest look of each session; set when it is done
        self._asked: dict[str, asyncio.Future[Mapping[str, ServiceStatus]]] = {}  # by sandbox: see `shared_list`
        self._left: dict[str, str] = {}  # session → its sandbox of an earlier server, in which anything may run
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def look(self, session: Session, sandbox: Sandbox) -> None:
        """Starts what is missing, and stops what is too much, in the background. Fast if nothing is to be done."""
        seen = self._seen.get(session.id)
        is_unknown = self._left.pop(session.id, "") == sandbox.id
        if not session.services and seen is None and not is_unknown:
            return
        now = asyncio.get_running_loop().time()
        same = seen and seen.sandbox == sandbox.id and seen.services == session.services
        if seen and same and now < seen.until:
            return
        self._seen[session.id] = Seen(sandbox.id, session.services, now + LOOK_SECONDS)
        done = self._under_way[session.id] = asyncio.Event()
        self._tasks.start(self._make_so(session, sandbox, done), f"services of {session.id}")

    async def settled(self, session_id: str) -> None:
        """Waits until nothing is being started or stopped, but not for longer than SETTLE_SECONDS. What a look does
        holds no lease: frozen midway, it would look like a guest that does not answer. So ask `is_busy` afterwards."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS), self._turn(session_id):
                pass

    def is_busy(self, session_id: str) -> bool:
        """Whether something is being started or stopped since `look`."""
        return session_id in self._under_way

    async def resume(self) -> None:
        """At start: starts what an earlier server left declared but not started, and lets the first use of each other
        session look for what it left running but not declared."""
        sessions = await self._store.all_sessions()
        self._left = {session.id: session.sandbox for session in sessions if session.state in _AWAKE}
        left = await self._looked([one for one in sessions if one.services and one.state is State.ACTIVE])
        while left:
            await asyncio.sleep(LOOK_SECONDS)
            left = await self._looked(left)

    async def _looked(self, sessions: Iterable[Session]) -> Sequence[Session]:
        """Returns those whose sandboxes are out of reach now."""
        later = []
        for session in sessions:
            try:
                sandbox = await self._sandboxes.get(session.sandbox)
            except errors.Unavailable:
                later.append(session)
                continue
            if sandbox is not None:
                self.look(session, sandbox)
        return later

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        self._seen.pop(session_id, None)
        self._starts.pop(session_id, None)
        self._left.pop(session_id, None)

    async def list(self, session_id: str, sandbox: Sandbox) -> Mapping[str, ServiceStatus]:
        """What the guest says of its services, by name."""
        async with self._turn(session_id):
            return await _there(sandbox)

    async def shared_list(self, session_id: str, sandbox: Sandbox) -> Mapping[str, ServiceStatus]:
        """The same, by one call for all who ask meanwhile. It goes on when they leave."""
        asked = self._asked.get(sandbox.id)
        if asked is None:
            listing = self._tasks.finish(self.list(session_id, sandbox), f"list of services of {session_id}")
            asked = self._asked[sandbox.id] = asyncio.ensure_future(listing)
            asked.add_done_callback(partial(self._was_asked, sandbox.id))
        return await asyncio.shield(asked)

    def _was_asked(self, sandbox_id: str, asked: asyncio.Future[Mapping[str, ServiceStatus]]) -> None:
        del self._asked[sandbox_id]
        if not asked.cancelled():
            asked.exception()  # so that asyncio does not report it as never retrieved, if all have left

    async def start(self, session: Session, sandbox: Sandbox, service: Service) -> None:
        """Starts a service that does not run, or is not restarted any more."""
        async with self._turn(session.id):
            await self._started(session, sandbox, service, (await _there(sandbox)).get(service.name))

    async def stop(self, session: Session, sandbox: Sandbox, service: Service) -> None:
        async with self._turn(session.id):
            await sandbox.services.stop(service.name)

    @asynccontextmanager
    async def _turn(self, session_id: str) -> AsyncIterator[None]:
        """After all that a look has begun."""
        while (under_way := self._under_way.get(session_id)) is not None:
            await under_way.wait()
        async with self._turns.setdefault(session_id, asyncio.Lock()):
            yield

    async def _make_so(self, asked: Session, sandbox: Sandbox, done: asyncio.Event) -> None:
        try:
            async with self._turns.setdefault(asked.id, asyncio.Lock()):
                session = await self._store.get_session(asked.id)  # it may have been changed since
                if session is not None and session.sandbox == sandbox.id:
                    await self._changed(session, sandbox, await _there(sandbox))
                    if not session.services and self._under_way.get(asked.id) is done:
                        self._seen.pop(asked.id, None)  # there is nothing to look after any more
        except (SandboxGone, errors.BuntimeError) as failed:  # a later look tries again
            log.warning("services_not_started", session=asked.id, reason=str(failed))
        finally:
            if self._under_way.get(asked.id) is done:
                del self._under_way[asked.id]
            done.set()

    async def _changed(self, session: Session, sandbox: Sandbox, there: Mapping[str, ServiceStatus]) -> None:
        wanted = {service.name: service for service in session.services}
        old = [name for name, found in there.items() if name not in wanted or found.revision != wanted[name].revision]
        await asyncio.gather(*(sandbox.services.stop(name, forget=True) for name in old))
        for service in session.services:
            found = None if service.name in old else there.get(service.name)
            if found is None or found.state == "lost":
                await self._start_missing(session, sandbox, service)

    async def _start_missing(self, session: Session, sandbox: Sandbox, service: Service) -> None:
        """Starts it, but not again and again: the end of each start is an event, and a session can end them all."""
        now = asyncio.get_running_loop().time()
        starts = self._starts.setdefault(session.id, {})
        found, count = starts.get(service.name), 0
        if found is not None and (found.sandbox, found.revision) == (sandbox.id, service.revision):
            if now < found.next:
                return
            count = found.count if now < found.last + 2 * LONGEST_PAUSE_SECONDS else 0
        await self._started(session, sandbox, service, None)
        starts[service.name] = Starts(sandbox.id, service.revision, count + 1, now)

    async def _started(self, session: Session, sandbox: Sandbox, service: Service, there: ServiceStatus | None) -> None:
        if there is not None and there.state not in ("exited", "stopped", "lost"):
            return
        log_bytes, all_log_bytes = (await self._plan_of(session)).log_bytes
        new = NewService(
            id=new_process_id(int(self._clock() * 1000)),
            name=service.name,
            revision=service.revision,
            command=service.command,
            restart=service.restart,
            env={**session.env, **service.whole_env},
            working_dir=service.working_dir,
            log_bytes=log_bytes,
            all_log_bytes=all_log_bytes,
        )
        await self._tasks.finish(sandbox.services.start(new), f"start of {service.name} in {session.id}")

    async def _plan_of(self, session: Session) -> Plan:
        """Raises Unavailable when the session's account or its plan is gone."""
        account = await self._store.get_account(session.account)
        plan = None if account is None else self._plans.get(account.plan)
        if account is None or plan is None:
            raise errors.Unavailable("The session's account has no plan.")
        return with_overrides(plan, account.overrides)


async def _there(sandbox: Sandbox) -> Mapping[str, ServiceStatus]:
    found: Sequence[ServiceStatus] = await sandbox.services.list()
    return {status.name: status for status in found}
