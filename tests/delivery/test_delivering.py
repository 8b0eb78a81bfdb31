"""What a receiver gets, and what is done when it does not answer well."""

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from buntime.account import Account, AccountStatus
from buntime.delivery import courier, delivering, posting
from buntime.errors import Unavailable
from buntime.event import EventType, new_event
from buntime.ports import DuePage
from buntime.webhook import EVERYONE, Delivery, DeliveryState, of_webhook, rotated
from tests.delivery.conftest import NOW, Sending, soon
from tests.delivery.receiver import Answering, Got, always, hang, receiving
from tests.waiting import eventually

MINUTE, HOUR, DAY = 60, 3600, 86400


def genuine(got: Got, secret: str) -> bool:
    """Whether the signature is right. The library's own check refuses old times, and a test's clock is old."""
    time = datetime.fromtimestamp(int(got.headers["Webhook-Timestamp"]), UTC)
    return Verifier(secret).sign(got.id, time, got.body.decode()) in got.headers["Webhook-Signature"].split(" ")


async def all_delivered(sender: Sending, webhook: str) -> None:
    async def done() -> bool | None:
        states = {one.state for one in await sender.deliveries(webhook)}
        return True if states == {DeliveryState.DELIVERED} else None

    assert await soon(done)


async def test_a_receiver_gets_the_event_and_can_verify_it(sender: Sending) -> None:
    async with receiving() as receiver:
        webhook = await sender.webhook(receiver.url(path="/hook?a=b"))
        event = await sender.happens()
        await eventually(lambda: receiver.got)
        (got,) = receiver.got
        assert got.event == {
            "eventId": event.id,
            "type": "session.idle",
            "accountId": "acc_one",
            "sessionId": "ses_a",
            "time": "2023-11-14T22:13:20Z",
            "requestId": "req_1",
            "data": {"number": 0, "by": {"actor": "key", "keyId": "key_1", "address": "192.0.2.1"}},
        }
        assert (got.id, got.headers["Webhook-Timestamp"]) == (event.id, str(int(NOW)))
        assert got.headers["Content-Type"] == "application/json"
        assert genuine(got, sender.secrets[webhook])
        assert not genuine(got, "whsec_" + base64.b64encode(bytes(32)).decode())
        assert (await sender.delivery(webhook)).state is DeliveryState.DELIVERED


async def test_the_url_arrives_whole(sender: Sending) -> None:
    async with receiving() as receiver:
        await sender.webhook(receiver.url(path="/hook;key=1?a=b;c"))
        await sender.webhook(receiver.url(path="?a=b"))
        await sender.happens()
        await eventually(lambda: len(receiver.got) == 2)
        assert sorted(got.request.raw_path for got in receiver.got) == ["/?a=b", "/hook;key=1?a=b;c"]


async def test_two_secrets_are_valid_while_one_is_rotated(sender: Sending) -> None:
    async with receiving() as receiver:
        webhook = await sender.webhook(receiver.url())
        stored = await sender.store.get_webhook(webhook)
        assert stored is not None
        secret, sealed = sender.signing.new(webhook)
        assert await sender.store.change_webhook(stored, rotated(stored, sealed, MINUTE, NOW))
        await sender.happens()
        await eventually(lambda: receiver.got)
        assert [genuine(receiver.got[0], one) for one in (secret, sender.secrets[webhook])] == [True, True]
        sender.clock.now += MINUTE
        await sender.happens()
        await eventually(lambda: len(receiver.got) == 2)
        assert [genuine(receiver.got[1], one) for one in (secret, sender.secrets[webhook])] == [True, False]


async def test_a_failure_is_tried_again_by_the_schedule_and_then_given_up(sender: Sending) -> None:
    async with receiving(always(503)) as receiver:
        webhook = await sender.webhook(receiver.url())
        event = await sender.happens()
        waits = []
        for attempts in range(1, 9):
            one = await sender.delivery(webhook, attempts)
            waits.append(one.due_at - int(sender.clock.now))
            assert (one.status, one.failure) == (503, "The answer had the status 503.")
            sender.clock.now = one.due_at - 1
            await asyncio.sleep(0.1)
            assert len(receiver.got) == attempts
            sender.clock.now += 1
        assert waits[:7] == [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR]
        assert one.state is DeliveryState.FAILED
        assert receiver.ids == [event.id] * 8
        assert sender.states == [DeliveryState.PENDING] * 7 + [DeliveryState.FAILED]


