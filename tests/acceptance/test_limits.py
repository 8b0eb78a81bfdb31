"""Programs that use as much as they can: each is contained, harms no neighbour and leaves nothing behind."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from buntime.sandboxes.kernel.oci import OPEN_FILES
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.hostile import assault_on_the_guest, process_of, stop_the_guest
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

MB = 1 << 20
HOG = "const kept = []; console.log('begun'); for (;;) kept.push(Buffer.alloc(8e6, 1))"
FORK_BOMB = "bomb() { bomb | bomb & }; bomb; sleep 60"


@contextmanager
def _beside(work: Callable[[], object]) -> Iterator[Future[object]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def _is_as_new(server: Server, session: Session) -> None:
    """Asserts that the session answers, and that only parked processes run in it: at most a shell and a Bun."""
    assert session.output("echo fine") == "fine\n"
    sandbox = traces.sandbox_of(server.config, session.id)
    deadline = time.monotonic() + 20
    while session.look().done()["activeProcesses"] or len(traces.session_processes(server.config, sandbox)) > 2:
        assert time.monotonic() < deadline  # killed processes may still be closing their files
        time.sleep(0.05)


# --- memory ---


@pytest.mark.parametrize(
    "program",
    [
        {"code": HOG},
        {"command": f'echo begun; bun -e "{HOG.replace("begun", "child")}"; exit $?'},
        {"command": "echo begun; python3 -c 'x = bytearray(10**10)' & python3 -c 'x = b\"1\" * 10**9'"},
        {"command": "echo begun; head -c 500M /dev/zero | tail"},
    ],
)
def test_a_run_past_the_sessions_memory_is_told_and_the_session_lives_on(
    server: Server, paid: Client, program: dict[str, object]
) -> None:
    session = paid.open(resourceLimits={"memory": 128, "cpu": 1})
    session.write("kept", "kept").done()
    session.sleeper()
    reply = session.execute(timeout=60, **program)
    details = reply.refused(507, "memory_limit_exceeded")
    assert "128 MB" in reply.error["message"]
    assert (details["limit"], reply.error["retryable"]) == (128, False)
    assert details["stdout"].startswith("begun\n")
    assert details["exitCode"] != 0
    assert session.text("kept") == "kept"
    session.output("pkill sleep")
    _is_as_new(server, session)
    session.delete().done()


def test_files_in_shared_memory_count_as_memory_and_can_be_deleted(server: Server, paid: Client) -> None:
    session = paid.open(resourceLimits={"memory": 96, "cpu": 1})
    session.output("head -c 50M /dev/zero > /dev/shm/full")
    session.execute(command="python3 -c 'x = b\"1\" * (80 * 2**20)'").refused(507, "memory_limit_exceeded")
    session.output("rm /dev/shm/full")
    assert session.output("python3 -c 'print(len(b\"1\" * (60 * 2**20)))'") == f"{60 * MB}\n"
    assert session.command("head -c 100M /dev/zero > /dev/shm/full")["exitCode"] != 0
    assert session.delete_file("/dev/shm/full").status == 200
    _is_as_new(server, session)
    session.delete().done()


def test_a_run_that_copes_with_the_end_of_a_child_is_a_result(paid: Client) -> None:
    session = paid.open(resourceLimits={"memory": 128, "cpu": 1})
    result = session.command("head -c 500M /dev/zero | tail || echo coped", timeout=60)
    assert (result["stdout"], result["exitCode"]) == ("coped\n", 0)
    assert 100 * MB < result["memoryUsed"] <= 132 * MB  # the kernel accounts memory in batches
    session.delete().done()


# --- disk ---


def test_a_full_disk_is_told_and_deleting_makes_room_again(server: Server, paid: Client) -> None:
    session = paid.open(resourceLimits={"disk": 64, "cpu": 1})
    reply = session.execute(command="echo begun; head -c 200M /dev/urandom > big; exit $?", timeout=60)
    details = reply.refused(507, "disk_full")
    assert (details["stdout"], details["limit"]) == ("begun\n", 64)
    assert "64 MB" in reply.error["message"]
    session.execute(code="await Bun.write('more', Buffer.alloc(30e6, 1))").refused(507, "disk_full")
    refused = session.write("more", "x" * (30 * MB))
    refused.refused(507, "disk_full")
    assert session.list().done()["total"] in (1, 2)  # only "big" and Bun's "more": nothing of the refused write
    session.execute(command="true", files=[{"path": f"f{n}", "content": "x" * (9 * MB)} for n in range(4)]).refused(
        507, "disk_full"
    )
    assert "100%" in session.output("df -h /"), "df needs no disk"
    session.delete_file("big").done()
    session.delete_file("more")
    for _ in range(3):
        assert session.command("exit 3")["exitCode"] == 3, "a program that fails later did not meet the limit"
    assert session.write("after", "x" * (20 * MB)).done()["size"] == 20 * MB
    assert session.output("head -c 10M /dev/urandom > also; wc -c < also") == f"{10 * MB}\n"
    _is_as_new(server, session)
    session.delete().done()


def test_many_small_files_fill_the_disk_too(paid: Client) -> None:
    session = paid.open(resourceLimits={"disk": 16, "cpu": 1})
    code = "import fs from 'fs'; for (let n = 0; n < 200000; n++) fs.writeFileSync(`f${n}`, 'x'.repeat(3000))"
    session.execute(code=code, timeout=120).refused(507, "disk_full")
    assert session.output("find . -name 'f*' -delete; echo x > small; cat small", timeout=60) == "x\n"
    session.delete().done()


@pytest.mark.parametrize("place", ["/tmp", "/run", "/dev", "/root", "/var/lib"])
def test_no_place_of_the_session_is_without_an_end(server: Server, paid: Client, place: str) -> None:
    session = paid.open(resourceLimits={"disk": 32, "memory": 128, "cpu": 1})
    filled = session.execute(command=f"head -c 500M /dev/urandom > {place}/full", timeout=60)
    assert filled.status == 507 or filled.done()["exitCode"] != 0
    session.delete_file(f"{place}/full")
    _is_as_new(server, session)
    session.delete().done()


# --- processes ---


@pytest.mark.parametrize(
    "command",
    [
        FORK_BOMB,
        "while :; do (setsid sleep 600 &) ; done",
        "python3 -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass'",
    ],
)
def test_a_fork_bomb_ends_with_its_run_and_the_neighbour_goes_on(
    server: Server, session: Session, other: Session, command: str
) -> None:
    with _beside(lambda: session.command(command, timeout=3)) as bomb:
        while session.look().done()["activeProcesses"] < 50:
            assert not bomb.done(), bomb.result()
        assert other.output("echo beside") == "beside\n"
        assert session.write("beside", "x").status == 200
        result = bomb.result()
    assert isinstance(result, dict)
    assert result["timedOut"]
    _is_as_new(server, session)


def test_whatever_a_program_does_to_survive_it_ends_with_its_timeout(server: Server, session: Session) -> None:
    survivor = """
