"""Files of any size, archives and search on real sandboxes, including failures."""

import base64
import gzip
import io
import os
import socket
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from urllib.parse import quote

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import assault_on_the_guest
from tests.acceptance.test_files import NAMES
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
PATIENCE = 60.0  # seconds; a guard, not a measure
BYTES = {"Content-Type": "application/x-anything"}
HOSTILE_RG = """#!/bin/bash
yes '{"type": "match", "data": {"path": 1}}' | head -c 30000000
head -c 99999999 /dev/zero
"""
ODD = b"-\xff 'a\"\n%00\xfe"


def _target(session: Session, operation: str, path: str | bytes, **fields: object) -> str:
    rest = "".join(f"&{name}={quote(str(value), safe='')}" for name, value in fields.items())
    return f"/files/{operation}?sessionId={session.id}&path={quote(path, safe='')}{rest}"


def get(session: Session, path: str | bytes, operation: str = "content", method: str = "GET", **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return session.client.call(method, _target(session, operation, path), headers=sent)


def put(session: Session, path: str | bytes, content: bytes, operation: str = "content", **fields: object) -> Reply:
    return session.client.call("PUT", _target(session, operation, path, **fields), body=content, headers=BYTES)


def post(session: Session, operation: str, **body: object) -> Reply:
    return session.client.call("POST", f"/files/{operation}", json_body={"sessionId": session.id, **body})


def search(session: Session, **query: object) -> Reply:
    return session.client.call("GET", "/files/search", query={"sessionId": session.id, **query})


def tarball(add: Callable[[tarfile.TarFile], None]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        add(archive)
    return packed.getvalue()


def member(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    archive.addfile(entry, io.BytesIO(content))


def begin(
    session: Session, target: str, method: str = "GET", headers: Mapping[str, object] | None = None
) -> socket.socket:
    """Sends the head of a request on a new socket. The caller sends the body and reads the answer."""
    connection = socket.create_connection(("127.0.0.1", session.client.port), timeout=PATIENCE)
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {session.client.key}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


# --- content ---


def test_big_content_goes_in_and_out_as_it_is(session: Session) -> None:
    content = os.urandom(20 * MB + 1)
    assert put(session, "big/file", content, mode="750").done() == {"path": "big/file", "size": len(content)}
    reply = get(session, "big/file")
    assert reply.body == content
    assert reply.headers["content-length"] == str(len(content))
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["accept-ranges"] == "bytes"
    assert session.output("stat -c '%a %s' big/file") == f"750 {len(content)}\n"
    put(session, "big/file", b"").done()
    assert get(session, "big/file").body == b""
    assert session.output("stat -c '%a %s' big/file; ls -A . big") == "750 0\n.:\nbig\n\nbig:\nfile\n"


def test_ranges_and_conditions(session: Session) -> None:
    content = os.urandom(3 * MB)
    put(session, "f", content).done()
    part = get(session, "f", Range="bytes=1000000-1000009")
    assert (part.status, part.body) == (206, content[1_000_000:1_000_010])
    assert part.headers["content-range"] == f"bytes 1000000-1000009/{len(content)}"
    assert get(session, "f", Range=f"bytes={2 * MB}-").body == content[2 * MB :]
    assert get(session, "f", Range="bytes=-5").body == content[-5:]
    for passed_over in ("bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=-", "bytes=a-b"):
        assert get(session, "f", Range=passed_over).status == 200
    nothing = get(session, "f", Range=f"bytes={len(content)}-")
    assert nothing.refused(416, "range_not_satisfiable")["size"] == len(content)
    assert nothing.headers["content-range"] == f"bytes */{len(content)}"
    etag = part.headers["etag"]
    assert get(session, "f", If_None_Match=etag).status == 304
    assert get(session, "f", Range="bytes=0-1", If_Range=etag).status == 206
    head = get(session, "f", method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    put(session, "f", b"other").done()
    assert get(session, "f", If_None_Match=etag).body == b"other"
    assert get(session, "f", Range="bytes=0-1", If_Range=etag).body == b"other"
    assert get(session, "f", Range="bytes=9-", If_Range=etag).body == b"other"


@pytest.mark.parametrize("name", [*(name.encode() for name in NAMES), ODD], ids=range(len(NAMES) + 1))
def test_every_operation_takes_every_name(session: Session, name: bytes) -> None:
    path, shown = b"d/" + name, (b"d/" + name).decode(errors="replace")
    odd = {} if shown.encode() == path else {"pathBase64": base64.b64encode(path).decode()}
    assert put(session, path, b"here").done() == {"path": shown, "size": 4, **odd}
    assert get(session, path).body == b"here"
    assert get(session, path, "stat").done()["type"] == "file"
    assert get(session, path, "read").done()["content"] == "here"
    assert [entry["path"] for entry in get(session, "d", "list").done()["files"]] == [shown]
    raw = base64.b64encode(path).decode()
    assert post(session, "move", fromBase64=raw, to="e").done() == {"path": "e"}
    assert post(session, "mkdir", pathBase64=raw).done() == {"path": shown, "created": True, **odd}
    inner = base64.b64encode(path + b"/x").decode()
    assert post(session, "move", **{"from": "e"}, toBase64=inner).done()["path"] == shown + "/x"
    assert search(session, query="here").done()["matches"][0]["path"] == shown + "/x"
    assert get(session, path, "search").done()["matches"][0]["path"] == shown + "/x"
    packed = get(session, path, "archive").body
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert "x" in archive.getnames()
    assert put(session, path + b"/y", packed, "archive").done()["entries"] == 2
    assert get(session, path + b"/y/x").body == b"here"
    deleted = session.client.call("DELETE", _target(session, "delete", path, recursive="true"))
    assert deleted.done() == {"deleted": True, "path": shown, **odd}
    assert session.output("ls -A . d") == ".:\nd\n\nd:\n"


def test_what_is_no_file_neither_hangs_nor_leaks(session: Session) -> None:
    session.output("mkfifo fifo; ln -s l l; ln -s fifo to-fifo; ln -s . here")
    for path in ("fifo", "l", "to-fifo", "/dev/zero", "/dev/ptmx", "/proc/kmsg", "/dev/pts", ".", "/proc/self/mem"):
        assert get(session, path).status == 409, path
    for path in ("fifo", "l", "/dev/zero", "/dev/pts/0/x", "/proc/x", "."):
        assert put(session, path, b"x").status in (404, 409), path
    for path in ("fifo", "to-fifo", "l", "/dev/zero"):
        assert get(session, path, "archive").status == 409, path
        assert get(session, path, "search").status == 409, path
        assert get(session, path, "stat").status == 200, path
    assert get(session, "/proc/self/status").body.startswith(b"Name:")
    assert get(session, "here/here/here", "stat").done()["target"] == "."
    assert session.output("echo on") == "on\n"


def test_moves_between_file_systems_and_of_what_the_session_stands_on_are_refused(session: Session) -> None:
    put(session, "f", b"f").done()
    refused = post(session, "move", **{"from": "f"}, to="/dev/shm/f").refused(409, "file_conflict")
    assert refused["reason"] == "EXDEV"
    for path in (".", "/"):
        assert post(session, "move", **{"from": path}, to="/tmp/x").refused(409, "file_conflict")["reason"] == "EBUSY"
    assert get(session, "f").body == b"f"


# --- broken transfers ---


def test_an_upload_that_breaks_off_leaves_nothing(session: Session) -> None:
    put(session, "f", b"old").done()
    for path in ("f", "new/g"):
        connection = begin(session, _target(session, "content", path), "PUT", {"Content-Length": 9 * MB})
        connection.sendall(bytes(4 * MB))
        until(lambda: int(session.output("ls /workspace | wc -l")) >= 1, "the write to begin")
        connection.close()
    until(lambda: session.output("find . -mindepth 1") == "./f\n", "the end of the request")
    assert get(session, "f").body == b"old"


def test_downloads_that_nobody_reads_to_their_end_leave_room_for_others(session: Session) -> None:
    session.output("head -c 30000000 /dev/zero >f")
    for _ in range(40):
        connection = begin(session, _target(session, "content", "f"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()
    until(lambda: get(session, "f", Range="bytes=-1").status == 206, "the end of the request")


def test_a_file_that_becomes_shorter_breaks_the_connection(session: Session) -> None:
    session.output("head -c 60000000 /dev/zero >f")
    with begin(session, _target(session, "content", "f")) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        session.output("truncate -s 1000 f")
        size = 0
        while True:
            try:
                part = connection.recv(MB)
            except ConnectionError:
                break
            if not part:
                break
            size += len(part)
    assert size < 60_000_000
    assert session.output("echo on") == "on\n"


def test_a_server_that_is_killed_leaves_nothing_of_an_upload(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    put(session, "f", b"old").done()
    connection = begin(session, _target(session, "content", "f"), "PUT", {"Content-Length": 9 * MB})
    connection.sendall(bytes(4 * MB))
    time.sleep(0.5)
    server.kill()
    connection.close()
    server.start()
    assert get(session, "f").body == b"old"
    assert session.output("find . -mindepth 1") == "./f\n"


def test_a_full_disk_is_507_at_once(session: Session) -> None:
    disk = 1024
    assert session.look().done()["resourceLimits"]["disk"] == disk
    with begin(session, _target(session, "content", "f"), "PUT", {"Content-Length": (disk + 1) * MB}) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 507")
    session.output(f"fallocate -l {disk - 8}M filler")
    with begin(session, _target(session, "content", "g"), "PUT", {"Content-Length": 100 * MB}) as connection:
        connection.settimeout(PATIENCE)
        sent = 0
        try:
            while sent < 99 * MB:
                connection.sendall(bytes(MB))
                sent += MB
        except ConnectionError:
            pass
        assert connection.recv(1000).startswith(b"HTTP/1.1 507")
    assert session.output("ls -A") == "filler\n"


# --- archives ---


def test_an_archive_does_not_reach_beyond_its_place(session: Session) -> None:
    def hostile(archive: tarfile.TarFile) -> None:
        member(archive, "/etc/absolute", b"a")
        member(archive, "link", type=tarfile.SYMTYPE, linkname="/root")
        member(archive, "link/through", b"b")
        member(archive, "../beside", b"c")

    assert put(session, "d", tarball(hostile), "archive").refused(400, "invalid_request", "body")
    assert session.output("ls /root/through /etc/absolute beside 2>/dev/null || true") == ""
    assert get(session, "d/etc/absolute").body == b"a"


def test_an_archive_that_unpacks_to_more_than_the_disk_is_507(session: Session) -> None:
    def bomb(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("zeros")
        entry.size = 1200 * MB
        with open("/dev/zero", "rb") as zeros:
            archive.addfile(entry, zeros)

    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file,
        tarfile.open(fileobj=file, mode="w|") as tar,
    ):
        bomb(tar)
    assert len(packed.getvalue()) < 10 * MB
    put(session, "d", packed.getvalue(), "archive").refused(507, "disk_full")
    session.client.call("DELETE", _target(session, "delete", "d", recursive="true")).done()
    assert put(session, "after", b"fine").status == 200


def test_a_large_archive_goes_in_with_a_slow_tar_and_out_with_a_slow_reader(session: Session) -> None:
    content = os.urandom(36 * MB)
    packed = tarball(lambda archive: member(archive, "f", content))
    assert put(session, "d", packed, "archive").done() == {"path": "d", "entries": 1}
    with begin(session, _target(session, "archive", "d")) as connection:
        size = 0
        while part := connection.recv(MB):
            size += len(part)
            if size > 36 * MB:
                break
            time.sleep(0.001)
    assert size > 36 * MB


def test_an_archive_that_breaks_off_ends_tar(session: Session) -> None:
    packed = tarball(lambda archive: member(archive, "f", os.urandom(20 * MB)))
    connection = begin(session, _target(session, "archive", "d"), "PUT", {"Content-Length": len(packed)})
    connection.sendall(packed[: 10 * MB])
    until(lambda: "/d/f" in session.output("ls -d /workspace/d/f || true"), "the end of the request")
    connection.close()
    put(session, "g", os.urandom(9 * MB)).done()
    with begin(session, _target(session, "archive", ".")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    until(
        lambda: session.output("cat /proc/[0-9]*/comm 2>/dev/null | grep -cx tar || true") == "0\n",
        "the end of the request",
    )


def test_a_runtime_that_is_killed_says_so_and_leaves_nothing(session: Session) -> None:
    connection = begin(session, _target(session, "content", "f"), "PUT", {"Content-Length": 9 * MB})
    connection.sendall(bytes(4 * MB))
    session.execute(command=assault_on_the_guest(session, "end"))
    with connection:
        with suppress(ConnectionError):
            connection.sendall(bytes(5 * MB))
        assert connection.recv(1000).startswith(b"HTTP/1.1 409")
    assert session.output("find . -mindepth 1") == ""


def test_open_answers_are_bounded(free: Client) -> None:
    session = Session(free, str(free.create().done()["sessionId"]))
    session.output("head -c 50000000 /dev/zero >f")
    with ExitStack() as stack:
        readers = [stack.enter_context(begin(session, _target(session, "content", "f"))) for _ in range(17)]
        answers = [reader.recv(100)[:12] for reader in readers]
    assert sorted(answers) == [b"HTTP/1.1 200"] * 16 + [b"HTTP/1.1 429"]
    until(lambda: get(session, "f", Range="bytes=0-0").status == 206, "the end of the request")
    session.delete()


def test_programs_that_are_not_what_they_should_be(session: Session) -> None:
    session.output("mv /usr/bin/rg /usr/bin/rg.old; mv /usr/bin/tar /usr/bin/tar.old")
    search(session, query="x").refused(409, "invalid_state")
    get(session, ".", "archive").refused(409, "invalid_state")
    put(session, ".", tarball(lambda archive: member(archive, "a")), "archive").refused(409, "invalid_state")
    session.write("/usr/bin/rg", HOSTILE_RG, mode="755").done()
    assert search(session, query="x").done()["matches"] == []
    session.write("/usr/bin/tar", "#!/bin/bash\necho half; exit 2\n", mode="755").done()
    connection = begin(session, _target(session, "archive", "."), headers={"Connection": "close"})
    answer = b""
    with connection:
        while part := connection.recv(MB):
            answer += part
    refused = answer.startswith(b"HTTP/1.1 409")  # if tar had ended before the first byte was sent
    assert refused or not answer.endswith(b"0\r\n\r\n")
    assert session.output("echo on") == "on\n"


# --- search ---


def test_lines_are_found_with_their_places(session: Session) -> None:
    session.write("src/a.ts", "const é = 1;\nlet x = é + é;\n").done()
    session.write(".hidden/b.ts", "é").done()
    session.write(".gitignore", "src\n").done()
    session.write("node_modules/p/c.ts", "é").done()
    session.output("mkdir .git; echo é >.git/c; printf 'é\\0é' >binary")
    found = search(session, query="é").done()
    assert found == {
        "matches": [
            {"path": ".hidden/b.ts", "line": 1, "text": "é", "ranges": [[0, 1]]},
            {"path": "src/a.ts", "line": 1, "text": "const é = 1;", "ranges": [[6, 7]]},
            {"path": "src/a.ts", "line": 2, "text": "let x = é + é;", "ranges": [[8, 9], [12, 13]]},
        ],
        "truncated": False,
    }
    assert search(session, query="é", limit=1).done()["truncated"] is True
    names = [match["path"] for match in search(session, glob="*.ts").done()["matches"]]
    assert names == [".hidden/b.ts", "src/a.ts"]
    assert search(session, query="é", path="node_modules").done()["matches"][0]["path"] == "node_modules/p/c.ts"
    search(session, query="(").refused(400, "invalid_request", "query")
    search(session, glob="{").refused(400, "invalid_request", "glob")
    search(session, query="x", path="missing").refused(404, "file_not_found")


def test_a_search_is_bounded(session: Session) -> None:
    session.output('truncate -s 900M sparse; bun -e \'await Bun.write("long", "a".repeat(20_000_000))\'')
    started = time.monotonic()
    found = search(session, query="(a+)+$|(a|aa)*b").done()
    assert time.monotonic() - started < PATIENCE
    assert len(found["matches"]) <= 1
    session.write("line", "x" * 5000 + "needle" + "y" * 5000).done()
    (match,) = search(session, query="needle").done()["matches"]
    assert len(match["text"]) == 1000
    (start, end) = match["ranges"][0]
    assert match["text"][start:end] == "needle"
