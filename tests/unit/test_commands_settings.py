"""`buntime update`, `extend` and `inspect` with a fake server: what they send, and what they show."""

import json
from typing import Any

import httpx2
import pytest

from tests.unit.test_commands import FIRST, Answer, Server, session

PREVIEW = {"visibility": "public", "ports": [8080, 3000]}
NETWORK = {"egress": "internet", "allow": ["example.com"], "deny": []}
POLICY = {"idleAfter": 300, "deepSleepAfter": 1800, "checkpointEvery": 300, "awakeWhile": "requests"}
WHOLE = session(
    FIRST,
    name="demo",
    metadata={"team": "web", "tier": "1"},
    preview=PREVIEW,
    network=NETWORK,
    onWake=None,
    sleepPolicy=POLICY,
    services=[],
    checkpointedAt="2024-01-19T10:31:00Z",
    envNames=["LEVEL"],
    image="python",
    snapshotId=None,
)


class Patched:
    """A session that remembers what was sent to change it."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}
        self.server = Server({f"GET /sessions/{FIRST}": (200, WHOLE), f"PATCH /sessions/{FIRST}": self._patch})

    def _patch(self, request: httpx2.Request) -> Answer:
        self.sent = json.loads(request.content)
        return 200, WHOLE


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (("--ttl", "2h"), {"ttl": 7200}),
        (("--name", "twin"), {"name": "twin"}),
        (("--default", "name"), {"name": None}),
        (("--metadata", "team=api"), {"metadata": {"team": "api", "tier": "1"}}),
        (("--unset", "team"), {"metadata": {"tier": "1"}}),
        (("--private",), {"preview": {"visibility": "private", "ports": [8080, 3000]}}),
        (("--port", "9000"), {"preview": {"visibility": "public", "ports": [9000]}}),
        (("--deny", "10.0.0.0/8"), {"network": {**NETWORK, "deny": ["10.0.0.0/8"]}}),
        (("--env", "A=1"), {"env": {"A": "1"}}),
        (("--on-wake", "bun s.ts"), {"onWake": "bun s.ts"}),
        (("--ttl", "never"), {"ttl": "never"}),
        (("--checkpoint-every", "10m"), {"sleepPolicy": {**POLICY, "checkpointEvery": 600}}),
        (("--checkpoint-every", "never"), {"sleepPolicy": {**POLICY, "checkpointEvery": "never"}}),
        (
            ("--idle-after", "1h", "--awake-while", "processes"),
            {"sleepPolicy": {**POLICY, "idleAfter": 3600, "awakeWhile": "processes"}},
        ),
        (("--deep-sleep-after", "never"), {"sleepPolicy": {**POLICY, "deepSleepAfter": "never"}}),
        (("--default", "on-wake", "--default", "network"), {"onWake": None, "network": None}),
        (("--default", "sleep-policy"), {"sleepPolicy": None}),
        (("--default", "services"), {"services": None}),
    ],
)
def test_update_changes_what_it_names_and_keeps_the_rest(options: tuple[str, ...], sent: dict[str, Any]) -> None:
    patched = Patched()
    done = patched.server.runs("update", FIRST, *options)
    assert (done.exit_code, patched.sent) == (0, sent), done.stderr


def test_update_says_what_changed() -> None:
    changed = {**WHOLE, "name": "twin", "metadata": {"tier": "1"}, "network": {**NETWORK, "egress": "none"}}
    server = Server({f"GET /sessions/{FIRST}": (200, WHOLE), f"PATCH /sessions/{FIRST}": (200, changed)})
    options = ("--name", "twin", "--unset", "team", "--egress", "none", "--env", "LEVEL=info")
    assert server.runs("update", FIRST, *options).stdout.splitlines() == [
        f"{FIRST} has changed:",
        "  name: demo → twin",
        "  metadata.team: web → –",
        "  network: internet → none",
        "  variables: LEVEL",
    ]


def test_update_says_that_nothing_changed_and_that_a_label_was_never_there() -> None:
    done = Patched().server.runs("update", FIRST, "--unset", "tema")
    assert done.stdout == f"{FIRST} had these settings before.\n"
    assert done.stderr == f"buntime: {FIRST} has no label tema.\n"


def test_update_without_a_setting_is_wrong_usage() -> None:
    done = Server({}).runs("update", FIRST)
    assert done.exit_code == 2
    assert "Name a setting to change" in done.stderr


def test_a_default_and_a_value_contradict_each_other() -> None:
    patched = Patched()
    done = patched.server.runs("update", FIRST, "--egress", "none", "--default", "network")
    assert (done.exit_code, patched.sent) == (1, {})
    assert done.stderr == "buntime: --default network contradicts another option.\n"


def test_a_name_of_another_session_is_refused() -> None:
    taken = {"code": "name_taken", "message": "The session ses_a has the name 'twin'.", "retryable": False}
    server = Server(
        {f"GET /sessions/{FIRST}": (200, WHOLE), f"PATCH /sessions/{FIRST}": (409, {"error": {**taken, "details": {}}})}
    )
    done = server.runs("update", FIRST, "--name", "twin")
    assert done.exit_code == 1
    assert done.stderr.startswith("buntime: The session ses_a has the name 'twin'. Use another name")


@pytest.mark.parametrize("option", ["--ttl", "--idle-after", "--deep-sleep-after", "--checkpoint-every"])
def test_a_wrong_span_of_time_is_wrong_usage(option: str) -> None:
    done = Patched().server.runs("update", FIRST, option, "ever")
    assert done.exit_code == 2
    assert "Write 90, 90s, 30m, 24h or 7d, or never." in " ".join(done.stderr.split())


def test_what_never_ends_is_shown_so() -> None:
    endless = {**WHOLE, "expiresAt": None, "sleepPolicy": {**POLICY, "idleAfter": "never", "awakeWhile": "processes"}}
    answers = {f"GET /sessions/{FIRST}": (200, endless), f"PATCH /sessions/{FIRST}": (200, endless)}
    shown = Server(answers).runs("inspect", FIRST).stdout
    rows = dict(line.split("  ", 1) for line in shown.splitlines())
    told = {name: rows[name].strip() for name in ("ends", "idle", "deep sleep", "awake while")}
    assert told == {"ends": "never", "idle": "never", "deep sleep": "after 30 min", "awake while": "processes"}
    assert Server(answers).runs("extend", FIRST, "never").stdout == f"{FIRST} never ends.\n"
    changed = Server({**answers, f"GET /sessions/{FIRST}": (200, WHOLE)}).runs("update", FIRST, "--ttl", "never").stdout
    assert "  ends: never" in changed.splitlines()


def test_extend_sends_the_seconds_from_now() -> None:
    patched = Patched()
    done = patched.server.runs("extend", FIRST, "30m")
    assert (done.exit_code, patched.sent) == (0, {"ttl": 1800})
    assert done.stdout.startswith(f"{FIRST} ends in ")


def test_inspect_shows_every_field_of_the_session() -> None:
    shown = json.loads(Patched().server.runs("inspect", FIRST, "--json").stdout)
    assert shown == WHOLE
    lines = dict(line.split("  ", 1) for line in Patched().server.runs("inspect", FIRST).stdout.splitlines())
    told = {label.strip(): value.strip() for label, value in lines.items()}
    assert (told["name"], told["metadata.team"], told["memory"], told["variables"]) == (
        "demo",
        "web",
        "1024 MB",
        "LEVEL",
    )
    assert (told["open ports"], told["allowed"], told["on wake"]) == ("8080, 3000", "example.com", "–")
    assert (told["image"], told["from snapshot"]) == ("python", "–")
    assert (told["checkpoints"], told["services"]) == ("every 300 s", "–")
    assert told["last archived"].endswith("(2024-01-19T10:31:00Z)")
