"""`buntime keys`: an account's keys, and beside them what a server's operator can do."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from buntime_cli.commands import keys
from buntime_sdk.testing import FakeBuntime
from typer.core import TyperGroup

from tests.unit.test_commands_snapshots import is_refused, prints, runs


def test_a_key_is_printed_alone_and_is_listed_without_its_secret() -> None:
    fake = FakeBuntime()
    wanted = ("--name", "ci", "--scope", "sessions:write", "--scope", "account:read", "--expires", "2h")
    done = runs(fake, "keys", "create", *wanted)
    secret = done.stdout.rstrip("\n")
    assert re.fullmatch(r"btk_\w+", secret)
    assert secret not in done.stderr
    assert "sessions:write, account:read" in done.stderr
    shown = prints(fake, "keys", "list")
    assert secret not in shown
    assert shown.splitlines()[0].split() == ["KEY", "ID", "CREATED", "EXPIRES", "SCOPES", "NAME"]
    assert re.search(r"key_\w+ .*Z +sessions:write,account:read +ci$", shown, re.M)
    ci = json.loads(prints(fake, "keys", "list", "--json"))[1]
    assert (ci["name"], ci["scopes"]) == ("ci", ["sessions:write", "account:read"])


def test_a_key_is_revoked_by_its_id_and_its_secret_is_never_sent_for_that() -> None:
    fake = FakeBuntime()
    made = json.loads(prints(fake, "keys", "create", "--json"))
    sent = len(fake.requests)
    assert "Give the key's id" in is_refused(fake, "keys", "revoke", made["key"], status=2)
    assert len(fake.requests) == sent
    assert json.loads(prints(fake, "keys", "revoke", made["keyId"], "--json")) == {"id": made["keyId"], "revoked": True}
    assert "No key with this id" in is_refused(fake, "keys", "revoke", made["keyId"])


@pytest.mark.parametrize("words", [("--scope", "everything"), ("--expires", "soon")])
def test_wrong_options_of_a_new_key_are_named(words: tuple[str, ...]) -> None:
    assert words[1] in is_refused(FakeBuntime(), "keys", "create", *words, status=2)


class Beside:
    """Stands for the commands of a server that is installed beside."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.keys = TyperGroup(name="keys", commands={name: self._command(name) for name in ("create", "list")})
        self.keys.add_command(self._command("revoke"), "revoke")

    def _command(self, name: str) -> Any:
        one = typer.Typer(rich_markup_mode=None)

        def run(context: typer.Context) -> None:
            self.called.append(" ".join([name, *context.args]))

        one.command(name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
        return typer.main.get_command(one)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BUNTIME_URL", "BUNTIME_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, no_key: None) -> Beside:
    beside = Beside()
    monkeypatch.setattr(keys, "server_command", lambda context, name: beside.keys)
    return beside


def ask(*words: str) -> None:
    assert runs(None, "keys", *words).exit_code == 0


def test_on_a_servers_host_without_a_key_the_store_is_asked(beside: Beside) -> None:
    ask("create", "--name", "a b", "--scope", "sessions:read", "--expires", "1h", "--json")
    ask("list")
    ask("revoke", "key_a")
    assert beside.called == ["create --name a b --expires 3600 --scope sessions:read --json", "list", "revoke key_a"]


def test_with_a_key_the_api_is_asked_but_for_what_only_the_store_has(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNTIME_API_KEY", "btk_key")
    monkeypatch.setenv("BUNTIME_URL", "http://127.0.0.1:9")
    asked: Sequence[tuple[str, ...]] = (("create",), ("list",), ("revoke", "key_a"))
    for words in asked:
        assert "http://127.0.0.1:9" in is_refused(None, "keys", *words)
    assert beside.called == []
    ask("create", "--scope", "operator", "--account", "acc_a")
    ask("create", "--plan", "free")
    ask("list", "--account", "acc_a")
    ask("list", "--here")
    ask("revoke", "key_a", "--here")
    assert beside.called == [
        *("create --account acc_a --scope operator", "create --plan free", "list --account acc_a", "list"),
        "revoke key_a",
    ]


@pytest.mark.usefixtures("no_key")
def test_a_client_alone_says_where_the_operators_keys_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "server_command", lambda context, name: None)
    for words in (("create", "--scope", "operator"), ("list", "--here"), ("create", "--account", "acc_a")):
        assert f"'keys {words[0]}' is a command of the server" in is_refused(None, "keys", *words, status=2)
    assert "There is no API key" in is_refused(None, "keys", "list")