async def test_a_receiver_that_comes_back_after_hours_gets_what_it_missed(sender: Sending) -> None:
    async with receiving(always(500)) as receiver:
        webhook = await sender.webhook(receiver.url())
        events = [await sender.happens(f"ses_{number}") for number in range(20)]
        for seconds in (0, 5, 5 * MINUTE, 30 * MINUTE):
            sender.clock.now += seconds
            await asyncio.sleep(0.4)
        receiver.got.clear()
        receiver.answer = always(200)
        sender.clock.now += 2 * HOUR
        await eventually(lambda: len(set(receiver.ids)) == 20)
        assert sorted(receiver.ids) == sorted(event.id for event in events)
        await all_delivered(sender, webhook)


async def test_a_redirect_is_a_failure_and_leads_nowhere(sender: Sending) -> None:
    async with receiving() as other:

        async def elsewhere(_: Got) -> web.Response:
            return web.Response(status=307, headers={"Location": other.url()})

        async with receiving(elsewhere) as receiver:
            webhook = await sender.webhook(receiver.url())
            await sender.happens()
            one = await sender.delivery(webhook)
            assert one.failure == "The answer had the status 307; redirects are not followed."
            assert other.got == []


async def test_410_turns_a_webhook_off_at_once_and_says_so(sender: Sending) -> None:
    async with receiving(always(410)) as receiver, receiving() as other:
        webhook = await sender.webhook(receiver.url())
        await sender.webhook(other.url(), types=frozenset({EventType.WEBHOOK_DISABLED}))
        await sender.happens()
        await eventually(lambda: other.got)
        told = other.got[0].event
        assert (told["type"], told["data"]) == (
            "webhook.disabled",
            {"webhookId": webhook, "reason": "gone", "by": {"actor": "server"}},
        )
        stored = await sender.store.get_webhook(webhook)
        assert stored is not None
        assert stored.off == "gone"
        await sender.happens()
        sender.clock.now += DAY
        await asyncio.sleep(0.2)
        assert len(receiver.got) == 1


async def test_five_days_of_failure_turn_a_webhook_off(sender: Sending) -> None:
    async with receiving(always(500)) as receiver:
        webhook = await sender.webhook(receiver.url())
        await sender.happens("ses_a")
        await sender.delivery(webhook)

        async def off() -> str | None:
            stored = await sender.store.get_webhook(webhook)
            return None if stored is None else stored.off

        sender.clock.now += 5 * DAY - 1
        await sender.happens("ses_b")
        await eventually(lambda: len(receiver.got) >= 3)
        await asyncio.sleep(0.1)
        assert await off() is None
        sender.clock.now += 1
        await sender.happens("ses_c")
        assert await soon(off) == "failing"


async def test_a_success_ends_the_days_of_failure(sender: Sending) -> None:
    async with receiving(always(500)) as receiver:
        webhook = await sender.webhook(receiver.url())
        await sender.happens("ses_a")
        await sender.delivery(webhook)
        receiver.answer = always(200)
        sender.clock.now += 4 * DAY
        await sender.delivery(webhook, 2)
        receiver.answer = always(500)
        sender.clock.now += 4 * DAY
        await sender.happens("ses_b")
        await eventually(lambda: len(receiver.got) == 3)
        await asyncio.sleep(0.1)
        stored = await sender.store.get_webhook(webhook)
        assert stored is not None
        assert stored.off is None


@pytest.mark.parametrize("begins", [False, True])
async def test_an_attempt_has_a_time_limit(sender: Sending, monkeypatch: pytest.MonkeyPatch, begins: bool) -> None:
    monkeypatch.setattr(posting, "ATTEMPT_SECONDS", 0.3)

    async def drip(got: Got) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        if begins:
            await answer.prepare(got.request)
        while True:
            if begins:
                await answer.write(b"x")
            await asyncio.sleep(0.05)

    async with receiving(drip) as receiver:
        webhook = await sender.webhook(receiver.url())
        await sender.happens()
        one = await sender.delivery(webhook)
        assert one.status is None
        assert "There was no whole answer within" in (one.failure or "")


