"""One method per API operation on snapshots."""

from collections.abc import Callable, Sequence

from buntime import errors, requests
from buntime.caller import Caller
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.event import of_snapshot
from buntime.ids import new_snapshot_id
from buntime.lifecycle.assembly import Lifecycle
from buntime.operations.entrance import Entrance
from buntime.operations.kept import Kept
from buntime.operations.sessions import Sessions, SessionView
from buntime.plan import MB
from buntime.ports import Answer, Store, VolumeLost
from buntime.requests import NewSnapshot
from buntime.session import Session, State
from buntime.snapshot import Snapshot

TRIES = 3  # a layer or a volume may be evicted between two steps


class Snapshots:
    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        entrance: Entrance,
        kept: Kept,
        sessions: Sessions,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._entrance = entrance
        self._kept = kept
        self._sessions = sessions
        self._tasks = tasks
        self._clock = clock

    async def create(
        self, caller: Caller, session_id: str, new: NewSnapshot, answer: Callable[[Snapshot], Answer] | None = None
    ) -> Snapshot:
        """A durable snapshot of the session as it is now, which does not wake it. `answer`: see `Sessions.create`.

        Raises ResourceLimitExceeded, StorageLimitExceeded, SessionDamaged and Unavailable.
        """
        requests.check_snapshot(new)
        return await self._entrance.wherever(
            caller, session_id, lambda session: self._create_here(caller, session.id, new, answer)
        )

    async def _create_here(
        self, caller: Caller, session_id: str, new: NewSnapshot, answer: Callable[[Snapshot], Answer] | None
    ) -> Snapshot:
        count = await self._store.count_snapshots(caller.account.id, int(self._clock()))
        if count >= caller.plan.snapshots:
            raise errors.ResourceLimitExceeded("snapshots", caller.plan.snapshots, "account", caller.plan.name)
        await self._kept.check_room(caller)
        return await self._tasks.finish(self._create(caller, session_id, new, answer), f"snapshot of {session_id}")

    async def _create(
        self, caller: Caller, session_id: str, new: NewSnapshot, answer: Callable[[Snapshot], Answer] | None
    ) -> Snapshot:
        session, layer = await self._lifecycle.layers.capture(session_id)
        made = Snapshot(
            id=new_snapshot_id(),
            account=caller.account.id,
            session=session_id,
            layer=layer.id,
            image=session.image,
            image_name=session.image_name,
            size=layer.size,
            created_at=layer.created_at,
            expires_at=None if new.ttl is None else layer.created_at + new.ttl,
            name=new.name,
            metadata=new.metadata,
        )
        try:
            with self._kept.naming_plan(caller):
                limit, events = caller.plan.snapshots, (of_snapshot(made),)
                await self._store.add_snapshot(made, layer, answer and answer(made), limit, events)
        except errors.CommitUnknown:
            raise  # the same as when cancelled
        except Exception:  # not when cancelled: it may be stored then, and the next start decides
            await self._lifecycle.layers.discard(layer.id)
            raise
        reached("snapshot: stored")
        self._lifecycle.layers.start_saving(layer.id)
        return made

    async def list(
        self, caller: Caller, *, session: str | None, name: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Snapshot], int]:
        """A page, newest first, and the total."""
        return await self._store.list_snapshots(
            caller.account.id, now=int(self._clock()), session=session, name=name, limit=limit, offset=offset
        )

    async def get(self, caller: Caller, snapshot_id: str) -> Snapshot:
        """Raises SnapshotNotFound."""
        return await self._kept.find(caller, snapshot_id)

    async def delete(self, caller: Caller, snapshot_id: str) -> None:
        """What was made of it lives on. Raises SnapshotNotFound."""
        await self._kept.find(caller, snapshot_id)
        if not await self._store.remove_snapshot(snapshot_id):
            raise errors.SnapshotNotFound(snapshot_id)
        self._lifecycle.layers.look_soon()

    async def restore(
        self,
        caller: Caller,
        session_id: str,
        snapshot_id: str,
        answer: Callable[[SessionView], Answer] | None = None,
    ) -> SessionView:
        """The session with the snapshot's files. It is active again if it was active.

        Raises SnapshotNotFound, DiskFull, SessionBusy, SnapshotDamaged and Unavailable.
        """
        return await self._entrance.wherever(
            caller, session_id, lambda session: self._restore_here(caller, session, snapshot_id, answer)
        )

    async def _restore_here(
        self,
        caller: Caller,
        session: Session,
        snapshot_id: str,
        answer: Callable[[SessionView], Answer] | None,
    ) -> SessionView:
        snapshot = await self._kept.find(caller, snapshot_id)
        if snapshot.size > session.limits.disk * MB:
            raise errors.DiskFull(
                f"The snapshot's files need {-(-snapshot.size // MB)} MB, and the session's disk limit is "
                f"{session.limits.disk} MB.",
                limit=session.limits.disk,
            )
        work = self._restore(caller, session, snapshot, answer)
        return await self._tasks.finish(work, f"restore of {session.id}")

    async def _restore(
        self, caller: Caller, session: Session, snapshot: Snapshot, answer: Callable[[SessionView], Answer] | None
    ) -> SessionView:
        was_active = session.state is State.ACTIVE

        def answered(restored: Session) -> Answer:
            assert answer is not None
            return answer(self._sessions.shown_as(caller, restored, State.ACTIVE if was_active else State.DEEP_SLEEP))

        layers = self._lifecycle.layers
        for _ in range(TRIES):
            await layers.bring_volume(session.id)
            try:
                await layers.bring(snapshot.layer)
                await layers.bring_image(snapshot.image)
            except VolumeLost:
                raise errors.SnapshotNotFound(snapshot.id) from None
            try:
                await self._lifecycle.restoring.restore(session.id, snapshot, answer and answered)
                break
            except VolumeLost:
                continue
            except errors.ImageNotFound:  # both were deleted meanwhile
                raise errors.SnapshotNotFound(snapshot.id) from None
        else:
            raise errors.Unavailable("The snapshot's files are being moved just now.", 2)
        if was_active:
            await self._lifecycle.leases.wake(session.id)
        view = await self._sessions.get(caller, session.id)
        if answer is not None:  # what was stored could not tell yet how many files the session has now
            await self._store.change_answer(answer(view))
        return view
