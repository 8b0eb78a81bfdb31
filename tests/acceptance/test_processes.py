"""Processes on real sandboxes. Logs lose and repeat nothing, whatever happens to the server or the session."""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from tests.acceptance.client import PATIENCE, Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import assault_on_the_guest
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, deep_sleep, evict, state
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    id: int | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    session: Session
    id: str

    def call(self, method: str, path: str, **fields: object) -> Any:
        where = {"sessionId": self.session.id, "processId": self.id, **fields}
        client = self.session.client
        return client.call(method, path, **({"query": where} if method == "GET" else {"json_body": where}))  # type: ignore[arg-type]

    def look(self) -> dict[str, Any]:
        return dict(self.call("GET", "/processes/get").done())

    def logs(self, **fields: object) -> dict[str, Any]:
        return dict(self.call("GET", "/processes/logs", **fields).done())

    def all_logs(self, cursor: int = 0) -> str:
        """Reads the whole kept log, page by page."""
        text = ""
        while True:
            page = self.logs(cursor=cursor, limit=100_000)
            text += "".join(entry["data"] for entry in page["entries"])
            if page["cursor"] == cursor:
                return text
            cursor = page["cursor"]

    def input(self, data: str = "", **fields: object) -> Any:
        return self.call("POST", "/processes/input", data=data, **fields)

    def signal(self, name: str = "SIGTERM") -> Any:
        return self.call("POST", "/processes/signal", signal=name)

    def follow(self, cursor: int = 0, headers: Mapping[str, str] | None = None) -> Iterator[Event]:
        """Yields events until the answer ends or breaks off."""
        path = f"/processes/logs?sessionId={self.session.id}&processId={self.id}&follow=true&cursor={cursor}"
        client = self.session.client
        yield from events(client, "GET", path, headers=headers)

    def ended(self) -> dict[str, Any]:
        until(lambda: self.look()["status"] != "running", "the process to end")
        return self.look()


def events(
    client: Client, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Iterator[Event]:
    connection = HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE)
    sent = {"Authorization": f"Bearer {client.key}", "Content-Type": "application/json", **(headers or {})}
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=sent)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        fields: dict[str, str] = {}
        while line := answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                cursor = int(fields["id"]) if "id" in fields else None
                yield Event(fields["event"], cursor, json.loads(fields["data"]))
                fields = {}
            else:
                fields = {}
    finally:
        connection.close()


def start(session: Session, command: str = "", **fields: object) -> Process:
    body = {"sessionId": session.id, **({"command": command} if command else {}), **fields}
    begun = session.client.call("POST", "/processes/start", json_body=body).done()
    return Process(session, begun["processId"])


def text_of(found: list[Event]) -> str:
    return "".join(event.data["data"] for event in found if event.name in ("stdout", "stderr"))


def numbers(start: int, end: int) -> str:
    return "".join(f"{number}\n" for number in range(start, end + 1))


def test_a_process_is_started_followed_and_found_again_with_its_end(session: Session) -> None:
    process = start(session, "echo out; echo err >&2; sleep 0.2; printf é; exit 3", name="mine", env={"A": "b"})
    found = list(process.follow())
    assert [(event.name, event.id) for event in found][-1] == ("exit", 10)
    assert {event.name: event.data["data"] for event in found[:2]} == {"stdout": "out\n", "stderr": "err\n"}
    assert found[-1].data == {"status": "exited", "exitCode": 3, "reason": None}
    assert list(process.follow())[-1] == found[-1]
    look = process.look()
    assert (look["name"], look["exitCode"], look["reason"]) == ("mine", 3, None)
    page = process.logs(cursor=8)
    assert ([entry["data"] for entry in page["entries"]], page["cursor"], page["exitCode"]) == (["é"], 10, 3)
    assert process.logs(cursor=10)["entries"] == []
    listed = session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()
    assert (listed["total"], listed["processes"]) == (1, [look])


def test_code_runs_with_the_environment_and_the_directory_asked_for(paid: Client) -> None:
    session = paid.open(env={"A": "session", "B": "session"})
    code = "console.log(process.env.A, process.env.B, process.cwd(), await Bun.stdin.text())"
    process = start(session, code=code, env={"A": "process"}, workingDir="/tmp")
    process.input("typed ").done()
    process.input(base64.b64encode(b"in").decode(), encoding="base64", close=True).done()
    assert process.ended()["exitCode"] == 0
    assert process.all_logs() == "process session /tmp typed in\n"
    process.input("more").refused(409, "invalid_state")
    process.signal().refused(409, "invalid_state")
    session.delete().done()


