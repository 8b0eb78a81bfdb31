"""Runs of code that use a prepared Bun process: they behave as other runs do, and start sooner."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

BOUND = 30.0  # seconds; the machine may be busy
# A look is a run. A session that has used up its share of the CPU must be quiet for 0.2 s before a process is prepared.
LOOK_SECONDS = 0.3
HEARD_SECONDS = 0.2  # until the server has heard from the guest what /proc says already
# Finds prepared processes: guest/src/boot/boot.js holds one descriptor until it is ready, and another until it is used.
WAITING = """for process in /proc/[0-9]*; do
  [ -e $process/fd/9 ] && [ ! -e $process/fd/8 ] && grep -qz boot.js $process/cmdline && echo ${process#/proc/}
done; true"""
PID = "console.log(process.pid)"
# Waits until the code is in the pipe of the process.
HANDED = """python3 -c '
import fcntl, os, struct, termios, time
pipe = os.open("/proc/{pid}/fd/9", os.O_RDONLY | os.O_NONBLOCK)
while not struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
    time.sleep(0.01)
'"""


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(LOOK_SECONDS)


def _waiting(session: Session) -> list[str]:
    return session.output(WAITING).split()


def _prepared(session: Session, **fields: object) -> str:
    """Returns the pid of the process that is prepared for a run like this one."""
    earlier = set(_waiting(session))
    session.code("0", **fields)
    _until(lambda: set(_waiting(session)) - earlier, "a process to be prepared")
    time.sleep(HEARD_SECONDS)
    (pid,) = set(_waiting(session)) - earlier
    return pid


def _said(session: Session, code: str, **fields: object) -> str:
    result = session.code(code, **fields)
    assert (result["exitCode"], result["stderr"]) == (0, ""), result
    return str(result["stdout"]).strip()


def test_the_next_run_meets_a_process_that_has_started_and_none_meets_it_again(session: Session) -> None:
    waiting = _prepared(session)
    assert _said(session, f"globalThis.x = 1; {PID}") == waiting
    assert _said(session, "console.log(typeof globalThis.x)") == "undefined"
    assert waiting != _prepared(session)


def _until_all_are_prepared(server: Server) -> None:
    """Waits until every parked sandbox has a Bun that has started."""
    boots = f"/buntime-{server.config.instance}/"

    def waiting() -> int:
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_one = "boot.js" in (process / "cmdline").read_text() and boots in (process / "cgroup").read_text()
                found += is_one and (process / "fd" / "9").is_fifo() and not (process / "fd" / "8").exists()
        return found

    _until(lambda: waiting() == int(server.settings["BUNTIME_POOL_SIZE"]), "all parked sandboxes to be prepared")
    time.sleep(HEARD_SECONDS)


def test_the_first_run_of_a_session_meets_a_process_that_has_started(servers: Servers) -> None:
    server = servers.start(pool_size=3)
    _until_all_are_prepared(server)
    session = server.new_client("paid").open()
    (waiting,) = _waiting(session)
    assert session.look().done()["activeProcesses"] == 0
    assert _said(session, PID) == waiting
    assert _said(session, "console.log(1)") == "1"
    session.delete().done()  # a process was prepared for its next run, too
    _until_all_are_prepared(server)


def test_a_session_with_other_limits_starts_its_own(servers: Servers) -> None:
    """A Bun that has started has read how much memory there is."""
    server = servers.start(pool_size=3)
    _until_all_are_prepared(server)
    session = server.new_client("paid").open(resourceLimits={"memory": 256, "cpu": 1})
    _until(lambda: not _waiting(session), "the prepared process to end")
    assert _said(session, "console.log(process.constrainedMemory() >> 20)") == "256"


def test_a_parked_sandbox_that_gets_another_root_has_none(servers: Servers) -> None:
    server = servers.start(pool_size=2)
    client = server.new_client("paid")
    session = client.open()
    session.write("file", "of the first").done()
    _until_all_are_prepared(server)
    copies = session.client.call("POST", f"/sessions/{session.id}/fork", json_body={"count": 2}).done()["sessions"]
    for made in copies:
        copy = Session(client, made["session"]["sessionId"])
        assert _waiting(copy) == []
        assert _said(copy, "console.log(await Bun.file('file').text())") == "of the first"


@pytest.mark.parametrize("prepared", ["0", "1"])
def test_the_setting_says_how_many_parked_sandboxes_have_one(servers: Servers, prepared: str) -> None:
    server = servers.start(pool_size=3, BUNTIME_POOL_PREPARED=prepared)
    client = server.new_client("paid")
    _until(lambda: server.parked() == 3, "a full pool")
    time.sleep(1)
    sessions = [client.open() for _ in range(2)]
    assert [len(_waiting(session)) for session in sessions] == [int(prepared), 0]


def test_results_are_those_of_any_run(session: Session) -> None:
    _prepared(session)
    result = session.code(
        "await Bun.write('new.txt', 'x'); console.log(process.argv.length); console.error('e'); throw 1"
    )
    assert result["filesWritten"] == ["new.txt"]
    assert (result["stdout"], result["exitCode"], result["timedOut"]) == ("1\n", 1, False)
    assert result["stderr"].startswith("e\n")
    assert 0 < result["cpuTime"] < 30_000
    assert 1 << 20 < result["memoryUsed"] < 1 << 30


@pytest.mark.parametrize("change", ["", "process.setgid(65534); process.setuid(65534);"])
def test_its_exit_code_is_told_whoever_it_has_become(session: Session, change: str) -> None:
    pid = _prepared(session)
    result = session.code(f"{change} console.log(process.pid); process.exit(3)")
    assert (result["stdout"], result["exitCode"]) == (f"{pid}\n", 3)


def test_the_code_of_a_context_finds_the_port_free_that_a_run_had(session: Session) -> None:
    client = session.client
    context = client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"]
    session.code("0", contextId=context)
    serve = "const server = Bun.serve({ port: 8080, fetch: () => new Response() });"
    for _ in range(3):
        _prepared(session)
        # so much memory takes the kernel tens of ms to give back
        assert _said(session, f"{serve} new Uint8Array(300 << 20).fill(1); console.log(1); process.exit(0)") == "1"
        result = session.code("{ " + serve + " server.stop(true) } 1", contextId=context)
        assert result["exitCode"] == 0, result


def test_one_that_runs_too_long_is_killed_with_all_it_started(session: Session) -> None:
    waiting = _prepared(session)
    result = session.code(f"{PID}; Bun.spawn(['sleep', '7777']); while (true);", timeout=1)
    assert (result["timedOut"], result["exitCode"], result["stdout"]) == (True, 124, f"{waiting}\n")
    assert session.command("pgrep -f 'sleep 7777'")["exitCode"] == 1


def test_a_file_that_is_new_is_seen(session: Session) -> None:
    _prepared(session)
    session.write("added.ts", "export default 'added'").done()
    assert _said(session, "import x from './added'; console.log(x)") == "added"


def test_files_of_the_request_are_seen(session: Session) -> None:
    _prepared(session)
    files = [{"path": ".env", "content": "FROM=file"}, {"path": "more.ts", "content": "export const more = 2"}]
    assert _said(session, "import { more } from './more'; console.log(process.env.FROM, more)", files=files) == "file 2"


def test_a_file_that_a_start_reads_and_that_has_changed_is_seen(session: Session) -> None:
    session.write(".env", "FROM=file").done()
    _prepared(session)
    session.write(".env", "FROM=else").done()
    assert _said(session, "console.log(process.env.FROM)") == "else"


def test_an_image_that_is_made_of_the_same_base_meanwhile_does_not_matter(server: Server, session: Session) -> None:
    """It links the base's files, which changes their ctime."""
    waiting = _prepared(session)
    linked = server.config.images / f".link-{session.id}"
    files = [*server.config.images.glob("base-*/etc/ssl/certs/ca-certificates.crt")]
    assert files
    for file in files:
        os.link(file, linked)
        linked.unlink()
    assert _said(session, PID) == waiting


def test_it_is_made_for_the_environment_and_the_directory_of_the_last_run(session: Session) -> None:
    session.output("mkdir -p lib")
    alike = {"env": {"GREETING": "hello"}, "workingDir": "lib"}
    waiting = _prepared(session, **alike)
    shown = "console.log(process.pid, process.env.GREETING, process.cwd())"
    assert _said(session, shown, **alike) == f"{waiting} hello /workspace/lib"
    waiting = _prepared(session, **alike)
    assert _said(session, "console.log(process.env.GREETING, process.cwd())") == "undefined /workspace"
    _until(lambda: waiting not in _waiting(session), "the old process to be given up")


def test_input_and_long_code_do_without(session: Session) -> None:
    waiting = _prepared(session)
    assert _said(session, "console.log(await Bun.stdin.text())", stdin="given") == "given"
    assert _said(session, f"console.log({'x' * 20_000!r}.length)") == "20000"
    assert _waiting(session) == [waiting]


def test_it_leaves_nothing_on_the_sessions_disk(session: Session) -> None:
    session.output("touch before")
    _prepared(session)
    session.code("0")
    _prepared(session)
    assert session.output("find / -xdev -type f -newer before") == ""


def test_it_is_no_process_of_the_session(session: Session) -> None:
    _prepared(session)
    assert session.look().done()["activeProcesses"] == 0


def test_a_session_that_kills_it_runs_on(session: Session) -> None:
    for _ in range(2):
        waiting = _prepared(session)
        session.command(f"kill -9 {waiting}")
        assert _said(session, "console.log(1)") == "1"


def test_a_run_starts_in_another_process_when_its_own_is_killed_before_it_starts(session: Session) -> None:
    waiting = _prepared(session)
    session.output(f"kill -STOP {waiting}")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_said, session, PID)
        session.output(HANDED.format(pid=waiting))
        session.output(f"kill -9 {waiting}")
        assert running.result() not in (waiting, "")


