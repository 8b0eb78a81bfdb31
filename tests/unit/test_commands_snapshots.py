"""Commands for snapshots, forks and restores, with the SDK's fake server."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from buntime_cli.app import app
from buntime_sdk import Buntime, Session
from buntime_sdk.testing import FakeBuntime
from typer.testing import CliRunner, Result

EXCHANGES = Path(__file__).parents[2] / "sdk" / "exchanges"
SESSION = "ses_abc123def456ghi789"


def runs(fake: FakeBuntime | None, *words: str) -> Result:
    return CliRunner().invoke(app, words, obj=fake, prog_name="buntime")


def prints(fake: FakeBuntime, *words: str) -> str:
    done = runs(fake, *words)
    assert done.exit_code == 0, done.output
    return done.stdout.rstrip("\n")


def is_refused(fake: FakeBuntime | None, *words: str, status: int = 1) -> str:
    done = runs(fake, *words)
    assert (done.exit_code, done.stdout) == (status, ""), done.output
    return " ".join(done.stderr.split())


def named(fake: FakeBuntime, name: str, **settings: Any) -> Session:
    """A session with this name and a file."""
    session = fake.sessions.create(name=name, **settings)
    session.files.write("a.txt", "one")
    return session


def kept(fake: FakeBuntime) -> Sequence[str]:
    return [one.snapshot_id for one in fake.snapshots.list()]


def test_a_snapshot_prints_its_id_alone_to_stdout() -> None:
    fake = FakeBuntime()
    session = named(fake, "demo")
    done = runs(fake, "snapshot", "demo", "--name", "first", "--ttl", "1h", "--metadata", "team=web")
    assert (done.exit_code, done.stdout.rstrip()) == (0, kept(fake)[0])
    assert re.fullmatch(r"3 B, expires in (1 h|\d+ min)\n", done.stderr)
    (made,) = fake.snapshots.list()
    assert (made.session_id, made.name, made.metadata) == (session.id, "first", {"team": "web"})
    assert runs(fake, "snapshot", session.id).stderr == "3 B, stays until you delete it\n"
    told = json.loads(prints(fake, "snapshot", "demo", "--json"))
    assert (told["sessionId"], told["sizeBytes"], told["expiresAt"]) == (session.id, 3, None)


def test_a_session_that_lost_nothing_is_not_recovered() -> None:
    fake = FakeBuntime()
    session = named(fake, "demo")
    assert "not lost" in is_refused(fake, "recover", "demo")
    assert session.files.read("a.txt") == "one"


def test_a_recovery_says_how_old_the_files_are() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        name = "recover-session" if request.method == "POST" else "get-session"
        told = json.loads((EXCHANGES / f"{name}.json").read_text())["response"]["body"]
        return httpx2.Response(200, json=told)

    def printed(*words: str) -> str:
        client = Buntime(base_url="http://server.invalid", api_key="btk_a", transport=httpx2.MockTransport(answer))
        done = CliRunner().invoke(app, ("recover", SESSION, *words), obj=client, prog_name="buntime")
        assert done.exit_code == 0, done.output
        return done.stdout

    wakes = "The next command wakes it."
    assert printed() == f"{SESSION} continues with its files as they were 2 min 20 s ago. {wakes}\n"
    assert json.loads(printed("--json")) == {
        "sessionId": SESSION,
        "state": "deep-sleep",
        "recoveredFrom": "2024-01-19T10:31:00Z",
        "ageSeconds": 140,
    }


def test_snapshots_are_listed_as_a_table_as_ids_and_as_json() -> None:
    fake = FakeBuntime()
    one, other = named(fake, "one"), named(fake, "other")
    first, second = one.snapshot(name="first").snapshot_id, other.snapshot(ttl=7200).snapshot_id
    head, newest, oldest = prints(fake, "snapshots", "list").splitlines()
    assert head.split() == ["SNAPSHOT", "SESSION", "SIZE", "TAKEN", "EXPIRES", "NAME"]
    assert newest.split()[:4] == [second, other.id, "3", "B"]
    assert re.search(r"in (2 h|1 h 59 min)$", newest)
    assert re.search(r"ago +– +first$", oldest)
    assert prints(fake, "snapshots", "list", "-q").split() == [second, first]
    assert prints(fake, "snapshots", "list", "-q", "--session", "one") == first
    assert prints(fake, "snapshots", "list", "-q", "--name", "first") == first
    assert [each["snapshotId"] for each in json.loads(prints(fake, "snapshots", "list", "--json"))] == [second, first]


def test_a_snapshot_is_shown_by_its_id_the_beginning_of_it_or_its_name() -> None:
    fake = FakeBuntime()
    made = named(fake, "demo").snapshot(name="first", metadata={"a": "\x1b[2J"})
    for name in (made.snapshot_id, made.snapshot_id[:20], "first"):
        shown = prints(fake, "snapshots", "show", name)
        assert shown.splitlines()[0].split() == ["snapshot", made.snapshot_id]
        assert "\x1b" not in shown
    assert json.loads(prints(fake, "snapshots", "show", "first", "--json"))["image"] == "default"
    assert "There is no snapshot none. List snapshots with: buntime snapshots list" in is_refused(
        fake, "snapshots", "show", "none"
    )


def test_an_ambiguous_snapshot_is_refused_with_its_choices() -> None:
    fake = FakeBuntime()
    session = named(fake, "demo")
    ids = [session.snapshot(name="same").snapshot_id for _ in range(2)]
    told = is_refused(fake, "snapshots", "delete", "same")
    assert all(one in told for one in ids)
    assert len(kept(fake)) == 2


def test_snapshots_are_deleted_all_or_none() -> None:
    fake = FakeBuntime()
    session = named(fake, "demo")
    first, second = (session.snapshot(name=name).snapshot_id for name in ("first", "second"))
    assert "There is no snapshot third" in is_refused(fake, "snapshots", "delete", "first", "third")
    assert "No snapshot with this id" in is_refused(fake, "snapshots", "delete", "first", "snp_000000000000000000")
    assert kept(fake) == [second, first]
    assert prints(fake, "snapshots", "delete", "first", second).split() == [first, second]
    assert kept(fake) == []


def test_a_session_is_created_from_a_snapshot() -> None:
    fake = FakeBuntime()
    session = named(fake, "demo")
    made = session.snapshot(name="first")
    session.delete()
    session_id = prints(fake, "create", "--snapshot", "first", "--ttl", "10m")
    assert fake.sessions.open(session_id).files.read("a.txt") == "one"
    told = json.loads(prints(fake, "create", "--snapshot", made.snapshot_id, "--json"))
    assert "filesCount" not in told  # nobody has counted them
    assert told["snapshotId"] == made.snapshot_id
    assert re.search(rf"^from snapshot +{made.snapshot_id}$", prints(fake, "inspect", session_id), re.MULTILINE)
    both = ("create", "--snapshot", "first", "--image", "default")
    assert "A snapshot has its image" in is_refused(fake, *both, status=2)


def test_a_restore_can_be_undone_by_the_name_of_what_was_before() -> None:
    fake = FakeBuntime()
    session, other = named(fake, "demo"), named(fake, "other")
    made = session.snapshot(name="first").snapshot_id
    other.restore(other.snapshot().snapshot_id)  # the other session has a snapshot before-restore, too
    session.files.write("a.txt", "two")
    said = prints(fake, "restore", "demo", "first")
    assert said == f"{session.id} has the files of {made}. Undo: buntime restore {session.id} before-restore"
    assert session.files.read("a.txt") == "one"
    prints(fake, "restore", session.id, "before-restore")
    assert session.files.read("a.txt") == "two"
    assert json.loads(prints(fake, "restore", "demo", made, "--json"))["sessionId"] == session.id


def test_a_fork_prints_its_id_and_inherits_what_is_left_out() -> None:
    fake = FakeBuntime()
    named(fake, "demo", preview={"ports": [3000]}, network={"deny": ["a.example"]}, env={"A": "1"})
    fork = fake.sessions.get(prints(fake, "fork", "demo", "--name", "copy", "--private", "--allow", "b.example"))
    assert (fork.name, fork.metadata, fork.env_names) == ("copy", {}, ("A",))
    assert (fork.preview.visibility, fork.preview.ports) == ("private", (3000,))
    assert (fork.network.deny, fork.network.allow) == (("a.example",), ("b.example",))
    assert fork.files.read("a.txt") == "one"
    told = json.loads(prints(fake, "fork", "demo", "--json", "--memory", "512", "--env", "B=2"))
    assert (told["resourceLimits"]["memory"], told["envNames"], told["metadata"]) == (512, ["B"], {})
    assert f"The session {fork.id} has the name 'copy'" in is_refused(fake, "fork", "demo", "--name", "copy")


def test_many_forks_print_an_id_each_and_say_how_many_failed() -> None:
    fake = FakeBuntime().limit_sessions(3)
    session = named(fake, "demo")
    done = runs(fake, "fork", "demo", "--count", "3", "--metadata", "team=web")
    made = [one.id for one in fake.sessions.list(metadata={"team": "web"})]
    assert (done.exit_code, sorted(done.stdout.split())) == (1, sorted(made))
    assert len(made) == 2
    assert "They end in" in done.stderr
    assert "buntime: 1 of 3 could not be made: The fake plan allows 3 concurrent sessions" in done.stderr
    assert "concurrent sessions" in is_refused(fake, "fork", "demo", "--count", "2")
    fake.sessions.delete(made[0])
    done = runs(fake, "fork", session.id, "--count", "2", "--json")
    told = json.loads(done.stdout)["sessions"]
    assert (done.exit_code, [list(one) for one in told]) == (1, [["session"], ["error"]])
    assert told[1]["error"]["code"] == "session_limit_exceeded"


def test_one_name_is_not_given_to_many_forks() -> None:
    fake = FakeBuntime()
    named(fake, "demo")
    assert "--name is for one session" in is_refused(fake, "fork", "demo", "--count", "2", "--name", "a", status=2)