def test_a_server_is_waited_for(session: Session) -> None:
    def ready(wait: dict[str, object], command: str = "", **fields: object) -> tuple[bool, str]:
        body = {"sessionId": session.id, "waitFor": wait, **fields, **({"command": command} if command else {})}
        begun = session.client.call("POST", "/processes/start", json_body=body).done()
        return begun["ready"], begun["status"]

    serve = "Bun.serve({ port: 8080, hostname: '127.0.0.1', fetch: () => new Response('hi') })"
    assert ready({"port": 8080}, code=serve) == (True, "running")
    assert session.output("curl -s localhost:8080") == "hi"
    assert ready({"output": r"^ready on \d+"}, "sleep 0.3; printf 're'; sleep 0.3; echo 'ady on 1'; sleep 99") == (
        True,
        "running",
    )
    assert ready({"output": "never"}, "echo ever; exit 3") == (False, "exited")
    assert ready({"port": 8099, "timeout": 1}, "sleep 99") == (False, "running")
    bad = {"sessionId": session.id, "command": "true", "waitFor": {"output": "("}}
    session.client.call("POST", "/processes/start", json_body=bad).refused(400, "invalid_request", "waitFor.output")
    hard = {"output": "(x+x+)+y", "timeout": 5}
    assert ready(hard, "head -c 60000 /dev/zero | tr '\\0' x; sleep 99")[0] is False


def test_a_server_is_ready_only_when_it_listens_itself(paid: Client) -> None:
    session = paid.open()

    def begun(command: str, **wait: object) -> tuple[bool, str, int | None, bool]:
        body = {"sessionId": session.id, "command": command, "waitFor": {"port": 8080, **wait}}
        told = paid.call("POST", "/processes/start", json_body=body).done()
        return told["ready"], told["status"], told["exitCode"], told.get("portWasInUse", False)

    serve, daemon = "python3 -m http.server 8080", "nohup python3 -m http.server 8080 >/dev/null 2>&1 &"
    assert begun(serve) == (True, "running", None, False)
    assert begun(serve) == (False, "exited", 1, True)
    assert begun("sleep 99", timeout=1) == (False, "running", None, True)
    session.command("pkill -f http.server; while pgrep -f http.server; do sleep 0.1; done")
    assert begun(f"{daemon} until curl -s localhost:8080; sleep 0.5; do sleep 0.1; done") == (
        True,
        "running",
        None,
        False,
    )
    session.delete().done()


def test_a_signal_reaches_all_that_the_process_has_started_and_nothing_else(session: Session) -> None:
    other = start(session, "sleep 701")
    process = start(session, "setsid sleep 702 & (sleep 703 &); nohup sleep 704 & sleep 705; :")
    until(lambda: session.output("pgrep -c -x sleep") == "5\n", "all processes to start")
    process.signal("SIGKILL").done()
    assert process.ended()["exitCode"] == 137
    until(lambda: session.output("pgrep -a sleep | cut -d' ' -f2-") == "sleep 701\n", "its process tree to end")
    assert other.look()["status"] == "running"
    trap = start(session, "trap 'echo got; exit 9' INT; echo set; while :; do sleep 0.05; done")
    until(lambda: trap.logs()["cursor"] == 4, "the trap to be set")
    trap.signal("SIGINT").done()
    assert (trap.ended()["exitCode"], trap.all_logs()) == (9, "set\ngot\n")


def test_a_process_past_its_time_is_killed(session: Session) -> None:
    process = start(session, "trap '' TERM; echo so far; sleep 800 & sleep 801; :", timeout=1)
    assert list(process.follow())[-1].data == {"status": "exited", "exitCode": 124, "reason": "timeout"}
    assert process.all_logs() == "so far\n"
    until(lambda: session.command("pgrep -x sleep")["exitCode"] == 1, "its process tree to end")


