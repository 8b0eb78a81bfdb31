"""The contract of `ports.Archive`, for the fake, a directory and a real S3 server alike."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buntime.archives.opening import open_archive
from buntime.ports import Archive, ObjectMissing
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
