"""Which ends of processes are told, to whom, and what a hostile guest can do with them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buntime.cause import SERVER, Cause, cause_for, caused_by
from buntime.daemon.tasks import Tasks
from buntime.errors import Unavailable
from buntime.inside import Ended
from buntime.ports import Exits, SandboxGone
from buntime.sandboxes.guest.client import Answer, Guest
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside import ends
from buntime.sandboxes.inside.ends import MOST, Ends
from tests.unit.scripted_guest import Asked, Script, answering, streamed, whole
from tests.unit.test_impostor import frame
from tests.waiting import eventually

SESSION = "ses_abc123def456ghi789"


def named(number: int) -> str:
    return f"proc_{number:018}"


ONE, TWO = named(1), named(2)


def end(process_id: str, exit_code: int | None = 0, reason: str | None = None) -> dict[str, object]:
    return {"id": process_id, "exitCode": exit_code, "reason": reason}


def told_by_guest(*found: dict[str, object]) -> bytes:
    return frame(b"d", json.dumps(found).encode())


class Launcher:
    """A fake launcher with the parts that following ends uses."""

    sandbox = "sb"

    def __init__(self) -> None:
        self.alive = True
        self.is_asleep = False
        self.impostors = 0

    def is_alive(self) -> bool:
        return self.alive

    @asynccontextmanager
    async def ending_an_impostor(self) -> AsyncIterator[None]:
        try:
            yield
        except Impostor:
            self.impostors += 1
            self.alive = False
            raise


class Host:
    """One sandbox and what is told of it."""

    def __init__(self, directory: Path, guest: Guest, tasks: Tasks) -> None:
        self.directory = directory
        self.told: list[Exits] = []
        self.away = 0  # times that the store is away
        self.causes: list[Cause] = []
        self.launcher = Launcher()
        machinery: Any = SimpleNamespace(tasks=tasks, reports=SimpleNamespace(exits=self._tell))
        launcher: Any = self.launcher
        self.ends = Ends(directory, lambda: SESSION, guest, launcher, machinery)

    async def _tell(self, exits: Exits) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("The server cannot reach its database right now.")
        self.told.append(exits)
        self.causes.append(cause_for("acc"))

    @property
    def ended(self) -> Sequence[Ended]:
        return [ended for exits in self.told for ended in exits.ended]

    @property
    def files(self) -> Sequence[str]:
        return sorted(file.name for file in self.directory.iterdir()) if self.directory.exists() else []

    def start(self, *process_ids: str) -> None:
        for process_id in process_ids:
            with self.ends.awaiting(process_id, None):
                pass

    async def over(self) -> None:
        await eventually(lambda: self.ends._wanted is None, "the stream to end")


@asynccontextmanager
async def host(script: Script, directory: Path) -> AsyncIterator[Host]:
    async with answering(script) as guest, Tasks() as tasks:
        yield Host(directory / "awaited", guest, tasks)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(ends, "RETRY_SECONDS", 0.01)


def scripted(*scripts: Script) -> tuple[Script, list[list[str]]]:
    """Answers each request by the next script, and the last one again and again. Also, the ids of each request."""
    asked: list[list[str]] = []

    async def script(one: Asked) -> None:
        assert (one.method, one.path) == ("POST", "/processes/ends")
        asked.append(json.loads(bytes(one.body))["ids"])
        await scripts[min(len(asked), len(scripts)) - 1](one)

    return script, asked


async def silent(asked: Asked) -> None:
    asked.start()
    await asyncio.Event().wait()


async def test_an_end_is_told_once_and_its_file_stays_until_it_is_stored(tmp_path: Path) -> None:
    async with host(streamed(told_by_guest(end(ONE, 137)), told_by_guest(end(ONE, 0))), tmp_path) as one:
        with one.ends.awaiting(ONE, "a näme"):
            assert one.files == [ONE]
        await one.over()
        assert one.ended == [Ended(ONE, "a näme", 137, None)]
        assert (one.told[0].session, one.told[0].again, one.files) == (SESSION, False, [ONE])
        one.told[0].stored()
        assert one.files == []


async def test_a_session_without_processes_asks_nothing(tmp_path: Path) -> None:
    script, asked = scripted(silent)
    async with host(script, tmp_path) as one:
        await one.ends.take_over()
        await one.ends.look()
        one.ends.listen()
        await asyncio.sleep(0.01)
    assert (asked, one.files) == ([], [])


async def test_one_stream_serves_all_that_run(tmp_path: Path) -> None:
    begun, first = asyncio.Event(), named(0)

    async def both(asked: Asked) -> None:
        asked.start()
        await asked.more(told_by_guest(end(first)))
        await begun.wait()
        await asked.more(told_by_guest(end(TWO)))
        await asked.more(told_by_guest(end(ONE, 124, "timeout")))

    script, asked = scripted(both)
    async with host(script, tmp_path) as one:
        one.start(first, ONE)
        await eventually(lambda: len(one.ended) == 1, "the stream")
        one.start(TWO)
        begun.set()
        await one.over()
    assert one.ended[1:] == [Ended(TWO, None, 0, None), Ended(ONE, None, 124, "timeout")]
    assert asked == [[first, ONE]]


async def test_what_ended_while_no_server_ran_is_told_by_the_next_one(tmp_path: Path) -> None:
    async with host(silent, tmp_path) as first:
        with first.ends.awaiting(ONE, "job"):
            pass
        first.start(TWO)
    script, asked = scripted(streamed(told_by_guest(end(TWO, None), end(ONE, 3))))
    async with host(script, tmp_path) as second:
        await second.ends.take_over()
        await second.over()
        assert asked == [[ONE, TWO]]
        assert (second.ended, second.told[0].again) == ([Ended(ONE, "job", 3, None)], True)
        assert second.files == [ONE]  # nothing is known of the other one's end


async def test_ends_by_deep_sleep_are_not_told(tmp_path: Path) -> None:
    answer = told_by_guest(end(ONE, 143, "deep_sleep"), end(TWO, 5))
    script, asked = scripted(silent, whole(answer))
    async with host(script, tmp_path) as one:
        one.start(ONE, TWO)
        await eventually(lambda: bool(asked), "the stream")
        await one.ends.look()
        assert one.ended == [Ended(TWO, None, 5, None)]
        one.told[0].stored()
        assert one.files == []


async def test_a_start_goes_on_when_the_host_cannot_note_it(tmp_path: Path) -> None:
    async with host(silent, tmp_path / "gone") as one:
        with one.ends.awaiting(ONE, "a name"):
            pass
        (tmp_path / "gone").mkdir()
        with one.ends.awaiting(TWO, "a name"):
            pass
        assert one.files == [TWO]


async def test_a_start_that_failed_is_not_awaited(tmp_path: Path) -> None:
    async with host(silent, tmp_path) as one:
        with pytest.raises(RuntimeError), one.ends.awaiting(ONE, None):
            raise RuntimeError
        assert one.files == []


async def test_an_end_before_the_answer_to_its_start_is_told(tmp_path: Path) -> None:
    script, asked = scripted(silent, whole(told_by_guest(end(TWO, None))), whole(told_by_guest(end(TWO, 1))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await eventually(lambda: bool(asked), "the stream")
        with one.ends.awaiting(TWO, None):
            await one.ends.look()  # the guest does not know it yet
            await one.ends.look()
        assert one.ended == [Ended(TWO, None, 1, None)]


async def test_a_process_that_the_guest_did_not_know_yet_is_awaited_on(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def late(asked: Asked) -> None:
        asked.start()
        await started.wait()
        await asked.more(told_by_guest(end(TWO, None)))
        await asked.more(told_by_guest(end(TWO, 6)))
        await asked.more(told_by_guest(end(ONE)))

    script, asked = scripted(late)
    async with host(script, tmp_path) as one:
        with one.ends.awaiting(TWO, None):
            one.start(ONE)
            await eventually(lambda: bool(asked), "the stream")
        assert asked == [[TWO, ONE]]
        started.set()
        await one.over()
    assert one.ended == [Ended(TWO, None, 6, None), Ended(ONE, None, 0, None)]


async def test_what_started_and_ended_before_the_stream_began_is_told(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def late(asked: Asked) -> None:
        await begun.wait()
        asked.start()
        await asyncio.Event().wait()

    script, asked = scripted(late, whole(told_by_guest(end(ONE), end(TWO))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await eventually(lambda: bool(asked), "the stream")
        one.start(TWO)
        begun.set()
        await eventually(lambda: len(one.ended) == 2, "the ends")
    assert asked == [[ONE], [ONE, TWO]]


async def test_a_stream_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    async def breaks(asked: Asked) -> None:
        asked.start()
        asked.send(b"r", b"why not")

    script, asked = scripted(breaks, whole(b""), whole(b'{"errno": "EAGAIN"}', 503), streamed(told_by_guest(end(ONE))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert (len(asked), one.ended) == (4, [Ended(ONE, None, 0, None)])


async def test_an_end_is_told_when_the_store_is_back(tmp_path: Path) -> None:
    script, asked = scripted(streamed(told_by_guest(end(ONE, 3))))
    async with host(script, tmp_path) as one:
        one.away = 2
        one.start(ONE)
        await one.over()
        assert one.ended == [Ended(ONE, None, 3, None)]
        assert asked == [[ONE]] * 3


async def test_an_end_that_was_looked_for_while_the_store_was_away_is_told_later(tmp_path: Path) -> None:
    script, asked = scripted(silent, whole(told_by_guest(end(ONE, 3))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await eventually(lambda: bool(asked), "the stream")
        one.away = 1
        with pytest.raises(Unavailable):
            await one.ends.look()
        await one.ends.look()
        assert one.ended == [Ended(ONE, None, 3, None)]


async def test_a_frozen_guest_is_asked_again_after_the_thaw(tmp_path: Path) -> None:
    script, asked = scripted(whole(b""), streamed(told_by_guest(end(ONE))))
    async with host(script, tmp_path) as one:
        one.launcher.is_asleep = True
        one.start(ONE)
        await one.over()
        assert asked == []
        one.launcher.is_asleep = False
        one.ends.listen()
        await one.over()
    assert one.ended == [Ended(ONE, None, 0, None)]


async def test_a_sandbox_that_has_ended_is_not_asked_again(tmp_path: Path) -> None:
    script, asked = scripted(whole(b""))
    async with host(script, tmp_path) as one:
        one.launcher.is_alive = lambda: not asked  # type: ignore[method-assign]
        one.start(ONE)
        await one.over()
        await asyncio.sleep(0.1)
    assert len(asked) == 1


async def test_a_guest_of_an_earlier_version_is_asked_once(tmp_path: Path) -> None:
    script, asked = scripted(whole(b'{"errno": "ENOSYS"}', 404))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await one.over()
        one.start(TWO)
        await one.ends.look()
    assert (len(asked), one.ended) == (1, [])


async def test_no_request_is_the_cause_of_an_end(tmp_path: Path) -> None:
    async with host(streamed(told_by_guest(end(ONE))), tmp_path) as one:
        with caused_by(Cause("key", "acc", "req_1", "key_one", "192.0.2.1")):
            one.start(ONE)
        await one.over()
    assert one.causes == [SERVER]


async def test_a_server_that_stops_does_not_wait_for_ends(tmp_path: Path) -> None:
    async with asyncio.timeout(10), host(silent, tmp_path) as one:
        one.start(ONE)
    assert one.files == [ONE]


# --- hostile guests ---

WRONG: dict[str, bytes] = {
    "a frame of another kind": frame(b"x", b"[]"),
    "no JSON": frame(b"d", b"nonsense"),
    "no list": frame(b"d", b"{}"),
    "an empty list": frame(b"d", b"[]"),
    "an id that is none": told_by_guest(end("../../etc/passwd")),
    "an exit code beyond 255": told_by_guest(end(ONE, 256)),
    "an exit code below 0": told_by_guest(end(ONE, -1)),
    "a reason of its own": told_by_guest(end(ONE, 0, "because")),
    "an end without a code": frame(b"d", json.dumps([{"id": ONE, "reason": None}]).encode()),
    "too many in a frame": told_by_guest(*[end(ONE)] * 501),
    "a frame that is too large": frame(b"d", b" " * 70_000),
    "nested lists": frame(b"d", b"[" * 50_000),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_no_guest_sends_ends_the_sandbox_and_tells_nothing(what: str, tmp_path: Path) -> None:
    async with host(streamed(WRONG[what]), tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert (one.launcher.impostors, one.ended) == (1, [])


async def test_processes_that_this_session_did_not_start_are_not_told(tmp_path: Path) -> None:
    others = [end(named(number)) for number in range(100, 200)]
    async with host(streamed(told_by_guest(*others, end(ONE))), tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert (one.ended, one.launcher.impostors) == ([Ended(ONE, None, 0, None)], 0)


async def test_ends_without_end_are_an_impostors(tmp_path: Path) -> None:
    others = told_by_guest(*(end(named(number)) for number in range(100, 400)))
    async with host(streamed(again=others), tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert (one.ended, one.launcher.impostors) == ([], 1)


async def test_a_frame_in_crumbs_is_not_read_at_the_guests_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "PAUSE_SECONDS", 0.05)
    sent, reads = 0, 0

    async def crumbs(asked: Asked) -> None:
        nonlocal sent
        asked.start()
        await asked.more(frame(b"d", b" " * 60_000)[:5])
        while sent < 60_000:
            await asked.more(b" ")
            sent += 1
            await asyncio.sleep(0)

    read = Answer.read

    async def counted(answer: Answer) -> bytes:
        nonlocal reads
        reads += 1
        return await read(answer)

    monkeypatch.setattr(Answer, "read", counted)
    async with host(crumbs, tmp_path) as one:
        one.start(ONE)
        await asyncio.sleep(0.5)
        assert one.ends._wanted is not None
    assert sent > 100
    assert 1 < reads < 15


async def test_an_answer_without_end_is_an_impostors(tmp_path: Path) -> None:
    script, asked = scripted(silent, streamed(again=told_by_guest(end(ONE, None))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await eventually(lambda: bool(asked), "the stream")
        async with asyncio.timeout(10):
            with pytest.raises(Impostor):
                await one.ends.look()


async def test_a_guest_may_tell_of_a_few_others_every_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "HOUR_SECONDS", 0.0)
    others = [told_by_guest(*(end(named(number)) for number in range(100, 400)))] * 5

    async def slowly(asked: Asked) -> None:
        asked.start()
        for part in others:
            await asked.more(part)
            await asyncio.sleep(0.02)
        await asked.more(told_by_guest(end(ONE)))

    async with host(slowly, tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert (one.ended, one.launcher.impostors) == ([Ended(ONE, None, 0, None)], 0)


async def test_others_are_counted_over_all_streams(tmp_path: Path) -> None:
    others = told_by_guest(*(end(named(number)) for number in range(100, 400)))
    async with host(streamed(others, ends=True), tmp_path) as one:
        one.start(ONE)
        await one.over()
    assert one.launcher.impostors == 1


async def test_a_stream_that_told_something_is_asked_for_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "RETRY_SECONDS", 0.1)
    script, asked = scripted(whole(b""), whole(b""), whole(told_by_guest(end(ONE))), streamed(told_by_guest(end(TWO))))
    async with host(script, tmp_path) as one:
        one.start(ONE, TWO)
        await eventually(lambda: len(asked) == 3, "the third stream")
        await eventually(lambda: one.ends._pause == ends.RETRY_SECONDS, "the next pause to be short again")
        await one.over()
    assert one.ended == [Ended(ONE, None, 0, None), Ended(TWO, None, 0, None)]


async def test_a_start_does_not_wait_until_a_broken_stream_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "RETRY_SECONDS", 1000.0)
    script, asked = scripted(whole(b""), streamed(told_by_guest(end(ONE), end(TWO))))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await eventually(lambda: bool(asked), "the stream")
        await asyncio.sleep(0.1)
        one.start(TWO)
        await eventually(lambda: len(one.ended) == 2, "the ends")


async def test_a_guest_that_never_tells_uses_up_no_files(tmp_path: Path) -> None:
    async with host(silent, tmp_path) as one:
        one.start(*(named(number) for number in range(MOST + 50)))
        assert len(one.files) == MOST


async def test_a_guest_that_ends_each_stream_at_once_is_asked_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "RETRY_SECONDS", 0.05)
    script, asked = scripted(whole(b""))
    async with host(script, tmp_path) as one:
        one.start(ONE)
        await asyncio.sleep(1)
    assert 1 < len(asked) < 8


IDS = st.sampled_from([named(number) for number in range(5)])
ENDS = st.builds(end, IDS, st.none() | st.integers(-1, 256), st.sampled_from([None, "timeout", "deep_sleep", "lost"]))
FRAMES = st.lists(st.builds(lambda found: told_by_guest(*found), st.lists(ENDS)) | st.binary(max_size=40), max_size=8)


@settings(deadline=None)
@given(FRAMES)
def test_whatever_a_guest_sends_no_process_is_told_twice_and_none_of_others(frames: list[bytes]) -> None:
    async def hear() -> Sequence[Ended]:
        with TemporaryDirectory() as directory:
            async with host(streamed(*frames, ends=True), Path(directory)) as one:
                one.start(ONE, TWO)
                with suppress(SandboxGone):
                    await one.ends.look()
                return one.ended

    told = [ended.id for ended in asyncio.run(hear())]
    assert len(told) == len(set(told))
    assert set(told) <= {ONE, TWO}
