"""Webhooks of an account, over HTTP."""

from dataclasses import replace
from typing import Any

import pytest

from buntime.account import AccountStatus
from buntime.operations.webhooks import WEBHOOKS
from buntime.scope import Scope
from buntime.webhook import DeliveryState, Webhook
from tests.app.serving import Answer, Api
from tests.waiting import eventually

URL = "https://example.com/hook"
NOBODY = "whk_000000000000000000"


async def make(api: Api, key: str | None = None, /, **fields: object) -> Answer:
    return await api.call("POST", "/webhooks/create", {"url": URL, **fields}, key=key)


async def made(api: Api, **fields: object) -> Any:
    answer = await make(api, **fields)
    assert answer.status == 200, answer.body
    return answer.json


async def patch(api: Api, webhook_id: str, **fields: object) -> Any:
    answer = await api.call("PATCH", f"/webhooks/{webhook_id}", fields)
    assert answer.status == 200, answer.body
    return answer.json


async def deliveries(api: Api, webhook_id: str, query: str = "") -> Any:
    answer = await api.call("GET", f"/webhooks/{webhook_id}/deliveries{query}")
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_new_webhook_shows_its_secret_once(api: Api) -> None:
    webhook = await made(api, events=["session.deleted", "session.created"])
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert webhook == {
        **{"webhookId": webhook["webhookId"], "url": URL, "events": ["session.created", "session.deleted"]},
        **{"enabled": True, "disabledReason": None, "failingSince": None, "oldSecretExpiresAt": None},
        "createdAt": "2024-01-19T10:30:00Z",
    }
    listed = await api.call("GET", "/webhooks")
    assert listed.json == {"webhooks": [webhook], "total": 1}
    found = await api.call("GET", f"/webhooks/{webhook['webhookId']}")
    assert found.json == webhook
    assert secret.encode() not in listed.body + found.body
    (stored,) = api.store.webhooks.values()
    assert secret not in repr(stored)


async def test_without_types_all_events_are_sent(api: Api) -> None:
    webhook = await made(api)
    session = await api.session()
    told = (await deliveries(api, webhook["webhookId"]))["deliveries"]
    assert [one["event"]["type"] for one in told] == ["session.created", "webhook.created"]
    assert told[0]["event"]["sessionId"] == session
    assert told[0] | {"event": None, "deliveryId": ""} == {
        **{"deliveryId": "", "event": None, "state": "pending", "attempts": 0, "lastAttemptAt": None},
        **{"nextAttemptAt": "2024-01-19T10:30:00Z", "status": None, "failure": None},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "ftp://example.com"),
        ("url", "https://"),
        ("url", "https://user:word@example.com"),
        ("url", "https://example.com/#part"),
        ("url", "https://exämple.com"),
        ("url", "https://example.com/a b"),
        ("url", "http://127.0.0.1:9000"),
        ("url", "http://[::1]/"),
        ("url", "http://169.254.169.254/latest"),
        ("url", "https://example.com/" + "x" * 2048),
        ("url", 7),
        ("events", []),
        ("events", ["everything"]),
        ("events", "session.created"),
        ("secret", "whsec_mine"),
    ],
)
async def test_a_wrong_field_is_named_and_makes_no_webhook(api: Api, field: str, value: object) -> None:
    refused = await make(api, **{field: value})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"]["field"].startswith(field)
    assert api.store.webhooks == {}


async def test_an_account_has_a_number_of_webhooks(api: Api) -> None:
    for _ in range(WEBHOOKS):
        await made(api)
    refused = await make(api)
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"] == {"resource": "webhooks", "limit": WEBHOOKS, "scope": "account", "plan": "paid"}
    assert (await make(api, await api.account(name="two"))).status == 200
    assert (await api.call("GET", "/account")).json["limits"]["webhooks"] == WEBHOOKS


