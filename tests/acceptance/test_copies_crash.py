"""The server is killed at each named step of copying and started again: nothing is lost, doubled or left over."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from buntime.daemon import steps
from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.history import History, fresh_history
from tests.acceptance.sleeping import deep_sleep
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.sampled(3)]

AT_COPIES = [
    *steps.CAPTURE, *steps.COPY, *steps.SNAPSHOT, *steps.FORK, *steps.RESTORE, *steps.MAKE_IMAGE,
    *steps.SAVE_LAYER, *steps.REMOVE_LAYER,
]  # fmt: skip
COUNT = 3  # sessions of one fork
REPLAYED = "idempotent-replayed"
SAVED = "SELECT saved FROM layers JOIN snapshots ON layer = layers.id WHERE snapshots.id = ?"
LAYER = "SELECT layer FROM snapshots WHERE id = ?"


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with fresh_history() as history:
        yield history


@pytest.mark.parametrize("asleep", [False, True])
@pytest.mark.parametrize("step", [*steps.CAPTURE, *steps.SNAPSHOT])
def test_a_snapshot_is_whole_or_not_taken(history: History, step: str, asleep: bool) -> None:
    session, key = _session(history, asleep=asleep), str(uuid4())
    assert history.crash(step, lambda: _snapshot(session, key)) is None
    history.server.start()
    is_stored = step == "snapshot: stored"
    assert len(_snapshots(session)) == is_stored
    session.write("file", "two").done()
    again = _snapshot(session, key)
    assert again.headers.get(REPLAYED) == ("true" if is_stored else None)
    assert _snapshots(session) == [again.done()["snapshotId"]]
    copy = _session_from(history.client, again.done()["snapshotId"])
    assert copy.text("file") == ("one" if is_stored else "two")
    _delete(history, session, copy)


@pytest.mark.parametrize("step", steps.SAVE_LAYER)
def test_a_snapshot_whose_saving_was_cut_off_is_whole_and_saved_again(history: History, step: str) -> None:
    session, key = _session(history), str(uuid4())
    history.crash(step, lambda: _snapshot(session, key))
    history.server.start()
    snapshot = _snapshot(session, key).done()["snapshotId"]
    _wait_until_saved(history, snapshot)
    history.is_tidy()
    copy = _session_from(history.client, snapshot)
    assert copy.text("file") == "one"
    _delete(history, session, copy)


@pytest.mark.parametrize("step", steps.REMOVE_LAYER)
def test_what_only_a_deleted_snapshot_had_goes_in_the_end(history: History, step: str) -> None:
    session = _session(history)
    snapshot = _saved_snapshot(history, session)
    copy = _session_from(history.client, snapshot)
    session.delete().done()
    reply = history.crash(step, lambda: history.client.call("DELETE", f"/snapshots/{snapshot}"))
    assert reply is None or reply.status == 200
    history.server.start()
    history.client.call("GET", f"/snapshots/{snapshot}").refused(404, "snapshot_not_found")
    assert copy.text("file") == "one"
    _delete(history, copy)


AT_FORK = [*steps.CAPTURE, *steps.FORK, *(step for step in steps.CREATE if not step.startswith("claim: "))]


@pytest.mark.parametrize("step", AT_FORK)
def test_a_fork_that_a_crash_cut_off_goes_on_and_makes_no_more_than_asked(history: History, step: str) -> None:
    session, key = _session(history), str(uuid4())

    def fork() -> Reply:
        body = {"count": COUNT, "metadata": {"mark": key}}
        return _post(history.client, f"/sessions/{session.id}/fork", body, key)

    def made() -> set[str]:
        listed = history.client.call("GET", "/sessions", query={"metadata.mark": key}).done()["sessions"]
        return {entry["sessionId"] for entry in listed}

    assert history.crash(step, fork) is None
    history.server.start()
    before = made()
    assert len(before) < COUNT
    session.write("file", "two").done()
    answer = fork()
    ids = [entry["session"]["sessionId"] for entry in answer.done()["sessions"]]
    assert len(ids) == COUNT
    assert before <= set(ids) == made()
    assert fork().body == answer.body
    copies = [Session(history.client, each) for each in ids]
    assert {copy.text("file") for copy in copies} == {"two" if step in steps.CAPTURE else "one"}
    _delete(history, session, *copies)


@pytest.mark.parametrize("asleep", [False, True])
@pytest.mark.parametrize("step", [*steps.CAPTURE, *steps.COPY, *steps.RESTORE])
def test_a_restore_is_whole_or_not_begun_and_never_happens_twice(history: History, step: str, asleep: bool) -> None:
    session, key = _session(history), str(uuid4())
    snapshot = _snapshot(session).done()["snapshotId"]
    session.output("echo two > file; sleep 200000 &")
    if asleep:
        deep_sleep(session)

    def restore() -> Reply:
        return _post(history.client, f"/sessions/{session.id}/restore", {"snapshotId": snapshot}, key)

    answered = history.crash(step, restore)
    assert answered is None or step == "restore: stopped"  # what it replaced is ended after the answer
    history.server.start()
    is_stored = step in ("restore: stored", "restore: stopped")
    assert session.text("file") == ("one" if is_stored else "two\n")
    again = restore()
    assert again.done()["sessionId"] == session.id
    assert again.headers.get(REPLAYED) == ("true" if is_stored else None)
    assert answered is None or again.body == answered.body
    assert session.text("file") == "one"
    session.write("file", "three").done()
    assert restore().body == again.body
    assert session.text("file") == "three"
    (before,) = _snapshots(session, name="before-restore")
    copy = _session_from(history.client, before)
    assert copy.text("file") == "two\n"
    _delete(history, session, copy)


@pytest.mark.parametrize("step", [*steps.CAPTURE, *steps.MAKE_IMAGE, *steps.SAVE_LAYER])
def test_an_image_is_whole_or_not_made(history: History, step: str) -> None:
    session, key = _session(history), str(uuid4())

    def make() -> Reply:
        return _post(history.client, "/images/create", {"name": "made", "sessionId": session.id}, key)

    reply = history.crash(step, make)
    history.server.start()
    assert history.client.call("GET", "/images").done()["total"] == (
        step not in (*steps.CAPTURE, *steps.MAKE_IMAGE[:-1])
    )
    history.is_tidy()
    again = make().done()
    assert reply is None or reply.done() == again
    copy = Session(history.client, history.client.create(image="made").done()["sessionId"])
    assert copy.text("file") == "one"
    history.client.call("DELETE", "/images/made").done()
    session.delete().done()
    assert copy.text("file") == "one"
    deep_sleep(copy)
    assert copy.text("file") == "one"
    _delete(history, copy)


@pytest.mark.parametrize("step", ["restore: begun", "restore: received", *steps.ATTACH, "create: claimed"])
def test_a_create_from_a_snapshot_is_whole_or_not_at_all(history: History, step: str) -> None:
    """The snapshot is only in the archive at first: it is evicted together with the volume of a sleeping session."""
    session, key, sleeper = _session(history), str(uuid4()), _session(history)
    snapshot = _saved_snapshot(history, session)
    (layer,) = history.stored(LAYER, snapshot)
    session.delete().done()

    def create() -> Reply:
        deep_sleep(sleeper)
        until(lambda: layer not in traces.volumes(history.server.config), "the layer to be evicted")
        return history.client.create(idempotency_key=key, snapshotId=snapshot, metadata={"mark": key})

    pool_size = 1 if step in steps.ATTACH else 0
    assert history.crash(step, create, pool_size=pool_size, cache_gb=0) is None
    history.server.settings["BUNTIME_POOL_SIZE"] = "0"
    history.server.start()
    assert history.client.call("GET", "/sessions", query={"metadata.mark": key}).done()["total"] == 0
    answer = history.client.create(idempotency_key=key, snapshotId=snapshot, metadata={"mark": key})
    copy = Session(history.client, answer.done()["sessionId"])
    assert copy.text("file") == "one"
    _delete(history, copy, sleeper)


def _session(history: History, *, asleep: bool = False) -> Session:
    session = history.client.open()
    session.write("file", "one").done()
    if asleep:
        deep_sleep(session)
    return session


def _session_from(client: Client, snapshot: str) -> Session:
    return Session(client, str(client.create(snapshotId=snapshot).done()["sessionId"]))


def _snapshot(session: Session, key: str | None = None) -> Reply:
    return _post(session.client, f"/sessions/{session.id}/snapshots", {}, key)


def _saved_snapshot(history: History, session: Session) -> str:
    """Takes a snapshot that is in the archive when this returns."""
    snapshot = str(_snapshot(session).done()["snapshotId"])
    _wait_until_saved(history, snapshot)
    return snapshot


def _wait_until_saved(history: History, snapshot: str) -> None:
    until(lambda: history.stored(SAVED, snapshot) != (None,), "the snapshot to be in the archive")


def _snapshots(session: Session, **query: str) -> list[str]:
    found = session.client.call("GET", "/snapshots", query={"sessionId": session.id, **query}).done()["snapshots"]
    return [str(entry["snapshotId"]) for entry in found]


def _post(client: Client, path: str, body: object, key: str | None) -> Reply:
    return client.call("POST", path, json_body=body, headers={} if key is None else {"Idempotency-Key": key})


def _delete(history: History, *sessions: Session) -> None:
    """Deletes the sessions and all snapshots. Then everything is as it was."""
    history.is_tidy()
    for session in sessions:
        session.delete().done()
    for entry in history.client.call("GET", "/snapshots").done()["snapshots"]:
        history.client.call("DELETE", f"/snapshots/{entry['snapshotId']}").done()
    history.is_tidy()
    history.is_as_before()
