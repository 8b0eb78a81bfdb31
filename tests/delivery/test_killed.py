"""What a server that is killed has not settled is sent again: each event at least once, each session in order."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from buntime.event import EventType, new_event
from buntime.stores.sqlite import database
from buntime.stores.sqlite.events import add_events
from buntime.webhook import DeliveryState
from tests.delivery.conftest import sending
from tests.delivery.receiver import Got, hang, receiving, well
from tests.waiting import eventually

EVENTS, SESSIONS, KILLS = 300, 10, 5


def store_events(path: Path, first: int, count: int) -> Sequence[str]:
    """Adds events as another process does. Returns their ids."""
    connection = database.connect(path)
    events = [
        new_event("acc_one", EventType.SESSION_IDLE, 1, {"number": number}, session=f"ses_{number % SESSIONS}")
        for number in range(first, first + count)
    ]
    with database.transaction(connection):
        add_events(connection, events)
    connection.close()
    return [event.id for event in events]


async def test_a_killed_server_loses_no_event_and_no_order(tmp_path: Path) -> None:
    async def slowly(_: Got) -> int:
        await asyncio.sleep(0.003)
        return 200

    async with receiving(slowly) as receiver:
        async with sending(tmp_path) as sender:
            await sender.webhook(receiver.url())
        sent: list[str] = []
        command = (sys.executable, "-m", "tests.delivery.worker", str(tmp_path))
        for number in range(KILLS):
            worker = await asyncio.create_subprocess_exec(*command)
            sent += store_events(tmp_path / "store.db", number * EVENTS // KILLS, EVENTS // KILLS)
            before = len(receiver.got)
            await eventually(lambda: len(receiver.got) >= before + 20)  # noqa: B023 - called in this turn
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
        worker = await asyncio.create_subprocess_exec(*command)
        await eventually(lambda: len(set(receiver.ids)) == EVENTS)
        worker.kill()
        await worker.wait()
        assert set(receiver.ids) == set(sent)
        first_seen = list(dict.fromkeys(receiver.ids))
        numbers = {got.id: (got.event["sessionId"], got.event["data"]["number"]) for got in receiver.got}
        for session in range(SESSIONS):
            order = [numbers[one][1] for one in first_seen if numbers[one][0] == f"ses_{session}"]
            assert order == sorted(order)


async def test_a_server_that_stops_fails_no_delivery(tmp_path: Path) -> None:
    """Attempts that are under way are made again by the next server, as if they had not been."""
    async with receiving(hang) as receiver:
        async with sending(tmp_path) as sender:
            webhook = await sender.webhook(receiver.url())
            for number in range(5):
                await sender.happens(f"ses_{number}")
            await eventually(lambda: len(receiver.got) == 5)
        assert sender.states == []
        receiver.answer = well
        async with sending(tmp_path) as sender:
            before = await sender.store.get_webhook(webhook)
            assert before is not None
            assert before.failing_since is None
            await eventually(lambda: len(receiver.got) == 10)
            await eventually(lambda: sender.states == [DeliveryState.DELIVERED] * 5)
