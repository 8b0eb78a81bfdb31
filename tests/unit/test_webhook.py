"""When deliveries are tried, and where they may go."""

from ipaddress import ip_network

import pytest

from buntime.webhook import check_url, is_allowed, next_attempt, outcome_of, turns_off

DAY, HOUR = 86400, 3600


def test_eight_attempts_are_made_over_more_than_a_day() -> None:
    times, now = [], 0.0
    for attempts in range(8):
        due = next_attempt(attempts, now)
        assert due is not None
        times.append(due - now)
        now = due
    assert times == [0, 5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR]
    assert next_attempt(8, now) is None


@pytest.mark.parametrize(
    ("status", "success"),
    [(200, True), (204, True), (299, True), (301, False), (307, False), (410, False), (500, False)],
)
def test_only_2xx_is_a_success(status: int, success: bool) -> None:
    assert outcome_of(status).worked is success


def test_an_endpoint_is_off_after_five_days_of_failure() -> None:
    assert not turns_off(0, 5 * DAY - 1)
    assert turns_off(0, 5 * DAY)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "192.0.0.9", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "feff::1",
        "4000::1",
        "1::1",
        "fc00::1",
        "fd12::1",
        "ff0e::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2001::1",
        "localhost",
        "",
    ],
)
def test_no_other_address_is_allowed_in_any_spelling(address: str) -> None:
    assert not is_allowed(address)


def test_the_operator_allows_networks() -> None:
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("fd12::1", networks)
    assert not is_allowed("10.2.0.1", networks)
    assert not is_allowed("127.0.0.1", networks)


@pytest.mark.parametrize("url", ["https://example.com", "http://example.com:8080/a?b=c", "https://[2606:4700::1]/hook"])
def test_a_url_of_a_web_server_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@example.com",
        "https://user:password@example.com",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://bücher.example/",
        "https://[::1/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_no_other_url_is_taken(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|is|has)"):
        check_url(url)