async def test_a_repeated_request_makes_one_webhook_and_its_answer_is_sealed(api: Api) -> None:
    asked = ("POST", "/webhooks/create", {"url": URL})
    first, again = [await api.call(*asked, Idempotency_Key="once") for _ in range(2)]
    assert (first.json, again.headers["Idempotent-Replayed"]) == (again.json, "true")
    assert len(api.store.webhooks) == 1
    assert all(first.json["secret"].encode() not in answer.body for answer in api.store.answers.values())
    other = await api.key_with(Scope.ACCOUNT_WRITE)
    stolen = await api.call(*asked, key=other, Idempotency_Key="once")
    assert stolen.refusal == (422, "idempotency_key_reused")


async def test_a_webhook_is_changed_turned_off_and_on(api: Api) -> None:
    webhook = (await made(api, events=["session.idle"]))["webhookId"]
    changed = await patch(api, webhook, url="https://example.org", events=None)
    assert (changed["url"], changed["events"]) == ("https://example.org", None)
    off = await patch(api, webhook, enabled=False)
    assert (off["enabled"], off["disabledReason"], off["url"]) == (False, "asked", "https://example.org")
    await api.session()
    before = (await deliveries(api, webhook))["total"]
    assert (await patch(api, webhook, enabled=True))["disabledReason"] is None
    await api.session()
    assert (await deliveries(api, webhook))["total"] == before + 2  # webhook.changed and session.created
    refused = await api.call("PATCH", f"/webhooks/{webhook}", {"url": "http://10.0.0.1"})
    assert refused.refusal == (400, "invalid_request")