def test_a_run_that_is_killed_after_it_has_started_does_not_start_again(session: Session) -> None:
    waiting = _prepared(session)
    code = "require('fs').appendFileSync('starts', `${process.pid}\n`); process.kill(process.pid, 'SIGKILL')"
    result = session.code(code)
    assert (result["exitCode"], result["stdout"]) == (137, "")
    assert session.output("cat starts").split() == [waiting]


def test_a_session_that_stops_it_or_scribbles_hurts_only_its_own_run(session: Session) -> None:
    waiting = _prepared(session)
    session.output(f"kill -STOP {waiting}")
    result = session.code("console.log(1)", timeout=1)
    assert (result["timedOut"], result["stdout"]) == (True, "")
    waiting = _prepared(session)
    session.command(f"echo 'console.log(\"theirs\")' >/proc/{waiting}/fd/9")
    assert session.code("console.log(1)")["exitCode"] in (0, 1)
    assert _said(session, "console.log(2)") == "2"


def test_a_run_past_the_sessions_memory_is_told_with_one_waiting_beside_it(enterprise: Client) -> None:
    session = enterprise.open(resourceLimits={"memory": 192, "cpu": 1})
    _prepared(session)
    hog = "const a = []; for (let i = 0; i < 40; i++) a.push(Buffer.alloc(10 << 20, 1)); console.log(a.length)"
    session.execute(command=f"bun -e {hog!r}").refused(507, "memory_limit_exceeded")
    _prepared(session)
    session.execute(code=hog).refused(507, "memory_limit_exceeded")
    assert _said(session, "console.log(1)") == "1"


