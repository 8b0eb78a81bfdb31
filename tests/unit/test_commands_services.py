"""`buntime services` with a fake server: what the commands send, and what they show."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.unit.test_commands import FIRST, Answer, Server, session

WEB = {
    "name": "web",
    "command": "bun server.ts",
    "port": 8080,
    "workingDir": "/workspace",
    "envNames": [],
    "restart": "always",
}
OF_WEB = {name: value for name, value in WEB.items() if name != "envNames"}
SERVICE = {
    "name": "web",
    "state": "restarting",
    "pid": None,
    "port": 8080,
    "restarts": 3,
    "startedAt": "2024-01-19T10:31:00Z",
    "lastExit": {"exitCode": 1, "endedAt": "2024-01-19T10:31:01Z"},
    "processId": f"proc_{'a' * 18}",
}
SECRET = {**WEB, "name": "secret", "envNames": ["KEY"]}


class Declared:
    """A session that remembers which services were declared."""

    def __init__(self, *services: dict[str, Any]) -> None:
        self.sent: Any = None
        self._services = services
        shown = session(FIRST, services=[*services])
        self.server = Server({f"GET /sessions/{FIRST}": (200, shown), f"PATCH /sessions/{FIRST}": self._patch})

    def _patch(self, request: httpx2.Request) -> Answer:
        self.sent = json.loads(request.content)
        declared = [{**WEB, **one, "envNames": [*one.get("env", ())]} for one in self.sent["services"]]
        for one in declared:
            one.pop("env", None)
        return 200, session(FIRST, services=declared)


def test_set_declares_a_service_beside_the_others() -> None:
    declared = Declared(WEB)
    done = declared.server.runs(
        "services", "set", FIRST, "worker", "--restart", "on-failure", "--env", "A=1", "--", "bun", "a b.ts"
    )
    assert (done.exit_code, done.stdout) == (0, f"{FIRST} declares: web, worker.\n"), done.stderr
    worker = {"name": "worker", "command": "bun 'a b.ts'", "restart": "on-failure", "env": {"A": "1"}}
    assert declared.sent == {"services": [OF_WEB, {**worker, "workingDir": "/workspace"}]}


def test_set_replaces_the_one_of_the_same_name_in_its_place() -> None:
    declared = Declared(SECRET, {**WEB, "name": "last"})
    done = declared.server.runs("services", "set", FIRST, "secret", "bun other.ts", "--port", "3000")
    assert done.exit_code == 0, done.stderr
    assert [(one["name"], one.get("port")) for one in declared.sent["services"]] == [("secret", 3000), ("last", 8080)]


def test_rm_leaves_the_others() -> None:
    declared = Declared(WEB, {**WEB, "name": "other", "port": None})
    done = declared.server.runs("services", "rm", FIRST, "web")
    assert (done.exit_code, done.stdout) == (0, f"{FIRST} declares: other.\n"), done.stderr
    assert [one["name"] for one in declared.sent["services"]] == ["other"]


@pytest.mark.parametrize("command", [("set", FIRST, "web", "true"), ("rm", FIRST, "web")])
def test_variables_of_another_service_are_never_lost(command: tuple[str, ...]) -> None:
    declared = Declared(WEB, SECRET)
    done = declared.server.runs("services", *command)
    assert (done.exit_code, declared.sent) == (1, None)
    assert "The service secret has variables" in done.stderr


def test_an_unknown_service_and_an_unknown_rule_are_refused() -> None:
    declared = Declared(WEB)
    assert "has no service missing" in declared.server.runs("services", "rm", FIRST, "missing").stderr
    refused = declared.server.runs("services", "set", FIRST, "web", "true", "--restart", "sometimes")
    assert (refused.exit_code, declared.sent) == (2, None)
    assert "Rules: always, on-failure, never." in refused.stderr


def test_ls_shows_states_restarts_and_last_exits() -> None:
    server = Server({f"GET /sessions/{FIRST}/services": (200, {"services": [SERVICE]})})
    head, row = server.runs("services", "ls", FIRST).stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "PID", "RESTARTS", "LAST", "EXIT", "STARTED", "PORT", "PROCESS"]
    assert row.split()[:4] == ["web", "restarting", "3", "1,"]
    assert json.loads(server.runs("services", "ls", FIRST, "--json").stdout) == [SERVICE]


@pytest.mark.parametrize("what", ["start", "stop", "restart"])
def test_a_service_is_started_stopped_and_restarted(what: str) -> None:
    server = Server({f"POST /sessions/{FIRST}/services/web/{what}": (200, SERVICE)})
    assert server.runs("services", what, FIRST, "web").stdout == "web is restarting.\n"
    assert json.loads(server.runs("services", what, FIRST, "web", "--json").stdout) == SERVICE


def test_create_takes_services_from_a_file(tmp_path: Path) -> None:
    sent: list[Any] = []

    def create(request: httpx2.Request) -> Answer:
        sent.append(json.loads(request.content))
        return 200, session(FIRST)

    file = tmp_path / "services.json"
    file.write_text(json.dumps([OF_WEB]))
    server = Server({"POST /sessions/create": create})
    done = server.runs("create", "--services", str(file))
    assert (done.exit_code, sent) == (0, [{"services": [OF_WEB]}]), done.stderr


@pytest.mark.parametrize("content", ["nonsense", "{}", "[1]", None])
def test_a_file_that_has_no_services_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "services.json"
    if content is not None:
        file.write_text(content)
    done = Server({}).runs("create", "--services", str(file))
    assert done.exit_code == 2
    assert "services.json" in done.stderr