async def test_a_large_answer_is_not_read_to_its_end(sender: Sending) -> None:
    sent = 0

    async def pour(got: Got) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(got.request)
        while True:
            await answer.write(bytes(64 << 10))
            sent += 64 << 10

    async with receiving(pour) as receiver:
        webhook = await sender.webhook(receiver.url())
        await sender.happens()
        assert (await sender.delivery(webhook)).state is DeliveryState.DELIVERED
        assert sent < 64 << 20


async def test_what_is_no_http_is_a_failure(sender: Sending) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP \x1b[31m\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    webhook = await sender.webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    await sender.happens()
    failure = (await sender.delivery(webhook)).failure or ""
    server.close()
    assert failure
    assert failure.isprintable()


async def test_a_refused_connection_is_a_failure(sender: Sending) -> None:
    async with receiving() as receiver:
        url = receiver.url()
    webhook = await sender.webhook(url)
    await sender.happens()
    assert "The connection failed" in ((await sender.delivery(webhook)).failure or "")


async def test_later_events_of_a_session_wait_for_two_attempts_of_an_earlier_one(sender: Sending) -> None:
    refused: set[str] = set()

    async def choose(got: Got) -> int:
        return 500 if got.id in refused else 200

    async with receiving(choose) as receiver:
        await sender.webhook(receiver.url())
        receiver.answer = always(500)
        first = await sender.happens("ses_a")
        await eventually(lambda: receiver.got)
        refused.add(first.id)
        receiver.answer = choose
        second, other = await sender.happens("ses_a"), await sender.happens("ses_b")
        await eventually(lambda: other.id in receiver.ids)
        await asyncio.sleep(0.2)
        assert second.id not in receiver.ids
        sender.clock.now += 5
        await eventually(lambda: second.id in receiver.ids)
        assert receiver.ids == [first.id, other.id, first.id, second.id]


async def test_events_of_many_sessions_arrive_in_order_within_each(sender: Sending) -> None:
    async with receiving() as receiver:
        await sender.webhook(receiver.url())
        sent = [await sender.happens(f"ses_{number % 5}", number=number) for number in range(100)]
        await eventually(lambda: len(receiver.got) == 100)
        for session in range(5):
            arrived = [got.id for got in receiver.got if got.event["sessionId"] == f"ses_{session}"]
            assert arrived == [event.id for event in sent if event.session == f"ses_{session}"]


async def test_a_suspended_account_sends_nothing_until_it_is_resumed(sender: Sending) -> None:
    first_came, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: Got) -> int:
        first_came.set()
        await may_end.wait()
        return 204

    async with receiving(wait) as receiver:
        await sender.store.add_account(Account("acc_one", "free", int(NOW)))
        await sender.webhook(receiver.url())
        event = new_event("acc_one", EventType.SESSION_IDLE, NOW, {}, session="ses_a")
        await sender.store.add_events([event, replace(event, id="evt_second")])
        await first_came.wait()
        assert await sender.store.set_account_status("acc_one", AccountStatus.SUSPENDED)
        may_end.set()
        last = await sender.happens("ses_b")
        await asyncio.sleep(0.3)
        assert receiver.ids == [event.id]
        assert await sender.store.set_account_status("acc_one", AccountStatus.ACTIVE)
        await eventually(lambda: len(receiver.got) == 3)
        assert {*receiver.ids} == {event.id, "evt_second", last.id}


