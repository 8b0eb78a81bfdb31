"""Tells of what was only observed in sessions: it changes nothing, so it is stored behind the answer."""

from collections.abc import Callable

from buntime.event import EVENT_PREFIX, AccountEvent, EventType, new_event
from buntime.ids import PROCESS_PREFIX
from buntime.inside import Ended, Evaluation
from buntime.ports import Exits, RunResult, Store
from buntime.session import Session


class Telling:
    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def executed(self, session: Session, result: RunResult | Evaluation, context_id: str | None = None) -> None:
        """A run has ended, in whatever way."""
        data: dict[str, object] = {
            "exitCode": result.exit_code,
            "timedOut": result.timed_out,
            "executionTimeMs": result.wall_ms,
            "cpuTimeMs": result.cpu_ms,
            "contextId": context_id,
        }
        limits = session.limits
        exceeded = [
            *([("memory", limits.memory)] if result.out_of_memory else ()),
            *([("disk", limits.disk)] if result.disk_full else ()),
            *([("processes", None)] if result.met_process_limit else ()),
        ]
        self._store.note_events(
            [
                self._event(session, EventType.EXECUTION_COMPLETED, data),
                *(
                    self._event(session, EventType.LIMIT_EXCEEDED, {"resource": resource, "limit": limit})
                    for resource, limit in exceeded
                ),
            ]
        )

    async def exited(self, exits: Exits) -> None:
        """Processes have ended. See `ports.Sandboxes.on_exited`."""
        session = await self._store.get_session(exits.session)
        if session is None:
            return
        events = [self._exit(session, ended) for ended in exits.ended]
        ids = [event.id for event in events]
        stored = await self._store.stored_events(session.id, ids) if exits.again else frozenset[str]()
        self._store.note_events([event for event in events if event.id not in stored], exits.stored)

    def _exit(self, session: Session, ended: Ended) -> AccountEvent:
        """The id of the event follows from that of the process, so that no process has two. No request is its cause: a
        signal does not wait for the end."""
        name = EVENT_PREFIX + ended.id.removeprefix(PROCESS_PREFIX)
        data = {
            "processId": ended.id,
            "name": ended.name,
            "exitCode": ended.exit_code,
            "reason": ended.reason,
        }
        return AccountEvent(name, session.account, EventType.PROCESS_EXITED, int(self._clock()), session.id, data)

    def _event(self, session: Session, what: EventType, data: dict[str, object]) -> AccountEvent:
        return new_event(session.account, what, self._clock(), data, session=session.id)
