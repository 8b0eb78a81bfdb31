"""The kernel's per-user limits apply to each session separately, and no session has a file of the host open."""

import fcntl
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.host import claim_part
from buntime.sandboxes.kernel.oci import OPEN_FILES, PTYS
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PROGRAM = Path(__file__).with_name("inside") / "takes_all.py"
NS_GET_OWNER_UID = 0xB704  # linux/nsfs.h
F_GET_SEALS, SIZE_SEALS = 1034, 0x4 | 0x2  # linux/fcntl.h: seals against growing and shrinking
MOST_SAID = 64 << 10  # bytes that an OCI runtime may print
KERNEL_OBJECT = re.compile(r"(pipe|socket):\[\d+\]|anon_inode:.*")
NULL = (1, 3)  # major and minor

GROWS_WHAT_IS_NOT_ITS_OWN = """
import os, re
mounts = {line.split()[0] for line in open("/proc/self/mountinfo")}
for process in filter(str.isdecimal, os.listdir("/proc")):
    try: descriptors = os.listdir(f"/proc/{process}/fd")
    except OSError: continue
    for number in descriptors:
        path = f"/proc/{process}/fd/{number}"
        try: file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError: continue
        its_own = re.search(r"mnt_id:\\s+(\\d+)", open(f"/proc/self/fdinfo/{file}").read())[1] in mounts
        if not its_own and not os.readlink(path).startswith("pipe:"):
            attacks = {"grow": lambda: os.posix_fallocate(file, 0, 64 << 20), "mode": lambda: os.fchmod(file, 0o666)}
            for name, attack in attacks.items():
                try: attack(); print(name, os.readlink(path))
                except OSError: pass
        os.close(file)
"""


@pytest.fixture
def pair_of_sessions(server: Server) -> Iterator[tuple[Session, Session]]:
    """Yields sessions of two accounts."""
    pair = [client.open() for client in (server.new_client("paid"), server.new_client("paid"))]
    for session in pair:
        session.write("/root/takes_all.py", PROGRAM.read_text()).done()
    yield pair[0], pair[1]
    for session in pair:
        session.delete().done()


def _hold_all(session: Session, kind: str) -> int:
    """Returns how many objects the session got before the kernel refused more."""
    command = f"python3 /root/takes_all.py {kind} > log 2>&1 & while ! [ -s log ]; do sleep 0.05; done; cat log"
    return int(session.output(command).split()[0])


@pytest.mark.parametrize(("kind", "normal"), [("signals", 64), ("timers", 64), ("queues", 4), ("inotify", 16)])
def test_what_one_session_takes_whole_is_there_for_another(
    pair_of_sessions: tuple[Session, Session], kind: str, normal: int
) -> None:
    attacker, other = pair_of_sessions
    assert _hold_all(attacker, kind) >= normal
    assert other.output(f"python3 /root/takes_all.py {kind} {normal}") == f"{normal} \n"


def test_asynchronous_io_contexts_which_are_counted_for_the_whole_host_are_refused(session: Session) -> None:
    session.write("/root/takes_all.py", PROGRAM.read_text()).done()
    # the error is that of a kernel without the call, so libraries fall back
    assert session.output("timeout 5 python3 /root/takes_all.py aio 2>&1 || true") == "0 ENOSYS\n"


def test_the_user_namespace_of_each_sandbox_belongs_to_a_host_user_of_its_own(
    server: Server, session: Session, other: Session
) -> None:
    owners = [_owner_of_user_namespace(server, s) for s in (session, other)]
    assert owners == [int(s.output("awk '{print $2}' /proc/self/uid_map")) for s in (session, other)]
    assert len({0, *owners}) == 3


def _owner_of_user_namespace(server: Server, session: Session) -> int:
    init = traces.init_of(server.config, traces.sandbox_of(server.config, session.id))
    with open(f"/proc/{init}/ns/user") as namespace:
        return int.from_bytes(fcntl.ioctl(namespace, NS_GET_OWNER_UID, bytes(4)), "little")


def test_the_host_has_terminals_and_open_files_for_all_sessions_together(server: Server, session: Session) -> None:
    sessions = claim_part(server.config).slots
    most, kept = (int(Path(f"/proc/sys/kernel/pty/{name}").read_text()) for name in ("max", "reserve"))
    assert most - kept >= PTYS * sessions
    assert int(Path("/proc/sys/fs/file-max").read_text()) >= 1 << 62  # only the session's memory limits open files
    assert int(Path("/proc/sys/kernel/threads-max").read_text()) >= sessions * 512
    limit = int(session.output("ulimit -Hn"))
    assert limit == min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert int(session.output("ulimit -Sn")) == limit


def test_no_file_of_the_host_is_open_in_a_sandbox(server: Server, paid: Client) -> None:
    session = paid.open()
    sandbox = traces.sandbox_of(server.config, session.id)
    session.code("console.log(1)")
    until(lambda: len(traces.all_processes(server.config, sandbox)) == 3, "guest, spare and prepared process")
    found = _foreign_descriptors(server, sandbox)
    session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()
    session.client.call("POST", "/processes/start", json_body={"sessionId": session.id, "command": "sleep 60"}).done()
    until(lambda: len(traces.all_processes(server.config, sandbox)) >= 4, "context and process")
    found += _foreign_descriptors(server, sandbox)
    session.delete().done()
    assert found == []


def _foreign_descriptors(server: Server, sandbox: str) -> list[str]:
    """Returns open files of the sandbox's processes that are neither on its mounts nor on the short list."""
    found = []
    for process in traces.all_processes(server.config, sandbox):
        place = Path(f"/proc/{process}")
        mounts = {line.split()[0] for line in (place / "mountinfo").read_text().splitlines()}
        for descriptor in (place / "fd").iterdir():
            target = str(descriptor.readlink())
            mount = re.search(r"^mnt_id:\s+(\d+)", (place / "fdinfo" / descriptor.name).read_text(), re.MULTILINE)
            assert mount
            if mount[1] not in mounts and not KERNEL_OBJECT.fullmatch(target) and not _is_harmless(descriptor):
                found.append(f"{process} {descriptor.name} {target}")
    return found


def _is_harmless(descriptor: Path) -> bool:
    """Tells whether the file is the null device, or a memfd with a sealed size."""
    status = descriptor.stat()
    if (os.major(status.st_rdev), os.minor(status.st_rdev)) == NULL:
        return True
    if not str(descriptor.readlink()).startswith("/memfd:buntime"):
        return False
    with descriptor.open("rb") as memory:
        return fcntl.fcntl(memory, F_GET_SEALS) & SIZE_SEALS == SIZE_SEALS and status.st_size <= MOST_SAID


def test_no_descriptor_in_a_sandbox_makes_a_file_of_the_host_grow(session: Session) -> None:
    session.write("/root/grows.py", GROWS_WHAT_IS_NOT_ITS_OWN).done()
    session.command("sleep 60 < /dev/null > /dev/null 2>&1 &")
    # the program's standard streams are pipes, so it made none of these files
    assert session.output("python3 /root/grows.py") == ""