async def test_an_account_that_is_resumed_before_anybody_looks_gets_what_waited(
    sender: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = Account("acc_one", "free", int(NOW))
    found = [replace(active, status=AccountStatus.SUSPENDED)]

    async def once_suspended(_: str) -> Account:
        return found.pop() if found else active

    monkeypatch.setattr(sender.store, "get_account", once_suspended)
    async with receiving() as receiver:
        await sender.webhook(receiver.url())
        event = await sender.happens()
        await eventually(lambda: receiver.ids == [event.id])
        assert not found


def test_pauses_double_with_each_failure_and_are_bounded() -> None:
    assert [delivering.pause_after(failures) for failures in (1, 2, 3, 7, 8, 1000)] == [5, 10, 20, 320, 600, 600]


async def test_a_store_that_cannot_write_makes_one_event_go_out_after_each_failure(
    sender: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "PAUSE_SECONDS", 0.01)
    pauses: list[int] = []
    after = delivering.pause_after

    def noted(failures: int) -> float:
        pauses.append(failures)
        return after(failures)

    async def refuse(_: Delivery) -> bool:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(delivering, "pause_after", noted)
    async with receiving() as receiver:
        await sender.webhook(receiver.url())
        with monkeypatch.context() as patch:
            patch.setattr(sender.store, "settle_delivery", refuse)
            first = new_event("acc_one", EventType.SESSION_IDLE, NOW, {}, session="ses_a")
            sender.store.note_events([replace(first, id=f"evt_{n}", session=f"ses_{n}") for n in range(20)])
            await sender.happens()
            await eventually(lambda: len(pauses) >= 4)
            assert pauses[:4] == [1, 2, 3, 4]
            assert len(receiver.got) <= courier.AT_ONCE + len(pauses)
        await eventually(lambda: len(set(receiver.ids)) == 21)


async def test_an_answer_of_an_old_url_does_not_turn_a_webhook_off(sender: Sending) -> None:
    async def gone(_: Got) -> int:
        await sender.change(webhook, url=other.url())
        return 410

    async with receiving(gone) as receiver, receiving() as other:
        webhook = await sender.webhook(receiver.url())
        await sender.happens()
        await sender.delivery(webhook)
        event = await sender.happens("ses_b")
        await eventually(lambda: event.id in other.ids, seconds=10)


async def test_a_session_with_many_events_delays_no_other(sender: Sending) -> None:
    async def stuck(got: Got) -> int:
        return await hang(got) if got.event["sessionId"] == "ses_a" else 204

    async with receiving(stuck) as receiver:
        await sender.webhook(receiver.url())
        first = new_event("acc_one", EventType.SESSION_IDLE, NOW, {}, session="ses_a")
        sender.store.note_events([replace(first, id=f"evt_{number}") for number in range(300)])
        other = await sender.happens("ses_b")
        await eventually(lambda: other.id in receiver.ids, seconds=10)


def looks_at(sender: Sending, webhook: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each read of what is due at the webhook."""
    looks: list[str] = []
    read = sender.store.due_deliveries

    async def counted(webhook_id: str, *rest: Any) -> DuePage:
        looks.extend([webhook_id] if webhook_id == webhook else [])
        return await read(webhook_id, *rest)

    monkeypatch.setattr(sender.store, "due_deliveries", counted)
    return looks


@pytest.mark.parametrize("answer", [hang, always(500)])
async def test_events_of_others_cost_a_webhook_with_a_backlog_nothing(
    sender: Sending, monkeypatch: pytest.MonkeyPatch, answer: Answering
) -> None:
    async with receiving(answer) as receiver, receiving() as other:
        webhook = await sender.webhook(receiver.url())
        first = await sender.happens()
        await eventually(lambda: receiver.got)
        second = await sender.happens()
        await sender.webhook(other.url(), account="acc_two")
        await asyncio.sleep(0.5)
        looks = looks_at(sender, webhook, monkeypatch)
        for number in range(20):
            await sender.happens(account="acc_two", number=number)
        await eventually(lambda: len(other.got) == 20)
        assert (receiver.ids, looks) == ([first.id], [])
        third = await sender.happens("ses_b")
        await eventually(lambda: third.id in receiver.ids)
        assert second.id not in receiver.ids


async def test_a_redelivery_during_an_attempt_is_sent_after_it(sender: Sending) -> None:
    came, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: Got) -> int:
        came.set()
        await may_end.wait()
        return 204

    async with receiving(wait) as receiver:
        webhook = await sender.webhook(receiver.url())
        event = await sender.happens()
        await came.wait()
        (one,) = await sender.deliveries(webhook)
        assert await sender.store.redeliver(webhook, one.id, int(NOW))
        may_end.set()
        await eventually(lambda: len(receiver.got) == 2)
        await all_delivered(sender, webhook)
        assert receiver.ids == [event.id] * 2


async def test_receivers_that_never_answer_delay_no_other(sender: Sending) -> None:
    async with receiving(hang) as dead, receiving() as alive:
        for account in range(8):
            await sender.webhook(dead.url(), account=f"acc_{account}")
        await sender.webhook(dead.url())
        await sender.webhook(alive.url())
        for account in range(8):
            for number in range(10):
                await sender.happens(f"ses_{number}", account=f"acc_{account}")
        events = [await sender.happens(f"ses_{number}") for number in range(40)]
        await eventually(lambda: len(alive.got) == 40)
        assert sorted(alive.ids) == sorted(event.id for event in events)


async def test_a_test_goes_to_one_webhook_whatever_its_types(sender: Sending) -> None:
    async with receiving() as receiver, receiving() as other:
        webhook = await sender.webhook(receiver.url(), types=frozenset({EventType.SESSION_DELETED}))
        await sender.webhook(other.url())
        stored = await sender.store.get_webhook(webhook)
        assert stored is not None
        told = of_webhook(stored, EventType.WEBHOOK_TEST, NOW)
        assert await sender.store.change_webhook(stored, stored, (told,))
        await eventually(lambda: receiver.got)
        await sender.happens()
        await eventually(lambda: other.got)
        assert (receiver.ids, len(other.got)) == ([told.id], 1)


async def test_an_operator_gets_the_events_of_all_accounts(sender: Sending) -> None:
    async with receiving() as receiver:
        await sender.webhook(receiver.url(), account=EVERYONE)
        for account in ("acc_one", "acc_two"):
            await sender.happens(account=account)
        await eventually(lambda: len(receiver.got) == 2)
        assert [got.event["accountId"] for got in receiver.got] == ["acc_one", "acc_two"]


async def test_a_deleted_webhook_gets_nothing_more(sender: Sending) -> None:
    async with receiving(always(500)) as receiver:
        webhook = await sender.webhook(receiver.url())
        await sender.happens()
        await sender.delivery(webhook)
        assert await sender.store.remove_webhook(webhook)
        sender.clock.now += DAY
        await asyncio.sleep(0.2)
        assert len(receiver.got) == 1


async def test_a_secret_that_cannot_be_read_is_a_failure_that_says_so(sender: Sending) -> None:
    async with receiving() as receiver:
        webhook = await sender.webhook(receiver.url())
        stored = await sender.store.get_webhook(webhook)
        assert stored is not None
        _, sealed = sender.signing.new("whk_another")
        await sender.change(webhook, secrets=(sealed,))
        await sender.happens()
        assert "Rotate it" in ((await sender.delivery(webhook)).failure or "")
        assert receiver.got == []


async def test_bodies_are_json_whatever_is_in_the_event(sender: Sending) -> None:
    async with receiving() as receiver:
        await sender.webhook(receiver.url())
        sender.store.note_events([])
        await sender.happens("ses_ünïcode")
        await eventually(lambda: receiver.got)
        assert json.loads(receiver.got[0].body)["sessionId"] == "ses_ünïcode"


async def test_a_host_without_the_duty_sends_nothing_more_and_its_late_failure_undoes_nothing(sender: Sending) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def late(_: Got) -> int:
        asked.set()
        await answer.wait()
        return 500

    async with receiving(late) as receiver:
        webhook = await sender.webhook(receiver.url())
        for _ in range(3):
            await sender.happens()
        await asked.wait()
        sender.has_duty = False
        first, *_ = await sender.deliveries(webhook)
        assert await sender.store.settle_delivery(replace(first, state=DeliveryState.DELIVERED, attempts=1))
        answer.set()
        await asyncio.sleep(0.2)
        assert [one.attempts for one in await sender.deliveries(webhook)] == [1, 0, 0]
        assert (await sender.deliveries(webhook))[0].state is DeliveryState.DELIVERED
        assert len(receiver.got) == 1
