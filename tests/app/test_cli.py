"""The operator's commands, run as processes: output and exit status."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from buntime.account import is_well_formed
from buntime.cause import OPERATOR
from buntime.config import Config
from buntime.plan import Limits
from buntime.session import Session
from buntime.stores import store_file
from buntime.stores.sqlite import database
from buntime.stores.sqlite.events import list_events
from buntime.stores.sqlite.sessions import add_session

SDK = Path(__file__).parents[2] / "sdk/python/src"


class Shell:
    """Runs `buntime` on a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "buntime_cli", *words],
            env={"PATH": os.environ["PATH"], "BUNTIME_DATA_DIR": str(self.data_dir), **environ},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def prints(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    def answers(self, line: str, *words: str) -> str:
        """What the command shows on a terminal where a person types this line."""
        person, terminal = pty.openpty()
        os.write(person, f"{line}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "buntime_cli", *words],
            env={"PATH": os.environ["PATH"], "BUNTIME_DATA_DIR": str(self.data_dir)},
            stdin=terminal,
            capture_output=True,
            text=True,
        )
        os.close(terminal)
        os.close(person)
        return done.stdout + done.stderr

    def has_session_of(self, account: str) -> None:
        session = Session("ses_a", account, 1, 2, 1, Limits(64, 1, 1, 16), "sandbox", "volume", "image")
        store = database.connect(store_file(Config(data_dir=self.data_dir)))
        with closing(store) as connection, database.transaction(connection):
            add_session(connection, session, limit=1)

    def refuses(self, *words: str, **environ: str) -> str:
        done = self.run(*words, **environ)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A server has run on the data directory."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(0o700)
    database.connect(store_file(Config(data_dir=data_dir))).close()
    return Shell(data_dir)


@pytest.fixture
def empty(tmp_path: Path) -> Shell:
    """No server ever ran on the data directory."""
    return Shell(tmp_path / "new" / "data")


@pytest.mark.parametrize(
    "words", [("keys", "create"), ("keys", "list"), ("accounts", "create", "--plan", "free"), ("accounts", "list")]
)
def test_where_no_server_ever_ran_nothing_is_made(empty: Shell, words: tuple[str, ...]) -> None:
    said = empty.refuses(*words)
    assert said.startswith(f"buntime: No server ever ran on {empty.data_dir}. Start one with `buntime serve`")
    assert "btk_" not in said
    assert not empty.data_dir.parent.exists()


def test_a_key_is_printed_alone_and_not_on_stderr(shell: Shell) -> None:
    done = shell.run("keys", "create")
    secret = done.stdout.removesuffix("\n")
    assert is_well_formed(secret)
    assert secret not in done.stderr
    assert re.search(r"key_[a-z0-9]{12} of account acc_[a-z0-9]{16}", done.stderr)
    assert re.search(r"acc_\w+ +paid +active", shell.prints("accounts", "list"))
    assert {file.stat().st_mode & 0o777 for file in shell.data_dir.iterdir()} == {0o600}
    assert shell.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_key_has_a_name_scopes_and_an_end(shell: Shell) -> None:
    wanted = ("--name", "metrics", "--scope", "operator", "--scope", "sessions:read", "--expires", "2d")
    made = json.loads(shell.prints("keys", "create", *wanted, "--json"))
    assert (made["name"], made["scopes"]) == ("metrics", ["sessions:read", "operator"])
    plain = json.loads(shell.prints("keys", "create", "--json"))
    assert (plain["name"], plain["expiresAt"], len(plain["scopes"])) == (None, None, 6)
    assert "operator" not in plain["scopes"]
    listed = {key["id"]: key for key in json.loads(shell.prints("keys", "list", "--json"))}
    told = listed[made["id"]]
    lasts = datetime.fromisoformat(told["expiresAt"]) - datetime.fromisoformat(told["createdAt"])
    assert (lasts, told["scopes"], told["expiresAt"]) == (timedelta(days=2), made["scopes"], made["expiresAt"])
    shown = shell.prints("keys", "list")
    assert re.search(r"Z +sessions:read,operator +metrics$", shown, re.M)
    assert re.search(r"Z +all$", shown, re.M)


@pytest.mark.parametrize("name", ["", "x" * 101, "a\x1b[2J"])
def test_a_key_has_a_printable_name(shell: Shell, name: str) -> None:
    assert "name must be 1 to 100 printable characters" in shell.refuses("keys", "create", "--name", name)
    assert shell.prints("keys", "list").count("\n") == 0


def test_an_account_lives_from_create_to_delete(shell: Shell) -> None:
    account = shell.prints("accounts", "create", "--plan", "enterprise", "--set", "sessions=500", "--set", "most.cpu=8")
    assert re.fullmatch(r"acc_[a-z0-9]{16}", account)
    assert re.search(rf"{account} +enterprise +active .*sessions=500 most.cpu=8", shell.prints("accounts", "list"))
    said = shell.prints("accounts", "suspend", account)
    assert said.startswith(f"{account} is suspended. Its calls are refused")
    assert "Its sessions go to deep sleep, which ends their processes and keeps their files." in said
    assert "suspended" in shell.prints("accounts", "list")
    assert shell.prints("accounts", "resume", account) == f"{account} is active."
    assert "active" in shell.prints("accounts", "list")
    assert shell.prints("accounts", "delete", account, "--yes") == f"{account} is deleted, with 0 sessions."
    assert "is deleted, which is final" in shell.refuses("accounts", "resume", account)
    assert "is deleted, which is final" in shell.refuses("keys", "create", "--account", account)


def test_a_deleted_account_is_listed_only_with_all(shell: Shell) -> None:
    kept, gone = (shell.prints("accounts", "create", "--plan", "free") for _ in range(2))
    shell.prints("accounts", "delete", gone, "--yes")
    listed = shell.run("accounts", "list")
    assert kept in listed.stdout
    assert gone not in listed.stdout
    assert listed.stderr == "1 deleted account left out. Show all with: buntime accounts list --all\n"
    assert re.search(rf"{gone} +free +deleted", shell.prints("accounts", "list", "--all"))
    assert [one["id"] for one in json.loads(shell.prints("accounts", "list", "--json"))] == [kept]


def test_without_a_terminal_an_account_is_deleted_only_with_yes(shell: Shell) -> None:
    account = shell.prints("accounts", "create", "--plan", "free")
    shell.has_session_of(account)
    said = shell.refuses("accounts", "delete", account)
    assert said == (
        f"buntime: This would delete the account {account} and its 1 session. "
        f"Confirm with: buntime accounts delete {account} --yes\n"
    )
    assert re.search(rf"{account} +free +active", shell.prints("accounts", "list"))
    told = json.loads(shell.prints("accounts", "delete", account, "--yes", "--json"))
    assert told == {"id": account, "status": "deleted", "sessions": 1}


@pytest.mark.parametrize(("answer", "left"), [("n", "active"), ("y", "deleted")])
def test_on_a_terminal_the_deletion_of_an_account_is_a_question(shell: Shell, answer: str, left: str) -> None:
    account = shell.prints("accounts", "create", "--plan", "free")
    asked = shell.answers(answer, "accounts", "delete", account)
    assert f"Delete the account {account} and its 0 sessions? This is final. [y/N]" in asked
    assert re.search(rf"{account} +free +{left}", shell.prints("accounts", "list", "--all"))


def test_what_an_operator_changes_is_told_to_the_account(shell: Shell) -> None:
    account = shell.prints("accounts", "create", "--plan", "free")
    key = json.loads(shell.prints("keys", "create", "--account", account, "--name", "ci", "--json"))
    shell.prints("accounts", "suspend", account)
    shell.prints("accounts", "suspend", account)  # changes nothing
    shell.prints("accounts", "resume", account)
    shell.prints("keys", "revoke", key["key"])
    shell.prints("accounts", "delete", account, "--yes")
    with closing(database.connect(store_file(Config(data_dir=shell.data_dir)))) as connection:
        told = [numbered.event for numbered in list_events(connection, account, 0, None, None, 100)]
    assert [event.type.value for event in told] == [
        *("account.created", "key.created", "account.suspended", "account.resumed", "key.revoked", "account.deleted")
    ]
    assert {event.cause for event in told} == {OPERATOR}
    assert told[4].data == {"keyId": key["id"], "name": "ci", "hint": key["key"][:8]}
    assert key["key"] not in repr(told)


def test_keys_are_listed_without_the_secret_and_revoked_by_id_or_secret(shell: Shell) -> None:
    account = shell.prints("accounts", "create", "--plan", "free")
    first, second = (shell.prints("keys", "create", "--account", account) for _ in range(2))
    shell.prints("keys", "create", "--plan", "free")
    listed = shell.prints("keys", "list", "--account", account)
    assert len(listed.splitlines()) == 3
    assert len(shell.prints("keys", "list").splitlines()) == 4
    assert first[:8] in listed
    assert first not in listed
    by_id = re.search(rf"{re.escape(second[:8])}\S* +(key_\w+)", listed)
    assert by_id is not None
    said = shell.prints("keys", "revoke", first)
    assert re.fullmatch(r"key_\w+ is revoked\. Its calls are refused from now on\.", said)
    shell.prints("keys", "revoke", by_id[1])
    assert len(re.findall(r"\d\dZ", shell.prints("keys", "list", "--account", account))) == 4
    refusal = shell.refuses("keys", "revoke", first)
    assert first not in refusal
    assert "not revoked yet" in refusal


def test_programs_read_accounts_and_keys_as_json(shell: Shell) -> None:
    def told(*words: str) -> Any:
        return json.loads(shell.prints(*words, "--json"))

    account = told("accounts", "create", "--plan", "paid", "--set", "most.memory=8192")
    assert account["settings"] == {"most": {"memory": 8192}}
    assert told("accounts", "list") == [account]
    key = told("keys", "create", "--account", account["id"])
    assert is_well_formed(key["key"])
    [listed] = told("keys", "list")
    assert (listed["id"], listed["account"], listed["revokedAt"]) == (key["id"], account["id"], None)
    assert key["key"].startswith(listed["hint"])
    assert told("keys", "revoke", key["id"]) == {"id": key["id"], "revoked": True}
    assert told("keys", "list")[0]["revokedAt"] is not None
    for verb, status in (("suspend", "suspended"), ("resume", "active")):
        assert told("accounts", verb, account["id"]) == {"id": account["id"], "status": status}


def test_programs_read_the_doctors_report(shell: Shell) -> None:
    done = shell.run("doctor", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    assert told["ok"] == all(finding["ok"] for finding in told["findings"] if finding["needed"])
    assert {"name", "now", "wanted"} == set(told["settings"][0])
    assert told["changes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("accounts", "create", "--plan", "gold"), "There is no plan 'gold'. Plans: free, paid, enterprise."),
        (("accounts", "create", "--plan", "paid", "--set", "x=1"), "unknown plan number 'x'"),
        (("accounts", "suspend", "acc_none"), "There is no account acc_none."),
        (("keys", "create", "--account", "acc_none"), "There is no account acc_none."),
        (("keys", "list", "--account", "acc_none"), "There is no account acc_none."),
        (("keys", "revoke", "key_none"), "There is no key key_none that is not revoked yet."),
    ],
)
def test_an_error_is_one_sentence(shell: Shell, words: tuple[str, ...], message: str) -> None:
    refusal = shell.refuses(*words)
    assert message in refusal
    assert refusal.count("\n") == 1


def test_a_bad_setting_is_named(shell: Shell) -> None:
    assert "BUNTIME_PORT must be a whole number" in shell.refuses("keys", "list", BUNTIME_PORT="x")


def test_a_damaged_store_is_named(shell: Shell) -> None:
    (shell.data_dir / "buntime.db").write_bytes(b"")
    assert "is damaged" in shell.refuses("keys", "create")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("accounts", "create"),
        ("keys", "revoke"),
        ("keys", "create", "--account", "acc_a", "--plan", "free"),
    ],
)
def test_wrong_usage_is_status_2(empty: Shell, words: tuple[str, ...]) -> None:
    done = empty.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr
    assert not empty.data_dir.exists()


