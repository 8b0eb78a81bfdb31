"""Host names of previews, and tokens in their URLs."""

from dataclasses import replace
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.preview import (
    PreviewAddress,
    address_of,
    hash_token,
    is_token,
    new_token,
    open_ports,
    preview_url,
    with_token,
    without_token,
)
from buntime.session import Preview

ID = "ses_abc123def456ghi789"
LABEL = "ses-abc123def456ghi789"


@pytest.mark.parametrize(
    ("host", "domain", "port"),
    [
        (f"{LABEL}.localhost:8000", "", 8080),
        (f"{LABEL}.localhost", "", 8080),
        (f"{LABEL}.localhost.", "", 8080),
        (f"{LABEL}-3000.localhost:8000", "", 3000),
        (f"{LABEL}-1024.localhost", "", 1024),
        (f"{LABEL}-65535.example.com", "example.com", 65535),
        (f"{LABEL.upper()}.Example.COM", "example.com", 8080),
    ],
)
def test_a_host_names_a_session_and_a_port(host: str, domain: str, port: int) -> None:
    assert address_of(host, domain) == PreviewAddress(ID, port)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        LABEL,
        f"{LABEL}.",
        f"{LABEL}.example.com",
        f"{LABEL}.localhost.example.com",
        f"x.{LABEL}.localhost",
        f"{LABEL}x.localhost",
        f"{LABEL[:-1]}.localhost",
        f"{LABEL.replace('-', '_')}.localhost",
        f"{LABEL}-.localhost",
        f"{LABEL}-80.localhost",
        f"{LABEL}-1023.localhost",
        f"{LABEL}-08080.localhost",
        f"{LABEL}-65536.localhost",
        f"{LABEL}-8080-1.localhost",
        f"{LABEL}.localhost:80/x",
        f"{LABEL}.localhost:80@example.com",
    ],
)
def test_any_other_host_names_nothing(host: str) -> None:
    assert address_of(host, "") is None


TLS = Config(domain="example.com", port=8443, tls_cert=Path("c"), tls_key=Path("k"))


@pytest.mark.parametrize("config", [Config(port=8123), Config(domain="example.com"), TLS])
@pytest.mark.parametrize("port", [8080, 3000])
def test_the_url_of_a_preview_names_its_session_and_port(config: Config, port: int) -> None:
    host = preview_url(ID, config, port).partition("://")[2]
    assert address_of(host, config.domain) == PreviewAddress(ID, port)


def test_previews_are_https_once_there_is_a_domain() -> None:
    assert preview_url(ID, Config(port=8123)) == f"http://{LABEL}.localhost:8123"
    assert preview_url(ID, Config(domain="example.com"), 3000) == f"https://{LABEL}-3000.example.com"


def test_a_server_with_its_own_certificate_names_its_port() -> None:
    assert preview_url(ID, TLS, 3000) == f"https://{LABEL}-3000.example.com:8443"
    assert preview_url(ID, replace(TLS, port=443)) == f"https://{LABEL}.example.com"


def test_private_previews_have_no_open_port() -> None:
    assert open_ports(Preview("public", (8080, 3000))) == {8080, 3000}
    assert open_ports(Preview("private", (8080, 3000))) == frozenset()


def test_tokens_differ_and_are_recognised() -> None:
    one, other = new_token(), new_token()
    assert one != other
    assert hash_token(one) != hash_token(other)
    assert is_token(one)
    assert not any(is_token(text) for text in ("", "bpt_", one[:-1], one + "0", "btk_" + one[4:], one[:-1] + "-"))


@pytest.mark.parametrize(
    ("uri", "seen", "token"),
    [
        ("/", "/", None),
        ("/a?b=1", "/a?b=1", None),
        ("/?buntime_token=t", "/", "t"),
        ("/a?buntime_token=t&b=%20&c", "/a?b=%20&c", "t"),
        ("/a?b=1&buntime_token=t", "/a?b=1", "t"),
        ("/?buntime_token=t&buntime_token=u", "/", "t"),
        ("/?buntime_token", "/", ""),
        ("/?xbuntime_token=t&buntime_tokens=u", "/?xbuntime_token=t&buntime_tokens=u", None),
        ("/buntime_token=t?a=?&buntime_token=t", "/buntime_token=t?a=?", "t"),
    ],
)
def test_the_token_is_taken_out_of_the_query_and_nothing_else_is_touched(uri: str, seen: str, token: str) -> None:
    assert without_token(uri) == (seen, token)


def test_a_link_brings_its_token() -> None:
    link = with_token(preview_url(ID, Config()), "bpt_x")
    assert without_token("/" + link.split("/", 3)[3]) == ("/", "bpt_x")