def test_a_full_log_keeps_the_newest_and_says_what_is_missing(paid: Client) -> None:
    session = paid.open(resourceLimits={"cpu": 1})
    process = start(session, "seq 1 4000000; echo end")  # 31 MB
    assert process.ended()["exitCode"] == 0
    whole = 30_888_896 + len("end\n")
    first = process.logs(limit=1)
    assert 0 < first["dropped"] < whole
    kept = process.all_logs()
    assert len(kept) == whole - first["dropped"]
    assert 10 * MIB < len(kept) <= 16 * MIB
    lines = kept.splitlines()
    assert lines[-2:] == ["4000000", "end"]
    assert [int(line) for line in lines[1:-1]] == list(range(int(lines[1]), 4_000_001))
    found = list(process.follow())
    assert (found[0].name, found[0].data["bytes"]) == ("dropped", first["dropped"])
    assert text_of(found) == kept
    session.delete().done()


def test_binary_output_and_what_a_child_says_later_are_kept(session: Session) -> None:
    binary = start(session, "head -c 1000000 /dev/urandom; printf '\\xff\\xfeok'")
    assert binary.ended()["exitCode"] == 0
    assert binary.all_logs().endswith("ok")
    forks = start(session, "(sleep 1; echo late) & echo early; exit 5")
    assert list(forks.follow())[-1].data["exitCode"] == 5
    until(lambda: forks.all_logs() == "early\nlate\n", "the child's output")
    closes = start(session, "exec >&- 2>&- <&-; sleep 0.3; exit 6")
    assert list(closes.follow())[-1].data["exitCode"] == 6


def test_damage_from_inside_hurts_one_process_alone(session: Session) -> None:
    fine, damaged, removed = (start(session, f"echo {name}") for name in ("fine", "damaged", "removed"))
    runs = start(session, "echo one; read; echo two")
    for process in (fine, damaged, removed):
        process.ended()
    place = "/var/lib/buntime/processes"
    session.output(
        f"cd {place}; rm -r {removed.id} {runs.id}; echo garbage > {damaged.id}/record.json; "
        f"rm {damaged.id}/0.log; mkfifo {damaged.id}/0.log; touch {place}/odd; ln -s / {place}/proc_{'a' * 18}"
    )
    removed.call("GET", "/processes/get").refused(404, "process_not_found")
    look = damaged.look()
    assert (look["status"], look["exitCode"], look["reason"]) == ("lost", None, "runtime_ended")
    assert damaged.all_logs() == ""
    assert fine.all_logs() == "fine\n"
    session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()
    runs.input("\n", close=True).done()
    assert runs.ended()["exitCode"] == 0
    assert runs.look()["exitCode"] == 0


def test_a_process_goes_on_when_the_disk_is_full(paid: Client) -> None:
    session = paid.open(resourceLimits={"cpu": 1, "disk": 32})
    process = start(session, "echo one; read; seq 1 100000; read; echo two; exit 3")
    until(lambda: process.logs()["cursor"] == 4, "the process to start")
    session.execute(command="head -c 40000000 /dev/urandom > fill").refused(507, "disk_full")
    process.input("\n").done()
    time.sleep(1)
    process.input("\n").done()
    until(lambda: process.look()["status"] == "exited", "the process to end")
    assert process.look()["exitCode"] == 3
    session.delete_file("fill").done()
    time.sleep(4)
    look = json.loads(session.output(f"cat /var/lib/buntime/processes/{process.id}/record.json"))
    assert look["exitCode"] == 3
    session.delete().done()


