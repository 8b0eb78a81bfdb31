"""The contract of `ports.History`, for the fake and for files alike."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from buntime.measurement import COARSE, FINE_SECONDS, INTERVAL, KEPT_SECONDS, Measurement, Point, points_of
from buntime.ports import History
from buntime.stores.history import LARGEST, FileHistory
from buntime.testing.history import FakeHistory

START = 1_705_660_200  # begins a step of 300 seconds
KIB = 1024
DAY = 86_400
ONE = "ses_one"


@pytest.fixture(params=["fake", "files"])
async def history(request: pytest.FixtureRequest, tmp_path: Path) -> History:
    return FakeHistory() if request.param == "fake" else await files_in(tmp_path)


async def files_in(directory: Path) -> FileHistory:
    history = FileHistory(directory / "measurements")
    await history.keep(())
    return history


def measurement(at: int, cpu: int = 1_000_000, memory: int = 8 * KIB) -> Measurement:
    return Measurement(at, 10_000, cpu, 100, 50, memory, 16 * KIB, 3)


def exit_code_of(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


async def add(history: History, *measurements: Measurement, session: str = ONE) -> None:
    for one in measurements:
        await history.add({session: one})


async def read(history: History, first: int, last: int, step: int = INTERVAL, session: str = ONE) -> Sequence[Point]:
    return await history.read(session, first, last, step)


def awake(first: int, last: int) -> list[Measurement]:
    """A measurement in each interval; the processor time tells them apart."""
    return [measurement(at, cpu=at % 1_000_003) for at in range(first, last, INTERVAL)]


async def test_nothing_is_known_of_a_session_that_was_never_measured(history: History) -> None:
    assert list(await read(history, 0, START)) == []


async def test_measurements_come_back_in_order_as_points(history: History) -> None:
    added = [measurement(START), measurement(START + 10, cpu=5), measurement(START + 40)]
    await add(history, *added)
    assert list(await read(history, START, START + 100)) == points_of(added, INTERVAL)


async def test_a_time_without_measurements_has_no_points(history: History) -> None:
    await add(history, measurement(START), measurement(START + 3600))
    assert [point.at for point in await read(history, START, START + DAY)] == [START, START + 3600]


async def test_only_what_is_asked_for_is_read(history: History) -> None:
    await add(history, *awake(START, START + 600))
    found = await read(history, START + 100, START + 200)
    assert [point.at for point in found] == list(range(START + 100, START + 200, INTERVAL))


async def test_two_measurements_of_one_interval_become_one(history: History) -> None:
    await add(history, measurement(START + 1, cpu=3), measurement(START + 9, cpu=4, memory=KIB))
    (point,) = await read(history, START, START + 10)
    assert (point.at, point.span, point.cpu, point.most_memory) == (START, 20_000, 7, KIB)


async def test_sessions_do_not_mix(history: History) -> None:
    await history.add({ONE: measurement(START, cpu=1), "ses_two": measurement(START, cpu=2)})
    assert [point.cpu for point in await read(history, START, START + 10, session="ses_two")] == [2]


async def test_steps_of_five_minutes_are_there_for_a_week(history: History) -> None:
    added = awake(START, START + 2 * COARSE) + awake(START + 3 * DAY, START + 3 * DAY + COARSE)
    added += awake(START + 7 * DAY - COARSE, START + 7 * DAY)
    await add(history, *added)
    found = await read(history, START, START + 7 * DAY, COARSE)
    assert list(found) == points_of(added, COARSE)


async def test_steps_of_five_minutes_outlive_the_measurements_that_they_were_made_of(history: History) -> None:
    old, new = awake(START, START + COARSE), awake(START + DAY, START + DAY + COARSE)
    await add(history, *old, *new)
    assert list(await read(history, START, START + 2 * DAY, COARSE)) == points_of(old + new, COARSE)
    assert list(await read(history, START + DAY, START + 2 * DAY)) == points_of(new, INTERVAL)


async def test_what_is_older_than_a_week_is_gone(history: History) -> None:
    await add(history, *awake(START, START + COARSE))
    for day in range(1, 10):
        await add(history, *awake(START + day * DAY, START + day * DAY + COARSE))
    found = [point.at for point in await read(history, START, START + 10 * DAY, COARSE)]
    assert found[-7:] == [START + day * DAY for day in range(3, 10)]
    assert found[0] >= START + 2 * DAY


async def test_a_removed_session_has_no_history(history: History) -> None:
    await add(history, measurement(START))
    await add(history, measurement(START), session="ses_two")
    await history.remove(ONE)
    await history.remove(ONE)
    assert list(await read(history, START, START + 10)) == []
    assert len(await read(history, START, START + 10, session="ses_two")) == 1
    await add(history, measurement(START, cpu=9))
    assert [point.cpu for point in await read(history, START, START + 10)] == [9]


async def test_a_start_keeps_the_histories_of_sessions_that_exist(history: History) -> None:
    for session in (ONE, "ses_two", "ses_three"):
        await add(history, measurement(START), session=session)
    await history.keep({"ses_two"})
    assert [len(await read(history, START, START + 10, session=s)) for s in (ONE, "ses_two", "ses_three")] == [0, 1, 0]


@given(
    st.lists(st.integers(0, 9 * DAY // INTERVAL).map(lambda n: START + n * INTERVAL), max_size=120, unique=True),
    st.sampled_from([10, 30, 300, 600, 3600]),
)
@example(times=[START, START + KEPT_SECONDS], step=2 * COARSE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
async def test_files_know_what_the_fake_knows(tmp_path: Path, times: list[int], step: int) -> None:
    real, fake = await files_in(tmp_path), FakeHistory()
    await real.remove(ONE)
    newest = START
    for at in sorted(times):
        newest = at
        for history in (real, fake):
            await history.add({ONE: measurement(at, cpu=at % 1_000_003)})
    since = newest - (FINE_SECONDS if step % COARSE else KEPT_SECONDS) + COARSE
    first = -(-since // step) * step  # a point that begins earlier may have lost its first half
    assert list(await real.read(ONE, first, newest + 1, step)) == list(await fake.read(ONE, first, newest + 1, step))


# --- files alone ---


async def test_a_file_is_bounded_and_takes_disk_only_for_what_was_measured(tmp_path: Path) -> None:
    history = await files_in(tmp_path)
    await add(history, *awake(START, START + 600))
    file = tmp_path / "measurements" / ONE
    assert file.stat().st_blocks * 512 <= 16 * KIB
    for day in range(1, 16):
        await add(history, *awake(START + day * DAY, START + day * DAY + 3600))
    await add(history, *awake(START + 16 * DAY, START + 17 * DAY + 3600))
    assert file.stat().st_size <= LARGEST <= 604 * KIB
    assert file.stat().st_blocks * 512 <= LARGEST + 4 * KIB


async def test_the_file_is_for_the_server_alone(tmp_path: Path) -> None:
    await add(await files_in(tmp_path), measurement(START))
    file = tmp_path / "measurements" / ONE
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("step", [INTERVAL, COARSE])
async def test_a_damaged_record_is_a_gap_and_the_others_stay(tmp_path: Path, step: int) -> None:
    history = await files_in(tmp_path)
    added = awake(START, START + 300)
    await add(history, *added)
    file = tmp_path / "measurements" / ONE
    content = bytearray(file.read_bytes())
    place = content.index(added[7].at.to_bytes(4, "little"))
    content[place + 20] ^= 1
    file.write_bytes(content)
    left = [*added[:7], *added[8:]]
    assert list(await read(history, START, START + 300, step)) == points_of(left, step)
    await add(history, added[7])
    assert list(await read(history, START, START + 300, step)) == points_of(added, step)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
async def test_no_torn_or_wild_file_gives_a_measurement_that_was_not_made(tmp_path: Path, data: st.DataObject) -> None:
    history = await files_in(tmp_path)
    added = awake(START, START + 600)
    await add(history, *added)
    file = tmp_path / "measurements" / ONE
    content = bytearray(file.read_bytes())
    begin = next(place for place in range(len(content)) if content[place])
    cut = data.draw(st.integers(begin, len(content)))
    wild = data.draw(st.lists(st.tuples(st.integers(begin, len(content) - 1), st.integers(1, 255)), max_size=20))
    for place, bits in wild:
        content[place] ^= bits
    file.write_bytes(content[:cut])
    known = {point.at: point for point in points_of(added, INTERVAL)}
    assert all(known[point.at] == point for point in await read(history, START, START + 600))
    await history.remove(ONE)


async def test_what_was_added_outlives_a_killed_process(tmp_path: Path) -> None:
    await files_in(tmp_path)
    program = (
        "import asyncio, os, signal; from pathlib import Path\n"
        "from buntime.measurement import Measurement; from buntime.stores.history import FileHistory\n"
        "async def add():\n"
        f"  history = FileHistory(Path({str(tmp_path / 'measurements')!r}))\n"
        "  for n in range(100):\n"
        f"    await history.add({{'ses_one': Measurement({START} + 10 * n, 10_000, n, 0, 0, 0, 0, 0)}})\n"
        "  os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(add())"
    )
    assert exit_code_of(program) == -9
    found = await FileHistory(tmp_path / "measurements").read(ONE, START, START + 1000, INTERVAL)
    assert [point.cpu for point in found] == list(range(100))


async def test_a_clock_that_was_set_back_loses_nothing_of_what_it_replaces(tmp_path: Path) -> None:
    history = await files_in(tmp_path)
    await add(history, *awake(START, START + COARSE), *awake(START + DAY, START + DAY + 100))
    again = FileHistory(tmp_path / "measurements")  # the server has started again, with the clock of the day before
    await add(again, measurement(START + 100, cpu=1))
    assert [point.at for point in await read(again, START, START + COARSE, COARSE)] == [START]
    assert (await read(again, START, START + COARSE, COARSE))[0].span >= COARSE * 1000


async def test_a_record_of_more_than_a_week_ago_destroys_no_newer_point(history: History) -> None:
    """The first seconds of this step are measured once, so their record stays among those of later days."""
    newer, newest = (awake(START + day * DAY + 10, START + day * DAY + COARSE) for day in (7, 8))
    await add(history, measurement(START), *newer, *newest, measurement(START + 9 * DAY + 10))
    found = await read(history, START + 6 * DAY, START + 10 * DAY, COARSE)
    assert [point.at for point in found] == [START + day * DAY for day in (7, 8, 9)]


async def test_what_is_left_of_a_week_ago_replaces_nothing_newer(history: History) -> None:
    whole = awake(START, START + COARSE)
    await add(history, *whole, *awake(START + 7 * DAY, START + 7 * DAY + 60), measurement(START + 8 * DAY))
    found = await read(history, START + 5 * DAY, START + 9 * DAY, COARSE)
    assert [(point.at, point.span) for point in found] == [(START + 7 * DAY, 60_000), (START + 8 * DAY, 10_000)]
