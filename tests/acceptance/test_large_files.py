"""Large files pass between the client and the session, past the server, which still decides and answers."""

import io
import os
import re
import socket
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import assault_on_the_guest, others_stay_quick, stop_the_guest
from tests.acceptance.server import Server
from tests.acceptance.test_contents import _target, begin, get, member, put, tarball
from tests.acceptance.test_sleep import GAPS, TICKER
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
MANY = 40  # transfers at a time, of 64 open streams that a session may have


def moved(server: Server) -> int:
    """Bytes that the server's process has read and written."""
    assert server._process is not None
    told = Path(f"/proc/{server._process.pid}/io").read_text()
    return sum(int(number) for number in re.findall(r"[rw]char: (\d+)", told))


def requests(server: Server, method: str) -> int:
    """How many requests for the content of files have ended well."""
    found = re.findall(r"^buntime_\w*requests_total\{(.*)\} (\S+)$", server.metrics(), re.M)
    wanted = (f'"{method}"', '"/files/content"', '"200"')
    return sum(int(float(number)) for labels, number in found if all(label in labels for label in wanted))


def test_large_bodies_do_not_pass_through_the_server(server: Server, session: Session) -> None:
    content = os.urandom(30 * MB)
    before, put_before, got_before = moved(server), requests(server, "PUT"), requests(server, "GET")
    put(session, "f", content).done()
    assert get(session, "f").body == content
    until(lambda: requests(server, "GET") == got_before + 1, "the download to be counted")
    assert requests(server, "PUT") == put_before + 1
    assert moved(server) - before < 10 * MB
    before = moved(server)
    with begin(session, _target(session, "content", "g"), "PUT", {"Transfer-Encoding": "chunked"}) as connection:
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))  # the edge does not know its length
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert moved(server) - before > 30 * MB
    assert get(session, "g").body == content


def packed(content: bytes) -> bytes:
    return tarball(lambda archive: member(archive, "d/f", content))


def test_large_archives_do_not_pass_through_the_server(server: Server, session: Session) -> None:
    content = os.urandom(20 * MB)
    before = moved(server)
    assert put(session, "a", packed(content), "archive").done()["entries"] == 1
    assert get(session, "a/d/f").body == content
    reply = get(session, "a", "archive")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/gzip")
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as archive:
        found = archive.extractfile("d/f")
        assert found is not None
        assert found.read() == content
    assert moved(server) - before < 10 * MB


def test_an_archive_that_cannot_be_complete_breaks_the_connection(session: Session) -> None:
    session.output("mkdir d; head -c 60M /dev/urandom > d/f")
    with begin(session, _target(session, "archive", "d")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        session.output("pkill -9 -x tar || pkill -9 tar")
        last = b""
        while part := connection.recv(MB):
            last = (last + part)[-20:]
    assert not last.endswith(b"0\r\n\r\n")
    assert get(session, "d", "archive").status == 200


def test_an_archive_that_breaks_off_or_is_damaged_is_refused(session: Session) -> None:
    whole = packed(os.urandom(5 * MB))
    put(session, "a", whole[: 4 * MB], "archive").refused(400, "invalid_request")
    put(session, "b", os.urandom(4 * MB), "archive").refused(400, "invalid_request")
    with begin(session, _target(session, "archive", "c"), "PUT", {"Content-Length": len(whole)}) as connection:
        connection.sendall(whole[: 3 * MB])
        until(lambda: "tar" in session.output("ps -e -o comm || cat /proc/[0-9]*/comm"), "the extraction to begin")
    until(lambda: "tar" not in session.output("ps -e -o comm || cat /proc/[0-9]*/comm"), "the extraction to end")
    assert put(session, "d", whole, "archive").done()["entries"] == 1


def test_a_full_disk_is_told_and_leaves_the_old_file(session: Session) -> None:
    put(session, "f", b"old").done()
    session.output("head -c 990M /dev/urandom > rest || true", timeout=60)
    reply = put(session, "f", os.urandom(64 * MB))
    reply.refused(507, "disk_full")
    assert get(session, "f").body == b"old"
    session.output("rm rest")
    until(lambda: put(session, "f", os.urandom(64 * MB)).status == 200, "the space to be free")


def test_a_session_is_not_suspended_in_the_middle_of_a_transfer(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="1", BUNTIME_TICK_MS="50")
    session = server.new_client().open()
    session.output(f"head -c 60M /dev/zero > f; ({TICKER}) &")
    down = begin(session, _target(session, "content", "f"))
    up = begin(session, _target(session, "content", "g"), "PUT", {"Content-Length": 2 * MB})
    with down, up:
        for _ in range(4):
            assert down.recv(1000)
            up.sendall(bytes(1000))
            time.sleep(1)
        assert session.look().done()["state"] == "active"
        assert session.output(GAPS) == ""
        up.sendall(bytes(2 * MB - 4000))
        assert up.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: session.look().done()["state"] == "idle", "the session to be suspended after the transfers")


