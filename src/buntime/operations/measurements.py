"""What sessions did over time, and what they do now. Neither wakes a session nor is activity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from buntime.caller import Caller
from buntime.lifecycle.measuring import Measuring
from buntime.measurement import Measurement, Point, Steps, steps_of
from buntime.operations.entrance import Entrance
from buntime.ports import History, Store
from buntime.session import Session, State


@dataclass(frozen=True, slots=True)
class Measured:
    """`points`: at most `measurement.MOST_POINTS`, in order."""

    session: Session
    steps: Steps
    points: Sequence[Point]


class Measurements:
    def __init__(
        self, store: Store, entrance: Entrance, measuring: Measuring, history: History, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._entrance = entrance
        self._measuring = measuring
        self._history = history
        self._clock = clock

    async def of_session(
        self, caller: Caller, session_id: str, since: int | None, until: int | None, step: int | None
    ) -> Measured:
        """From `since` until `until` (Unix seconds), in steps of `step` seconds or the finest that are kept. Raises
        SessionNotFound, InvalidRequest and Unavailable."""
        session = await self._entrance.own(caller, session_id)
        steps = steps_of(int(self._clock()), since, until, step)
        points = await self._history.read(session.id, steps.first, steps.until, steps.step)
        return Measured(session, steps, points)

    async def latest(
        self,
        caller: Caller,
        *,
        state: State | None,
        name: str | None,
        metadata: Mapping[str, str],
        limit: int,
        offset: int,
    ) -> tuple[Sequence[tuple[Session, Measurement | None]], int]:
        """A page of the account's sessions, newest first, each with its newest measurement if it is awake, and the
        total. Reads nothing but memory."""
        found, total = await self._store.list_sessions(
            caller.account.id,
            now=int(self._clock()),
            state=state,
            name=name,
            metadata=metadata,
            limit=limit,
            offset=offset,
        )
        return [(session, self._latest(session)) for session in found], total

    def _latest(self, session: Session) -> Measurement | None:
        """None for a session that sleeps, also before the keeper has seen that."""
        return self._measuring.latest(session.id) if session.state is State.ACTIVE else None
