"""One method per API operation. Decides; the ports act.

Work that changes what exists (create, delete, a restart) runs in a task of `tasks`, so that a
client who hangs up can neither undo half of it nor leave half of it.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from buntime import errors, requests
from buntime.account import Account, AccountStatus, hash_key, is_well_formed
from buntime.caller import Caller
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.endings import Endings
from buntime.lifecycle.leases import Leases
from buntime.operations.contexts import Contexts
from buntime.operations.entrance import Entrance
from buntime.operations.executions import Executions
from buntime.operations.files import Files
from buntime.operations.processes import Processes
from buntime.operations.terminals import Terminals
from buntime.plan import Limits, Plan, with_overrides
from buntime.ports import Answer, Observed, PreviewToken, Sandbox, Sandboxes, Store
from buntime.preview import PERMISSION_SECONDS, hash_token, new_token, open_ports
from buntime.requests import NewSession, NewToken, Patch
from buntime.session import DEFAULT_NETWORK, ID_ALPHABET, ID_LENGTH, ID_PREFIX, Session, State

log = structlog.get_logger()

ARCHIVE_SECONDS = 4.0  # that a request for deep sleep waits for the archive
TOKENS = 100  # for the previews of one session, valid at a time
SPENT_SECONDS = PERMISSION_SECONDS + 0.5  # after which the edge asks again


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session and what was last seen of its inside."""

    session: Session
    observed: Observed


@dataclass(frozen=True, slots=True)
class Woken:
    view: SessionView
    woke_from: State
    milliseconds: int


@dataclass(frozen=True, slots=True)
class MadeToken:
    secret: str
    token: PreviewToken


def new_session_id() -> str:
    return ID_PREFIX + "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


