"""The one host of the fake. Nothing really runs there, so it is never busy."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from buntime_sdk._fake.session import FakeSession, stamp
from buntime_sdk.version import __version__

GB = 1 << 30


def hosts(sessions: Iterable[FakeSession], since: datetime) -> dict[str, Any]:
    states = [session.state for session in sessions if not session.is_expired]
    awake = states.count("active") + states.count("idle")
    counts = {"active": states.count("active"), "idle": states.count("idle"), "deepSleep": states.count("deep-sleep")}
    only = {
        **{"hostId": "local", "state": "active", "draining": False, "drainSecondsLeft": None},
        **{"address": "127.0.0.1:8000", "version": __version__, "joinedAt": stamp(since), "lease": None},
        "sessions": {**counts, "unsaved": 0},
        "load": {
            **{"cores": 4, "load": 0, "sandboxes": awake, "parked": 0, "memory": _room(16 * GB, GB)},
            **{"disk": _room(100 * GB, 2 * GB), "volumes": _room(80 * GB, 2 * GB)},
            "addresses": {"total": 4094, "used": awake, "reserved": 0},
        },
    }
    return {"hosts": [only], "nobody": {"active": 0, "idle": 0, "deepSleep": 0, "unsaved": 0}}


def _room(total: int, reserved: int) -> dict[str, int]:
    return {"total": total, "used": 0, "reserved": reserved}
