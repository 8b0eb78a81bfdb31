"""`buntime top` and `buntime metrics` with a fake server: tables, orders, sums."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from buntime_cli.commands.top_rows import HEAD, SORTS, ordered, padded, row_of, summed
from buntime_sdk import MeasuredSession, Metrics, ResourceLimits

from tests.unit.test_commands import FIRST, SECOND, Answer, Server, session

NOW = datetime(2024, 1, 19, 12, 30, tzinfo=UTC)
MIB = 1 << 20
DID = {
    **{"time": "2024-01-19T12:29:55Z", "seconds": 10, "cpu": 0.97, "memory": 300 * MIB, "disk": 16 * MIB},
    **{"processes": 2, "bytesIn": 20 * MIB, "bytesOut": 4096},
}
MOST = {"cpuMax": 1, "memoryMax": 400 * MIB, "diskMax": 16 * MIB, "processesMax": 3, "bytesInMax": 1, "bytesOutMax": 1}


def measured(session_id: str, did: object = DID, **fields: object) -> dict[str, object]:
    whole = {**session(session_id), "name": None, **fields}
    names = ("sessionId", "name", "state", "createdAt", "expiresAt", "lastActive", "resourceLimits")
    return {**{name: whole[name] for name in names}, "metrics": did}


def one(number: int, cpu: float | None = None, memory: int = 0, received: int = 0, hour: int = 10) -> MeasuredSession:
    made = datetime(2024, 1, 19, hour, tzinfo=UTC)
    did = None
    if cpu is not None:
        did = Metrics(time=NOW, seconds=10, cpu=cpu, memory=memory, disk=0, processes=1, bytes_in=received, bytes_out=0)
    return MeasuredSession(
        session_id=f"ses_{number}",
        name=None,
        state="deep-sleep" if did is None else "active",
        created_at=made,
        expires_at=NOW,
        last_active=made,
        resource_limits=ResourceLimits(1024, 1, 30, 1024),
        metrics=did,
    )


def ids(sessions: list[MeasuredSession]) -> str:
    return " ".join(session.session_id.removeprefix("ses_") for session in sessions)


@pytest.mark.parametrize(
    ("sort", "reverse", "expected"),
    [
        ("cpu", False, "2 1 3 4"),
        ("cpu", True, "3 1 2 4"),
        ("memory", False, "3 2 1 4"),
        ("network", False, "1 3 2 4"),
        ("age", False, "4 3 1 2"),
        ("age", True, "2 1 3 4"),
    ],
)
def test_rows_are_in_the_order_that_was_chosen_and_sleepers_come_last(sort: str, reverse: bool, expected: str) -> None:
    sessions = [
        one(1, cpu=0.5, memory=1, received=9, hour=9),
        one(2, cpu=0.9, memory=2, received=1, hour=10),
        one(3, cpu=0.1, memory=3, received=5, hour=8),
        one(4, hour=7),
    ]
    assert ids(ordered(sessions, sort, reverse=reverse)) == expected


@pytest.mark.parametrize("sort", SORTS)
def test_equal_rows_keep_their_order(sort: str) -> None:
    sessions = [one(number, cpu=0.5) for number in range(9)]
    assert ids(ordered(sessions, sort)) == ids(ordered(sessions[::-1], sort)) == "0 1 2 3 4 5 6 7 8"


def test_columns_line_up() -> None:
    lines = padded([HEAD, row_of(one(1, cpu=0.5), NOW), row_of(one(2), NOW)])
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("2 h 30 min")


def test_sums_are_those_of_sessions_that_are_awake() -> None:
    said = summed([one(1, cpu=0.5, memory=MIB), one(2, cpu=0.25, memory=MIB), one(3)])
    assert said == "3 sessions: 2 active, 0 idle, 1 deep-sleep.  CPU 0.75  memory 2.0 MiB"


def answer(*sessions: dict[str, object]) -> Answer:
    return 200, {"sessions": list(sessions), "total": len(sessions)}


def test_without_a_terminal_one_table_is_printed_with_one_request() -> None:
    idle = measured(SECOND, None, state="idle", name="build")
    server = Server({"GET /metrics/sessions": answer(idle, measured(FIRST))})
    done = server.runs("top")
    assert done.exit_code == 0, done.output
    head, first, second = done.stdout.splitlines()
    assert head.split() == list(HEAD)
    assert first.startswith(f"{FIRST}  ")
    assert first.split()[1:12] == ["active", "0.97", "300.0", "MiB", "16.0", "MiB", "2.0", "MiB", "410", "B", "2"]
    assert second.split()[1:4] == ["build", "idle", "-"]
    assert server.asked == ["GET /metrics/sessions"]


def test_top_gives_programs_the_answers_of_the_api() -> None:
    done = Server({"GET /metrics/sessions": answer(measured(FIRST))}).runs("top", "--json")
    (told,) = json.loads(done.stdout)
    assert told == measured(FIRST)


def test_top_refuses_an_order_that_it_does_not_have() -> None:
    assert Server({}).runs("top", "--once", "--sort", "luck").exit_code == 2


def point(minute: int) -> dict[str, Any]:
    return {**DID, **MOST, "time": f"2024-01-19T12:{minute:02}:00Z"}


def of_session(*points: dict[str, Any]) -> Answer:
    ends = {"from": "2024-01-19T11:30:00Z", "to": "2024-01-19T12:30:00Z"}
    return 200, {"sessionId": FIRST, **ends, "step": 60, "points": list(points)}


def test_metrics_shows_a_line_of_dashes_for_a_time_in_which_the_session_slept() -> None:
    server = Server({f"GET /sessions/{FIRST}/metrics": of_session(point(1), point(2), point(20))})
    done = server.runs("metrics", FIRST)
    assert done.exit_code == 0, done.output
    times = [line.split()[0][11:16] for line in done.stdout.splitlines()[1:]]
    assert times == ["12:01", "12:02", "12:03", "12:20"]
    assert done.stdout.splitlines()[3].split()[1:] == ["-"] * 8


def test_metrics_gives_programs_the_answer_of_the_api() -> None:
    server = Server({f"GET /sessions/{FIRST}/metrics": of_session(point(1))})
    told = json.loads(server.runs("metrics", FIRST, "--json").stdout)
    assert told == of_session(point(1))[1]