@contextmanager
def transfers(session: Session) -> Iterator[list[socket.socket]]:
    """Many downloads and uploads that have begun."""
    session.output("head -c 60M /dev/zero > f")
    with ExitStack() as stack:
        opened = []
        for number in range(MANY):
            if number % 2:
                one = begin(session, _target(session, "content", "f"))
                assert one.recv(100).startswith(b"HTTP/1.1 200")
            else:
                one = begin(session, _target(session, "content", f"n{number}"), "PUT", {"Content-Length": 20 * MB})
                one.sendall(bytes(MB))
            opened.append(stack.enter_context(one))
        yield opened


def test_clients_that_leave_free_what_their_transfers_held(victim: Session) -> None:
    files = "ls -l /proc/1/fd | grep -c /workspace || true"
    with transfers(victim):
        until(lambda: int(victim.output(files)) >= MANY, "the guest to have opened the files")
    until(lambda: victim.output(files) == "0\n", "the guest to have closed the files")
    assert victim.output("ls") == "f\n"


@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_guest_that_ends_in_the_middle_hurts_its_session_alone(
    server: Server, victim: Session, neighbour: Session, how: str
) -> None:
    put(victim, "old", b"old").done()
    assault = assault_on_the_guest(victim, how)
    with transfers(victim) as opened, others_stay_quick(server, neighbour):
        if how == "end":
            victim.execute(command=assault, timeout=2)
        else:
            stop_the_guest(victim)
        until(lambda: victim.execute(command="true").status == 200, "the session to recover")
        with ThreadPoolExecutor(MANY) as pool:
            for one in opened:
                one.settimeout(90)
            ends = list(pool.map(_end, opened))
    for said in ends:
        assert not said or said.startswith((b"HTTP/1.1 409", b"HTTP/1.1 503")) or not said.startswith(b"HTTP/1.1"), said
    assert get(victim, "old").body == b"old"
    assert victim.output("ls") == "f\nold\n"


def _end(connection: socket.socket) -> bytes:
    """What is said last, after the rest of a download."""
    last = b""
    try:
        while part := connection.recv(MB):
            last = part[:200] if part.startswith(b"HTTP/") else last
    except ConnectionError:
        pass
    return last


def test_programs_of_the_session_and_strangers_get_nothing_without_a_ticket(session: Session, other: Session) -> None:
    session.output("head -c 60M /dev/zero > f")
    address = session.output("hostname -I").split()[0]
    said = f"printf 'GET /{'0' * 32} HTTP/1.1\\r\\n\\r\\n' >&3"
    ask = f'timeout 3 bash -c "exec 3<>/dev/tcp/{address}/49; {said}; cat <&3"'
    with begin(session, _target(session, "content", "f")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert session.output(f"{ask} | wc -c") == "0\n"
        assert other.execute(command=ask).done()["stdout"] == ""
