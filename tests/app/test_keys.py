"""Keys of an account, over HTTP: what they may do, when they end, and what no key can make."""

from typing import Any

import pytest

from buntime.operations.keys import KEYS
from buntime.scope import ACCOUNT_SCOPES, Scope, in_order
from tests.app.serving import START, Answer, Api

ALL = [scope.value for scope in in_order(ACCOUNT_SCOPES)]
OWN = "key_one000000000"


async def make(api: Api, key: str | None = None, /, **fields: object) -> Answer:
    return await api.call("POST", "/keys/create", fields, key=key)


async def made(api: Api, key: str | None = None, /, **fields: object) -> Any:
    answer = await make(api, key, **fields)
    assert answer.status == 200, answer.body
    return answer.json


async def status_with(api: Api, key: str) -> int:
    return (await api.call("GET", "/sessions", key=key)).status


async def test_a_new_key_works_and_its_secret_is_shown_once(api: Api) -> None:
    key = await made(api, name="ci", scopes=["sessions:read"], expiresIn=3600)
    secret = key.pop("key")
    assert await status_with(api, secret) == 200
    assert secret.startswith(key["hint"])
    listed = await api.call("GET", "/keys")
    assert listed.json["keys"][-1] == key | {
        **{"name": "ci", "scopes": ["sessions:read"]},
        **{"createdAt": "2024-01-19T10:30:00Z", "expiresAt": "2024-01-19T11:30:00Z"},
    }
    assert secret.encode() not in listed.body


async def test_the_account_says_what_the_plan_allows_what_is_in_use_and_which_key_asks(api: Api) -> None:
    await api.session()
    key = await made(api, name="ci", scopes=["account:read"], expiresIn=60)
    account = (await api.call("GET", "/account", key=key["key"])).json
    assert (account["accountId"], account["plan"]) == ("acc_one0000000000000", "paid")
    assert (account["limits"]["sessions"], account["limits"]["mostResourceLimits"]["memory"]) == (100, 4096)
    assert account["usage"] == {"sessions": 1, "snapshots": 0, "images": 0}
    assert account["key"] == {name: key[name] for name in ("keyId", "name", "scopes", "expiresAt")}


async def test_the_numbers_of_an_account_of_its_own_are_shown(api: Api) -> None:
    other = await api.account("free", "two", sessions=7)
    account = (await api.call("GET", "/account", key=other)).json
    assert (account["plan"], account["limits"]["sessions"], account["usage"]["sessions"]) == ("free", 7, 0)
    assert account["limits"]["maySetResourceLimits"] is False


async def test_a_key_without_named_scopes_and_end_has_those_of_its_maker(api: Api) -> None:
    assert (await made(api))["scopes"] == ALL
    maker = await made(api, scopes=["account:write", "sessions:read"], expiresIn=3600)
    child = await made(api, maker["key"])
    assert child["scopes"] == ["sessions:read", "account:write"]
    assert (child["name"], child["expiresAt"]) == (None, maker["expiresAt"])


async def test_a_key_cannot_make_one_with_more_scopes(api: Api) -> None:
    maker = await api.key_with(Scope.ACCOUNT_WRITE, Scope.SESSIONS_READ)
    refused = await make(api, maker, scopes=["sessions:read", "sessions:write"])
    assert (refused.refusal, refused.error["details"]) == ((403, "forbidden"), {"scope": "sessions:write"})
    assert (await make(api, maker, scopes=["sessions:read"])).status == 200


async def test_no_key_makes_a_key_of_the_operator_nor_one_that_has_become_one(api: Api) -> None:
    operator = await api.key_with(*Scope)
    for maker in (api.key, operator):
        refused = await make(api, maker, scopes=["operator"])
        assert (refused.refusal, refused.error["details"]) == ((403, "forbidden"), {"scope": "operator"})
    assert (await made(api, operator))["scopes"] == ALL


async def test_a_key_cannot_make_one_that_ends_later(api: Api) -> None:
    maker = (await made(api, expiresIn=3600))["key"]
    api.clock.now += 600
    refused = await make(api, maker, expiresIn=3001)
    assert (refused.refusal, refused.error["details"]) == ((403, "forbidden"), {"limit": 3000})
    assert (await made(api, maker, expiresIn=3000))["expiresAt"] == "2024-01-19T11:30:00Z"


async def test_an_expired_key_is_refused_at_once_as_an_unknown_one_is(api: Api) -> None:
    key = (await made(api, expiresIn=60))["key"]
    api.clock.now = START + 59
    assert await status_with(api, key) == 200
    api.clock.now = START + 60
    refused, unknown = [await api.call("GET", "/sessions", key=one) for one in (key, "btk_" + "0" * 32 + "0RDXIc")]
    assert refused.refusal == unknown.refusal == (401, "unauthorized")
    assert "X-RateLimit-Limit" not in refused.headers
    assert (await api.call("GET", "/keys")).json["total"] == 1


