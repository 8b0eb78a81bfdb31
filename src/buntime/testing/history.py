"""A fake history for tests, in memory."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from buntime.measurement import COARSE, FINE_SECONDS, INTERVAL, KEPT_SECONDS, Measurement, Point, points_of


class FakeHistory:
    """`ports.History`. It keeps all, and shows what is kept."""

    def __init__(self) -> None:
        self.measurements: dict[str, dict[int, Measurement]] = defaultdict(dict)  # session → interval → measurement

    async def add(self, measurements: Mapping[str, Measurement]) -> None:
        for session_id, measurement in measurements.items():
            known = self.measurements[session_id]
            interval = measurement.at // INTERVAL
            before = known.get(interval)
            known[interval] = before.and_then(measurement) if before else measurement

    async def read(self, session_id: str, first: int, last: int, step: int) -> Sequence[Point]:
        known = self.measurements.get(session_id, {}).values()
        newest = max((one.at for one in known), default=0)
        kept = FINE_SECONDS if step % COARSE else KEPT_SECONDS
        return points_of([one for one in known if first <= one.at < last and one.at > newest - kept], step)

    async def remove(self, session_id: str) -> None:
        self.measurements.pop(session_id, None)

    async def keep(self, session_ids: Collection[str]) -> None:
        for session_id in self.measurements.keys() - set(session_ids):
            await self.remove(session_id)
