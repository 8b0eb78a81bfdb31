"""What `buntime forward` changes in the head of a request."""

from urllib.parse import urlsplit

import pytest
from buntime_cli.commands.forward_relay import HeadRefused, carried_head, is_unauthorized
from buntime_cli.commands.forwarding import _parsed
from typer import BadParameter

PREVIEW = urlsplit("https://ses-1.box.example:8443")


def carried(*lines: str) -> list[str]:
    head = "\r\n".join(lines) + "\r\n\r\n"
    return carried_head(head.encode("latin-1"), PREVIEW, "bpt_t").decode("latin-1").split("\r\n")[:-2]


def test_a_request_names_the_preview_and_brings_the_token() -> None:
    assert carried("GET /a?b=c HTTP/1.1", "Host: localhost:3000", "Accept: */*", "Connection: keep-alive") == [
        *("GET /a?b=c HTTP/1.1", "Host: ses-1.box.example:8443", "X-Preview-Token: bpt_t"),
        *("Connection: close", "Accept: */*"),
    ]


def test_a_websocket_stays_an_upgrade() -> None:
    lines = ("GET / HTTP/1.1", "Host: 127.0.0.1:3000", "Connection: keep-alive, Upgrade", "Upgrade: websocket")
    assert carried(*lines)[3:] == ["Connection: Upgrade", "Upgrade: websocket"]


def test_a_clients_own_token_is_replaced() -> None:
    assert "bpt_theirs" not in "".join(carried("GET / HTTP/1.1", "Host: localhost", "x-preview-TOKEN: bpt_theirs"))


def test_the_local_address_of_a_page_becomes_the_previews() -> None:
    lines = ("POST / HTTP/1.1", "Host: localhost:3000", "Origin: http://localhost:3000")
    assert carried(*lines, "Referer: http://localhost:3000/p")[4:] == [
        "Origin: https://ses-1.box.example:8443",
        "Referer: https://ses-1.box.example:8443/p",
    ]
    assert carried(*lines[:2], "Origin: http://localhost:30001")[4:] == ["Origin: http://localhost:30001"]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("GET / HTTP/1.1", "Host: evil.example"), "421"),  # a web page whose name leads to this machine
        (("GET / HTTP/1.1", "Host: localhost.evil.example:3000"), "421"),
        (("GET / HTTP/1.1",), "421"),
        (("GET http://localhost/ HTTP/1.1", "Host: localhost"), "400"),
        (("\x16\x03\x01",), "400"),
    ],
)
def test_a_request_that_is_not_for_the_local_port_is_refused(lines: tuple[str, ...], status: str) -> None:
    with pytest.raises(HeadRefused, match=status):
        carried(*lines)


def test_only_the_servers_refusal_means_that_the_token_is_wrong() -> None:
    assert is_unauthorized(b"HTTP/1.1 401 Unauthorized\r\nX-Preview-Error: unauthorized\r\n\r\n")
    assert not is_unauthorized(b"HTTP/1.1 401 Unauthorized\r\n\r\nx\r\nX-Preview-Error: a program's\r\n\r\n")
    assert not is_unauthorized(b"HTTP/1.1 200 OK\r\nX-Preview-Error: unauthorized\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "ports"), [("8080", (8080, 8080)), ("8080:3000", (8080, 3000)), ("8080:0", (8080, 0))]
)
def test_ports_are_the_sessions_and_the_local_one(text: str, ports: tuple[int, int]) -> None:
    assert _parsed(text) == ports


@pytest.mark.parametrize("text", ["", "a", "8080:", ":3000", "8080:70000", "1:2:3", "-1"])
def test_other_words_are_wrong_usage(text: str) -> None:
    with pytest.raises(BadParameter):
        _parsed(text)
