"""`/` and `/docs`, as browsers and programs get them."""

import gzip
import json
import re
from pathlib import Path

import pytest

from buntime import look
from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.assets import copy_script
from buntime.web.docs_page import docs_policy, render_docs
from buntime.web.openapi import document
from buntime.web.viewer import Viewer, assets, load
from tests.app.serving import Api

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
SCRIPT = "window.started = true;" * 1000


@pytest.fixture
def viewer(tmp_path: Path) -> Viewer:
    """A viewer with a script of our own."""
    (tmp_path / "scalar.js.gz").write_bytes(gzip.compress(SCRIPT.encode()))
    for name in ("docs.css", "start.js"):
        (tmp_path / name).write_text("")
    found = load(tmp_path)
    assert found
    return found


def rendered(viewer: Viewer | None) -> str:
    return render_docs(document(OPERATIONS, openapi_pages()), viewer, "nonce")


def policy_of(headers: dict[str, str], name: str) -> list[str]:
    directives = [directive.split() for directive in headers["Content-Security-Policy"].split(";")]
    return next(sources for key, *sources in directives if key == name)


async def test_a_browser_gets_a_page_that_links_to_everything(api: Api) -> None:
    answer = await api.call("GET", "/", key="", Accept=HTML)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert set(re.findall('<a href="([^"]+)"', page)) == {"/docs", "/clients/", "/openapi.json", "/healthz"}
    assert re.findall("<script ([^>]*)>", page) == [f'src="{copy_script().path}" defer']
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


async def test_each_page_of_the_server_has_the_same_icon_in_itself(api: Api) -> None:
    for path in ("/", "/docs"):
        answer = await api.call("GET", path, key="", Accept=HTML)
        assert look.ICON in answer.body.decode(), path
        assert "data:" in policy_of(dict(answer.headers), "img-src")


async def test_a_program_gets_the_links_as_json(api: Api) -> None:
    for accept in ("*/*", "application/json", ""):
        answer = await api.call("GET", "/", key="", Accept=accept)
        assert answer.status == 200
        assert answer.headers["Vary"] == "Accept"
        assert {name: answer.json[name] for name in ("name", "docs", "clients")} == {
            "name": "buntime",
            "docs": "/docs",
            "clients": "/clients/",
        }


async def test_the_landing_page_has_commands_for_the_address_that_the_browser_used(api: Api) -> None:
    page = await api.call("GET", "/", key="", Accept=HTML, Host="sandbox.example.com:8443", X_Forwarded_Proto="https")
    assert b"export BUNTIME_URL=https://sandbox.example.com:8443 " in page.body
    page = await api.call("GET", "/", key="", Accept=HTML, Host="[2001:db8::1]:8000")
    assert b"export BUNTIME_URL=http://[2001:db8::1]:8000 " in page.body


@pytest.mark.parametrize("host", ["$(reboot)", "a;b", "a/b", "<b>", "a'b", "x" * 300])
async def test_the_landing_page_never_repeats_a_host_that_is_none(api: Api, host: str) -> None:
    page = await api.call("GET", "/", key="", Accept=HTML, Host=host)
    assert page.status == 200
    assert host.encode() not in page.body


async def test_the_docs_run_no_script_but_the_servers_own_files(api: Api) -> None:
    answer = await api.call("GET", "/docs", key="", Accept=HTML)
    assert answer.status == 200
    scripts = re.findall("<script([^>]*)>(.*?)</script>", answer.body.decode())
    assert all(re.fullmatch(r' src="/docs/[\w.-]+"( defer)?', attributes) for attributes, _ in scripts)
    assert all(text == "" for _, text in scripts)
    assert "unsafe-eval" not in answer.headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in (policy_of(dict(answer.headers), "script-src" if scripts else "default-src"))


async def test_files_of_the_docs_are_kept_by_browsers_and_small_on_the_way(api: Api) -> None:
    for asset in assets():
        answer = await api.call("GET", asset.path, key="", Accept_Encoding="gzip")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.body == asset.body, "the client unpacks it"
        assert (await api.call("POST", asset.path, key="")).refusal == (405, "method_not_allowed")


def test_a_script_is_packed_for_clients_that_can_unpack_it(viewer: Viewer) -> None:
    packed = viewer.script.reply("br, gzip")
    assert gzip.decompress(packed.body) == SCRIPT.encode()
    assert (b"content-encoding", b"gzip") in packed.headers
    assert viewer.script.reply("").body == SCRIPT.encode()
    assert all(name != b"content-encoding" for name, _ in viewer.script.reply("").headers)


def test_the_page_with_a_viewer_loads_its_files(viewer: Viewer) -> None:
    page = rendered(viewer)
    for asset in (viewer.style, viewer.script, viewer.start):
        assert f'"{asset.path}"' in page


@pytest.mark.parametrize("shown", ["with a viewer", "without"])
def test_the_docs_list_every_operation_without_scripts(viewer: Viewer, shown: str) -> None:
    page = rendered(viewer if shown == "with a viewer" else None)
    for path, methods in document(OPERATIONS, openapi_pages())["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page


def test_the_docs_lead_to_the_other_pages_without_scripts() -> None:
    assert {"/", "/clients/", "/openapi.json"} <= set(re.findall('<a href="([^"]+)"', rendered(None)))


def test_without_the_viewers_files_the_page_has_no_script(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert "<script" not in rendered(None)
    assert "script-src" not in docs_policy(None, "nonce")


def test_the_viewer_is_pinned_by_its_lock_file() -> None:
    folder = Path(__file__).parents[2] / "src/buntime/web/viewer"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        entry = locked[f"node_modules/{name}"]
        assert entry["version"] == version
        assert entry["integrity"].startswith("sha512-")
