"""Root in a session attacks the server, other sessions and the host. Each attack runs once, within bounds."""

import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.config import SHARED_RUN_DIR
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import recovers, take_the_guests_place
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

INSIDE = Path(__file__).with_name("inside")
NOBODY = 65534


@pytest.fixture(scope="module")
def attacker(paid: Client) -> Iterator[Session]:
    session = paid.open()
    session.write("/root/name_server.py", (INSIDE / "name_server.py").read_text()).done()
    yield session
    session.delete()


def test_an_impossible_number_from_an_impostor_does_not_end_the_server(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="2")
    session = server.new_client().open()
    take_the_guests_place(session, "liar.py", "/status", 'json:{"files":' + "9" * 30 + "}")
    until = time.monotonic() + 4.0  # long enough for the keeper to suspend the session and store what it saw
    while time.monotonic() < until:
        assert session.look().done()["filesCount"] < 2**53
        time.sleep(0.2)
    assert session.output("echo works") == "works\n"


def test_a_flood_from_an_impostor_does_not_hold_up_others(paid: Client, other: Session) -> None:
    bad = paid.open()
    take_the_guests_place(bad, "liar.py", "/", "flood")
    with subprocess.Popen(
        ["curl", "-sS", "-m", "8", "-H", f"Authorization: Bearer {paid.key}",
         f"http://127.0.0.1:{paid.port}/files/list?sessionId={bad.id}"], stdout=subprocess.PIPE,
    ) as asking:  # fmt: skip
        slowest = 0.0
        while asking.poll() is None:
            started = time.monotonic()
            other.look().done()
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.05)
        assert asking.stdout is not None
        assert b'"entries"' not in asking.stdout.read()
    assert slowest < 1.0
    recovers(bad)
    bad.delete()


@pytest.mark.parametrize(("how", "most"), [("flood", 500), ("streams", 4), ("chaos", 0)])
def test_the_name_server_is_not_one_sessions_own(attacker: Session, how: str, most: int) -> None:
    gateway = attacker.output("ip route show default | awk '{print $3}'").strip()
    assert int(attacker.output(f"python3 /root/name_server.py {gateway} {how}")) <= most


def test_a_session_without_egress_asks_no_names_on_an_open_socket_either(paid: Client) -> None:
    session = paid.open()
    session.write("/root/name_server.py", (INSIDE / "name_server.py").read_text()).done()
    gateway = session.output("ip route show default | awk '{print $3}'").strip()
    before, after = session.output(_ask_before_and_after(gateway)), ""
    assert before == "1\n"
    session.patch(network={"egress": "none"}).done()
    session.command("touch /root/go; sleep 2")
    after = session.text("/root/after")
    session.delete()
    assert after == "0\n"


def _ask_before_and_after(gateway: str) -> str:
    """Queries a name on one socket now, and again once `/root/go` exists. Returns the number of answers."""
    program = f"""
import os, socket, struct, sys, time
question = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + b"\\\\x09localhost\\\\0" + struct.pack("!2H", 1, 1)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(1); asking.connect(("{gateway}", 53))
def ask():
    try: asking.send(question); return int(len(asking.recv(600)) > 0)
    except OSError: return 0
open("/root/before", "w").write(str(ask()) + chr(10))
while not os.path.exists("/root/go"): time.sleep(0.05)
open("/root/after", "w").write(str(ask()) + chr(10))
"""
    return (
        f"cat > /root/ask.py <<'EOF'\n{program.replace(chr(92) * 2, chr(92))}\nEOF\n"
        "python3 /root/ask.py > /dev/null 2>&1 < /dev/null &\n"
        "until [ -s /root/before ]; do sleep 0.05; done; cat /root/before"
    )


@pytest.mark.parametrize("socket", ["2, 1, 132", "2, 5, 0", "2, 6, 33", "2, 2, 115", "2, 2, 136", "2, 1, 262"])
def test_no_rare_protocol_can_be_asked_for(attacker: Session, socket: str) -> None:
    """SCTP, DCCP, L2TP, UDP-Lite and MPTCP are refused: the kernel would load their modules for any user."""
    program = f"import socket\ntry: socket.socket({socket})\nexcept PermissionError: print('refused')"
    assert attacker.output(f'python3 -c "{program}"') == "refused\n"


def test_the_hosts_command_line_is_not_shown(attacker: Session) -> None:
    assert attacker.output("cat /proc/cmdline") == ""


def test_other_users_of_the_host_can_neither_read_volumes_nor_hold_the_lock(server: Server) -> None:
    assert stat.S_IMODE((server.config.data_dir / "volumes").stat().st_mode) == 0o700
    assert stat.S_IMODE((SHARED_RUN_DIR / "lock").stat().st_mode) == 0o600
    probe = f"open({str(SHARED_RUN_DIR / 'lock')!r})"
    tried = subprocess.run(["python3", "-c", probe], user=NOBODY, group=NOBODY, capture_output=True, check=False)
    assert b"PermissionError" in tried.stderr


def test_no_file_of_the_server_is_open_to_other_users(server: Server) -> None:
    names = ("buntime.db", "run", "sandboxes", "volumes", "volumes.btrfs")
    assert [n for n in names if (server.config.data_dir / n).stat().st_mode & 0o077] == []
    assert server.config.api_socket.stat().st_mode & 0o007 == 0
