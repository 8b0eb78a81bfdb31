"""`buntime login` and the server that a command talks to."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest
from buntime_cli.app import app
from buntime_cli.servers import (
    Access,
    Servers,
    ServersUnreadable,
    access_to,
    keep_servers,
    kept_servers,
    servers_file,
)
from buntime_sdk import Buntime
from typer.testing import CliRunner, Result

LOCAL, PROD = "http://localhost:8000", "https://box.example"
KEPT = Servers({"local": Access(LOCAL, "btk_local"), "prod": Access(PROD, "btk_prod")}, "prod")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("BUNTIME_URL", "BUNTIME_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def access(name: str | None = None, **variables: str) -> Access:
    return access_to(name, {"XDG_CONFIG_HOME": str(servers_file().parents[1]), **variables})


def test_without_anything_it_is_the_server_of_this_machine_without_a_key() -> None:
    assert access() == Access(LOCAL, "")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, Access(PROD, "btk_prod")),
        ({"BUNTIME_API_KEY": "btk_mine"}, Access(LOCAL, "btk_mine")),
        ({"BUNTIME_API_KEY": "btk_mine", "BUNTIME_URL": "http://other"}, Access("http://other", "btk_mine")),
        ({"BUNTIME_URL": f"{LOCAL}/"}, Access(LOCAL, "btk_local")),
        ({"BUNTIME_URL": "http://other"}, Access("http://other", "")),
    ],
)
def test_the_environment_wins_and_a_kept_key_goes_to_its_own_server_only(
    variables: Mapping[str, str], found: Access
) -> None:
    keep_servers(KEPT)
    assert access(**variables) == found


def test_a_named_server_is_used_unless_the_environment_has_another() -> None:
    keep_servers(KEPT)
    assert access("local") == Access(LOCAL, "btk_local")
    with pytest.raises(ServersUnreadable, match="BUNTIME_URL is set and wins over --server local"):
        access("local", BUNTIME_URL=PROD)
    with pytest.raises(ServersUnreadable, match=r"There is no server nowhere\. Add it with: buntime login nowhere"):
        access("nowhere")


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    servers_file().parent.mkdir()
    servers_file().write_text("{}")
    servers_file().chmod(0o644)
    file = keep_servers(KEPT)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert kept_servers() == KEPT


@pytest.mark.parametrize("content", ["", "[]", '{"servers": {"a": 1}}', '{"servers": {"a": {"url": "x"}}}'])
def test_a_damaged_file_is_named(content: str) -> None:
    servers_file().parent.mkdir()
    servers_file().write_text(content)
    with pytest.raises(ServersUnreadable, match=r"is damaged\. Delete it and log in again"):
        kept_servers()


def answers(status: int) -> httpx2.MockTransport:
    refused = {"error": {"code": "unauthorized", "message": "The key is wrong.", "retryable": False, "details": {}}}
    return httpx2.MockTransport(
        lambda _: httpx2.Response(status, json=refused if status == 401 else {"sessions": [], "total": 0})
    )


def logs_in(*words: str, status: int = 200, typed: str = "btk_secret\n") -> Result:
    with Buntime("btk_secret", transport=answers(status), max_retries=0) as client:
        return CliRunner().invoke(app, ["login", *words], obj=client, input=typed)


def test_login_keeps_the_server_and_never_shows_the_key() -> None:
    done = logs_in("prod", "--url", f"{PROD}/")
    assert done.exit_code == 0, done.stderr
    assert kept_servers() == Servers({"prod": Access(PROD, "btk_secret")}, "prod")
    listed = CliRunner().invoke(app, ["servers"])
    assert f"prod  yes      {PROD}" in listed.stdout
    assert "btk_secret" not in done.output + listed.output + repr(kept_servers())
    assert json.loads(CliRunner().invoke(app, ["servers", "--json"]).stdout) == [
        {"name": "prod", "url": PROD, "default": True}
    ]


def test_login_with_a_key_that_the_server_refuses_keeps_nothing() -> None:
    done = logs_in(status=401)
    assert done.exit_code == 1
    assert "does not accept this key, so nothing was kept" in done.stderr
    assert not servers_file().exists()


def test_login_without_a_key_is_refused() -> None:
    done = logs_in(typed="")
    assert (done.exit_code, done.stderr) == (1, "buntime: There is no API key on the standard input.\n")


def test_logout_forgets_the_server() -> None:
    keep_servers(KEPT)
    assert CliRunner().invoke(app, ["logout", "prod"]).exit_code == 0
    assert kept_servers() == Servers({"local": Access(LOCAL, "btk_local")}, "local")
    assert "There is no server prod." in CliRunner().invoke(app, ["logout", "prod"]).stderr
