from buntime.rates import Quota
from buntime.web.quota import STRANGER_LIMIT, counted_address
from tests.app.serving import START, Api, Clock


async def test_every_answer_to_a_key_has_rate_limit_headers_even_errors(api: Api) -> None:
    reset = str(int(START) // 60 * 60 + 60)
    for number, (path, status) in enumerate([("/sessions", 200), ("/sessions?limit=0", 400), ("/nothing", 404)]):
        answer = await api.call("GET", path)
        assert answer.status == status
        assert answer.headers["X-RateLimit-Limit"] == "1000"
        assert answer.headers["X-RateLimit-Remaining"] == str(999 - number)
        assert answer.headers["X-RateLimit-Reset"] == reset


async def test_requests_over_the_limit_are_refused_until_the_next_minute(api: Api) -> None:
    key = await api.account("free", "few", requests_per_minute=2)
    api.clock.now = START + 15
    assert [(await api.call("GET", "/sessions", key=key)).status for _ in range(2)] == [200, 200]
    answer = await api.call("GET", "/sessions", key=key)
    assert answer.refusal == (429, "rate_limit_exceeded")
    assert answer.error["retryable"] is True
    assert answer.headers["Retry-After"] == "45"
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert (await api.call("GET", "/sessions")).status == 200  # another key has its own count
    api.clock.now = START + 60
    assert (await api.call("GET", "/sessions", key=key)).status == 200


async def test_keys_that_an_account_makes_give_it_at_most_five_times_the_limit_of_one(api: Api) -> None:
    key = first = await api.account("free", "few", requests_per_minute=4)
    for number in range(10):
        made = await api.call("POST", "/keys/create", {}, key=key)
        assert made.status == 200
        key = made.json["key"]
        answer = await api.call("GET", "/sessions", key=key)
        assert (answer.status, answer.headers["X-RateLimit-Limit"]) == (200, "4")
        assert answer.headers["X-RateLimit-Remaining"] == str(min(3, 18 - 2 * number))
    for one in (key, first):
        answer = await api.call("GET", "/sessions", key=one)
        assert answer.refusal == (429, "rate_limit_exceeded")
        assert answer.error["details"]["limit"] == 20
        assert "Retry-After" in answer.headers
        assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert (await api.call("GET", "/sessions")).status == 200  # another account has its own count
    api.clock.now += 60
    assert (await api.call("GET", "/sessions", key=key)).status == 200


async def test_a_key_over_its_limit_takes_nothing_from_the_others_of_its_account(api: Api) -> None:
    key = await api.account("free", "few", requests_per_minute=1)
    other = (await api.call("POST", "/keys/create", {}, key=key)).json["key"]
    assert {(await api.call("GET", "/sessions", key=key)).status for _ in range(9)} == {429}
    assert (await api.call("GET", "/sessions", key=other)).status == 200


async def test_calls_without_a_valid_key_are_limited_only_for_their_address(api: Api) -> None:
    for _ in range(STRANGER_LIMIT):
        await api.call("GET", "/sessions", key="", X_Forwarded_For="6.6.6.6, 203.0.113.9")
    answer = await api.call("GET", "/sessions", key="", X_Forwarded_For="7.7.7.7, 203.0.113.9")
    assert answer.refusal == (429, "rate_limit_exceeded")
    assert "Retry-After" in answer.headers
    assert (await api.call("GET", "/sessions", key="", X_Forwarded_For="203.0.113.10")).status == 401
    assert (await api.call("GET", "/sessions", X_Forwarded_For="203.0.113.9")).status == 200  # it has a valid key


def test_a_new_minute_forgets_all_counts() -> None:
    clock = Clock()
    quota = Quota(clock)
    for name in ("a", "b"):
        assert quota.take(name, 1).allowed
    clock.now += 60
    assert quota.take("a", 1).remaining == 0
    assert len(quota._counts) == 1


def test_addresses_are_counted_as_the_edge_names_them() -> None:
    assert counted_address(b"1.1.1.1, 2.2.2.2", "127.0.0.1") == "2.2.2.2"
    assert counted_address(b"nonsense", "127.0.0.1") == "127.0.0.1"
    assert counted_address(None, "unknown") == "unknown"
    assert counted_address(b"::ffff:9.9.9.9", "") == "9.9.9.9"
    assert counted_address(b"2001:db8:1:2:3::4", "") == counted_address(b"2001:db8:1:2:9::1", "") == "2001:db8:1:2::/64"