import os, signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: break
os.closerange(0, 100)
while True:
    if os.fork() == 0: time.sleep(0.01)
    else: os._exit(0) if os.fork() else None
"""
    session.write("survivor.py", survivor).done()
    assert session.command("python3 survivor.py & sleep 60", timeout=2)["timedOut"]
    _is_as_new(server, session)


def test_a_session_can_kill_all_its_processes_and_goes_on(server: Server, session: Session) -> None:
    session.write("kept", "kept").done()
    session.sleeper()
    reply = session.execute(command="kill -9 -1; sleep 60")
    assert reply.status in (200, 409), reply.shown()
    if reply.status == 409:
        reply.refused(409, "invalid_state")
    assert session.text("kept") == "kept"
    _is_as_new(server, session)


def test_signals_of_a_session_do_not_reach_its_guest(session: Session) -> None:
    process_of(session, "exec sleep 613")
    for number in range(1, 65):
        if number not in (32, 33):  # the C library's own
            session.output(f"kill -{number} 1")
    assert session.output("pgrep -fx 'sleep 613' | wc -l") == "1\n"
    assert session.output("ps -o stat= -p 1").strip()[0] in "SRD"  # it is not stopped


@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_session_that_assaults_its_guest_is_served_again(server: Server, paid: Client, how: str) -> None:
    session = paid.open()
    session.write("kept", "kept").done()
    if how == "end":
        session.execute(command=assault_on_the_guest(session, how), timeout=5)
    else:
        stop_the_guest(session)
    deadline = time.monotonic() + 60
    while (reply := session.read("kept")).status != 200:
        assert time.monotonic() < deadline
        reply.refused(409, "invalid_state")
    _is_as_new(server, session)
    session.delete().done()


def test_zombies_are_reaped(server: Server, session: Session) -> None:
    session.output("for i in $(seq 1 100); do (setsid true &) ; done; sleep 0.3")
    assert session.output("ps -eo stat | grep -c Z; true") == "0\n"
    _is_as_new(server, session)


def test_many_runs_at_once_share_the_sessions_processes(server: Server, session: Session) -> None:
    with ThreadPoolExecutor(40) as pool:
        results = list(pool.map(lambda n: session.command(f"sleep 0.2; echo {n}"), range(120)))
    assert [result["stdout"] for result in results] == [f"{n}\n" for n in range(120)]
    _is_as_new(server, session)


# --- cpu ---


@pytest.mark.parametrize(
    "command", ["while :; do :; done", "for i in 1 2 3 4; do while :; do :; done & done; wait", "bun -e 'for (;;);'"]
)
def test_a_busy_loop_gets_its_share_of_the_cpu_and_no_more(paid: Client, command: str) -> None:
    session = paid.open(resourceLimits={"cpu": 0.25})
    result = session.command(command, timeout=4)
    assert result["timedOut"]
    assert 0.02 < result["cpuTime"] / result["executionTime"] < 0.25 * 1.4
    session.delete().done()


# --- output, arguments, descriptors ---


@pytest.mark.parametrize("command", ["yes", "cat /dev/zero", "yes >&2 & yes"])
def test_endless_output_is_cut_and_ended(server: Server, session: Session, command: str) -> None:
    result = session.command(command, timeout=2)
    assert (result["exitCode"], result["timedOut"], result["truncated"]) == (124, True, True)
    assert len(result["stdout"]) == 10 * MB
    _is_as_new(server, session)


def test_arguments_and_variables_may_be_as_large_as_the_kernel_takes_them(server: Server, session: Session) -> None:
    env = {f"V{number}": "x" * 65_536 for number in range(80)}
    reply = session.execute(command="echo ${#V79}", env=env)
    assert reply.done()["stdout"] == "65536\n"
    failed = session.command("/bin/true $(seq 1 1000000)")
    assert failed["exitCode"] == 126
    assert "too long" in failed["stderr"]
    _is_as_new(server, session)


def test_a_run_that_is_refused_for_its_size_leaves_nothing_behind(server: Server, session: Session) -> None:
    too_large = {f"V{number}": "x" * 65_536 for number in range(100)}
    for _ in range(40):
        session.execute(command="true", env=too_large).refused(400, "invalid_request", "env")
    _is_as_new(server, session)


def test_descriptors_and_watches_of_a_session_are_its_own(server: Server, session: Session, other: Session) -> None:
    takes_all = """
