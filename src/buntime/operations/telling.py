"""Tells of what was only observed in sessions: it changes nothing, so it is stored behind the answer."""

from collections.abc import Callable

from buntime.event import AccountEvent, EventType, new_event
from buntime.inside import Evaluation
from buntime.ports import RunResult, Store
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

    def _event(self, session: Session, what: EventType, data: dict[str, object]) -> AccountEvent:
        return new_event(session.account, what, self._clock(), data, session=session.id)
