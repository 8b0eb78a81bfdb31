"""When to look at which session next. Pure."""

import heapq

SLACK = 1000  # outdated entries of the heap that are tolerated


class Deadlines:
    """When to look at each session next. Every call costs at most the logarithm of the number of sessions."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def put(self, session_id: str, due: float) -> None:
        self._due[session_id] = due
        heapq.heappush(self._heap, (due, session_id))
        if len(self._heap) > 2 * len(self._due) + SLACK:  # most entries are outdated
            self._heap = [(due, session_id) for session_id, due in self._due.items()]
            heapq.heapify(self._heap)

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be due, whatever the time."""
        return not self._heap

    def drop(self, session_id: str) -> None:
        """Idempotent."""
        self._due.pop(session_id, None)

    def is_due(self, now: float) -> bool:
        """Whether there may be something to take."""
        return bool(self._heap) and self._heap[0][0] <= now

    def take(self, now: float, most: int) -> list[str]:
        """Removes and returns the sessions that are due, the longest overdue first."""
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < most:
            due, session_id = heapq.heappop(self._heap)
            if self._due.get(session_id) == due:  # else the entry is outdated
                del self._due[session_id]
                taken.append(session_id)
        return taken
