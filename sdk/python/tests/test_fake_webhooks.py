"""The fake's events and webhooks, as users' tests use them."""

from itertools import islice

import pytest
from buntime_sdk import DeliveryNotFound, InvalidRequest, InvalidState, WebhookNotFound
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime


def test_events_tell_what_happened_page_by_page() -> None:
    fake = FakeBuntime()
    with fake.sessions.create(name="ci") as session:
        pass
    first = fake.events.list(limit=1)
    assert [(event.type, event.session_id) for event in first.events] == [("session.created", session.id)]
    second = fake.events.list(cursor=first.cursor)
    assert [event.type for event in second.events] == ["session.deleted"]
    assert len(fake.events.list(type="session.deleted").events) == 1
    with pytest.raises(InvalidRequest):
        fake.events.list(cursor="nonsense")


def test_events_are_followed_from_a_cursor_on() -> None:
    fake = FakeBuntime()
    start = fake.events.list().cursor
    session = fake.sessions.create()
    fake.add_event("process.exited", session.id, exitCode=1)
    seen = list(islice(fake.events.follow(cursor=start), 2))
    assert [event.type for event in seen] == ["session.created", "process.exited"]
    assert [event.type for event in fake.events.list(cursor=seen[0].cursor).events] == ["process.exited"]


def test_the_end_of_a_process_is_an_event() -> None:
    fake = FakeBuntime()
    session = fake.sessions.create(services=[{"name": "web", "command": "serve"}])
    process = session.processes.start("sleep 1000", name="job")
    slept = session.processes.start("sleep 1000")
    process.signal("SIGKILL")
    session.services.stop("web")
    session.sleep("deep-sleep")
    found = fake.events.list(type="process.exited").events
    assert [event.data["exitCode"] for event in found] == [137, 143]
    assert (found[0].session_id, found[0].request_id) == (session.id, None)
    by = {"actor": "server"}
    told = {"processId": process.id, "name": "job", "exitCode": 137, "reason": None, "by": by}
    assert found[0].data == told
    assert found[1].data["name"] == "web"
    assert slept.id not in {event.data["processId"] for event in found}


async def test_events_are_followed_from_now_on_over_failures() -> None:
    fake = AsyncFakeBuntime()
    fake.fail("GET", "/events", "unavailable")
    before = await fake.sessions.create()
    start = (await fake.events.list()).cursor
    fake.fail("GET", "/events", "unavailable")
    after = await fake.sessions.create()
    async for event in fake.events.follow(cursor=start):
        assert event.session_id == after.id != before.id
        break


def test_a_webhook_is_tested_rotated_turned_off_and_deleted() -> None:
    fake = FakeBuntime()
    webhooks = fake.webhooks
    made = webhooks.create("https://example.com", events=["session.created"])
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    with fake.sessions.create():
        pass
    event_id = webhooks.test(made.webhook_id)
    sent = list(webhooks.deliveries(made.webhook_id))
    assert [(one.event.type, one.state) for one in sent] == [
        ("webhook.test", "delivered"),
        ("session.created", "delivered"),
    ]
    assert sent[0].event.event_id == event_id
    webhooks.redeliver(made.webhook_id, sent[0].delivery_id)
    with pytest.raises(DeliveryNotFound):
        webhooks.redeliver(made.webhook_id, "dlv_none")
    assert webhooks.rotate(made.webhook_id, overlap=60).old_secret_expires_at is not None
    off = webhooks.update(made.webhook_id, events=None, enabled=False)
    assert (off.events, off.enabled, off.disabled_reason) == (None, False, "asked")
    with pytest.raises(InvalidState):
        webhooks.test(made.webhook_id)
    assert [one.webhook_id for one in webhooks.list()] == [made.webhook_id]
    webhooks.delete(made.webhook_id)
    with pytest.raises(WebhookNotFound):
        webhooks.get(made.webhook_id)
    with pytest.raises(InvalidRequest):
        webhooks.create("ftp://example.com")
