"""The contract of `ports.Archive`, for the fake, a directory and a real S3 server alike."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.archives.uploads import Credentials, Uploads
from buntime.ports import Archive, ArchiveUnavailable, ObjectExists, ObjectMissing
from buntime.testing.archive import FakeArchive
from tests.contracts.seaweed import BUCKET, Seaweed, seaweed

MEGABYTE = 1 << 20


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(params=["fake", "directory", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "fake":
        return FakeArchive()
    if request.param == "directory":
        return open_archive("", tmp_path / "archive", {})
    server: Seaweed = request.getfixturevalue("s3_server")
    return open_archive(f"s3://{BUCKET}/{secrets.token_hex(8)}", tmp_path, server.environ)


def read(archive: Archive, name: str) -> bytes:
    return b"".join(archive.get(name))


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("size", [1, 1000, MEGABYTE, 8 * MEGABYTE, 20 * MEGABYTE + 1])
def test_an_object_comes_back_as_it_was_put(archive: Archive, size: int) -> None:
    content = secrets.token_bytes(size)
    archive.put("sessions/one/first", pieces(content, 300_000))
    assert read(archive, "sessions/one/first") == content


def test_an_empty_object_is_an_object(archive: Archive) -> None:
    archive.put("sessions/one/empty", iter([b"", b""]))
    assert read(archive, "sessions/one/empty") == b""
    assert list(archive.names("sessions/one/")) == ["sessions/one/empty"]


def test_an_object_can_be_read_again(archive: Archive) -> None:
    archive.put("sessions/one/first", iter([b"content"]))
    assert [read(archive, "sessions/one/first") for _ in range(2)] == [b"content", b"content"]


def test_a_reader_may_stop_early(archive: Archive) -> None:
    archive.put("sessions/one/first", pieces(bytes(4 * MEGABYTE), MEGABYTE))
    reading = archive.get("sessions/one/first")
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert len(read(archive, "sessions/one/first")) == 4 * MEGABYTE


@pytest.mark.parametrize("size", [0, 1000, 9 * MEGABYTE])
def test_an_object_never_takes_the_place_of_another_one(archive: Archive, size: int) -> None:
    content = secrets.token_bytes(size)
    archive.put("sessions/one/first", pieces(content, MEGABYTE))
    archive.put("sessions/one/first", pieces(content, 300_000))  # again, as after an answer that was lost
    for other in (content + b"more", content[:-1], secrets.token_bytes(size)):
        if other != content:
            with pytest.raises(ObjectExists):
                archive.put("sessions/one/first", pieces(other, MEGABYTE))
    assert read(archive, "sessions/one/first") == content
    assert list(archive.names("")) == ["sessions/one/first"]
    archive.delete("sessions/one/first")
    archive.put("sessions/one/first", iter([b"another one"]))
    assert read(archive, "sessions/one/first") == b"another one"


def test_of_two_that_put_at_once_one_has_the_name(archive: Archive) -> None:
    def put(number: int) -> bytes | None:
        content = bytes([number]) * 100_000
        try:
            archive.put("sessions/one/first", pieces(content, 10_000))
        except (ObjectExists, ArchiveUnavailable):  # S3 may refuse one without a reason
            return None
        return content

    with ThreadPoolExecutor(8) as pool:
        won = [content for content in pool.map(put, range(8)) if content is not None]
    assert [read(archive, "sessions/one/first")] == won


def test_an_object_that_was_never_put_is_missing(archive: Archive) -> None:
    with pytest.raises(ObjectMissing):
        read(archive, "sessions/one/first")


@pytest.mark.parametrize("name", ["sessions", "sessions/one", "sessions/one/first/part"])
def test_a_name_beside_an_object_s_name_is_missing(archive: Archive, name: str) -> None:
    archive.put("sessions/one/first", iter([b"content"]))
    with pytest.raises(ObjectMissing):
        read(archive, name)


@pytest.mark.parametrize("size", [MEGABYTE, 20 * MEGABYTE])
def test_nothing_has_the_name_before_the_whole_object(archive: Archive, size: int) -> None:
    def seen() -> bool:
        try:
            return bool(archive.names("sessions/one/") or read(archive, "sessions/one/first"))
        except ObjectMissing:
            return False

    def content() -> Iterator[bytes]:
        for piece in pieces(bytes(size), MEGABYTE):
            assert not elsewhere.submit(seen).result()
            yield piece

    with ThreadPoolExecutor(1) as elsewhere:
        archive.put("sessions/one/first", content())
    assert seen()


@pytest.mark.parametrize("size", [0, MEGABYTE, 20 * MEGABYTE])
@pytest.mark.parametrize("reason", [Interrupted("a wake"), OSError(5, "of the volume's disk")])
def test_what_the_content_raises_is_raised_and_no_object_is_left(
    archive: Archive, size: int, reason: Exception
) -> None:
    def content() -> Iterator[bytes]:
        yield from pieces(bytes(size), MEGABYTE)
        raise reason

    with pytest.raises(type(reason)) as raised:
        archive.put("sessions/one/first", content())
    assert raised.value is reason
    assert not archive.names("sessions/one/")
    with pytest.raises(ObjectMissing):
        read(archive, "sessions/one/first")


def test_a_deleted_object_is_gone(archive: Archive) -> None:
    archive.put("sessions/one/first", iter([b"1"]))
    archive.put("sessions/one/second", iter([b"2"]))
    archive.delete("sessions/one/first")
    with pytest.raises(ObjectMissing):
        read(archive, "sessions/one/first")
    assert list(archive.names("sessions/one/")) == ["sessions/one/second"]


def test_deleting_again_and_what_never_was_is_done(archive: Archive) -> None:
    archive.put("sessions/one/first", iter([b"1"]))
    for name in ("sessions/one/first", "sessions/one/first", "sessions/two/first"):
        archive.delete(name)
    assert not archive.names("sessions/")


def test_names_are_those_below_the_prefix(archive: Archive) -> None:
    below = {"sessions/one/first", "sessions/one/deep/er", "sessions/one/0_-"}
    for name in (*below, "sessions/one-more/first", "sessions/o", "other/one/first"):
        archive.put(name, iter([b"content"]))
    assert set(archive.names("sessions/one/")) == below
    assert len(archive.names("sessions/one/")) == len(below)
    assert not archive.names("nothing/")
    assert below < set(archive.names(""))


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", ".incoming/a", "a\n", "A", "a b", "ä"])
@pytest.mark.parametrize(
    "use", [lambda a, n: a.put(n, iter([b"x"])), lambda a, n: list(a.get(n)), lambda a, n: a.delete(n)]
)
def test_a_name_that_is_not_ours_is_refused(archive: Archive, name: str, use: Callable[[Archive, str], object]) -> None:
    with pytest.raises(ValueError, match="not a name in the archive"):
        use(archive, name)


@pytest.mark.parametrize("prefix", ["/", "a", "../", "a/../"])
def test_a_prefix_that_is_not_ours_is_refused(archive: Archive, prefix: str) -> None:
    with pytest.raises(ValueError, match="not a name in the archive"):
        archive.names(prefix)


# --- puts that have not ended ---

PUTS_AND_HANGS = """
import json, sys, time
from pathlib import Path
from buntime.archives.opening import open_archive
from buntime.archives.uploads import Credentials, Uploads