@pytest.mark.parametrize("words", ["serve", "doctor", "purge", "backup", "accounts create", "keys create", "keys list"])
def test_the_help_of_a_servers_command_has_an_example(shell: Shell, words: str) -> None:
    shown = shell.prints(*words.split(), "--help")
    assert re.search(rf"^  Example:\n    .*buntime {words}", shown, re.M)


@pytest.mark.parametrize("words", ["accounts", "accounts delete", "keys create", "backup", "ls", "update", "exec"])
def test_help_looks_alike_and_names_no_types_of_python(shell: Shell, words: str) -> None:
    shown = shell.prints(*words.split(), "--help")
    assert re.match(rf"Usage: .* {words} \[OPTIONS\]", shown)
    assert not re.search(r"[│╭╰{}]|<\w+|list\[|--install-completion", shown)


def test_an_unconfirmed_purge_removes_nothing(shell: Shell) -> None:
    shell.prints("keys", "create")
    assert shell.run("purge").returncode == 1
    assert (shell.data_dir / "buntime.db").exists()


def test_the_command_line_starts_quickly() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, buntime_cli.app, buntime.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"asyncio", "aiohttp", "uvicorn", "starlette", "msgspec", "structlog"} & set(loaded)


def test_help_shows_the_servers_commands_apart(shell: Shell) -> None:
    _, clients, server = re.split(r"^(?=Commands)", shell.prints("--help"), flags=re.M)
    assert {"create", "ls", "run", "images", "keys", "mcp", "completion"} <= set(
        re.findall(r"^  (\w+) ", clients, re.M)
    )
    assert re.findall(r"^  (\w+) ", server, re.M) == [
        "serve",
        "doctor",
        "purge",
        "backup",
        "accounts",
        "hosts",
        "store",
    ]


@pytest.mark.parametrize("words", [("--version",), ("ls", "--help"), ("create", "--help")])
def test_a_client_command_imports_nothing_of_the_server(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell.run(*words, PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "buntime_cli.app" in loaded
    assert not [name for name in loaded if name.split(".")[0] == "buntime"]


def test_without_its_extra_the_command_says_how_to_install_it() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "buntime_cli", "ls"],  # -S: without the installed libraries
        env={"PYTHONPATH": str(SDK), "BUNTIME_URL": "https://box.example/"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    told = "buntime: This command needs the extra `cli`: https://box.example/clients/ says how to install it.\n"
    assert done.stderr == told


@pytest.mark.parametrize("words", [("list",), ("drain", "hst_a"), ("resume", "here"), ("remove", "hst_a")])
def test_a_store_in_a_file_has_one_host_and_commands_of_hosts_say_so(shell: Shell, words: tuple[str, ...]) -> None:
    assert "this installation has one host: this machine" in shell.refuses("hosts", *words)