def test_a_session_short_of_memory_has_none(enterprise: Client) -> None:
    session = enterprise.open(resourceLimits={"memory": 64, "cpu": 1})
    for _ in range(3):
        assert _said(session, "console.log(1)") == "1"
        time.sleep(0.5)
        assert _waiting(session) == []


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
def test_a_session_that_sleeps_has_none(session: Session, depth: str) -> None:
    _prepared(session)
    path = f"/sessions/{session.id}"
    session.client.call("POST", f"{path}/sleep", json_body={"depth": depth}).done()
    session.client.call("POST", f"{path}/wake", json_body={}).done()
    assert _waiting(session) == []
    assert _said(session, "console.log(1)") == "1"


def test_output_streams_from_it_as_from_any(session: Session) -> None:
    waiting = _prepared(session)
    reply = session.client.call(
        "POST",
        "/execute",
        json_body={"sessionId": session.id, "code": f"{PID}; await Bun.sleep(50); console.error(2)"},
        headers={"Accept": "text/event-stream", "Content-Type": "application/json"},
    )
    assert reply.status == 200, reply.shown()
    assert waiting in reply.body.decode()


def test_none_outlives_the_server_and_the_next_one_makes_its_own(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client("paid").open()
    waiting = _prepared(session)
    server.kill()
    server.start()
    assert waiting not in _waiting(session)
    assert _said(session, PID) != waiting
    waiting = _prepared(session)
    assert _said(session, PID) == waiting
