"""Work on sessions that are due, many in one batch."""

from collections.abc import Awaitable, Callable, Sequence

from buntime.daemon.tasks import Tasks
from buntime.lifecycle.deadlines import Deadlines
from buntime.usage import Moment

TOGETHER_SECONDS = 5.0


class Batches:
    """Takes the sessions that are due, at most `most`, and has `work` done on them in the background, one batch at a
    time. The rest is due at the next tick.

    Deadlines are on the steady clock, so a clock that is set neither hurries nor delays them. A session is due once:
    `work` puts it back, and does not raise.
    """

    def __init__(
        self,
        name: str,
        most: int,
        work: Callable[[Sequence[str]], Awaitable[None]],
        tasks: Tasks,
        moment: Callable[[], Moment],
    ) -> None:
        self._name = name
        self._most = most
        self._work = work
        self._tasks = tasks
        self._moment = moment
        self._deadlines = Deadlines()
        self._at_work = False

    @property
    def at_rest(self) -> bool:
        return not self._at_work

    def put(self, session_id: str, seconds: float, *, together: bool = False) -> None:
        """The session is due in so many seconds, and not before. `together`: with others that are due up to
        TOGETHER_SECONDS earlier, so that few batches do the work of many."""
        due = self._steady() + seconds
        self._deadlines.put(session_id, due + -due % TOGETHER_SECONDS if together else due)

    def drop(self, session_id: str) -> None:
        """The session is not due any more. Idempotent."""
        self._deadlines.drop(session_id)

    def begin_due(self) -> None:
        """Begins what is due. Its cost depends on how many are due."""
        if not self._at_work and not self._deadlines.is_empty and self._deadlines.is_due(self._steady()):
            self._at_work = True
            self._tasks.start(self._do(self._deadlines.take(self._steady(), self._most)), self._name)

    async def _do(self, due: Sequence[str]) -> None:
        try:
            await self._work(due)
        finally:
            self._at_work = False

    def _steady(self) -> float:
        return self._moment().steady / 1000
