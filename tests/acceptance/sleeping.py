"""Puts sessions to sleep and observes the result."""

import re

from tests.acceptance import traces
from tests.acceptance.client import Reply, Session
from tests.acceptance.server import Server
from tests.waiting import until

EVICTING = {"BUNTIME_CACHE_GB": "0", "BUNTIME_TICK_MS": "50"}  # settings that evict a volume as soon as it is archived


def state(session: Session) -> str:
    return str(session.look().done()["state"])


def ask_to_sleep(session: Session, depth: str = "deep-sleep") -> Reply:
    return session.client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": depth})


def wake(session: Session) -> Reply:
    return session.client.call("POST", f"/sessions/{session.id}/wake")


def deep_sleep(session: Session) -> None:
    assert ask_to_sleep(session).done()["state"] == "deep-sleep"


def wait_until_evicted(server: Server, session: Session) -> None:
    until(lambda: not traces.has_volume(server.config, session.id), "its volume to be evicted")


def evict(server: Server, session: Session) -> None:
    """Puts a session into deep sleep and waits until its volume is evicted. The server must have EVICTING settings."""
    deep_sleep(session)
    wait_until_evicted(server, session)


def number(server: Server, name: str) -> int:
    """Returns the value of a metric. `name` may have labels, as in `ready{part="room"}`."""
    found = re.search(rf"^buntime_{re.escape(name)}(_total)? (\S+)$", server.metrics(), re.M)
    assert found, f"no metric {name}"
    return int(float(found[2]))
