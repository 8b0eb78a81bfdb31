"""`/clients/`: a running server hands out its own clients."""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from buntime.admin.welcome import welcome
from buntime.config import Config
from buntime.preview import api_url
from buntime.web.built_clients import NPM_PACKAGE, WHEEL, ClientFile, client_files
from buntime.web.clients_page import short_lines
from tests.app.serving import Api, serving

FILES = (ClientFile(WHEEL, b"a wheel"), ClientFile(NPM_PACKAGE, b"a package"))
PATHS = ("/clients/", *(file.path for file in FILES))


@pytest.fixture
async def giving() -> AsyncIterator[Api]:
    async with serving(files=FILES) as running:
        yield running


async def test_a_client_without_a_key_gets_the_files_that_match_the_server(giving: Api) -> None:
    for file in FILES:
        answer = await giving.call("GET", file.path, key="")
        assert (answer.status, answer.body) == (200, file.content)
        assert answer.headers["Content-Type"] == file.media
        assert answer.headers["Content-Disposition"] == f"attachment; filename={file.name}"
        head = await giving.call("HEAD", file.path, key="")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(file.content))


async def test_an_installer_revalidates_what_it_has(giving: Api) -> None:
    tag = (await giving.call("GET", FILES[0].path, key="")).headers["ETag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        answer = await giving.call("GET", FILES[0].path, key="", If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "Content-Length" not in answer.headers
    assert (await giving.call("GET", FILES[1].path, key="", If_None_Match=tag)).status == 200


async def test_the_page_names_the_files_by_the_address_that_the_client_used(giving: Api) -> None:
    page = (await giving.call("GET", "/clients/", key="", Host="box.lan:8000")).body.decode()
    assert f"buntime-sdk[cli] @ http://box.lan:8000/clients/{WHEEL}" in page
    assert f"npm install http://box.lan:8000/clients/{NPM_PACKAGE}" in page
    for file in FILES:
        assert f'href="{file.path}"' in page
        assert hashlib.sha256(file.content).hexdigest() in page


async def test_the_page_runs_no_script_but_one_file_of_the_server(giving: Api) -> None:
    page = await giving.call("GET", "/clients/", key="")
    found = re.findall('<script src="([^"]+)" defer></script>', page.body.decode())
    assert len(found) == page.body.count(b"<script") == 1
    script = await giving.call("GET", found[0], key="")
    assert (script.status, script.headers["Content-Type"]) == (200, "text/javascript")
    assert "immutable" in script.headers["Cache-Control"]
    policy = page.headers["Content-Security-Policy"]
    assert policy.endswith("; script-src 'self'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["<script>", 'a"b', "a b", "a/b", "a:b", "x" * 300, "[::1", ""])
async def test_a_host_that_is_none_is_not_repeated(giving: Api, host: str) -> None:
    page = (await giving.call("GET", "/clients/", key="", Host=host)).body.decode()
    assert "http://localhost:8000/clients/" in page
    assert not host or host not in page.partition("<body>")[2]


async def test_a_server_with_a_domain_names_that() -> None:
    async with serving(files=FILES, domain="box.example") as running:
        page = (await running.call("GET", "/clients/", key="", Host="other.example")).body.decode()
    assert f"npm install https://box.example/clients/{NPM_PACKAGE}" in page
    assert "other.example" not in page


async def test_a_server_without_built_clients_says_how_to_build_them(api: Api) -> None:
    for path in PATHS:
        answer = await api.call("GET", path, key="")
        assert answer.refusal == (404, "not_found")
        assert "scripts/clients" in answer.error["message"]


@pytest.mark.parametrize(
    "path", ["/clients/../etc/passwd", "/clients/%2e%2e/%2e%2e/etc/passwd", "/clients//etc/passwd", "/clients/made-of"]
)
async def test_other_paths_are_unknown(giving: Api, path: str) -> None:
    answer = await giving.call("GET", path, key="")
    assert (answer.status, answer.error["message"]) == (404, "This path does not exist. See /docs.")


async def test_other_methods_are_refused(giving: Api) -> None:
    for path in PATHS:
        answer = await giving.call("DELETE", path, key="")
        assert answer.refusal == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_files_are_read_once(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"before")
    wheel, package = client_files(tmp_path)
    (tmp_path / WHEEL).write_bytes(b"after")
    assert (wheel.content, package.content) == (b"before", b"")


@pytest.mark.parametrize(
    ("config", "url"),
    [
        (Config(), "http://localhost:8000"),
        (Config(host="0.0.0.0", port=9000), "http://localhost:9000"),
        (Config(host="192.0.2.1"), "http://192.0.2.1:8000"),
        (Config(domain="box.example"), "https://box.example"),
        (Config(domain="box.example", tls_cert=Path("c"), tls_key=Path("k")), "https://box.example:8000"),
        (Config(domain="box.example", port=443, tls_cert=Path("c"), tls_key=Path("k")), "https://box.example"),
    ],
)
def test_the_welcome_installs_from_the_servers_true_address(config: Config, url: str) -> None:
    assert api_url(config) == url
    said = welcome(url, "btk_first", short_lines(url))
    assert f'\n  pip install "buntime-sdk[cli] @ {url}/clients/{WHEEL}"\n' in said
    assert f"\n  npm install {url}/clients/{NPM_PACKAGE}\n" in said
    assert f"\n  export BUNTIME_URL={url} BUNTIME_API_KEY=btk_first\n" in said
    assert re.findall(r"https?://[^/\s]+", said) == [url] * 6


def test_a_later_welcome_makes_a_key_of_this_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNTIME_DATA_DIR", "/var/my data")
    said = welcome("http://localhost:8000", None, ())
    assert re.search(r"BUNTIME_API_KEY=\$\(BUNTIME_DATA_DIR='/var/my data' \S*buntime keys create\)\n", said)


def test_the_welcome_installs_nothing_that_was_not_built() -> None:
    assert "install" not in welcome("http://localhost:8000", None, ())