def test_processes_of_a_session_are_limited_by_what_runs(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    for _ in range(64):
        start(session, "sleep 900")
    body = {"sessionId": session.id, "command": "sleep 900"}
    details = client.call("POST", "/processes/start", json_body=body).refused(429, "resource_limit_exceeded")
    assert (details["limit"], details["scope"]) == (64, "session")
    session.output("pkill -n -x sleep")
    until(lambda: client.call("POST", "/processes/start", json_body=body).status == 200, "there to be room")


def test_a_start_with_a_key_starts_one_process(session: Session) -> None:
    body = {"sessionId": session.id, "command": "sleep 9"}
    answers = [
        session.client.call("POST", "/processes/start", json_body=body, headers={"Idempotency-Key": "once"}).done()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert session.client.call("GET", "/processes/list", query={"sessionId": session.id}).done()["total"] == 1


def test_a_detached_run_goes_on_without_its_client(session: Session) -> None:
    def detached(command: str, **fields: object) -> Iterator[Event]:
        body = {"sessionId": session.id, "command": command, "stream": True, "detach": True, **fields}
        return events(session.client, "POST", "/execute", body)

    found = list(detached("cat; sleep 0.2; exit 4", stdin="typed\n"))
    assert [event.name for event in found] == ["process", "stdout", "result"]
    assert (found[2].data["exitCode"], found[2].data["timedOut"]) == (4, False)
    assert found[2].data["memoryUsed"] > 0
    left = detached("echo begun; sleep 1; echo finished")
    process = Process(session, next(left).data["processId"])
    left.close()  # type: ignore[attr-defined]
    assert list(process.follow())[-1].data["exitCode"] == 0
    assert process.all_logs() == "begun\nfinished\n"
    late = list(detached("sleep 60", timeout=1))[-1].data
    assert (late["exitCode"], late["timedOut"]) == (124, True)
    session.execute(command="true", detach=True).refused(400, "invalid_request", "detach")


# --- killed servers and sleeping sessions ---


class Reader(threading.Thread):
    """Reads a log in a thread. Reconnects with its cursor until the log ends."""

    def __init__(self, process: Process, *, by_header: bool = False) -> None:
        super().__init__(name="reader", daemon=True)
        self._process = process
        self._by_header = by_header
        self.cursor = 0
        self.found: list[Event] = []
        self.answers = 0

    def run(self) -> None:
        while not any(event.name == "exit" for event in self.found):
            self.answers += 1
            with suppress(OSError, HTTPException, AssertionError):
                self._read()
            time.sleep(0.05)

    def _read(self) -> None:
        headers = {"Last-Event-ID": str(self.cursor)} if self._by_header else {}
        for event in self._process.follow(0 if self._by_header else self.cursor, headers):
            self.found.append(event)
            if event.id is not None:
                self.cursor = event.id

    def end(self) -> Event:
        self.join(PATIENCE)
        assert not self.is_alive(), f"the log did not end after {self.answers} answers, at cursor {self.cursor}"
        return self.found[-1]


@pytest.mark.parametrize("by_header", [False, True])
def test_each_line_is_seen_once_over_kills_and_restarts_of_the_server(servers: Servers, by_header: bool) -> None:
    server = servers.start()
    session = server.new_client().open()
    process = start(session, "for i in $(seq 1 3000); do echo $i; [ $((i % 10)) = 0 ] && sleep 0.02; done; exit 7")
    reader = Reader(process, by_header=by_header)
    reader.start()
    for _ in range(2):
        time.sleep(0.7)
        server.kill()
        time.sleep(0.5)
        server.start()
    assert reader.end().data == {"status": "exited", "exitCode": 7, "reason": None}
    assert text_of(reader.found) == numbers(1, 3000)
    assert reader.answers > 2
    assert process.all_logs() == numbers(1, 3000)


def test_a_server_that_stops_lets_followers_go_at_once(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    process = start(session, "echo begun; sleep 6; echo done")
    reader = Reader(process)
    reader.start()
    until(lambda: reader.cursor == 6, "the first line")
    stopping = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - stopping < 30
    server.start()
    assert reader.end().data["exitCode"] == 0
    assert text_of(reader.found) == "begun\ndone\n"


def test_who_follows_does_not_hold_the_session_awake_and_misses_nothing(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="1", BUNTIME_TICK_MS="50")
    session = server.new_client().open()
    process = start(session, "for i in $(seq 1 40); do echo $i; sleep 0.1; done")
    reader = Reader(process)
    reader.start()
    until(lambda: state(session) == "idle", "the session to be suspended while a client follows its log")
    seen = reader.cursor
    time.sleep(1)
    assert reader.cursor == seen
    session.output("true")
    until(lambda: state(session) == "idle", "the session to be suspended again")
    while reader.is_alive():
        session.output("true")
        time.sleep(0.2)
    assert text_of(reader.found) == numbers(1, 40)
    assert (reader.end().data["exitCode"], reader.answers) == (0, 1)


def test_deep_sleep_ends_processes_and_says_so(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    before = start(session, "echo before; exit 2")
    assert before.ended()["exitCode"] == 2
    gentle = start(session, "trap 'echo bye; exit 6' TERM; echo set; while :; do sleep 0.05; done")
    simple = start(session, "echo set; sleep 900")
    stubborn = start(session, "trap '' TERM; echo set; while :; do sleep 1; done")
    for process in (gentle, simple, stubborn):
        until(lambda process=process: process.logs()["cursor"] == 4, "the process to start")  # type: ignore[misc]
    reader = Reader(gentle)
    reader.start()
    held = list[Event]()
    following = threading.Thread(target=lambda: held.extend(stubborn.follow()), daemon=True)
    following.start()
    until(lambda: reader.cursor == 4 and held, "both logs to be followed")
    deep_sleep(session)
    following.join(PATIENCE)
    assert [event.name for event in held] == ["stdout", "error"]
    assert held[-1].data["details"]["reason"] == "deep_sleep"
    assert state(session) == "deep-sleep"
    assert reader.end().data == {"status": "exited", "exitCode": 6, "reason": "deep_sleep"}
    assert text_of(reader.found).replace("Terminated\n", "") == "set\nbye\n", "bash may also say Terminated"
    for process, code, reason in ((before, 2, None), (gentle, 6, "deep_sleep"), (simple, 143, "deep_sleep")):
        look = process.look()
        assert (look["status"], look["exitCode"], look["reason"]) == ("exited", code, reason)
    look = stubborn.look()
    assert (look["status"], look["exitCode"], look["reason"]) == ("lost", None, "deep_sleep")
    assert list(stubborn.follow())[-1].data == {"status": "lost", "exitCode": None, "reason": "deep_sleep"}
    assert gentle.all_logs() == text_of(reader.found)
    again = start(session, "echo again")
    assert again.ended()["reason"] is None
    ask_to_sleep(session).done()
    server.kill()
    server.start()
    assert (before.look()["exitCode"], again.all_logs()) == (2, "again\n")


def test_what_a_process_left_behind_printed_after_it_comes_back_after_deep_sleep(servers: Servers) -> None:
    session = servers.start().new_client().open()
    lines = "for i in 1 2 3; do sleep 0.1; echo line $i; done"
    gentle = start(session, f"({lines}; exec sleep 900) & echo started")
    stubborn = start(session, f"(trap '' TERM; {lines}; while :; do sleep 1; done) & echo started")
    text = "started\n" + "".join(f"line {i}\n" for i in (1, 2, 3))
    for process in (gentle, stubborn):
        assert process.ended()["exitCode"] == 0
        until(lambda process=process: process.logs()["cursor"] == len(text), "the output")  # type: ignore[misc]
    deep_sleep(session)
    for process in (gentle, stubborn):
        assert process.all_logs() == text
        page = process.logs(cursor=len(text))
        assert (page["entries"], page["cursor"]) == ([], len(text))


def test_ends_and_logs_come_back_from_the_archive(servers: Servers) -> None:
    server = servers.start(pool_size=1, **EVICTING)
    session = server.new_client().open()
    process = start(session, "seq 1 1000; exit 3")
    assert process.ended()["exitCode"] == 3
    evict(server, session)
    assert process.look()["exitCode"] == 3
    assert process.all_logs() == numbers(1, 1000)


def test_suspended_time_does_not_count_against_a_process(session: Session) -> None:
    process = start(session, "sleep 900", timeout=3)
    ask_to_sleep(session, "idle").done()
    time.sleep(4)
    assert process.look()["status"] == "running"
    assert (process.ended()["exitCode"], process.look()["reason"]) == (124, "timeout")


def test_a_runtime_that_is_killed_from_inside_is_told(session: Session) -> None:
    process = start(session, "echo begun; sleep 900")
    until(lambda: process.logs()["cursor"] == 6, "the process to start")
    held = list[Event]()
    following = threading.Thread(target=lambda: held.extend(process.follow()), daemon=True)
    following.start()
    until(lambda: held, "the log to be followed")
    session.execute(command=assault_on_the_guest(session, "end"))
    session.output("true")
    following.join(PATIENCE)
    if held[-1].name == "error":
        assert held[-1].data["details"]["reason"] == "runtime_ended"
    look = process.look()
    assert look["status"] in ("lost", "exited")
    assert process.all_logs() == "begun\n"
