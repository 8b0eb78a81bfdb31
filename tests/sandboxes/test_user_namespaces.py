"""The user namespaces of sandboxes, and the helper that makes them."""

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import UIDS
from buntime.sandboxes.kernel.user_namespaces import NamespaceMaker
from tests.contracts.test_sandboxes import REAL
from tests.waiting import until

pytestmark = REAL
FIRST_UID = 1_879_113_728
NS_GET_OWNER_UID = 0xB704  # linux/nsfs.h


@pytest.fixture
def maker() -> Iterator[NamespaceMaker]:
    made = NamespaceMaker()
    yield made
    made.close()


def owner(namespace: int) -> int:
    found = bytearray(4)
    fcntl.ioctl(namespace, NS_GET_OWNER_UID, found)
    return int.from_bytes(found, sys.byteorder)


def helpers(parent: int | str = "self") -> list[int]:
    """The pids of the process's children that make namespaces."""
    tasks = Path("/proc", str(parent), "task")
    children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in children if b"namespace_maker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ids_in(namespace: int) -> list[list[str]]:
    """The id map that a process in the namespace sees."""
    inside = [
        "nsenter",
        f"--user=/proc/{os.getpid()}/fd/{namespace}",
        "cat",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
    ]
    return [line.split() for line in subprocess.run(inside, capture_output=True, text=True).stdout.splitlines()]


def test_the_session_s_is_made_by_its_own_user_and_the_mounts_by_the_host_s_root(maker: NamespaceMaker) -> None:
    with maker.of_sandbox(FIRST_UID) as made:
        assert (owner(made.session), owner(made.mounts)) == (FIRST_UID, os.getuid())
        assert ids_in(made.session) == 2 * [["0", str(FIRST_UID), str(UIDS)]]
        assert ids_in(made.mounts) == 2 * [["0", str(FIRST_UID), str(UIDS)], [str(UIDS), "0", "1"]]


def test_the_helper_keeps_no_file_and_no_process_of_a_namespace(maker: NamespaceMaker) -> None:
    with maker.of_sandbox(FIRST_UID):
        pass
    (helper,) = helpers()
    for _ in range(5):
        with maker.of_sandbox(FIRST_UID):
            assert Path(f"/proc/{helper}/task/{helper}/children").read_text() == ""
    # it closes the last one after its answer
    until(lambda: {file.name for file in Path(f"/proc/{helper}/fd").iterdir()} == {"0", "1", "2"}, "files to be closed")
    assert helpers() == [helper]


def test_threads_ask_at_once(maker: NamespaceMaker) -> None:
    def owners(uid: int) -> tuple[int, int]:
        with maker.of_sandbox(uid) as made:
            return owner(made.session), int(ids_in(made.mounts)[0][1])

    uids = [FIRST_UID + UIDS * at for at in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(owners, uids)) == [(uid, uid) for uid in uids]


def test_a_killed_helper_is_replaced(maker: NamespaceMaker) -> None:
    with maker.of_sandbox(FIRST_UID):
        pass
    (helper,) = helpers()
    os.kill(helper, signal.SIGKILL)
    with maker.of_sandbox(FIRST_UID) as made:
        assert owner(made.session) == FIRST_UID
    assert helper not in helpers()


def test_what_the_kernel_refuses_is_told_and_the_helper_goes_on(maker: NamespaceMaker) -> None:
    with maker.id_map(FIRST_UID):
        (helper,) = helpers()
    with pytest.raises(HostCommandFailed, match="Invalid argument"), maker.id_map((1 << 32) - 1):
        pass
    with maker.id_map(FIRST_UID):
        assert helpers() == [helper]


def test_the_helper_ends_with_the_server_and_not_by_a_ctrl_c() -> None:
    code = (
        "import sys; from buntime.sandboxes.kernel.user_namespaces import NamespaceMaker\n"
        f"maker = NamespaceMaker(); maker.id_map({FIRST_UID}).__enter__(); print('made', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"made\n"
        (helper,) = helpers(server.pid)
        ignored = re.search(r"^SigIgn:\t(\w+)", Path(f"/proc/{helper}/status").read_text(), re.MULTILINE)
        assert ignored is not None
        assert int(ignored[1], 16) & 1 << (signal.SIGINT - 1)
        server.kill()
    until(lambda: not Path(f"/proc/{helper}").exists(), "the helper to end")
