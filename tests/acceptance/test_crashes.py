"""The server is killed at each named step of its work and started again: nothing is lost, doubled or left over."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from buntime.daemon import steps
from tests.acceptance import traces
from tests.acceptance.client import Reply, Session
from tests.acceptance.crashing_server import named_steps
from tests.acceptance.history import History, fresh_history
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, evict, state, wait_until_evicted, wake
from tests.acceptance.test_copies_crash import AT_COPIES
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.sampled(3)]

MAKE = [step for step in steps.CREATE if step.startswith("make: ")]
CLAIM = [step for step in steps.CREATE if step not in MAKE]
REMOVE = [step for step in steps.DELETE if step.startswith("remove: ")]


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with fresh_history() as history:
        yield history


@pytest.mark.parametrize(("step", "pool_size"), [*((step, 0) for step in steps.CREATE), *((step, 1) for step in CLAIM)])
def test_a_create_is_whole_or_undone(history: History, step: str, pool_size: int) -> None:
    key, mark = str(uuid4()), str(uuid4())

    def create() -> Reply:
        return history.client.create(idempotency_key=key, metadata={"mark": mark})

    assert history.crash(step, create, pool_size=pool_size) is None
    history.server.start()
    listed = history.client.call("GET", "/sessions", query={"metadata.mark": mark}).done()["sessions"]
    assert len(listed) == (1 if step == "create: stored" else 0)
    again = create()
    session = Session(history.client, again.done()["sessionId"])
    assert again.headers.get("idempotent-replayed") == ("true" if listed else None)
    assert not listed or listed[0]["sessionId"] == session.id
    assert history.client.call("GET", "/sessions", query={"metadata.mark": mark}).done()["total"] == 1
    assert session.output("pwd; ls -A") == "/workspace\n"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.DELETE)
def test_a_delete_is_finished(history: History, step: str) -> None:
    session = history.client.open()
    deep_sleep(session)  # so that it has a snapshot in the archive
    session.output("echo x > file; sleep 200000 &")
    reply = history.crash(step, session.delete)
    history.server.start()
    assert reply is None or reply.status == 200
    session.look().refused(404, "session_not_found")
    session.delete().refused(404, "session_not_found")
    history.is_as_before()


@pytest.mark.parametrize(("step", "pool_size"), [*((step, 0) for step in MAKE), *((step, 1) for step in steps.ATTACH)])
def test_a_new_start_of_a_sandbox_loses_nothing(history: History, step: str, pool_size: int) -> None:
    session = history.client.open()
    session.write("file", "kept").done()

    def run() -> Reply:
        traces.kill_sandbox(history.server.config, session.id)
        return session.execute(command="cat file")

    assert history.crash(step, run, pool_size=pool_size) is None
    history.server.start()
    assert session.output("cat file") == "kept"
    session.delete().done()
    history.is_as_before()


ON_AN_IMAGE = [
    *((step, 0) for step in MAKE),
    *((step, 1) for step in (*steps.ATTACH, "create: claimed", "create: stored")),
]


@pytest.mark.parametrize(("step", "pool_size"), ON_AN_IMAGE)
def test_a_create_on_an_added_image_is_whole_or_not_at_all(
    history: History, tmp_path: Path, step: str, pool_size: int
) -> None:
    (tmp_path / "etc").mkdir()
    history.server.cli("images", "add", "small", str(tmp_path))
    key = str(uuid4())
    made = history.crash(step, lambda: history.client.create(image="small", idempotency_key=key), pool_size=pool_size)
    assert made is None
    history.server.start()
    session = Session(history.client, history.client.create(image="small", idempotency_key=key).done()["sessionId"])
    assert session.code("console.log(1)")["stdout"] == "1\n"
    assert session.look().done()["image"] == "small"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", REMOVE)
def test_clearing_up_after_a_crash_may_crash_too(history: History, step: str) -> None:
    assert history.crash("create: claimed", history.client.create) is None
    history.crash_in_recovery(step)
    history.server.start()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SUSPEND)
def test_a_suspension_is_whole_or_not_begun(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()
    session.sleeper()
    assert history.crash(step, lambda: ask_to_sleep(session, "idle")) is None
    history.server.start()
    assert state(session) == "idle"
    assert session.output("cat file; pgrep -x -c sleep") == "kept1\n"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SLEEP)
def test_a_deep_sleep_is_whole_or_not_begun(history: History, step: str) -> None:
    session = history.client.open()
    session.write("file", "kept").done()
    session.sleeper()
    assert history.crash(step, lambda: ask_to_sleep(session)) is None
    history.server.start()
    assert state(session) == ("active" if step == "sleep: quiet" else "deep-sleep")
    if step != "sleep: quiet":
        traces.wait_until_given_back(history.server.config, session.id)
    assert session.text("file") == "kept"
    session.delete().done()
    history.is_as_before()


LINKS_OF_THE_CRASHING_SERVER = 4
KEPT = "head -c 40M /dev/urandom > big"  # enough for a parent to be kept
MUCH = "head -c 80M /dev/urandom > big"  # enough for a parent that keeps so much to be noticed


@pytest.mark.parametrize("step", [*steps.ARCHIVE, *steps.EVICT])
def test_a_sleeper_gets_into_the_archive_in_the_end_and_leaves_nothing_else_there(history: History, step: str) -> None:
    session = history.client.open()
    session.output(KEPT)
    if step != "archive: key stored":  # the key is stored only once
        session.write("file", "one").done()
        deep_sleep(session)
    session.write("file", "two").done()
    reply = history.crash(step, lambda: ask_to_sleep(session), cache_gb=0)
    assert reply is None or reply.done()["state"] == "deep-sleep"
    history.server.start()
    assert state(session) == "deep-sleep"
    wait_until_evicted(history.server, session)
    until(lambda: set(history.objects(session.id)) == history.named(session), "the archive to match the store")
    assert session.text("file") == "two"
    session.write("file", "three").done()
    evict(history.server, session)
    assert set(history.objects(session.id)) == history.named(session)
    assert session.text("file") == "three"
    history.is_tidy()
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.ARCHIVE[1:])
def test_a_chain_goes_on_after_a_crash_or_begins_anew(history: History, step: str) -> None:
    """The volume stays on the host. Its parent must be that of the state that the store names, or none."""
    session = history.client.open()
    session.output(KEPT)
    for content in ("one", "two"):
        session.write("file", content).done()
        deep_sleep(session)
    session.write("file", "three").done()
    reply = history.crash(step, lambda: ask_to_sleep(session))
    assert reply is None or reply.done()["state"] == "deep-sleep"
    history.server.start()
    until(lambda: set(history.objects(session.id)) == history.named(session), "the archive to match the store")
    until(lambda: history.mark(session) in traces.parents(history.server.config), "its parent to be kept")
    history.is_tidy()
    session.write("file", "four").done()
    before = len(history.named(session))
    deep_sleep(session)
    assert len(history.named(session)) == before + 1, "the chain must go on"
    history.server.settings["BUNTIME_CACHE_GB"] = "0"
    history.server.stop()
    history.server.start()
    wait_until_evicted(history.server, session)
    assert session.text("file") == "four"
    assert len(session.output("cat big")) > 0
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.FOLD)
def test_a_chain_that_is_being_folded_stays_or_is_folded(history: History, step: str) -> None:
    session = history.client.open()
    session.output(KEPT)
    for content in ("one", "two", "three"):
        session.write("file", content).done()
        deep_sleep(session)
    session.write("file", "four").done()
    assert len(history.named(session)) == LINKS_OF_THE_CRASHING_SERVER - 1
    history.crash(step, lambda: ask_to_sleep(session))
    history.server.start()
    until(lambda: set(history.objects(session.id)) == history.named(session), "the archive to match the store")
    chain = LINKS_OF_THE_CRASHING_SERVER
    assert len(history.named(session)) == (chain if step == "fold: begun" else chain + 1)
    until(lambda: history.mark(session) in traces.parents(history.server.config), "its parent to be kept")
    history.is_tidy()
    history.server.settings["BUNTIME_CACHE_GB"] = "0"
    history.server.stop()
    history.server.start()
    for content in ("five", "six"):
        session.write("file", content).done()
        evict(history.server, session)
        assert session.text("file") == content
    assert session.output("stat -c %s big") == f"{40 << 20}\n"
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.SHED)
def test_a_parent_that_is_dropped_for_room_costs_a_whole_archive_and_nothing_else(history: History, step: str) -> None:
    session = history.client.open()
    session.output(MUCH)
    deep_sleep(session)

    def rewrite() -> Reply:
        return session.execute(command=f"for i in $(seq 10); do {MUCH}; sync; sleep 1; done")

    history.crash(step, rewrite, cache_gb=0)
    history.server.start()
    assert (session.id, "") not in traces.parents(history.server.config)
    size = session.output("stat -c %s big").strip()
    evict(history.server, session)
    assert session.output("stat -c %s big").strip() == size
    history.is_tidy()
    session.delete().done()
    history.is_as_before()


IN_A_CHECKPOINT = [*steps.CHECKPOINT, "archive: sending", "archive: put", "archive: verified"]


@pytest.mark.parametrize("step", IN_A_CHECKPOINT)
def test_a_checkpoint_is_whole_or_not_taken_and_its_session_goes_on(history: History, step: str) -> None:
    session = history.client.open(sleepPolicy={"checkpointEvery": 5})
    session.output(f"{KEPT}; sleep 200000 &")
    if step != "checkpoint: key stored":  # the key is stored only once
        until(lambda: session.look().done()["checkpointedAt"], "a first checkpoint")
    session.write("file", "one").done()

    def change() -> Reply:
        return session.execute(command="for i in $(seq 60); do echo $i > now; sleep 1; done", timeout=90)

    assert history.crash(step, change, cache_gb=0) is None
    history.server.start()
    assert state(session) == "active"
    assert session.output("cat file; pgrep -x -c sleep") == "one1\n"
    session.write("file", "two").done()
    at = session.look().done()["checkpointedAt"]
    until(lambda: session.look().done()["checkpointedAt"] != at, "the next checkpoint")
    until(lambda: set(history.objects(session.id)) == history.named(session), "the archive to match the store")
    history.is_tidy()
    session.write("file", "three").done()
    evict(history.server, session)
    assert session.output("cat file; stat -c %s big") == f"three{40 << 20}\n"
    session.delete().done()
    history.is_as_before()


AWAKE = [step for step in steps.WAKE if step.startswith("wake: ")]
WAKES = [
    *((step, 0, 0) for step in steps.WAKE),
    *((step, -1, 0) for step in AWAKE),
    *((step, -1, 1) for step in (*steps.ATTACH, *AWAKE)),
]


@pytest.mark.parametrize(("step", "cache_gb", "pool_size"), WAKES)
def test_a_wake_is_whole_or_begins_again(history: History, step: str, cache_gb: int, pool_size: int) -> None:
    session = history.client.open()
    session.output(f"{KEPT}; echo kept > file; rm /etc/motd")
    deep_sleep(session)

    def wake_it() -> Reply:
        if cache_gb == 0:
            wait_until_evicted(history.server, session)
        return wake(session)

    assert history.crash(step, wake_it, cache_gb=cache_gb, pool_size=pool_size) is None
    history.server.start()
    assert state(session) == ("active" if step == "wake: stored" else "deep-sleep")
    assert not traces.restoring(history.server.config)
    assert session.output("cat file; ls /etc/motd 2>&1 | grep -c cannot") == "kept\n1\n"
    deep_sleep(session)
    assert set(history.objects(session.id)) == history.named(session)
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.RECOVER)
def test_a_recovery_is_whole_or_not_begun_and_never_happens_twice(history: History, step: str) -> None:
    session, key = history.client.open(), str(uuid4())
    session.output(f"{KEPT}; echo kept > file")
    deep_sleep(session)
    session.output("echo since > file; sleep 200000 &")

    def recover() -> Reply:
        path = f"/sessions/{session.id}/recover"
        return history.client.call("POST", path, headers={"Idempotency-Key": key})

    def lose_and_recover() -> Reply:
        traces.lose_volume(history.server.config, session.id)
        return recover()

    assert history.crash(step, lose_and_recover) is None
    history.server.start()
    assert state(session) == "deep-sleep"
    again = recover()
    assert (again.done()["state"], again.headers.get("idempotent-replayed")) == ("deep-sleep", "true")
    assert session.output("cat file; stat -c %s big; pgrep -x -c sleep || true") == f"kept\n{40 << 20}\n0\n"
    session.write("file", "later").done()
    deep_sleep(session)
    assert recover().body == again.body
    assert session.text("file") == "later"
    history.is_tidy()
    session.delete().done()
    history.is_as_before()


@pytest.mark.parametrize("step", steps.EXITS)
def test_the_end_of_a_process_is_told_once(history: History, step: str) -> None:
    session = history.client.open()
    query = {"sessionId": session.id, "type": "process.exited"}

    def told() -> list[int]:
        events = history.client.call("GET", "/events", query=query).done()["events"]
        return [event["data"]["exitCode"] for event in events]

    def run(command: str) -> Reply:
        body = {"sessionId": session.id, "command": command}
        return history.client.call("POST", "/processes/start", json_body=body)

    history.crash(step, lambda: run("exit 3"))
    history.server.start()
    assert told() == [3]
    run("exit 4").done()  # it comes after what is told again
    until(lambda: 4 in told(), "the next end to be told")
    assert told() == [3, 4]
    session.delete().done()
    history.is_as_before()


def test_every_step_that_is_named_is_one_at_which_a_server_is_killed() -> None:
    at_create, down = (
        (*steps.CREATE, *steps.DELETE),
        (*steps.SUSPEND, *steps.SLEEP, *steps.ARCHIVE, *steps.FOLD, *steps.CHECKPOINT, *steps.EVICT, *steps.SHED),
    )
    here = {*at_create, *down, *steps.ATTACH, *steps.WAKE, *steps.RECOVER, *steps.EXITS}
    assert here | set(AT_COPIES) == set(named_steps())
