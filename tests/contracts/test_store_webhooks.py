"""The contract of `ports.Store` about webhooks and deliveries, for the fake and the real one alike."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from buntime.account import Account, AccountStatus
from buntime.errors import IdempotencyInProgress, ResourceLimitExceeded, Unauthorized
from buntime.event import AccountEvent, EventType, of_new_session
from buntime.ports import BEGINNING, DeliveryNumbers, EventDelivery, Store
from buntime.session import Session
from buntime.stores.postgres import told as in_postgres
from buntime.stores.sqlite import deliveries as in_sqlite
from buntime.testing import events as testing
from buntime.webhook import EVERYONE, DeliveryState, SigningSecret, Webhook
from tests.contracts.examples import NOW, answer, session

FULL = Webhook(
    id="whk_full",
    account="acc_one",
    url="https://example.com/hook?a=b",
    secrets=(SigningSecret("sealed new"), SigningSecret("sealed old", NOW + 60)),
    created_at=NOW,
    types=frozenset({EventType.SESSION_DELETED, EventType.SESSION_CREATED}),
    off="gone",
    failing_since=NOW - 5,
    version=3,
)


def webhook(name: str = "whk_one", account: str = "acc_one", types: frozenset[EventType] | None = None) -> Webhook:
    return Webhook(name, account, "https://example.com", (SigningSecret("sealed"),), NOW, types)


def told(
    name: str, account: str = "acc_one", what: EventType = EventType.WEBHOOK_TEST, time: int = NOW
) -> AccountEvent:
    return AccountEvent(name, account, what, time, None, {})


async def happens(store: Store, of: Session, created_at: int = NOW) -> AccountEvent:
    """Adds the session, and returns the event of it."""
    event = of_new_session(replace(of, created_at=created_at))
    await store.add_session(of, None, 1000, events=(event,))
    return event


async def due(store: Store, webhook_id: str = "whk_one", now: int = NOW, limit: int = 100) -> list[EventDelivery]:
    return list((await store.due_deliveries(webhook_id, now, limit)).found)


async def waiting(store: Store, now: int = NOW) -> list[str]:
    return list(await store.waiting_webhooks(now))


async def pages(store: Store, limit: int, busy: Collection[str] = ()) -> list[list[EventDelivery]]:
    """All that is due, page by page."""
    found, place = [], BEGINNING
    while True:
        page = await store.due_deliveries("whk_one", NOW, limit, busy, place)
        found.append(list(page.found))
        if page.end is None:
            return found
        place = page.end


# webhooks


async def test_a_webhook_is_found_as_it_was_added(store: Store) -> None:
    await store.add_webhook(FULL, None, 2)
    assert await store.get_webhook(FULL.id) == FULL
    assert await store.get_webhook("whk_none") is None


async def test_webhooks_are_listed_by_account_oldest_first(store: Store) -> None:
    added = [replace(webhook("whk_b"), created_at=NOW - 1), webhook("whk_a"), webhook("whk_c")]
    for one in (added[2], added[0], added[1], webhook("whk_other", "acc_two")):
        await store.add_webhook(one, None, 3)
    assert await store.list_webhooks("acc_one") == added


async def test_an_account_has_a_limit_of_webhooks_and_a_refusal_changes_nothing(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await store.add_answer(answer())
    with pytest.raises(ResourceLimitExceeded):
        await store.add_webhook(webhook("whk_two"), None, 1, (told("evt_a"),))
    with pytest.raises(ValueError, match="whk_one"):
        await store.add_webhook(webhook(), None, 2, (told("evt_a"),))
    with pytest.raises(IdempotencyInProgress):
        await store.add_webhook(webhook("whk_two"), answer(), 2, (told("evt_a"),))
    assert await store.list_webhooks("acc_one") == [webhook()]
    assert await store.list_events(None) == []


async def test_a_webhook_is_changed_by_its_version_alone(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    new = replace(webhook(), url="https://example.org", types=frozenset({EventType.WEBHOOK_TEST}), secrets=FULL.secrets)
    assert await store.change_webhook(webhook(), new, (told("evt_a"),))
    assert await store.get_webhook("whk_one") == replace(new, version=2)
    assert not await store.change_webhook(webhook(), new, (told("evt_b"),))
    assert not await store.change_webhook(FULL, FULL, (told("evt_b"),))
    assert [each.event.id for each in await store.list_events(None)] == ["evt_a"]


async def test_a_webhook_is_removed_with_its_deliveries(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session())
    assert await store.remove_webhook("whk_one", (told("evt_a"),))
    assert not await store.remove_webhook("whk_one", (told("evt_b"),))
    assert await store.get_webhook("whk_one") is None
    assert await store.list_deliveries("whk_one", 10, 0) == ([], 0)
    assert [each.event.id for each in await store.list_events(None)][1:] == ["evt_a"]


async def test_a_deleted_account_gets_no_webhook(store: Store) -> None:
    await store.add_account(Account("acc_one", "free", NOW))
    assert await store.set_account_status("acc_one", AccountStatus.DELETED)
    with pytest.raises(Unauthorized):
        await store.add_webhook(webhook(), None, 1, (told("evt_a"),))
    assert await store.list_webhooks("acc_one") == []
    assert await store.list_events(None) == []


async def test_a_removed_webhook_is_nowhere_and_takes_no_place(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session())
    (one,) = await due(store)
    assert await store.remove_webhook("whk_one")
    for _ in range(2):
        assert await store.list_webhooks("acc_one") == []
        assert not await store.change_webhook(webhook(), webhook())
        assert not await store.settle_delivery(replace(one.delivery, attempts=1, tried_at=NOW))
        assert await due(store) == []
        assert await waiting(store) == []
        assert await store.delivery_numbers() == DeliveryNumbers(0, {})
        await store.drop_removed_webhooks()
    await store.add_webhook(webhook("whk_two"), None, 1)
    await happens(store, session("ses_b"))
    assert await store.list_deliveries("whk_one", 10, 0) == ([], 0)
    assert len(await due(store, "whk_two")) == 1


# what is delivered


async def test_an_event_and_its_deliveries_are_stored_together(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    event = await happens(store, session())
    (one,) = await due(store)
    assert one.event == event
    assert (one.delivery.webhook, one.delivery.state, one.delivery.attempts) == ("whk_one", DeliveryState.PENDING, 0)
    assert one.delivery.due_at == event.time
    assert one.delivery.id.startswith("dlv_")


async def test_noted_events_are_delivered_too(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    store.note_events([told("evt_noted")])
    event = await happens(store, session())
    assert [each.event.id for each in await due(store)] == ["evt_noted", event.id]


async def test_a_webhook_gets_the_types_it_asked_for_of_its_own_account(store: Store) -> None:
    await store.add_webhook(webhook("whk_all"), None, 9)
    await store.add_webhook(webhook("whk_some", types=frozenset({EventType.SESSION_CREATED})), None, 9)
    await store.add_webhook(webhook("whk_none", types=frozenset({EventType.SESSION_IDLE})), None, 9)
    await store.add_webhook(webhook("whk_other", "acc_two"), None, 9)
    await store.add_webhook(webhook("whk_operator", EVERYONE), None, 9)
    await happens(store, session())
    await happens(store, session("ses_two", "acc_two"))
    counts = {name: len(await due(store, name)) for name in ("whk_all", "whk_some", "whk_none", "whk_other")}
    assert counts == {"whk_all": 1, "whk_some": 1, "whk_none": 0, "whk_other": 1}
    assert [each.event.account for each in await due(store, "whk_operator")] == ["acc_one", "acc_two"]


async def test_a_webhook_that_is_off_gets_nothing_and_goes_on_with_what_it_had(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    first = await happens(store, session("ses_a"))
    assert await store.change_webhook(webhook(), replace(webhook(), off="asked"))
    await happens(store, session("ses_b"))
    assert await due(store) == []
    assert await waiting(store) == []
    off = await store.get_webhook("whk_one")
    assert off is not None
    assert await store.change_webhook(off, replace(off, off=None))
    assert [each.event for each in await due(store)] == [first]


async def test_only_what_is_due_is_found_in_the_order_in_which_it_is_due(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    later = await happens(store, session("ses_a"), NOW + 10)
    now = await happens(store, session("ses_b"))
    assert [each.event for each in await due(store)] == [now]
    assert [each.event for each in await due(store, now=NOW + 10)] == [now, later]
    assert len(await due(store, now=NOW + 10, limit=1)) == 1
    assert await waiting(store, NOW - 1) == []
    assert await waiting(store) == ["whk_one"]


async def test_an_event_that_failed_once_holds_back_the_later_ones_of_its_session(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    first = await happens(store, session("ses_a"))
    store.note_events([replace(first, id="evt_second"), replace(first, id="evt_other", session="ses_c")])
    await happens(store, session("ses_b"))
    (one, *_) = await due(store)
    once = replace(one.delivery, attempts=1, due_at=NOW + 5, tried_at=NOW)
    assert await store.settle_delivery(once)
    assert [each.event.session for each in await due(store)] == ["ses_c", "ses_b"]
    assert [each.event.id for each in await due(store, now=NOW + 5)][-1] == first.id
    assert "evt_second" not in [each.event.id for each in await due(store, now=NOW + 5)]
    assert await store.settle_delivery(replace(once, attempts=2, due_at=NOW + 300))
    assert "evt_second" in [each.event.id for each in await due(store)]


async def test_webhooks_of_a_suspended_account_wait_until_it_is_resumed(store: Store) -> None:
    await store.add_account(Account("acc_one", "free", NOW))
    await store.add_webhook(webhook(), None, 1)
    await store.add_webhook(webhook("whk_operator", EVERYONE), None, 1)
    await happens(store, session())
    assert await store.set_account_status("acc_one", AccountStatus.SUSPENDED)
    assert await waiting(store) == ["whk_operator"]
    assert await store.set_account_status("acc_one", AccountStatus.ACTIVE)
    assert await waiting(store) == ["whk_one", "whk_operator"]


async def test_sessions_that_are_busy_take_no_place_from_others(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    first = await happens(store, session("ses_a"))
    store.note_events([replace(first, id=f"evt_{number}") for number in range(1100)])
    store.note_events([replace(first, id="evt_account", session=None)])
    last = await happens(store, session("ses_b"))
    found = [each.event.id for page in await pages(store, 100, {"ses_a"}) for each in page]
    assert found == ["evt_account", last.id]


async def test_what_is_due_comes_in_pages_of_which_each_goes_on_behind_the_last(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    first = await happens(store, session("ses_a"), NOW - 5)
    store.note_events([replace(first, id=f"evt_{number}", time=NOW - number % 3) for number in range(1200)])
    await happens(store, session("ses_b"))
    found = await pages(store, 100)
    assert max(map(len, found)) == 100
    order = [each.delivery.due_at for page in found for each in page]
    assert order == sorted(order)
    assert len({each.event.id for page in found for each in page}) == len(order) == 1202


async def test_a_webhook_has_other_news_when_something_of_its_own_is_due(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await store.add_webhook(webhook("whk_other", "acc_two"), None, 1)
    await happens(store, session())
    await happens(store, session("ses_b"), NOW + 5)
    (one,) = await due(store)
    seen: list[object] = []

    async def is_new(now: int = NOW) -> bool:
        seen.append((await store.waiting_webhooks(now)).get("whk_one"))
        return seen[-1] is not None and seen[-1] not in seen[:-1]

    assert await is_new()
    await happens(store, session("ses_two", "acc_two"))
    assert not await is_new()
    await store.settle_delivery(replace(one.delivery, attempts=2, due_at=NOW + 300, tried_at=NOW, failure="refused"))
    await happens(store, session("ses_c"))
    assert await is_new()
    assert await is_new(NOW + 5)
    assert await is_new(NOW + 300)
    assert await store.redeliver("whk_one", one.delivery.id, NOW)
    assert await is_new(NOW + 300)
    assert await store.change_webhook(webhook(), webhook())
    assert await is_new(NOW + 300)


async def test_a_test_goes_to_the_webhook_that_it_names_alone(store: Store) -> None:
    for name in ("whk_one", "whk_two"):
        await store.add_webhook(webhook(name, types=frozenset({EventType.SESSION_IDLE})), None, 2)
    await store.add_events([replace(told("evt_test"), data={"webhookId": "whk_two"})])
    assert await due(store, "whk_one") == []
    assert [each.event.id for each in await due(store, "whk_two")] == ["evt_test"]


async def test_a_change_is_told_when_it_is_stored(store: Store) -> None:
    calls: list[int] = []
    store.on_stored(lambda: calls.append(1))
    await store.add_webhook(webhook(), None, 1, (told("evt_a"),))
    assert calls


async def test_a_settled_delivery_is_due_again_when_it_says_so_or_never(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session())
    (one,) = await due(store)
    failed = replace(one.delivery, attempts=1, due_at=NOW + 5, tried_at=NOW, status=500, failure="500")
    assert await store.settle_delivery(failed)
    assert await due(store) == []
    assert await due(store, now=NOW + 5) == [EventDelivery(failed, one.event)]
    done = replace(failed, state=DeliveryState.DELIVERED, attempts=2, tried_at=NOW + 5, status=200, failure=None)
    assert await store.settle_delivery(done)
    assert await waiting(store, NOW + 9) == []
    assert await store.list_deliveries("whk_one", 10, 0) == ([EventDelivery(done, one.event)], 1)
    assert not await store.settle_delivery(replace(done, id="dlv_none"))
    assert not await store.settle_delivery(failed), "another host has sent it meanwhile"
    assert await store.list_deliveries("whk_one", 10, 0) == ([EventDelivery(done, one.event)], 1)


async def test_a_webhook_knows_since_when_it_fails(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session())
    (one,) = await due(store)

    async def since(tried_at: int, state: DeliveryState) -> int | None:
        await store.settle_delivery(replace(one.delivery, tried_at=tried_at, state=state))
        found = await store.get_webhook("whk_one")
        assert found is not None
        return found.failing_since

    assert await since(NOW, DeliveryState.PENDING) == NOW
    assert await since(NOW + 5, DeliveryState.FAILED) == NOW
    assert await since(NOW + 9, DeliveryState.DELIVERED) is None
    assert await since(NOW + 10, DeliveryState.PENDING) == NOW + 10


async def test_a_webhook_that_is_turned_on_again_begins_without_failures(store: Store) -> None:
    await store.add_webhook(FULL, None, 1)
    assert await store.change_webhook(FULL, replace(FULL, url="https://example.org"))
    found = await store.get_webhook(FULL.id)
    assert found is not None
    assert found.failing_since == FULL.failing_since
    assert await store.change_webhook(found, replace(found, off=None))
    found = await store.get_webhook(FULL.id)
    assert found is not None
    assert (found.off, found.failing_since) == (None, None)


async def test_deliveries_are_listed_newest_first_and_can_be_repeated(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    events = [await happens(store, session(f"ses_{n}")) for n in range(3)]
    page, total = await store.list_deliveries("whk_one", 2, 0)
    assert ([each.event for each in page], total) == ([events[2], events[1]], 3)
    assert [each.event for each in (await store.list_deliveries("whk_one", 2, 2))[0]] == [events[0]]
    given_up = replace(page[0].delivery, state=DeliveryState.FAILED, attempts=8, tried_at=NOW, failure="refused")
    await store.settle_delivery(given_up)
    assert await store.redeliver("whk_one", given_up.id, NOW + 50)
    again = replace(given_up, state=DeliveryState.PENDING, attempts=0, due_at=NOW + 50, redelivery=1)
    assert (await due(store, now=NOW + 50))[-1].delivery == again
    assert not await store.redeliver("whk_two", given_up.id, NOW)
    assert not await store.redeliver("whk_one", "dlv_none", NOW)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_pending_delivery_that_is_asked_for_again_stays_before_later_ones_of_its_session(
    store: Store, attempts: int
) -> None:
    await store.add_webhook(webhook(), None, 1)
    first = await happens(store, session("ses_a"))
    store.note_events([replace(first, id="evt_second", time=NOW + 1)])
    await happens(store, session("ses_b"), NOW + 2)
    (one, *_) = await due(store)
    await store.settle_delivery(replace(one.delivery, attempts=attempts, due_at=NOW + 5, tried_at=NOW))
    assert await store.redeliver("whk_one", one.delivery.id, NOW + 3)
    assert [each.event.id for each in await due(store, now=NOW + 3)][:2] == [first.id, "evt_second"]


async def test_no_page_of_deliveries_goes_past_the_total(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (testing, in_sqlite, in_postgres):
        monkeypatch.setattr(module, "MOST_LISTED", 3)
    await store.add_webhook(webhook(), None, 1)
    events = [await happens(store, session(f"ses_{number}")) for number in range(5)]
    for offset, shown in ((0, [4, 3, 2]), (2, [2]), (3, []), (4, [])):
        page, total = await store.list_deliveries("whk_one", 10, offset)
        assert ([each.event for each in page], total) == ([events[number] for number in shown], 3)


@pytest.mark.parametrize("state", DeliveryState)
async def test_an_attempt_does_not_settle_what_was_asked_for_again_meanwhile(
    store: Store, state: DeliveryState
) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session())
    for number in range(2):
        (one,) = await due(store)
        assert await store.redeliver("whk_one", one.delivery.id, NOW)
        ended = replace(one.delivery, state=state, attempts=1, due_at=NOW + 5, tried_at=NOW, failure="refused")
        assert not await store.settle_delivery(ended)
        (again,) = await due(store)
        assert again.delivery == replace(one.delivery, redelivery=number + 1)
    done = replace(again.delivery, state=DeliveryState.DELIVERED, attempts=1, tried_at=NOW)
    assert await store.settle_delivery(done)
    assert await due(store) == []
    found = await store.get_webhook("whk_one")
    assert found is not None
    assert found.failing_since is None


async def test_pending_deliveries_and_webhooks_that_are_off_are_counted(store: Store) -> None:
    assert await store.delivery_numbers() == DeliveryNumbers(0, {})
    for number, off in enumerate((None, None, "asked", "gone", "gone")):
        await store.add_webhook(replace(webhook(f"whk_{number}"), off=off), None, 9)  # type: ignore[arg-type]
    await happens(store, session("ses_a"))
    await happens(store, session("ses_b"))
    (one, _) = await due(store, "whk_0")
    await store.settle_delivery(replace(one.delivery, state=DeliveryState.DELIVERED, attempts=1, tried_at=NOW))
    assert await store.delivery_numbers() == DeliveryNumbers(3, {"asked": 1, "gone": 2})
    assert await store.change_webhook(webhook("whk_1"), replace(webhook("whk_1"), off="asked"))
    assert await store.delivery_numbers() == DeliveryNumbers(1, {"asked": 2, "gone": 2})


async def test_deliveries_go_with_their_events(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    await happens(store, session("ses_a"))
    kept = await happens(store, session("ses_b"), NOW + 5)
    await store.drop_events(NOW + 5, 100)
    page, total = await store.list_deliveries("whk_one", 10, 0)
    assert ([each.event for each in page], total) == ([kept], 1)


async def test_a_change_at_the_same_time_as_another_is_refused(store: Store) -> None:
    await store.add_webhook(webhook(), None, 1)
    changes = [store.change_webhook(webhook(), replace(webhook(), url=f"https://{n}.example")) for n in range(4)]
    assert sorted(await asyncio.gather(*changes)) == [False, False, False, True]
