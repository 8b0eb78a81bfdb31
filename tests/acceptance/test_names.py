"""Names with real sandboxes: many creates of one name at once, and a server that is killed in between."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.acceptance.client import Reply, Session
from tests.acceptance.history import History, fresh_history

pytestmark = pytest.mark.sandbox

EXISTING = "session-existing"
AT_ONCE = 100


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with fresh_history() as history:
        yield history


def new_name() -> str:
    return f"test-{uuid4()}"


def total(history: History, name: str) -> int:
    found: int = history.client.call("GET", "/sessions", query={"name": name}).done()["total"]
    return found


def test_100_creates_of_one_name_at_once_give_one_session(history: History) -> None:
    name = new_name()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        calls = [threads.submit(history.client.create, name=name, onConflict="return") for _ in range(AT_ONCE)]
        replies = [call.result() for call in calls]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sum(EXISTING in reply.headers for reply in replies) == AT_ONCE - 1
    session = Session(history.client, f"name:{name}")
    assert session.output("pwd; ls -A") == "/workspace\n"
    assert total(history, name) == 1
    session.delete().done()
    assert total(history, name) == 0
    history.is_as_before()


@pytest.mark.parametrize("step", ["create: claimed", "create: stored"])
def test_a_server_that_is_killed_leaves_a_name_with_its_session_or_free(history: History, step: str) -> None:
    name = new_name()

    def create() -> Reply:
        return history.client.create(name=name, onConflict="return")

    assert history.crash(step, create, pool_size=1) is None
    history.server.start()
    found = total(history, name)
    assert found == (1 if step == "create: stored" else 0)
    again = create()
    assert (again.status, EXISTING in again.headers) == (200, bool(found))
    assert total(history, name) == 1
    session = Session(history.client, again.done()["sessionId"])
    assert session.output("pwd; ls -A") == "/workspace\n"
    session.delete().done()
    history.is_as_before()
