"""What programs in a session see of its limits: those of the session, not those of the host."""

import json
import math
import os
from typing import Any

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import deep_sleep

pytestmark = pytest.mark.sandbox

MB = 1 << 20
LIMITS = {"memory": 512, "cpu": 0.5, "disk": 300}
LARGE = {"memory": 2048, "cpu": 2, "disk": 2048}
BUN = """
    import os from "node:os";
    console.log(JSON.stringify({
        cores: [os.cpus().length, os.availableParallelism(), navigator.hardwareConcurrency],
        constrained: process.constrainedMemory(), available: process.availableMemory(), free: os.freemem(),
    }));
"""


def open_with(client: Client, **limits: float) -> Session:
    return client.open(resourceLimits=limits)


def row(session: Session, command: str, name: str) -> list[str]:
    """The words of the line that starts with `name`."""
    lines = (line.split() for line in session.output(command).splitlines())
    return next(words for words in lines if words and words[0] == name)


def seen(session: Session) -> dict[str, Any]:
    """The limits, as many programs tell them."""
    bun = json.loads(session.code(BUN)["stdout"])
    free = [int(size) for size in row(session, "free -b", "Mem:")[1:]]
    disk = [int(size) for size in row(session, "df -B1 /", "overlay")[1:4]]
    return {
        "nproc": int(session.output("nproc")),
        "python": int(session.output("python3 -c 'import os; print(os.cpu_count())'")),
        "cpuinfo": int(session.output("grep -c ^processor /proc/cpuinfo")),
        "cores": set(bun["cores"]),
        "meminfo": int(row(session, "cat /proc/meminfo", "MemTotal:")[1]) * 1024,
        "free": free[0],
        "constrained": bun["constrained"],
        "df": disk[0],
    }


def expected(*, memory: float, cpu: float, disk: float) -> dict[str, Any]:
    cores = min(os.cpu_count() or 1, math.ceil(cpu))
    counts = {"nproc": cores, "python": cores, "cpuinfo": cores, "cores": {cores}}
    return {**counts, **dict.fromkeys(("meminfo", "free", "constrained"), int(memory) * MB), "df": int(disk) * MB}


@pytest.mark.parametrize("limits", [{"memory": 1024, "cpu": 0.25, "disk": 1024}, LIMITS, LARGE])
def test_programs_see_the_limits_of_their_session(enterprise: Client, limits: dict[str, float]) -> None:
    session = open_with(enterprise, **limits)
    assert seen(session) == expected(**limits)
    session.delete().done()


def test_the_limits_are_seen_after_a_deep_sleep_and_after_a_restart_of_the_server(servers: Servers) -> None:
    server = servers.start()
    session = open_with(server.new_client("enterprise"), **LIMITS)
    assert server.stop() == 0
    server.start()
    again = Session(server.client(session.client.key), session.id)
    assert seen(again) == expected(**LIMITS)
    deep_sleep(again)
    assert seen(again) == expected(**LIMITS)


def test_free_follows_what_the_session_uses(session: Session) -> None:
    holding = "python3 -c 'import subprocess; x = bytearray(300 << 20); print(subprocess.getoutput(\"free -m\"))'"
    before, during = (int(row(session, command, "Mem:")[2]) for command in ("free -m", holding))
    assert during - before >= 290
    available = int(json.loads(session.code(BUN)["stdout"])["available"])
    assert 0 < available <= 1024 * MB


def test_df_follows_what_the_session_writes(session: Session) -> None:
    before = int(row(session, "df -m /", "overlay")[2])
    session.output("dd if=/dev/urandom of=file bs=1M count=100 status=none conv=fsync")
    assert 95 <= int(row(session, "df -m /", "overlay")[2]) - before <= 130
    assert session.output("df -h /workspace").splitlines()[1].split()[1] == "1.0G"


def test_df_says_where_its_numbers_are_not_the_sessions(session: Session) -> None:
    told = session.command("df --output=avail /")
    assert told["exitCode"] == 0
    assert "disk of all sessions" in told["stderr"]


def test_each_session_reads_its_own_numbers(enterprise: Client) -> None:
    small, large = open_with(enterprise, **LIMITS), open_with(enterprise, **LARGE)
    assert (seen(small), seen(large)) == (expected(**LIMITS), expected(**LARGE))
    for session in (small, large):
        session.delete().done()


def test_a_session_can_write_none_of_it(session: Session) -> None:
    """Not even the files of cgroup v1 that everybody may write."""
    files = session.output("find /sys -type f; ls -d /proc/meminfo /proc/cpuinfo").split()
    assert len(files) > 20
    assert any("/sys/fs/cgroup/" in file for file in files)
    tried = "import os,sys\nfor file in sys.stdin.read().split():\n try: os.open(file, os.O_WRONLY); print(file)\n"
    tried += " except OSError: pass\n"
    session.write("try.py", tried).done()
    find = "{ find /sys -type f; ls -d /proc/meminfo /proc/cpuinfo; }"
    assert session.output(f"{find} | python3 try.py") == ""
    for command in ("mkdir /sys/fs/cgroup/x", "mkdir /sys/fs/cgroup/memory/x", "rm /proc/meminfo", "umount /sys"):
        assert session.command(command)["exitCode"] != 0, command
    assert session.command("mount -o remount,rw /sys/fs/cgroup/memory")["exitCode"] != 0


def test_nothing_of_other_sessions_or_of_the_servers_paths_is_in_it(
    session: Session, other: Session, server: Server
) -> None:
    told = session.output("cat /proc/self/mountinfo /proc/self/cgroup; find /sys")
    assert str(server.config.data_dir) not in told
    ids = {path.name for path in (server.config.data_dir / "sandboxes").iterdir()}
    assert len(ids) >= 2
    assert not [name for name in ids if name in told]


def test_top_and_htop_start(session: Session) -> None:
    assert "MiB Mem :   1024.0 total" in session.output("top -bn1")
    shown = session.command("TERM=xterm timeout -s INT 2 htop < /dev/null | strings", timeout=20)
    assert "Mem" in shown["stdout"], shown
