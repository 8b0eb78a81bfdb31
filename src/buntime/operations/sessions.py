"""One method per API operation on sessions themselves.

Work that changes what exists (create, patch, delete) is work of `tasks`: a client that hangs up can neither undo half
of it nor leave it half done.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from buntime import errors, requests
from buntime.caller import Caller
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.event import of_new_session
from buntime.ids import new_session_id
from buntime.image import DEFAULT_IMAGE
from buntime.lifecycle.assembly import Lifecycle
from buntime.lifecycle.decisions import Waits, waits_of
from buntime.lifecycle.recovering import Recovered
from buntime.operations.entrance import Entrance
from buntime.operations.images import Images
from buntime.operations.kept import Kept
from buntime.operations.names import Names
from buntime.operations.placing import Placing
from buntime.operations.room import Room
from buntime.operations.visitors import Visitors
from buntime.plan import Limits
from buntime.ports import Answer, Claimed, Observed, Peer, Sandboxes, SandboxGone, Store, VolumeLost
from buntime.preview import open_ports
from buntime.requests import NewSession, Patch, Unset
from buntime.session import DEFAULT_NETWORK, Session, State, end_after

log = structlog.get_logger()

TRIES = 3  # a layer may be evicted between two steps
ARCHIVE_SECONDS = 4.0  # a request for deep sleep waits this long for the archive

type AnswerTo = Callable[[Session], Answer]


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session and what was last seen inside it."""

    session: Session
    observed: Observed
    waits: Waits  # that hold for it
    checkpoint_every: int  # seconds; NEVER


@dataclass(frozen=True, slots=True)
class Woken:
    view: SessionView
    woke_from: State
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Created:
    session: Session
    existed: bool = False  # it had the name that was asked for


@dataclass(frozen=True, slots=True)
class Source:
    """What a new session starts with."""

    image: str  # id; "": the host's own
    image_name: str
    layer: str = ""  # id of the layer that has its files; "": none
    snapshot: str = ""  # id of the snapshot that named the layer


