"""When sessions are measured, by two clocks that tests move on their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from structlog.testing import capture_logs

from buntime.daemon.tasks import Tasks
from buntime.errors import Unavailable
from buntime.lifecycle.measuring import AT_ONCE, Measuring
from buntime.measurement import INTERVAL, Counted, Measurement
from buntime.session import Session, State
from buntime.testing.history import FakeHistory
from buntime.testing.sandboxes import FakeSandboxes
from buntime.usage import Counters, Moment
from tests.contracts.examples import session
from tests.waiting import eventually

AT = 1_705_660_200


class Busy(FakeSandboxes):
    """Each session uses a core. Counts how often each is read."""

    def __init__(self, clock: "Clock") -> None:
        super().__init__()
        self._clock = clock
        self.reads: dict[str, int] = {}

    async def counted(self, sessions: Sequence[Session]) -> Mapping[str, Counted]:
        for one in sessions:
            self.reads[one.id] = self.reads.get(one.id, 0) + 1
        cpu = 1000 * self._clock.steady
        return {one.id: Counted(Counters(one.sandbox, cpu, 0, 0), 0, 1, 0) for one in sessions}


class Clock:
    def __init__(self) -> None:
        self.at, self.steady = 1000 * AT, 5_000_000

    def __call__(self) -> Moment:
        return Moment(self.at, "boot", self.steady)

    def pass_ms(self, milliseconds: int) -> None:
        self.at += milliseconds
        self.steady += milliseconds


class World:
    def __init__(self, tasks: Tasks) -> None:
        self.clock, self.history = Clock(), FakeHistory()
        self.sandboxes = Busy(self.clock)
        self.measuring = Measuring(self.history, self.sandboxes, tasks, self.clock)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            self.clock.pass_ms(1000)
            self.measuring.begin_due()
            await eventually(lambda: self.measuring.at_rest)

    def found(self, session_id: str = "ses_one") -> list[Measurement]:
        return list(self.history.measurements[session_id].values())


async def test_each_interval_has_one_measurement_also_if_ticks_are_late() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        world.measuring.note(session())
        for turn in range(400):
            world.clock.pass_ms(1000 + 37 * (turn % 20))
            world.measuring.begin_due()
            await eventually(lambda: world.measuring.at_rest)
        intervals = sorted(world.history.measurements["ses_one"])
        assert intervals == list(range(intervals[0], intervals[-1] + 1))
        assert all(one.cpu // one.span == 1000 for one in world.found())


async def test_a_clock_that_is_set_stops_no_measurement_and_makes_none_wrong() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        world.measuring.note(session())
        await world.seconds(60)
        for jump in (-7200, 3600, -30):
            world.clock.at += 1000 * jump
            before = sum(one.span for one in world.found())
            await world.seconds(60)
            assert sum(one.span for one in world.found()) >= before + 40_000
        assert all(one.cpu // one.span == 1000 for one in world.found())


async def test_a_sleeping_session_is_read_once_more_and_then_never() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        world.measuring.note(session())
        await world.seconds(30)
        world.measuring.note(replace(session(), state=State.IDLE))
        reads = world.sandboxes.reads["ses_one"]
        await world.seconds(600)
        assert world.sandboxes.reads["ses_one"] == reads + 1
        assert world.measuring.latest("ses_one") is None


async def test_a_session_that_sleeps_when_the_server_starts_is_not_read() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        world.measuring.note(replace(session(), state=State.IDLE))
        world.measuring.note(replace(session("ses_two"), state=State.DEEP_SLEEP))
        await world.seconds(60)
        assert world.sandboxes.reads == {}


async def test_nothing_is_written_of_a_session_whose_history_was_removed() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        world.measuring.note(session())
        await world.seconds(30)
        world.clock.pass_ms(1000 * INTERVAL)
        world.measuring.begin_due()  # the batch is under way
        await world.measuring.remove("ses_one")
        await world.seconds(60)
        assert "ses_one" not in world.history.measurements


async def test_more_sessions_than_fit_into_one_batch_are_all_measured() -> None:
    async with Tasks() as tasks:
        world = World(tasks)
        ids = [f"ses_{number}" for number in range(2 * AT_ONCE + 1)]
        for session_id in ids:
            world.measuring.note(session(session_id))
        await world.seconds(40)
        assert all(world.found(session_id) for session_id in ids)


async def test_a_full_disk_makes_a_gap_and_stops_nothing() -> None:
    class Full(FakeHistory):
        is_full = True

        async def add(self, measurements: Mapping[str, Measurement]) -> None:
            if self.is_full:
                raise Unavailable("No space.")
            await super().add(measurements)

    async with Tasks() as tasks:
        world, full = World(tasks), Full()
        measuring = Measuring(full, world.sandboxes, tasks, world.clock)
        world.measuring = measuring
        for number in range(5):
            measuring.note(session(f"ses_{number}"))
        measuring.note(session())
        with capture_logs() as logs:
            await world.seconds(40)
            assert [entry["event"] for entry in logs] == ["measurements_not_kept"]
            await world.seconds(50)
            assert [entry["event"] for entry in logs] == ["measurements_not_kept"] * 2
        assert measuring.latest("ses_one") is not None
        full.is_full = False
        await world.seconds(40)
        assert full.measurements["ses_one"]
