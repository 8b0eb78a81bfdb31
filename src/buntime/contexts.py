"""One method per API operation on the contexts of a session."""

from buntime.entrance import Entrance
from buntime.tasks import Tasks


class Contexts:
    def __init__(self, entrance: Entrance, tasks: Tasks) -> None:
        self._entrance = entrance
        self._tasks = tasks