class Sessions:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        lifecycle: Lifecycle,
        entrance: Entrance,
        images: Images,
        kept: Kept,
        names: Names,
        placing: Placing,
        visitors: Visitors,
        tasks: Tasks,
        clock: Callable[[], float],
        usual: Waits,
    ) -> None:
        """`usual`: of sessions that do not say it themselves."""
        self._store = store
        self._sandboxes = sandboxes
        self._lifecycle = lifecycle
        self._entrance = entrance
        self._images = images
        self._kept = kept
        self._names = names
        self._room = Room(store)
        self._placing = placing
        self._visitors = visitors
        self._tasks = tasks
        self._clock = clock
        self._usual = usual

    async def create(
        self,
        caller: Caller,
        new: NewSession,
        answer: AnswerTo | None = None,
        chosen: Sequence[Peer] | None = None,
    ) -> Created:
        """A durable session whose runtime answers; or the one that has the name, if `new` says so.

        `answer` returns what is stored with a new session for the request's idempotency key. `chosen`: where another
        host has chosen this one, those to ask next. Raises TakenElsewhere too.
        """
        ttl, limits = requests.check_new(new, caller.plan)
        if new.name is None:
            await self._room.require(caller)
        return await self._tasks.finish(
            self._create(caller, new, ttl, limits, answer, chosen), f"create for {caller.account.id}"
        )

    async def _create(
        self,
        caller: Caller,
        new: NewSession,
        ttl: float,
        limits: Limits,
        answer: AnswerTo | None,
        chosen: Sequence[Peer] | None,
    ) -> Created:
        async with self._names.turn(caller.account.id, new.name) as holder:
            if holder is None:
                try:
                    return Created(await self._create_new(caller, new, ttl, limits, answer, chosen))
                except errors.NameTaken as taken:  # by another server, since we asked
                    holder = await self._names.holder(caller.account.id, str(taken.details["name"]))
                    if holder is None:
                        raise errors.Unavailable("The session of this name just ended.", 1) from None
            if not new.or_existing:
                raise errors.NameTaken(str(holder.name), holder.id)
            return Created(holder, existed=True)

    async def _create_new(
        self,
        caller: Caller,
        new: NewSession,
        ttl: float,
        limits: Limits,
        answer: AnswerTo | None,
        chosen: Sequence[Peer] | None,
    ) -> Session:
        if new.name is not None:
            await self._room.require(caller)
        source = await self._source(caller, new, limits)
        if chosen is None and source.layer and await self._lifecycle.layers.is_only_here(source.layer):
            chosen = ()
        rest = await self._placing.begin(source.image, chosen)
        now = self._now()
        like = Session(
            id="",
            account=caller.account.id,
            created_at=now,
            expires_at=now,
            last_active=now,
            limits=limits,
            sandbox="",
            volume="",
            image=source.image,
            metadata=new.metadata,
            preview=new.preview,
            network=new.network,
            on_wake=new.on_wake,
            env=new.env,
            sleep_policy=new.sleep_policy,
            name=new.name,
            services=new.services,
        )
        try:
            return await self._make(caller, like, ttl, source, answer)
        except errors.HostFull:
            self._placing.go_on(rest)
            raise

    async def _source(self, caller: Caller, new: NewSession, limits: Limits) -> Source:
        """Raises ImageNotFound, SnapshotNotFound, InvalidRequest when the files need more than the session's disk."""
        if new.snapshot is not None:
            found = await self._kept.find(caller, new.snapshot)
            requests.check_fits(found.size, limits)
            return Source(found.image, found.image_name, found.layer, found.id)
        if new.image == DEFAULT_IMAGE:
            return Source("", DEFAULT_IMAGE)
        return Source((await self._images.find(caller, new.image)).id, new.image)

    async def make(
        self, caller: Caller, like: Session, ttl: float, source: Source, answer: AnswerTo | None = None
    ) -> Session:
        """A new session from this source, with the settings of `like`, for work of `tasks`. Raises what `create`
        does."""
        async with self._names.turn(caller.account.id, like.name) as holder:
            if holder is not None:
                raise errors.NameTaken(str(holder.name), holder.id)
            await self._room.require(caller)
            return await self._make(caller, like, ttl, source, answer)

    async def _make(
        self, caller: Caller, like: Session, ttl: float, source: Source, answer: AnswerTo | None
    ) -> Session:
        session_id = new_session_id()
        async with self._lifecycle.holds.lock(session_id):  # until there is a row, the sandbox looks misplaced
            claimed = await self._claim_from(source, session_id, like)
            reached("create: claimed")
            session = await self._stored(caller, like, ttl, source, answer, session_id, claimed)
        reached("create: stored")
        self._lifecycle.services.look(session, claimed.sandbox)
        return session

    async def _stored(
        self,
        caller: Caller,
        like: Session,
        ttl: float,
        source: Source,
        answer: AnswerTo | None,
        session_id: str,
        claimed: Claimed,
    ) -> Session:
        now = self._now()
        session = replace(
            like,
            id=session_id,
            created_at=now,
            expires_at=end_after(now, ttl),
            last_active=now,
            sandbox=claimed.sandbox.id,
            volume=claimed.volume,
            image=claimed.image,
            image_name=source.image_name,
            made_of=source.snapshot or None,
            state=State.ACTIVE,
            files=0,
            processes=0,
            key="",
            saved=None,
            previous=None,
            archived=False,
            host=self._entrance.host,
            epoch=1,
            version=1,
        )
        await self._add(caller, session, claimed, answer)
        return session

    async def _claim_from(self, source: Source, session_id: str, like: Session) -> Claimed:
        """Brings the source's layers to this host if they are not here."""
        layers = self._lifecycle.layers
        for _ in range(TRIES):
            try:
                await layers.bring_image(source.image)
                if source.layer:
                    await layers.bring(source.layer)
            except VolumeLost:  # nothing refers to it any more
                if source.snapshot:
                    raise errors.SnapshotNotFound(source.snapshot) from None
                raise errors.ImageNotFound(source.image_name) from None
            with suppress(VolumeLost):  # it was evicted meanwhile
                return await self._claim(session_id, like, source.image, source.layer)
        raise errors.Unavailable("The files are being moved just now.", 2)

    async def _claim(self, session_id: str, like: Session, image: str, layer: str) -> Claimed:
        """Raises HostFull when this host cannot hold one more session and nothing can be freed."""
        try:
            return await self._sandboxes.claim(session_id, like.limits, image, layer, like.account)
        except errors.Unavailable as full:
            if isinstance(full, errors.Crowded) or not await self._lifecycle.relief.relieve():
                raise errors.HostFull(full) from None
        try:
            return await self._sandboxes.claim(session_id, like.limits, image, layer, like.account)
        except errors.Unavailable as full:
            raise errors.HostFull(full) from None

    async def _add(self, caller: Caller, session: Session, claimed: Claimed, answer: AnswerTo | None) -> None:
        """Stores the session, or destroys its sandbox."""
        plan = caller.plan
        try:
            if session.network != DEFAULT_NETWORK:
                with suppress(SandboxGone):  # the next one starts with the rules of the session
                    await claimed.sandbox.restrict(session.network)
            created, used = (of_new_session(session),), await self._lifecycle.metering.first(session, claimed.used)
            await self._store.add_session(
                session, answer and answer(session), plan.sessions, events=created, reading=used
            )
        except errors.CommitUnknown:
            raise  # the same as when cancelled
        except Exception as failed:  # not when cancelled: it may be stored then, and the next start decides
            await self._sandboxes.destroy(session)
            if isinstance(failed, errors.SessionLimitExceeded):
                self._room.forget(caller.account.id)
                raise errors.SessionLimitExceeded(plan.name, plan.sessions, plan.sessions) from None
            raise

    async def get(self, caller: Caller, session_id: str) -> SessionView:
        """Does not wake the session and is not activity."""
        return await self._view(caller, await self._entrance.find(caller, session_id))

    async def list(
        self,
        caller: Caller,
        *,
        state: State | None,
        name: str | None,
        metadata: Mapping[str, str],
        limit: int,
        offset: int,
    ) -> tuple[Sequence[SessionView], int]:
        """A page, newest first, and the total."""
        found, total = await self._store.list_sessions(
            caller.account.id, now=self._now(), state=state, name=name, metadata=metadata, limit=limit, offset=offset
        )
        seen = await self._lifecycle.observations.observe_all(found)
        return [self._shown(caller, *pair) for pair in zip(found, seen, strict=True)], total

    async def patch(self, caller: Caller, session_id: str, patch: Patch) -> SessionView:
        """Replaces each given field whole. Does not wake the session and is not activity.

        If the network is among them, its rules are in force when this returns. Raises Unavailable where they may not
        be, although the change may be stored: a repeat puts them in force too.
        """

        async def patch_here(_: Session) -> Session:
            return await self._tasks.finish(self._patch(caller, session_id, patch), f"patch {session_id}")

        return await self._view(caller, await self._entrance.wherever(caller, session_id, patch_here))

    async def _patch(self, caller: Caller, session_id: str, patch: Patch) -> Session:
        names_network, restricting = not isinstance(patch.network, Unset), self._lifecycle.restricting
        try:
            before, after = await self._change(caller, session_id, patch)
            # first of all, and also where nothing has changed: an earlier request may have stored it and then failed
            session = await restricting.put(session_id) if names_network else after
        except errors.Unavailable:
            if names_network:
                restricting.put_later(session_id)
            raise
        if open_ports(before.preview) - open_ports(after.preview):
            await self._visitors.disconnect(session_id)
        if session.state is State.ACTIVE:  # else the next wake looks
            self._tasks.start(self._look_at_services(session), f"services of {session_id} after a patch")
        return session

    async def _change(self, caller: Caller, session_id: str, patch: Patch) -> tuple[Session, Session]:
        """Stores the change. Returns the session before and after it."""
        changes, name = self._lifecycle.changes, None if isinstance(patch.name, Unset) else patch.name
        async with self._names.turn(caller.account.id, name):  # the store refuses a name that is taken
            return await changes.change_what(
                partial(changes.present, session_id),
                lambda session: requests.apply_patch(session, patch, caller.plan, self._now()),
            )

    async def _look_at_services(self, session: Session) -> None:
        """Waits while a sandbox that an earlier server left is taken over. If that cannot be, the next use looks."""
        with suppress(errors.Unavailable):
            sandbox = await self._sandboxes.get(session.sandbox)
            now = await self._store.get_session(session.id)
            if sandbox is not None and now is not None and now.state is State.ACTIVE and now.sandbox == sandbox.id:
                self._lifecycle.services.look(now, sandbox)

    async def delete(self, caller: Caller, session_id: str) -> None:
        """Returns when the deletion is durable and nothing of the session runs. Its remains are removed afterwards."""

        async def delete_here(session: Session) -> None:
            await self._tasks.finish(self._lifecycle.endings.end(session), f"delete {session_id}")

        await self._entrance.wherever(caller, session_id, delete_here)

    async def sleep(self, caller: Caller, session_id: str, depth: State) -> SessionView:
        """Down to IDLE or DEEP_SLEEP. A session that sleeps deeper already stays so.

        Raises SessionBusy while a request uses the session.
        """
        await self._entrance.wherever(caller, session_id, lambda session: self._sleep(session.id, depth))
        return await self.get(caller, session_id)

    async def _sleep(self, session_id: str, depth: State) -> None:
        await self._lifecycle.holds.spent(session_id)
        deep, transitions = depth is State.DEEP_SLEEP, self._lifecycle.transitions
        down = transitions.deep_sleep(session_id) if deep else transitions.suspend(session_id)
        if not await down:
            raise errors.SessionBusy("The session is in use. Try again when its requests have ended.")
        if deep:
            await self._wait_for_archive(session_id)

    async def _wait_for_archive(self, session_id: str) -> None:
        """For a moment: the session sleeps already, and saving it goes on whether anybody waits or not."""
        try:
            async with asyncio.timeout(ARCHIVE_SECONDS):
                await self._lifecycle.archiving.archive(session_id)
        except TimeoutError:
            log.info("archive_goes_on", session=session_id)

    async def wake(self, caller: Caller, session_id: str) -> Woken:
        async def wake_here(session: Session) -> tuple[State, float]:
            started = self._clock()
            await self._lifecycle.leases.wake(session.id)
            return session.state, self._clock() - started

        woke_from, seconds = await self._entrance.wherever(caller, session_id, wake_here)
        return Woken(await self.get(caller, session_id), woke_from, max(int(seconds * 1000), 0))

    async def recover(
        self, caller: Caller, session_id: str, answer: Callable[[Recovered], Answer] | None = None
    ) -> Recovered:
        """Continues from the newest state that the archive has of a session whose files are lost.

        Does not wake the session and is not activity. Raises NotLost, SessionDamaged, SessionBusy and Unavailable.
        """

        async def recover_here(session: Session) -> Recovered:
            work = self._lifecycle.recovering.recover(session.id, answer)
            return await self._tasks.finish(work, f"recover {session_id}")

        return await self._entrance.wherever_lost(caller, session_id, recover_here)

    def shown_as(self, caller: Caller, session: Session, state: State) -> SessionView:
        """The session as if it were in this state, with what was last seen inside it."""
        return self._shown(caller, replace(session, state=state), Observed(session.files, session.processes))

    async def _view(self, caller: Caller, session: Session) -> SessionView:
        return self._shown(caller, session, await self._lifecycle.observations.observe(session))

    def _shown(self, caller: Caller, session: Session, observed: Observed) -> SessionView:
        policy, plan = session.sleep_policy, caller.plan
        every = plan.checkpoint_every if policy.checkpoint_every is None else policy.checkpoint_every
        return SessionView(session, observed, waits_of(policy, plan, self._usual), every)

    def _now(self) -> int:
        return int(self._clock())
