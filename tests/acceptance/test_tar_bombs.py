"""Malicious archives: each ends in success or a typed error, and stays within the session's limits."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.client import Reply, Session
from tests.acceptance.hostile import others_stay_quick
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

MB = 1 << 20
BLOCK = 512
EXABYTE = 1 << 60
PATIENCE = 300.0  # seconds; a guard against a hang
REFUSALS = {(400, "invalid_request"), (507, "disk_full"), (507, "memory_limit_exceeded")}
MANY = 40_000
MEMORY, DISK = 256, 32  # MB, the session's limits
LARGE = 400 * MB  # more than either


def _packed(raw: bytes | Iterator[bytes]) -> bytes:
    """Compresses the parts one by one, since the uncompressed archive may be huge."""
    packer, packed = zlib.compressobj(6, wbits=31), io.BytesIO()
    for part in [raw] if isinstance(raw, bytes) else raw:
        packed.write(packer.compress(part))
    packed.write(packer.flush())
    return packed.getvalue()


def _header(name: str = "f", size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    return _entry(name, size, kind, link).tobuf(tarfile.GNU_FORMAT)


def _entry(name: str, size: int, kind: bytes, link: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = size, kind, link
    return entry


def _zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // MB):
        yield bytes(MB)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


END = bytes(2 * BLOCK)
SMALL = _header("small", 1) + _padded(b"x")


def _zeros_without_end() -> Iterator[bytes]:
    yield _header("zeros", LARGE)
    yield from _zeros(LARGE)


def _many_entries(kind: bytes, name: Callable[[int], str]) -> Iterator[bytes]:
    template = bytearray(_header("0" * 90, 0, kind))
    for number in range(MANY):
        template[:90] = name(number).encode().ljust(90, b"\0")
        template[148:156] = b" " * 8
        template[148:156] = b"%06o\0 " % sum(template)
        yield bytes(template)
    yield END


def _large_extension(kind: bytes, size: int) -> Iterator[bytes]:
    """Returns an extended header, which has values for the next entry that do not fit into a header."""
    yield _header("long", size, kind)
    if kind == tarfile.XHDTYPE:
        yield b"%d path=" % size
        yield b"a" * (size - len(b"%d path=\n" % size)) + b"\n"
    else:
        yield b"a" * size
    yield bytes(-size % BLOCK)
    yield SMALL + END


def _sparse(size: int) -> bytes:
    """Returns a sparse entry in GNU format 1.0: it has almost no content and a large size."""
    entry = _entry("GNUSparseFile.0/f", BLOCK, tarfile.REGTYPE, "")
    said = {"major": "1", "minor": "0", "name": "sparse", "realsize": str(size)}
    entry.pax_headers = {f"GNU.sparse.{name}": value for name, value in said.items()}
    return entry.tobuf(tarfile.PAX_FORMAT) + _padded(b"1\n%d\n0\n" % size)


BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros, a thousand to one": lambda: _packed(_zeros_without_end()),
    "many files": lambda: _packed(_many_entries(tarfile.REGTYPE, lambda n: f"many/{n}")),
    "many directories": lambda: _packed(_many_entries(tarfile.DIRTYPE, lambda n: f"many/{n}")),
    "one name, again and again": lambda: _packed(_many_entries(tarfile.REGTYPE, lambda n: "one")),
    "a size that is not there": lambda: _packed(_header("large", EXABYTE) + b"x" * 1000),
    "a sparse file of an exabyte": lambda: _packed(_sparse(EXABYTE) + SMALL + END),
    "a sparse file of a gigabyte": lambda: _packed(_sparse(1024 * MB) + SMALL + END),
    "a pax header of 100 MB": lambda: _packed(_large_extension(tarfile.XHDTYPE, 100 * MB)),
    "a pax header of 400 MB": lambda: _packed(_large_extension(tarfile.XHDTYPE, LARGE)),
    "a name of 100 MB": lambda: _packed(_large_extension(tarfile.GNUTYPE_LONGNAME, 100 * MB)),
    "a name of 400 MB": lambda: _packed(_large_extension(tarfile.GNUTYPE_LONGNAME, LARGE)),
    "a link to a name of 100 MB": lambda: _packed(_large_extension(tarfile.GNUTYPE_LONGLINK, 100 * MB)),
    "a very deep path": lambda: _packed(_header("d/" * 4000 + "f", 1) + _padded(b"x") + END),
    "ever deeper directories": lambda: _packed(
        b"".join(_header("d/" * depth, 0, tarfile.DIRTYPE) for depth in range(1, 800)) + END
    ),
    "a name longer than names are": lambda: _packed(_header("n" * 5000, 1) + _padded(b"x") + END),
    "nested gzip": lambda: gzip.compress(gzip.compress(_packed(_zeros(LARGE)))),
    "zeros behind the end": lambda: _packed(SMALL + END) + _packed(_zeros(LARGE)),
    "a truncated end": lambda: _packed(SMALL + _header("cut", 100_000) + b"x" * 5000)[:-9],
    "a truncated archive in whole gzip": lambda: _packed(SMALL + _header("cut", 100_000) + b"x" * 5000),
    "no tar": lambda: _packed(b"text\n" * 10_000),
    "no gzip": lambda: b"text\n" * 10_000,
    "nothing": lambda: b"",
    "a wrong sum": lambda: _packed(SMALL[:148] + b"0000000\0" + SMALL[156:] + END),
    "a negative size": lambda: _packed(SMALL[:124] + b"\xff" * 12 + SMALL[136:] + END),
}  # fmt: skip


@pytest.fixture
def small(server: Server) -> Iterator[Session]:
    session = server.new_client("enterprise").open(resourceLimits={"cpu": 1, "memory": MEMORY, "disk": DISK})
    session.write("kept", "kept").done()
    yield session
    session.delete().done()


def _put(session: Session, packed: bytes, path: str = "d") -> Reply:
    query = {"sessionId": session.id, "path": path}
    return session.client.call("PUT", "/files/archive", query=query, body=packed, timeout=PATIENCE)


def _is_usable(session: Session) -> None:
    session.output("rm -rf d; true", timeout=120)
    assert session.text("kept") == "kept"
    session.write("after", "x" * MB).done()
    assert session.output("echo fine; rm after") == "fine\n"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_ends_within_the_sessions_limits(server: Server, small: Session, neighbour: Session, what: str) -> None:
    packed = BOMBS[what]()
    with others_stay_quick(server, neighbour):
        reply = _put(small, packed)
    assert reply.status == 200 or (reply.status, reply.error["code"]) in REFUSALS, reply.shown()
    _is_usable(small)


def test_entries_that_reach_out_of_the_directory_or_are_devices_harm_nothing(small: Session) -> None:
    small.output("mkdir -p /root/out && echo secret > /root/out/secret && chmod 600 /root/out/secret")
    link = _header("soft", 0, tarfile.SYMTYPE, "/root/out")
    archives = [
        _header("up/../../out-by-dots", 1) + _padded(b"x"),
        _header("hard", 0, tarfile.LNKTYPE, "../../root/out/secret"),
        _header("absolute", 0, tarfile.LNKTYPE, "/root/out/secret"),
        link + _header("soft/through", 1) + _padded(b"x") + _header("soft/secret", 1) + _padded(b"x"),
        _header("hard", 0, tarfile.LNKTYPE, "soft/secret") + link + _header("hard", 1) + _padded(b"x"),
    ]
    for archive in archives:
        reply = _put(small, _packed(archive + END))
        assert reply.status == 200 or (reply.status, reply.error["code"]) in REFUSALS, reply.shown()
        small.output("rm -rf d")
    there = small.output("cat /root/out/secret; ls /root/out /workspace")
    assert there == "secret\n/root/out:\nsecret\n\n/workspace:\nkept\n"
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        _put(small, _packed(_header("device", 0, kind) + END)).refused(400, "invalid_request", "body")
    assert _put(small, _packed(_header("fifo", 0, tarfile.FIFOTYPE) + END)).done()["entries"] == 1
    assert small.output("find d -type b -o -type c") == ""
    _is_usable(small)


def test_no_entry_keeps_an_owner_of_the_host(small: Session) -> None:
    entry = tarfile.TarInfo("program")
    entry.uid, entry.gid, entry.mode, entry.size = 4_000_000, 4_000_000, 0o6777, 1
    assert _put(small, _packed(entry.tobuf(tarfile.GNU_FORMAT) + _padded(b"x") + END)).done()["entries"] == 1
    assert small.output("stat -c '%u %g' d/program") == "0 0\n"