async def test_a_revoked_key_is_refused_at_once_and_not_listed(api: Api) -> None:
    key = await made(api)
    assert await status_with(api, key["key"]) == 200
    revoked = await api.call("DELETE", f"/keys/{key['keyId']}")
    assert revoked.json == {"deleted": True, "keyId": key["keyId"]}
    assert await status_with(api, key["key"]) == 401
    assert [listed["keyId"] for listed in (await api.call("GET", "/keys")).json["keys"]] == [OWN]
    assert (await api.call("DELETE", f"/keys/{key['keyId']}")).refusal == (404, "key_not_found")


async def test_the_operator_sees_its_revoked_keys_and_who_made_the_others(api: Api) -> None:
    last = (await made(api))["keyId"]
    assert (await api.call("DELETE", f"/keys/{OWN}")).status == 200
    maker = await api.key_with(Scope.ACCOUNT_WRITE)
    for _ in range(KEYS + 2):
        made_by = await made(api, maker)
        assert (await api.call("DELETE", f"/keys/{made_by['keyId']}", key=maker)).status == 200
    assert api.store.keys[OWN].revoked_at is not None
    assert api.store.keys[last].maker == OWN
    assert sum(key.revoked_at is not None for key in api.store.keys.values()) <= KEYS + 2


async def test_a_key_can_revoke_itself_and_what_it_made_stays(api: Api) -> None:
    child = await made(api)
    assert (await api.call("DELETE", f"/keys/{OWN}")).status == 200
    assert (await status_with(api, api.key), await status_with(api, child["key"])) == (401, 200)


@pytest.mark.parametrize("name", ["key_none00000000", "key_", "nonsense%00", "btk_" + "0" * 38])
async def test_an_unknown_key_is_not_found(api: Api, name: str) -> None:
    assert (await api.call("DELETE", f"/keys/{name}")).refusal == (404, "key_not_found")


async def test_an_expired_key_cannot_be_revoked(api: Api) -> None:
    key = await made(api, expiresIn=60)
    api.clock.now += 60
    assert (await api.call("DELETE", f"/keys/{key['keyId']}")).refusal == (404, "key_not_found")


async def test_an_account_lists_its_own_keys_alone_in_pages(api: Api) -> None:
    await api.account(name="two")
    for number in range(3):
        api.clock.now += 1
        await made(api, name=str(number))
    page = (await api.call("GET", "/keys?limit=2&offset=1")).json
    assert ([key["name"] for key in page["keys"]], page["total"]) == (["0", "1"], 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "a\x1b[2J"),
        ("name", "two\nlines"),
        ("scopes", []),
        ("scopes", ["everything"]),
        ("scopes", "sessions:read"),
        ("scopes", None),
        ("expiresIn", 0),
        ("expiresIn", -1),
        ("expiresIn", 1.5),
        ("expiresIn", None),
        ("expiresIn", 10**12),
        ("account", "acc_two0000000000000"),
    ],
)
async def test_a_wrong_field_is_named_and_makes_no_key(api: Api, field: str, value: object) -> None:
    refused = await make(api, **{field: value})
    assert refused.refusal == (400, "invalid_request")
    assert refused.error["details"]["field"].startswith(field)
    assert len(api.store.keys) == 1


async def test_an_account_has_a_number_of_valid_keys(api: Api) -> None:
    keys = [await made(api, expiresIn=60) for _ in range(KEYS - 1)]
    refused = await make(api)
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"] == {"resource": "keys", "limit": KEYS, "scope": "account", "plan": "paid"}
    await api.call("DELETE", f"/keys/{keys[0]['keyId']}")
    assert (await make(api)).status == 200
    api.clock.now += 60
    assert (await make(api)).status == 200


async def test_a_repeated_request_makes_one_key_and_shows_its_secret_to_its_maker_again(api: Api) -> None:
    first, again = [await api.call("POST", "/keys/create", {"name": "ci"}, Idempotency_Key="once") for _ in range(2)]
    assert (first.json, again.headers["Idempotent-Replayed"]) == (again.json, "true")
    assert len(api.store.keys) == 2
    assert all(first.json["key"].encode() not in answer.body for answer in api.store.answers.values())


async def test_another_key_cannot_get_a_secret_by_repeating_the_request(api: Api) -> None:
    await api.call("POST", "/keys/create", {"name": "ci"}, Idempotency_Key="once")
    other = await api.key_with(Scope.ACCOUNT_WRITE)
    stolen = await api.call("POST", "/keys/create", {"name": "ci"}, key=other, Idempotency_Key="once")
    assert stolen.refusal == (422, "idempotency_key_reused")
