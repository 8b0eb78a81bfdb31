"""One method per API operation on the processes of a session."""

from collections.abc import Callable

from buntime.entrance import Entrance
from buntime.tasks import Tasks


class Processes:
    def __init__(self, entrance: Entrance, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._entrance = entrance
        self._tasks = tasks
        self._clock = clock
