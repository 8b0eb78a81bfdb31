"""POST /execute with `stream`: output arrives at once, and a run has one end, whatever happens to either side."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.events import Events, end_of, stream, text_of
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
RESULT = {"exitCode", "executionTime", "memoryUsed", "cpuTime", "timedOut", "filesWritten"}


def running(server: Server, session: Session) -> int:
    """Counts the processes of the session's runs, without the parked process."""
    sandbox = traces.sandbox_of(server.config, session.id)
    return sum(_is_program(pid) for pid in traces.session_processes(server.config, sandbox))


def _is_program(pid: int) -> bool:
    try:
        return b"yes\0" in (line := Path(f"/proc/{pid}/cmdline").read_bytes()) or b"sleep\0" in line
    except OSError:
        return False


def resident(server: Server) -> float:
    """Returns the server's resident memory in MB."""
    assert server._process is not None
    status = Path(f"/proc/{server._process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_output_comes_while_the_program_runs_and_one_result_ends_it(session: Session) -> None:
    code = """
    console.log("first"); console.error("warning");
    await Bun.sleep(1500);
    await Bun.write("a", "1"); console.log("last");
    """
    started, seen = time.monotonic(), dict[str, float]()
    with stream(session, code=code) as answer:
        events = []
        for event in answer:
            seen.setdefault(event[0], time.monotonic() - started)
            events.append(event)
    assert seen["result"] - seen["stdout"] > 1.0
    assert (text_of(events), text_of(events, "stderr")) == ("first\nlast\n", "warning\n")
    end = end_of(events)
    assert set(end) == RESULT
    assert (end["exitCode"], end["timedOut"], end["filesWritten"]) == (0, False, ["a"])


def test_no_character_is_split_and_what_is_no_text_is_replaced(session: Session) -> None:
    code = r"""
    const { writeSync } = require("fs");
    for (const byte of Buffer.from("é😀ß".repeat(20))) {
        writeSync(1, Buffer.of(byte));
        if (byte === 0x98) await Bun.sleep(5);
    }
    writeSync(2, Buffer.from([0x61, 0xff, 0xe2, 0x82, 0x62, 0xf0, 0x9f]));
    """
    with stream(session, code=code) as answer:
        events = list(answer)
    assert text_of(events) == "é😀ß" * 20
    assert text_of(events, "stderr") == "a\ufffd\ufffdb\ufffd"
    assert end_of(events)["exitCode"] == 0


def test_megabytes_of_characters_arrive_whole_and_in_order(session: Session) -> None:
    command = 'for i in $(seq 40000); do echo "$i é😀 line of some length"; done; seq 300000 >&2'
    with stream(session, command=command) as answer:
        events = list(answer)
    assert text_of(events) == "".join(f"{i} é😀 line of some length\n" for i in range(1, 40001))
    assert text_of(events, "stderr") == "".join(f"{i}\n" for i in range(1, 300001))


def test_more_than_fits_into_an_answer_is_not_cut(session: Session) -> None:
    with stream(session, command="head -c 30000000 /dev/zero | tr '\\0' x") as answer:
        events = list(answer)
    assert len(text_of(events)) == 30_000_000
    assert "truncated" not in end_of(events)


def test_a_program_that_is_late_is_a_result_with_all_it_said(session: Session) -> None:
    with stream(session, command="echo before; sleep 60", timeout=1) as answer:
        events = list(answer)
    end = end_of(events)
    assert (text_of(events), end["timedOut"], end["exitCode"]) == ("before\n", True, 124)


def test_failures_of_the_program_and_what_it_leaves(session: Session) -> None:
    cases = {
        "exit 3": (3, ""),
        "kill -9 $$": (137, ""),
        "exec >&-; sleep 0.2; echo late >&2": (0, ""),
        "(sleep 30; echo never) & echo done": (0, "done\n"),
        "printf x": (0, "x"),
    }
    for command, (code, output) in cases.items():
        with stream(session, command=command, timeout=20) as answer:
            events = list(answer)
        assert (end_of(events)["exitCode"], text_of(events)) == (code, output), command
    assert session.output("pgrep -x sleep").strip(), "a background process must keep running"


def test_what_keeps_a_run_from_starting_is_an_answer_of_its_own(session: Session) -> None:
    with stream(session, code="1", workingDir="") as answer:
        answer.refusal().refused(400, "invalid_request", "workingDir")
    with Events(
        session.client, "POST", "/execute", {"sessionId": "ses_" + "0" * 18, "code": "1", "stream": True}
    ) as no:
        no.refusal().refused(404, "session_not_found")
    body = {"sessionId": session.id, "code": "1", "stream": True}
    sent = session.client.call("POST", "/execute", json_body=body, headers={"Idempotency-Key": "a"})
    sent.refused(400, "invalid_request", "Idempotency-Key")


def test_memory_and_disk_limits_are_errors_after_the_output(paid: Client) -> None:
    session = paid.open(resourceLimits={"memory": 128, "disk": 64, "cpu": 1})
    try:
        hungry = "console.log('begun'); const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))"
        cases: list[tuple[dict[str, Any], str]] = [
            ({"code": hungry}, "memory_limit_exceeded"),
            ({"command": "echo begun; head -c 200000000 /dev/urandom > big"}, "disk_full"),
        ]
        for fields, code in cases:
            with stream(session, **fields) as answer:
                events = list(answer)
            assert text_of(events) == "begun\n"
            assert end_of(events)["code"] == code
            session.command("rm -f big")
        assert session.output("echo works") == "works\n"
    finally:
        session.delete()


@pytest.mark.parametrize("command", ["sleep 100", "echo begun; sleep 100", "yes"])
def test_a_client_that_leaves_ends_the_run(server: Server, session: Session, command: str) -> None:
    answer = stream(session, command=command, timeout=120)
    if command != "sleep 100":
        next(answer.parts())
    until(lambda: running(server, session) >= 1, "the run to begin")
    answer.close()
    until(lambda: running(server, session) == 0, "the run to end")
    assert session.output("echo works") == "works\n"


def test_a_reader_that_reads_nothing_stops_the_program_and_takes_no_memory(server: Server, session: Session) -> None:
    session.output("echo warm")
    before = resident(server)
    with stream(session, command="yes 'a line of output' | tee >(wc -c > count) ", timeout=60, small=True) as answer:
        assert answer.status == 200
        until(lambda: running(server, session) >= 1, "the run to begin")
        time.sleep(3)
        assert resident(server) - before < 30
        said = session.output("cat /proc/[0-9]*/io 2>/dev/null | grep ^wchar | sort -k2 -n | tail -1").split()[1]
        time.sleep(1)
        again = session.output("cat /proc/[0-9]*/io 2>/dev/null | grep ^wchar | sort -k2 -n | tail -1").split()[1]
        assert said == again, "the program must wait, since nobody reads"
        assert int(said) < 64 * MB
    until(lambda: running(server, session) == 0, "the run to end")


def test_an_endless_writer_takes_no_memory_of_the_server(server: Server, session: Session) -> None:
    with stream(session, command="yes 'a line of output'", timeout=8) as answer:
        size, highest = 0, 0.0
        lowest = resident(server)
        for part in answer.parts():
            size += len(part)
            highest = max(highest, resident(server))
    assert size > 50 * MB
    assert highest - lowest < 40


def test_a_guest_that_is_killed_is_an_error_and_the_session_goes_on(server: Server, session: Session) -> None:
    with stream(session, command="echo begun; sleep 100", timeout=120) as answer:
        parts = iter(answer)
        assert next(parts) == ("stdout", {"data": "begun\n"})
        traces.kill_sandbox(server.config, session.id)
        rest = list(parts)
    assert end_of(rest)["code"] == "invalid_state"
    assert session.output("echo works") == "works\n"


def test_a_server_that_is_killed_breaks_the_stream_and_ends_the_run(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    with stream(session, command="echo begun; sleep 1000", timeout=200) as answer:
        parts = iter(answer)
        next(parts)
        server.kill()
        with pytest.raises(ConnectionError):
            next(parts)
    server.start()
    until(lambda: running(server, session) == 0, "the run to end")
    assert session.output("echo works") == "works\n"


def test_a_server_that_stops_waits_for_runs_and_says_so_where_they_last_too_long(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    with stream(session, command="echo begun; sleep 2; echo ended", timeout=100) as answer:
        parts = iter(answer)
        next(parts)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGTERM)
        events = list(parts)
    assert server.wait_end() == 0
    assert events[-1][0] in ("result", "error")


def test_as_many_streams_as_the_plan_allows(paid: Client) -> None:
    session = paid.open()
    opened: list[Events] = []
    try:
        for _ in range(32):
            opened.append(Events(paid, "GET", f"/files/watch?sessionId={session.id}"))
            assert opened[-1].status == 200
        with stream(session, command="true") as answer:
            details = answer.refusal().refused(429, "resource_limit_exceeded")
        assert (details["limit"], details["scope"]) == (32, "session")
        opened.pop().close()
        until(lambda: _ends(session), "there to be room again")
    finally:
        for each in opened:
            each.close()
        session.delete()


def _ends(session: Session) -> bool:
    with stream(session, command="true") as answer:
        return answer.status == 200
