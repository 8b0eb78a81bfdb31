"""A suspended session gives its memory back to the host after a while, and loses nothing of it.

These tests add some swap, and remove it.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.machine import swap
from buntime.config import Config
from buntime.plan import MB
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import DISK, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SWAP_MB = 1024
LIMIT_MB, HELD_MB = 256, 100
CGROUPS = Path("/sys/fs/cgroup")
PAGING = [sys.executable, "-m", "tests.acceptance.paging_server", "0.2"]

# holds random bytes, and says on request whether they are still the same
HOLD = f"""
import hashlib, os, pathlib, time
held = os.urandom({HELD_MB << 20})
before = hashlib.sha1(held).hexdigest()
pathlib.Path("held").write_text("yes")
while not pathlib.Path("look").exists():
    time.sleep(0.05)
pathlib.Path("same").write_text(str(before == hashlib.sha1(held).hexdigest()))
"""
# takes memory in steps until it is killed
TAKE = """
import os, pathlib, sys
held = []
while True:
    held.append(os.urandom(8 << 20))
    pathlib.Path(sys.argv[1]).write_text(str(8 * len(held)))
    if len(sys.argv) > 2 and 8 * len(held) >= int(sys.argv[2]):
        import time; time.sleep(3600)
"""
# as many mappings as a process may have, of a file with a long name
MAPS = """
import ctypes, os, pathlib, time
name = "x" * 250
os.makedirs(name + "/" + name)
file = os.open(name + "/" + name + "/" + name, os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 8192)
mmap = ctypes.CDLL(None).mmap
mmap.restype, mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
count = 0
while count < 60_000 and (place := mmap(None, 4096, 3, 2, file, count % 2 * 4096)) != ctypes.c_void_p(-1).value:
    ctypes.memset(place, 1, 1)
    count += 1
pathlib.Path("held").write_text(str(count))
time.sleep(3600)
"""


@pytest.fixture(scope="module", autouse=True)
def swapping() -> Iterator[None]:
    directory = tempfile.TemporaryDirectory(prefix="buntime-test-swap-", dir=DISK)
    with directory as place, swap(Path(place) / "swap", SWAP_MB) as refused:
        if refused:
            pytest.skip(f"no swap can be made here: {refused}")
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fresh_server(pool_size=1) as server:
        server.start(PAGING)
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


def test_a_suspended_sessions_memory_goes_to_swap_and_comes_back_unchanged(server: Server, client: Client) -> None:
    session = client.open()
    _background(session, HOLD)
    used = _memory(server.config, session)
    assert used > HELD_MB * MB
    ask_to_sleep(session, "idle").done()
    until(lambda: _memory(server.config, session) < used / 5, "its memory to be given back")
    assert wake(session).done()["wokeFrom"] == "idle"
    session.write("look", "").done()
    assert session.output("until test -s same; do sleep 0.05; done; cat same") == "True"
    session.delete().done()


def test_memory_and_swap_together_stay_within_the_sessions_limit(server: Server, client: Client) -> None:
    session = client.open(resourceLimits={"cpu": 1, "memory": LIMIT_MB})
    _background(session, TAKE, "held", "180")
    session.output('until test "$(cat held)" -ge 180; do sleep 0.05; done')
    ask_to_sleep(session, "idle").done()
    until(lambda: _swapped(server.config, session) > 32 * MB, "some of its memory to be in swap")
    wake(session).done()
    _start(session, TAKE, "more")
    most = 0

    def is_over() -> bool:
        nonlocal most
        most = max(most, _both(server.config, session))
        return str(session.command("pgrep -fc '[h]old.py.more' || true")["stdout"]).strip() == "0"

    until(is_over, "the kernel to end the program that takes more")
    assert most <= LIMIT_MB * MB
    session.delete().done()


def test_a_session_that_is_woken_while_it_is_paged_out_goes_on_at_once(server: Server, client: Client) -> None:
    session = client.open()
    _background(session, HOLD)
    for _ in range(3):
        ask_to_sleep(session, "idle").done()
        until(lambda: _swapped(server.config, session) > 0, "the first pages to be in swap")
        assert session.output("echo awake") == "awake\n"
    session.write("look", "").done()
    assert session.output("until test -s same; do sleep 0.05; done; cat same") == "True"
    session.delete().done()


def test_many_mappings_with_long_names_hold_up_neither_the_api_nor_the_next_session(
    server: Server, client: Client
) -> None:
    hostile, other = client.open(), client.open()
    _background(hostile, MAPS)
    assert int(hostile.output("cat held")) > 30_000
    _background(other, HOLD)
    used = _memory(server.config, other)
    ask_to_sleep(hostile, "idle").done()
    ask_to_sleep(other, "idle").done()
    assert client.open().delete().done()["deleted"]
    until(lambda: _memory(server.config, other) < used / 5, "the other session's memory to be given back")
    assert hostile.output("echo awake") == "awake\n"
    for session in (hostile, other):
        session.delete().done()


def test_a_session_that_is_deleted_while_it_is_paged_out_is_gone(server: Server, client: Client) -> None:
    session = client.open()
    _background(session, HOLD)
    ask_to_sleep(session, "idle").done()
    until(lambda: _swapped(server.config, session) > 0, "the first pages to be in swap")
    name = traces.sandbox_of(server.config, session.id)
    session.delete().done()
    until(lambda: name not in traces.sandboxes(server.config), "its sandbox to be gone")


def _background(session: Session, program: str, *arguments: str) -> None:
    """Starts the program, and waits until it has written `held`."""
    _start(session, program, *arguments)
    session.output("until test -s held; do sleep 0.05; done")


def _start(session: Session, program: str, *arguments: str) -> None:
    session.write("hold.py", program).done()
    words = " ".join(arguments)
    session.output(f"echo 1000 >/proc/self/oom_score_adj; setsid python3 hold.py {words} >log 2>&1 </dev/null &")


def _group(config: Config, session: Session) -> Path:
    """The memory cgroup of what the session itself runs."""
    below = Path(f"buntime-{config.instance}") / traces.sandbox_of(config, session.id) / "runs"
    v1 = CGROUPS / "memory" / below
    return v1 if v1.exists() else CGROUPS / below


def _memory(config: Config, session: Session) -> int:
    """Bytes of the session in memory, without files."""
    group = _group(config, session)
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    if "total_cache" in stat:
        return int((group / "memory.usage_in_bytes").read_text()) - int(stat["total_cache"])
    return int(stat["anon"]) + int(stat["swapcached"])


def _swapped(config: Config, session: Session) -> int:
    group = _group(config, session)
    if (group / "memory.swap.current").exists():
        return int((group / "memory.swap.current").read_text())
    return _both(config, session) - int((group / "memory.usage_in_bytes").read_text())


def _both(config: Config, session: Session) -> int:
    """Bytes in memory and in swap together."""
    group = _group(config, session)
    if (group / "memory.memsw.usage_in_bytes").exists():
        return int((group / "memory.memsw.usage_in_bytes").read_text())
    return int((group / "memory.current").read_text()) + _swapped(config, session)