def content():
    for _ in range(40):
        yield bytes(1 << 20)
    print("sent", flush=True)
    time.sleep(3600)

location, environ = json.loads(sys.argv[1])
open_archive(location, Path(), environ).put("sessions/one/first", content())
"""


def test_what_has_ended_is_no_upload(archive: Archive) -> None:
    archive.put("sessions/one/first", pieces(bytes(20 * MEGABYTE), MEGABYTE))
    with pytest.raises(Interrupted):
        archive.put("sessions/one/second", _interrupted())
    assert not archive.uploads("")


def _interrupted() -> Iterator[bytes]:
    yield from pieces(bytes(20 * MEGABYTE), MEGABYTE)
    raise Interrupted


def test_uploads_of_a_killed_process_are_found_below_their_prefix_and_removed(
    s3_server: Seaweed, tmp_path: Path
) -> None:
    location, others = (f"s3://{BUCKET}/{secrets.token_hex(8)}" for _ in range(2))
    archive, other = (open_archive(one, tmp_path, s3_server.environ) for one in (location, others))
    before = time.time()
    for _ in range(2):
        command = [sys.executable, "-c", PUTS_AND_HANGS, json.dumps([location, dict(s3_server.environ)])]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"sent\n"
            process.kill()
    found = archive.uploads("")
    assert [upload.name for upload in found] == ["sessions/one/first"] * 2
    assert all(before - 2 <= upload.began_at <= time.time() + 2 for upload in found)
    assert archive.uploads("sessions/one/") == found
    assert not archive.uploads("sessions/two/")
    assert not other.uploads("")
    assert not archive.names("")
    archive.put("sessions/one/second", pieces(bytes(20 * MEGABYTE), MEGABYTE))
    for upload in (*found, *found):
        archive.abort(upload)
    assert not archive.uploads("")
    assert read(archive, "sessions/one/second") == bytes(20 * MEGABYTE)


class SmallPages(Uploads):
    """Asks for two uploads a page."""

    pages = 0

    def _ask(self, method: str, path: str, query: Mapping[str, str]) -> bytes:
        self.pages += method == "GET"
        return super()._ask(method, path, {**query, "max-uploads": "2"} if method == "GET" else query)


def test_all_of_many_uploads_are_found(s3_server: Seaweed) -> None:
    prefix, environ = secrets.token_hex(8), s3_server.environ
    keys = Credentials(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    uploads = SmallPages(f"{s3_server.url}/{BUCKET}", "us-east-1", keys, 30.0)
    for number in range(5):
        uploads._ask("POST", f"/{prefix}/a{number // 2}", {"uploads": ""})
    found = list(uploads.list(f"{prefix}/"))
    assert sorted(upload.name for upload in found) == [f"{prefix}/a{number // 2}" for number in range(5)]
    assert uploads.pages == 3
    for upload in found:
        uploads.abort(upload)
    assert not list(uploads.list(f"{prefix}/"))


def test_several_use_it_at_once(archive: Archive) -> None:
    def use(number: int) -> bool:
        name, content = f"sessions/s{number % 3}/object{number}", secrets.token_bytes(500_000)
        archive.put(name, pieces(content, 100_000))
        whole = read(archive, name) == content
        archive.delete(name)
        return whole

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(24)))
    assert not archive.names("sessions/")