class ControlPlane:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        leases: Leases,
        endings: Endings,
        plans: Mapping[str, Plan],
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._plans = plans
        self._tasks = tasks
        self._clock = clock
        self._leases = leases
        self._endings = endings
        self.entrance = Entrance(store, sandboxes, leases, clock)
        self.executions = Executions(self.entrance)
        self.files = Files(self.entrance)
        self.processes = Processes(self.entrance, tasks, clock)
        self.contexts = Contexts(self.entrance, tasks)
        self.terminals = Terminals(self.entrance)

    async def finish[T](self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Awaits work that goes on to its end when the caller is cancelled; its failure is the caller's."""
        return await self._tasks.finish(work, name)

    # --- who asks ---

    async def identify(self, secret: str | None) -> Caller:
        """Whose key it is, a suspended account's too: its calls count against its rate. Raises Unauthorized."""
        if not secret:
            raise errors.Unauthorized("Send an API key: Authorization: Bearer btk_…")
        if not is_well_formed(secret):
            raise errors.Unauthorized("The API key is malformed. Keys start with btk_ and carry a checksum.")
        found = await self._store.find_key(hash_key(secret))
        if found is None or found[1].status is AccountStatus.DELETED:
            raise errors.Unauthorized("The API key is not known or has been revoked.")
        key, account = found
        return Caller(account, key, self.plan_of(account))

    def require_active(self, caller: Caller) -> None:
        """Raises Forbidden for a suspended account."""
        if caller.account.status is AccountStatus.SUSPENDED:
            raise errors.Forbidden("This account is suspended.", plan=caller.plan.name)

    def plan_of(self, account: Account) -> Plan:
        """The account's plan with its own numbers; an account of a plan that is no more cannot be used."""
        plan = self._plans.get(account.plan)
        if plan is None:
            raise errors.Forbidden(f"The plan {account.plan!r} of this account does not exist any more.")
        return with_overrides(plan, account.overrides)

    def now(self) -> int:
        return int(self._clock())

    # --- sessions ---

    async def create_session(
        self, caller: Caller, new: NewSession, answer: Callable[[Session], Answer] | None = None
    ) -> Session:
        """A durable session whose runtime answers. `answer` renders what is stored for idempotency."""
        ttl, limits = requests.check_new(new, caller.plan)
        plan = caller.plan
        active = await self._store.count_sessions(caller.account.id)
        if active >= plan.sessions:
            raise errors.SessionLimitExceeded(plan.name, plan.sessions, active)

        async def create() -> Session:
            session_id = new_session_id()
            sandbox, image = await self._claim(session_id, limits)
            reached("create: claimed")
            now = self.now()
            session = Session(
                id=session_id,
                account=caller.account.id,
                created_at=now,
                expires_at=now + ttl,
                last_active=now,
                limits=limits,
                sandbox=sandbox.id,
                image=image,
                metadata=new.metadata,
                preview=new.preview,
                network=new.network,
                on_wake=new.on_wake,
                env=new.env,
            )
            try:
                if new.network != DEFAULT_NETWORK:
                    await sandbox.restrict(new.network)
                await self._store.add_session(session, answer and answer(session), plan.sessions)
            except Exception as failed:  # not when cancelled: then it may be stored, and the next start decides
                await self._sandboxes.destroy(sandbox.id)
                if isinstance(failed, errors.SessionLimitExceeded):
                    raise errors.SessionLimitExceeded(plan.name, plan.sessions, plan.sessions) from None
                raise
            reached("create: stored")
            return session

        return await self._tasks.finish(create(), f"create for {caller.account.id}")

    async def get_session(self, caller: Caller, session_id: str) -> SessionView:
        """Does not wake it and is not activity."""
        session = await self.entrance.find(caller, session_id)
        return SessionView(session, await self._leases.observe(session))

    async def list_sessions(
        self, caller: Caller, *, state: State | None, metadata: Mapping[str, str], limit: int, offset: int
    ) -> tuple[Sequence[SessionView], int]:
        """A page with what was last seen of each, newest first, and the total."""
        found, total = await self._store.list_sessions(
            caller.account.id, now=self.now(), state=state, metadata=metadata, limit=limit, offset=offset
        )
        return [SessionView(session, self._leases.last_seen(session)) for session in found], total

    async def patch_session(self, caller: Caller, session_id: str, patch: Patch) -> SessionView:
        """Each field given replaces the old value whole. Does not wake it and is not activity."""

        async def change() -> Session:
            while True:
                session = await self.entrance.find(caller, session_id)
                wanted = requests.apply_patch(session, patch, caller.plan, self.now())
                if wanted == session:
                    return session
                try:
                    changed = await self._store.change_session(session, wanted)
                except errors.StaleSession:
                    continue
                if open_ports(session.preview) - open_ports(changed.preview):
                    await self._end_connections(session)
                sandbox = await self._sandboxes.get(session.sandbox)
                if sandbox is not None and changed.network != session.network:
                    await sandbox.restrict(changed.network)
                return changed

        session = await self._tasks.finish(change(), f"patch {session_id}")
        return SessionView(session, await self._leases.observe(session))

    async def delete_session(self, caller: Caller, session_id: str) -> None:
        """Durable, and nothing of it runs any more, when this returns; the rest is cleared behind it."""
        session = await self.entrance.find(caller, session_id)
        await self._tasks.finish(self._endings.end(session), f"delete {session_id}")

    async def _claim(self, session_id: str, limits: Limits) -> tuple[Sandbox, str]:
        """Raises Unavailable when nothing can be freed on this host for one more."""
        try:
            return await self._sandboxes.claim(session_id, limits)
        except errors.Unavailable:
            if not await self._leases.relieve():
                raise
        return await self._sandboxes.claim(session_id, limits)

    async def sleep_session(self, caller: Caller, session_id: str, depth: State) -> SessionView:
        """Down to IDLE or DEEP_SLEEP; one that sleeps deeper stays so. Raises SessionBusy while a request uses it."""
        session = await self.entrance.find(caller, session_id)
        await self._leases.spent(session.id)
        deep = depth is State.DEEP_SLEEP
        down = self._leases.deep_sleep(session.id) if deep else self._leases.suspend(session.id)
        if not await down:  # one that sleeps deeper than asked is down
            raise errors.SessionBusy("The session is in use just now; try again when its requests have ended.")
        if deep:
            await self._wait_for_archive(session.id)
        return await self.get_session(caller, session_id)

    async def _wait_for_archive(self, session_id: str) -> None:
        """For a moment: the session sleeps already, and the saving goes on whether anybody waits or not."""
        try:
            async with asyncio.timeout(ARCHIVE_SECONDS):
                await self._leases.archive(session_id)
        except TimeoutError:
            log.info("archive_goes_on", session=session_id)

    async def wake_session(self, caller: Caller, session_id: str) -> Woken:
        session = await self.entrance.find(caller, session_id)
        started = self._clock()
        await self._leases.wake(session.id)
        milliseconds = int((self._clock() - started) * 1000)
        return Woken(await self.get_session(caller, session_id), session.state, max(milliseconds, 0))

    # --- previews ---

    async def create_preview_token(
        self, caller: Caller, session_id: str, new: NewToken, answer: Callable[[MadeToken], Answer] | None = None
    ) -> MadeToken:
        """Valid until the session's end at the latest. `answer` as in `create_session`. Raises TooManyTokens."""
        session = await self.entrance.find(caller, session_id)
        ttl, now, secret = requests.check_token(new), self.now(), new_token()
        expires_at = min(now + ttl, session.expires_at)
        made = MadeToken(secret, PreviewToken(hash_token(secret), session.id, new.port, now, expires_at))
        await self._store.add_preview_token(made.token, answer and answer(made), TOKENS)
        return made

    async def revoke_preview_tokens(self, caller: Caller, session_id: str, secret: str | None) -> int:
        """One token of the session, or all; how many there were. Connections to the session end."""
        session = await self.entrance.find(caller, session_id)

        async def revoke() -> int:
            revoked = await self._store.revoke_preview_tokens(
                session.id, None if secret is None else hash_token(secret)
            )
            if revoked:
                await self._end_connections(session)
            return revoked

        return await self._tasks.finish(revoke(), f"revoke tokens of {session_id}")

    async def _end_connections(self, session: Session) -> None:
        """Those that are open, and soon those that a permission of before lets through."""

        async def once_more() -> None:
            await asyncio.sleep(SPENT_SECONDS)
            await self._sandboxes.disconnect(session.sandbox)

        self._tasks.start(once_more(), f"disconnect {session.id}")
        await self._sandboxes.disconnect(session.sandbox)
