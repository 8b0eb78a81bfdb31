import pytest

from buntime.account import AccountStatus, new_key_secret
from tests.app.serving import Api

REFUSED = (401, "unauthorized")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer btk_short",
        "Basic dXNlcjpwYXNz",
        "btk_0123",
        "Bearer btk_\u00e9" + "0" * 37,
        pytest.param("Bearer " + new_key_secret() + " more", id="a key and more"),
        pytest.param("Bearer " + new_key_secret(), id="a key of nobody"),
        "Bearer btk_" + "0" * 38,
    ],
)
async def test_an_invalid_key_is_unauthorized(api: Api, header: str) -> None:
    answer = await api.call("GET", "/sessions", key="", Authorization=header)
    assert answer.refusal == REFUSED
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "X-RateLimit-Limit" not in answer.headers


async def test_a_call_without_a_key_is_unauthorized(api: Api) -> None:
    assert (await api.call("GET", "/sessions", key="")).refusal == REFUSED


async def test_two_authorization_headers_are_unauthorized(api: Api) -> None:
    headers = [("Authorization", f"Bearer {api.key}"), ("Authorization", f"Bearer {api.key}")]
    async with api.http.get(api.url + "/sessions", headers=headers) as answer:
        assert answer.status == 401


async def test_the_scheme_is_case_insensitive(api: Api) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        answer = await api.call("GET", "/sessions", key="", Authorization=f"{scheme} {api.key}")
        assert answer.status == 200


async def test_a_revoked_key_is_unauthorized_at_once(api: Api) -> None:
    await api.store.revoke_key("key_one000000000", 1)
    assert (await api.call("GET", "/sessions")).refusal == REFUSED


async def test_the_key_is_checked_before_the_method_the_query_and_the_body(api: Api) -> None:
    for method, path in [("PUT", "/sessions"), ("GET", "/sessions?x=1"), ("POST", "/execute"), ("OPTIONS", "/execute")]:
        assert (await api.call(method, path, b"{", key="")).refusal == REFUSED


async def test_a_suspended_account_is_forbidden_and_counted(api: Api) -> None:
    await api.store.set_account_status("acc_one0000000000000", AccountStatus.SUSPENDED)
    answer = await api.call("GET", "/sessions")
    assert answer.refusal == (403, "forbidden")
    assert answer.headers["X-RateLimit-Remaining"] == "999"


async def test_a_deleted_account_is_unauthorized(api: Api) -> None:
    await api.store.set_account_status("acc_one0000000000000", AccountStatus.DELETED)
    assert (await api.call("GET", "/sessions")).refusal == REFUSED


async def test_an_unknown_path_is_not_found_with_and_without_a_key(api: Api) -> None:
    with_key = await api.call("GET", "/nothing")
    assert with_key.refusal == (404, "not_found")
    assert with_key.headers["X-RateLimit-Limit"] == "1000"
    assert (await api.call("POST", "/sessions/", {}, key="")).refusal == (404, "not_found")
    assert (await api.call("GET", "/nothing", key="btk_bad")).refusal == REFUSED


async def test_a_wrong_method_is_405_and_the_answer_names_the_allowed_ones(api: Api) -> None:
    answer = await api.call("PUT", "/sessions/ses_abc123def456ghi789")
    assert answer.refusal == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


async def test_options_lists_the_methods(api: Api) -> None:
    answer = await api.call("OPTIONS", "/execute")
    assert (answer.status, answer.headers["Allow"], answer.body) == (204, "OPTIONS, POST", b"")


async def test_head_is_a_get_without_its_body(api: Api) -> None:
    whole, head = await api.call("GET", "/sessions"), await api.call("HEAD", "/sessions")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))
