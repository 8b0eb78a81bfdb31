"""npm, npx, git and Python's venv in a session that nobody has set up.

Needs the npm registry and a Python package index.
"""

import json
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.client import Client, Session

pytestmark = pytest.mark.sandbox

SECONDS = 120  # for one run; a guard against a hang
IS_NUMBER = "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng=="
LOCK = {
    "name": "locked",
    "lockfileVersion": 3,
    "requires": True,
    "packages": {
        "": {"name": "locked", "dependencies": {"is-number": "^7.0.0"}},
        "node_modules/is-number": {"version": "7.0.0", "integrity": IS_NUMBER},
    },
}


@pytest.fixture
def default(paid: Client) -> Iterator[Session]:
    """A session with the default limits: a quarter of a core."""
    session = paid.open(resourceLimits={})
    yield session
    session.delete()


def package(session: Session) -> dict[str, object]:
    return dict(json.loads(session.text("package.json")))


def test_npm_makes_a_package_and_adds_lists_and_removes_what_it_depends_on(session: Session) -> None:
    session.output("npm init -y && npm install is-odd && npm i -D is-number@7", timeout=SECONDS)
    made = package(session)
    assert made["name"] == "workspace"
    assert list(made["dependencies"]) == ["is-odd"]  # type: ignore[call-overload]
    assert list(made["devDependencies"]) == ["is-number"]  # type: ignore[call-overload]
    assert session.output("node -p 'require(\"is-odd\")(3)'") == "true\n"
    assert "is-odd@" in session.output("npm ls")
    session.output("npm uninstall is-odd")
    assert "is-odd@" not in session.output("npm ls")
    assert session.list("node_modules").done()["files"]


def test_npm_ci_installs_what_the_lock_file_says_and_refuses_to_do_without_one(session: Session) -> None:
    session.write("package.json", json.dumps({"name": "locked", "dependencies": {"is-number": "^7.0.0"}})).done()
    refused = session.command("npm ci")
    assert refused["exitCode"] != 0
    assert "`npm install` makes bun.lock" in refused["stderr"]
    session.write("package-lock.json", json.dumps(LOCK)).done()
    for _ in range(2):  # the second time with the bun.lock of the first
        session.output("npm ci", timeout=SECONDS)
        assert json.loads(session.text("node_modules/is-number/package.json"))["version"] == "7.0.0"
    session.write("package.json", json.dumps({"name": "locked", "dependencies": {"is-odd": "*"}})).done()
    assert session.command("npm ci", timeout=SECONDS)["exitCode"] != 0


def test_npm_runs_scripts_with_their_arguments_and_exit_codes(session: Session) -> None:
    scripts = {"say": "printf '%s|'", "test": "exit 3", "start": "echo started", "pre": "echo x"}
    session.write("package.json", json.dumps({"scripts": scripts})).done()
    assert session.output("npm run --silent say -- --flag 'two words'") == "--flag|two words|"
    assert session.command("npm test")["exitCode"] == 3
    assert session.output("npm start") == "started\n"
    assert "say\n    printf" in session.output("npm run")
    assert session.command("npm run missing")["exitCode"] != 0
    assert session.output("npm run --if-present missing") == ""


def test_npx_and_npm_exec_run_a_package_that_is_not_installed(session: Session) -> None:
    for command in ("npx cowsay@1.6.0 hi", "npx -y cowsay@1.6.0 hi", "npm exec cowsay@1.6.0 -- hi"):
        assert "< hi >" in session.output(command, timeout=SECONDS), command


def test_programs_of_global_packages_are_on_the_path(session: Session) -> None:
    assert "< hi >" in session.output("npm install -g cowsay@1.6.0 >/dev/null && cowsay hi", timeout=SECONDS)


def test_npm_has_a_version_that_programs_can_compare(session: Session) -> None:
    assert re.fullmatch(r"11\.\d+\.\d+-bun\.\d+\.\d+\.\d+\n", session.output("npm -v"))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("npm install --workspace=a is-odd", "`bun add --help`"),
        ("npm config set a b", ".npmrc"),
        ("npm token list", "`npm help`"),
        ("npx --call 'echo hi'", "bunx"),
    ],
)
def test_what_the_shim_does_not_know_fails_and_names_a_way(session: Session, command: str, says: str) -> None:
    failed = session.command(command)
    assert failed["exitCode"] != 0
    assert says in failed["stderr"]
    assert session.command("test -e package.json")["exitCode"] != 0


def test_git_commits_without_being_told_who_you_are(session: Session) -> None:
    session.output("git init -q repo && cd repo && echo a > a && git add a && git commit -qm first")
    told = session.output("cd repo && git branch --show-current && git log --format='%an <%ae>'")
    assert told == "main\nSession <session@localhost>\n"


def test_your_own_git_identity_comes_first(session: Session) -> None:
    session.output("git config --global user.name Ada && git config --global user.email ada@example.com")
    session.output("git init -q repo && cd repo && git commit -q --allow-empty -m first")
    assert session.output("cd repo && git log --format='%an <%ae>'") == "Ada <ada@example.com>\n"


def test_git_works_in_a_directory_of_another_user(session: Session) -> None:
    session.output("git init -q repo && chown -R 1000:1000 repo")
    assert session.output("cd repo && git status --short") == ""


def test_a_venv_with_a_package_is_ready_within_the_default_timeout(default: Session) -> None:
    said = default.command("python3 -m venv .venv && .venv/bin/pip install requests")
    assert (said["exitCode"], said["timedOut"]) == (0, False), said
    assert "WARNING" not in said["stderr"]
    assert default.output(".venv/bin/python -c 'import requests; print(requests.get.__name__)'") == "get\n"


def test_a_venv_has_a_pip_that_can_replace_and_remove_itself(session: Session) -> None:
    session.output("python3 -m venv .venv && .venv/bin/pip install -q --force-reinstall pip", timeout=SECONDS)
    assert " .venv/" not in session.output(".venv/bin/pip --version")
    assert "/workspace/.venv/lib" in session.output(".venv/bin/pip --version")
    session.output(".venv/bin/pip uninstall -qy pip")
    assert session.output("python3 -m pip --version").startswith("pip ")
