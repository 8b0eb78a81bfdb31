"""Restores from an archive that is slow, hangs, or gives wrong bytes for a while."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from buntime.lifecycle import layers, leases
from buntime.ports import ArchiveUnavailable, ObjectMissing
from buntime.session import State
from tests.app.serving import Answer, Api
from tests.app.sleeping import PATIENCE, Gate, content_of, evicted, opened_at_the_end, read, stored_of, write
from tests.waiting import eventually

type Get = Callable[[str], Iterator[bytes]]


class Hanging:
    """An archive that gives some of an object, then nothing until it is let go."""

    def __init__(self, get: Get, part: float) -> None:
        self._get = get
        self._part = part
        self.reached, self.gone_on = threading.Event(), threading.Event()

    def __call__(self, name: str) -> Iterator[bytes]:
        content = b"".join(self._get(name))
        middle = int(len(content) * self._part)
        yield content[:middle]
        self.reached.set()
        assert self.gone_on.wait(PATIENCE)
        yield content[middle:]


@asynccontextmanager
async def hanging(api: Api, part: float = 0.5) -> AsyncIterator[Hanging]:
    """The archive hangs within the block, or until the test lets it go on."""
    get = api.archive.get
    archive = api.archive.get = Hanging(get, part)  # type: ignore[method-assign]
    try:
        yield archive
    finally:
        archive.gone_on.set()
        api.archive.get = get  # type: ignore[method-assign]


async def archived_snapshot(api: Api) -> str:
    """Returns a snapshot whose layer is only in the archive."""
    session = await api.session()
    await write(api, session, "kept")
    made = await api.call("POST", f"/sessions/{session}/snapshots", {})
    await eventually(lambda: api.store.layers and all(layer.saved for layer in api.store.layers.values()))
    assert await api.lifecycle.layers.evict(1)
    return str(made.json["snapshotId"])


async def metrics(api: Api) -> list[int]:
    lines = (await api.metrics()).body.decode().splitlines()
    values = dict(line.split(" ") for line in lines if line.startswith("buntime_archive_restores"))
    names = ("archive_restores", "archive_restores_done_bytes", "archive_restores_total_bytes")
    return [int(float(values[f"buntime_{name}"])) for name in names]


# --- what a request is told ---


async def test_a_request_that_stops_waiting_is_told_how_far_the_restore_is(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAKE_SECONDS", 0.05)
    session = await evicted(api, "kept")
    saved = (await stored_of(api, session)).saved
    assert saved
    assert await metrics(api) == [0, 0, 0]
    async with hanging(api) as archive:
        refused = await read(api, session)
        assert archive.reached.is_set()
        assert refused.refusal == (503, "unavailable")
        details = refused.error["details"]
        assert details == {
            "retryAfter": int(refused.headers["Retry-After"]),
            "waking": True,
            "reason": "restoring",
            "restoredBytes": saved.size // 2,
            "totalBytes": saved.size,
        }
        assert 1 <= details["retryAfter"] <= 30
        assert await metrics(api) == [1, saved.size // 2, saved.size]
        archive.gone_on.set()
        await eventually(lambda: not api.lifecycle.holds.lock(session).locked())
    assert await metrics(api) == [0, 0, 0]
    assert await content_of(api, session) == "kept"


async def test_a_request_for_a_snapshot_is_told_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "FETCH_SECONDS", 0.05)
    snapshot = await archived_snapshot(api)
    saved = (await api.store.all_layers())[0].saved
    assert saved
    async with hanging(api):
        refused = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert refused.refusal == (503, "unavailable")
    details = refused.error["details"]
    assert (details["fetching"], details["reason"]) == (True, "restoring")
    assert (details["restoredBytes"], details["totalBytes"]) == (saved.size // 2, saved.size)


# --- an archive that hangs ---


async def test_a_delete_does_not_wait_for_an_archive_that_hangs(api: Api) -> None:
    session = await evicted(api, "kept")
    async with hanging(api) as archive:
        waking = asyncio.create_task(api.call("POST", f"/sessions/{session}/wake"))
        assert await asyncio.to_thread(archive.reached.wait, PATIENCE)
        assert (await api.call("DELETE", f"/sessions/{session}")).status == 200
        assert not archive.gone_on.is_set()
        assert (await waking).status in (404, 503)
        await eventually(lambda: not api.store.sessions)
    assert not api.archive.objects
    assert not api.sandboxes.volumes


# --- wrong bytes ---


def _flipped(content: bytes) -> Iterator[bytes]:
    middle = len(content) // 2
    yield content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _cut(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]


def _missing(content: bytes) -> Iterator[bytes]:
    raise ObjectMissing
    yield content


def _away(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    raise ArchiveUnavailable


def _wrong(api: Api, wrongly: Callable[[bytes], Iterator[bytes]], times: Callable[[int], bool]) -> None:
    """The archive gives objects wrongly, when `times` says so for the count of reads."""
    get, count = api.archive.get, 0

    def wrong(name: str) -> Iterator[bytes]:
        nonlocal count
        count += 1
        if times(count):
            return wrongly(b"".join(get(name)))
        return get(name)

    api.archive.get = wrong  # type: ignore[method-assign]


@pytest.mark.parametrize("wrongly", [_flipped, _cut, _missing])
async def test_an_object_that_is_whole_when_it_is_read_again_is_used(
    api: Api, wrongly: Callable[[bytes], Iterator[bytes]]
) -> None:
    session = await evicted(api, "one", "two")
    _wrong(api, wrongly, lambda count: count == 1)
    with capture_logs() as logs:
        assert await content_of(api, session) == "two"
    events = [entry["event"] for entry in logs]
    assert "archive_gave_wrong_bytes" in events
    assert not {"snapshot_damaged", "previous_snapshot_used"} & {*events}


@pytest.mark.parametrize("wrongly", [_flipped, _cut, _missing])
async def test_an_object_that_is_whole_only_sometimes_is_no_reason_for_an_older_state(
    api: Api, wrongly: Callable[[bytes], Iterator[bytes]]
) -> None:
    session = await evicted(api, "one", "two")
    get = api.archive.get
    _wrong(api, wrongly, lambda count: count % 2 == 1)
    refused: Answer = await read(api, session)
    assert refused.refusal == (503, "unavailable")
    assert (await stored_of(api, session)).state is State.DEEP_SLEEP
    api.archive.get = get  # type: ignore[method-assign]
    assert await content_of(api, session) == "two"


@pytest.mark.parametrize("times", [lambda count: count == 1, lambda count: count in (1, 3)])
async def test_an_archive_that_goes_away_in_the_middle_costs_a_503_and_no_state(api: Api, times: Any) -> None:
    session = await evicted(api, "one", "two")
    _wrong(api, _away, times)
    while (answer := await read(api, session)).status != 200:
        assert answer.refusal == (503, "unavailable")
    assert answer.json["content"] == "two"


async def test_a_layer_that_is_whole_when_it_is_read_again_is_used(api: Api) -> None:
    snapshot = await archived_snapshot(api)
    _wrong(api, _flipped, lambda count: count == 1)
    created = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert created.status == 200
    assert await content_of(api, created.json["sessionId"]) == "kept"


# --- layers that go meanwhile ---


async def test_a_layer_that_is_deleted_while_it_comes_is_not_on_the_host_afterwards(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await archived_snapshot(api)
    receive = api.sandboxes.volumes.receive
    async with opened_at_the_end(Gate()) as gate:

        def late(volume_id: str, disk: int | None, content: Iterator[bytes], *rest: Any) -> None:
            taken = list(content)
            gate()
            receive(volume_id, disk, iter(taken), *rest)

        api.sandboxes.volumes.receive = late  # type: ignore[method-assign, assignment]
        creating = asyncio.create_task(api.call("POST", "/sessions/create", {"snapshotId": snapshot}))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        assert (await api.call("DELETE", f"/snapshots/{snapshot}")).status == 200
        tidying = asyncio.create_task(api.lifecycle.layers.tidy())
        await asyncio.sleep(0.05)  # long enough for a removal that does not wait
        gate.opened.set()
        await tidying
        await creating
    for owner in list(api.store.sessions):
        await api.call("DELETE", f"/sessions/{owner}")
    await api.lifecycle.layers.tidy()
    await eventually(lambda: not api.store.sessions)
    assert not api.store.layers
    assert not api.archive.objects
    assert not api.sandboxes.volumes
