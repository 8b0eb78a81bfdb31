"""`buntime images`: an account's images, and beside them what a server's operator can do."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from buntime_cli.app import app
from buntime_cli.commands import images
from buntime_sdk.testing import FakeBuntime
from typer.core import TyperCommand, TyperGroup

from tests.unit.test_commands_snapshots import is_refused, named, prints, runs


def test_an_image_is_created_listed_used_and_deleted() -> None:
    fake = FakeBuntime().add_image("base", size_bytes=2048)
    named(fake, "demo").snapshot(name="first")
    done = runs(fake, "images", "create", "app", "--session", "demo", "--env", "A=1")
    assert done.stdout.startswith("img_")
    assert done.stderr == "3 B. Use it: buntime create --image app\n"
    of_snapshot = json.loads(prints(fake, "images", "create", "kept", "--snapshot", "first", "--json"))
    assert (of_snapshot["name"], of_snapshot["sizeBytes"]) == ("kept", 3)
    listed = prints(fake, "images", "list").splitlines()
    assert listed[0].split() == ["NAME", "ID", "SIZE", "CREATED"]
    assert [line.split()[0] for line in listed[1:]] == ["app", "base", "kept"]
    assert [one["name"] for one in json.loads(prints(fake, "images", "list", "--json"))] == ["app", "base", "kept"]
    assert fake.sessions.open(prints(fake, "create", "--image", "app")).files.read("a.txt") == "one"
    assert "There is no image none" in is_refused(fake, "images", "delete", "app", "none")
    assert "Only the operator can remove it" in is_refused(fake, "images", "delete", "base")
    assert prints(fake, "images", "delete", "app", "kept").split() == ["app", "kept"]
    assert "List images with: buntime images list" in is_refused(fake, "create", "--image", "app")


@pytest.mark.parametrize("made_of", [(), ("--session", "demo", "--snapshot", "first")])
def test_an_image_is_made_of_one_thing(made_of: tuple[str, ...]) -> None:
    told = is_refused(FakeBuntime(), "images", "create", "app", *made_of, status=2)
    assert "Name what the image is made of: --session or --snapshot." in told


class Beside:
    """Stands for the commands of a server that is installed beside."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.images = TyperGroup(name="images", commands={name: self._command(name) for name in ("list", "add")})
        self.images.add_command(self._command("remove"), "remove")

    def _command(self, name: str) -> Any:
        one = typer.Typer(rich_markup_mode=None)

        def run(as_json: bool = typer.Option(False, "--json")) -> None:
            self.called.append(f"{name} --json" if as_json else name)

        one.command(name, help=f"{name} of the server.")(run)
        return typer.main.get_command(one)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BUNTIME_URL", "BUNTIME_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, no_key: None) -> Beside:
    beside = Beside()
    monkeypatch.setattr(images, "server_command", lambda context, name: beside.images)
    return beside


def test_on_a_servers_host_the_list_is_the_operators_unless_there_is_a_key(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs(None, "images", "list").exit_code == 0
    assert runs(None, "images", "list", "--json").exit_code == 0
    assert beside.called == ["list", "list --json"]
    monkeypatch.setenv("BUNTIME_API_KEY", "btk_key")
    monkeypatch.setenv("BUNTIME_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in is_refused(None, "images", "list")  # it asked the key's server, where none is
    assert beside.called == ["list", "list --json"]
    assert runs(None, "images", "list", "--added").exit_code == 0
    assert beside.called == ["list", "list --json", "list"]


def test_a_login_counts_as_a_key(beside: Beside, tmp_path: Path) -> None:
    (tmp_path / "buntime").mkdir()
    access = {"url": "http://127.0.0.1:9", "key": "btk_key"}
    (tmp_path / "buntime/servers.json").write_text(json.dumps({"default": "a", "servers": {"a": access}}))
    assert "http://127.0.0.1:9" in is_refused(None, "images", "list")
    (tmp_path / "buntime/servers.json").write_text("{")
    assert "is damaged" in is_refused(None, "images", "list")
    assert beside.called == []


def test_the_operators_commands_are_shown_apart_and_run(beside: Beside) -> None:
    yours, servers = prints(FakeBuntime(), "images", "--help").split("\nCommands:")[1].split("Commands of the server")
    assert re.findall(r"^  (\w+) ", yours, re.MULTILINE) == ["create", "list", "delete"]
    assert re.findall(r"^  (\w+) ", servers, re.MULTILINE) == ["add", "remove"]
    assert [runs(None, "images", name).exit_code for name in ("add", "remove")] == [0, 0]
    assert beside.called == ["add", "remove"]


@pytest.mark.usefixtures("no_key")
def test_a_client_alone_says_where_the_operators_commands_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "server_command", lambda context, name: None)
    for name in ("add", "remove"):
        assert f"'images {name}' is a command of the server" in is_refused(None, "images", name, "x", status=2)
    assert "buntime images delete NAME" in is_refused(None, "images", "remove", "x", status=2)
    assert "is a command of the server" in is_refused(None, "images", "list", "--added", status=2)
    assert "There is no API key" in is_refused(None, "images", "list")


def subcommands() -> Sequence[tuple[str, TyperCommand]]:
    found: Any = typer.main.get_command(app)
    groups = ("snapshots", "images", "keys")
    return [(f"{group} {name}", one) for group in groups for name, one in found.commands[group].commands.items()]


@pytest.mark.parametrize(("name", "command"), subcommands(), ids=[name for name, _ in subcommands()])
def test_the_help_of_each_subcommand_has_an_example(name: str, command: TyperCommand) -> None:
    assert f"buntime {name}" in (command.help or "").split("Example: ")[1]