async def test_what_is_asked_again_is_told_as_the_endpoint_said_it(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    api.store.webhooks[webhook] = replace(api.store.webhooks[webhook], off="gone")
    assert (await patch(api, webhook, enabled=False))["disabledReason"] == "gone"


async def test_a_rotation_keeps_the_secret_before_for_a_while(api: Api) -> None:
    webhook = await made(api)
    rotated = await api.call("POST", f"/webhooks/{webhook['webhookId']}/rotate", {"overlap": 60})
    assert rotated.json["secret"] not in ("", webhook["secret"])
    assert rotated.json["oldSecretExpiresAt"] == "2024-01-19T10:31:00Z"
    at_once = await api.call("POST", f"/webhooks/{webhook['webhookId']}/rotate", {"overlap": 0})
    assert at_once.json["oldSecretExpiresAt"] is None
    assert len(api.store.webhooks[webhook["webhookId"]].secrets) == 1
    day = await api.call("POST", f"/webhooks/{webhook['webhookId']}/rotate")
    assert day.json["oldSecretExpiresAt"] == "2024-01-20T10:30:00Z"


async def test_a_test_event_goes_to_one_webhook(api: Api) -> None:
    one, other = await made(api, events=["session.idle"]), await made(api, events=["session.idle"])
    sent = await api.call("POST", f"/webhooks/{one['webhookId']}/test")
    told = await deliveries(api, one["webhookId"])
    assert [each["event"]["eventId"] for each in told["deliveries"]] == [sent.json["eventId"]]
    assert told["deliveries"][0]["event"]["type"] == "webhook.test"
    assert (await deliveries(api, other["webhookId"]))["total"] == 0


async def test_a_delivery_that_was_given_up_can_be_repeated(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    (delivery,) = (await deliveries(api, webhook))["deliveries"]
    numbered, stored = api.store.deliveries[delivery["deliveryId"]]
    failed = replace(stored, state=DeliveryState.FAILED, attempts=8, tried_at=stored.due_at, status=500, failure="500")
    api.store.deliveries[delivery["deliveryId"]] = (numbered, failed)
    (told,) = (await deliveries(api, webhook))["deliveries"]
    assert (told["state"], told["attempts"], told["nextAttemptAt"], told["status"]) == ("failed", 8, None, 500)
    again = await api.call("POST", f"/webhooks/{webhook}/deliveries/{told['deliveryId']}/redeliver")
    assert again.json == {"deliveryId": told["deliveryId"]}
    (told,) = (await deliveries(api, webhook))["deliveries"]
    assert (told["state"], told["attempts"]) == ("pending", 0)
    for unknown in ("dlv_000000000000000000", "nonsense"):
        refused = await api.call("POST", f"/webhooks/{webhook}/deliveries/{unknown}/redeliver")
        assert refused.refusal == (404, "delivery_not_found")


async def test_a_webhook_that_is_off_sends_no_test_and_repeats_nothing(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    (delivery,) = (await deliveries(api, webhook))["deliveries"]
    await patch(api, webhook, enabled=False)
    for path in ("test", f"deliveries/{delivery['deliveryId']}/redeliver"):
        assert (await api.call("POST", f"/webhooks/{webhook}/{path}")).refusal == (409, "invalid_state")


async def test_a_deleted_webhook_is_not_found(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    deleted = await api.call("DELETE", f"/webhooks/{webhook}")
    assert deleted.json == {"deleted": True, "webhookId": webhook}
    for name in (webhook, NOBODY, "whk_", "nonsense%00"):
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/deliveries"),
            ("POST", "/test"),
            ("POST", "/rotate"),
        ):
            assert (await api.call(method, f"/webhooks/{name}{path}")).refusal == (404, "webhook_not_found")
        assert (await api.call("PATCH", f"/webhooks/{name}", {})).refusal == (404, "webhook_not_found")


@pytest.mark.parametrize("keeps", [False, True])
async def test_what_a_deleted_webhook_leaves_is_removed_soon(api: Api, keeps: bool) -> None:
    """By the call itself. After a crash, by the keeper."""
    webhook = (await made(api))["webhookId"]
    other = (await made(api))["webhookId"]
    await api.session()
    if keeps:
        assert await api.store.remove_webhook(webhook)
        await api.keep(api.keeper())
    else:
        assert (await api.call("DELETE", f"/webhooks/{webhook}")).status == 200
    await eventually(lambda: {one.webhook for _, one in api.store.deliveries.values()} == {other})


async def test_an_account_sees_its_own_webhooks_alone_in_pages(api: Api) -> None:
    await make(api, await api.account(name="two"))
    for number in range(3):
        api.clock.now += 1
        await made(api, url=f"https://example.com/{number}")
    page = (await api.call("GET", "/webhooks?limit=2&offset=1")).json
    assert ([one["url"][-1] for one in page["webhooks"]], page["total"]) == (["1", "2"], 3)


async def test_who_changed_a_webhook_is_an_event_with_key_and_address(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    await patch(api, webhook, events=["session.idle"])
    await api.call("POST", f"/webhooks/{webhook}/rotate")
    await api.call("DELETE", f"/webhooks/{webhook}")
    told = (await api.call("GET", "/events")).json["events"]
    assert [one["type"] for one in told] == ["webhook.created", *["webhook.changed"] * 2, "webhook.deleted"]
    for one in told:
        by = {"actor": "key", "keyId": "key_one000000000", "address": "127.0.0.1"}
        assert one["data"] == {"webhookId": webhook, "by": by}
        assert one["requestId"] is not None


async def test_pages_of_deliveries_end_where_an_account_has_no_more_events(api: Api) -> None:
    webhook = (await made(api))["webhookId"]
    assert (await deliveries(api, webhook, "?offset=100000"))["deliveries"] == []
    refused = await api.call("GET", f"/webhooks/{webhook}/deliveries?offset=100001")
    assert (refused.status, refused.json["error"]["details"]["field"]) == (400, "offset")


async def test_an_account_that_is_deleted_meanwhile_gets_no_webhook(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    add = api.store.add_webhook

    async def deleted_before(webhook: Webhook, *rest: Any) -> None:
        await api.store.set_account_status(webhook.account, AccountStatus.DELETED)
        await add(webhook, *rest)

    monkeypatch.setattr(api.store, "add_webhook", deleted_before)
    assert (await make(api)).status == 401
    assert api.store.webhooks == {}