import ctypes, os, time
libc, kept = ctypes.CDLL(None), 0
while libc.inotify_init() >= 0: kept += 1
print(kept, flush=True)
while True:
    try: os.open("/dev/null", os.O_RDONLY)
    except OSError: break
time.sleep(60)
"""
    session.write("takes_all.py", takes_all).done()
    session.command("python3 takes_all.py > log & while ! grep -q . log; do sleep 0.05; done")
    assert 16 <= int(session.text("log")) <= OPEN_FILES
    watches = (
        "import fs from 'fs'; fs.watch('/tmp'); fs.writeFileSync('/tmp/x', ''); console.log('watched'); process.exit(0)"
    )
    assert other.code(watches)["stdout"] == "watched\n"
    assert session.output("echo fine; pkill python3") == "fine\n"
    _is_as_new(server, session)


# --- its own files ---


def test_a_session_that_deleted_its_system_can_still_be_read_and_repaired(paid: Client) -> None:
    session = paid.open()
    session.write("work.txt", "hours of work").done()
    session.command("rm -rf /usr /bin /lib /lib64 /etc 2>/dev/null", timeout=60)
    assert session.text("work.txt") == "hours of work"
    session.write("more.txt", "written afterwards").done()
    assert [entry["path"] for entry in session.list().done()["files"]] == ["more.txt", "work.txt"]
    broken = session.command("echo hi")
    assert broken["exitCode"] != 0
    assert session.look().done()["filesCount"] == 2
    session.delete().done()
