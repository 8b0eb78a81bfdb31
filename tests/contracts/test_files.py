"""The contract of `inside.Files` except watching: one suite for the fake and for real sandboxes of this host."""

import io
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from buntime.errors import DiskFull, FileConflict, FileNotFound, InvalidRequest, PayloadTooLarge, RangeNotSatisfiable
from buntime.inside import FileToWrite
from buntime.plan import MB
from buntime.ports import Sandbox, SandboxGone
from tests.contracts.test_sandboxes import LIMITS, Host, host, sandbox

__all__ = ["host", "sandbox"]  # fixtures

ODD = "/workspace/o\udcff/-\udcfe 'x'\n%00"


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _write(sandbox: Sandbox, path: str, *parts: bytes, mode: int | None = None) -> int:
    return await sandbox.files.write(path, _parts(*parts), mode)


async def _read(sandbox: Sandbox, path: str, start: int | None = None, end: int | None = None) -> bytes:
    async with sandbox.files.read(path, start, end) as content:
        whole = b"".join([part async for part in content.parts])
    assert len(whole) == content.end - content.start
    return whole


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize("path", ["/workspace/a/b", "/root/é", ODD])
async def test_a_written_file_is_read_whole_and_in_parts(sandbox: Sandbox, path: str) -> None:
    content = os.urandom(3 * MB + 7)
    assert await _write(sandbox, path, content[:5], content[5:], mode=0o750) == len(content)
    assert await _read(sandbox, path) == content
    assert await _read(sandbox, path, 0, 1) == content[:1]
    assert await _read(sandbox, path, 2 * MB, None) == content[2 * MB :]
    assert await _read(sandbox, path, None, 9) == content[-9:]
    assert await _read(sandbox, path, 5, 1 << 40) == content[5:]
    status = await sandbox.files.status(path)
    assert (status.type, status.size, status.mode) == ("file", len(content), 0o750)
    assert await _write(sandbox, path, b"new") == 3
    assert (await sandbox.files.status(path)).mode == 0o750
    assert await sandbox.files.read_whole(path, 10) == b"new"


async def test_a_version_changes_with_the_content(sandbox: Sandbox) -> None:
    versions = set()
    for content in (b"a", b"b"):
        await _write(sandbox, "/workspace/a", content)
        async with sandbox.files.read("/workspace/a", None, None) as told:
            versions.add(told.version)
    async with sandbox.files.read("/workspace/a", 0, 1) as told:
        versions.add(told.version)
    assert len(versions) == 2


async def test_an_empty_range_is_refused(sandbox: Sandbox) -> None:
    await _write(sandbox, "/workspace/a", b"abc")
    await _write(sandbox, "/workspace/empty")
    for path, start, end in [("a", 3, None), ("a", 9, 12), ("a", None, 0), ("empty", 0, None), ("empty", None, 5)]:
        with pytest.raises(RangeNotSatisfiable):
            await _read(sandbox, f"/workspace/{path}", start, end)
    assert await _read(sandbox, "/workspace/empty") == b""


@pytest.mark.parametrize("number", [2**53 - 1, 2**53, 10**17])
async def test_a_range_past_the_end_reads_to_the_end(sandbox: Sandbox, number: int) -> None:
    await _write(sandbox, "/workspace/a", b"abc")
    assert await _read(sandbox, "/workspace/a", 0, number) == b"abc"
    assert await _read(sandbox, "/workspace/a", None, number) == b"abc"
    for end in (None, number, 10 * number):
        with pytest.raises(RangeNotSatisfiable):
            await _read(sandbox, "/workspace/a", number, end)


async def test_a_broken_upload_leaves_nothing(sandbox: Sandbox) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield bytes(2 * MB)
        raise ConnectionError

    await _write(sandbox, "/workspace/a", b"old")
    for path in ("/workspace/a", "/workspace/new/b"):
        with pytest.raises(ConnectionError):
            await sandbox.files.write(path, breaking(), None)
    assert await _read(sandbox, "/workspace/a") == b"old"
    assert (await sandbox.files.list("/workspace", recursive=True, limit=9, offset=0))[1] == 1


async def test_a_full_disk_ends_an_upload_at_once_and_leaves_nothing(sandbox: Sandbox) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += MB
            yield os.urandom(MB)

    with pytest.raises(DiskFull):
        await sandbox.files.write("/workspace/a", endless(), None)
    assert sent < (LIMITS.disk + 8) * MB
    assert (await sandbox.files.list("/workspace", recursive=True, limit=9, offset=0))[1] == 0
    assert await _write(sandbox, "/workspace/b", bytes(MB)) == MB


async def test_a_directory_is_made_with_its_parents(sandbox: Sandbox) -> None:
    assert await sandbox.files.make_directory("/workspace/a/b")
    assert not await sandbox.files.make_directory("/workspace/a/b")
    assert (await sandbox.files.status("/workspace/a")).type == "directory"
    await _write(sandbox, "/workspace/f", b"")
    for path, reason in [("/workspace/f", "EEXIST"), ("/workspace/f/g", "ENOTDIR")]:
        with pytest.raises(FileConflict) as conflict:
            await sandbox.files.make_directory(path)
        assert conflict.value.details["reason"] == reason


async def test_a_moved_file_is_only_at_its_new_path(sandbox: Sandbox) -> None:
    await _write(sandbox, "/workspace/a/f", b"1")
    await sandbox.files.move("/workspace/a", ODD, overwrite=False)
    assert await _read(sandbox, ODD + "/f") == b"1"
    with pytest.raises(FileNotFound):
        await sandbox.files.status("/workspace/a")
    await _write(sandbox, "/workspace/g", b"2")
    with pytest.raises(FileConflict) as conflict:
        await sandbox.files.move("/workspace/g", ODD + "/f", overwrite=False)
    assert conflict.value.details["reason"] == "EEXIST"
    await sandbox.files.move("/workspace/g", ODD + "/f", overwrite=True)
    assert await _read(sandbox, ODD + "/f") == b"2"


@pytest.mark.parametrize(
    ("path", "to", "reason"),
    [("d", "d/e/f", "EINVAL"), ("f", "d", "EISDIR"), ("d", "f", "ENOTDIR"), ("e", "d", "ENOTEMPTY")],
)
async def test_a_failed_move_changes_nothing(sandbox: Sandbox, path: str, to: str, reason: str) -> None:
    await _write(sandbox, "/workspace/d/x", b"x")
    await _write(sandbox, "/workspace/f", b"f")
    await sandbox.files.make_directory("/workspace/e")
    with pytest.raises(FileConflict) as conflict:
        await sandbox.files.move(f"/workspace/{path}", f"/workspace/{to}", overwrite=True)
    assert conflict.value.details["reason"] == reason
    assert (await sandbox.files.list("/workspace", recursive=True, limit=9, offset=0))[1] == 4


async def test_a_missing_path_is_not_found(sandbox: Sandbox) -> None:
    path = "/workspace/no"
    with pytest.raises(FileNotFound):
        await _read(sandbox, path)
    with pytest.raises(FileNotFound):
        await sandbox.files.status(path)
    with pytest.raises(FileNotFound):
        await sandbox.files.move(path, "/workspace/b", overwrite=False)
    with pytest.raises(FileNotFound):
        async with sandbox.files.pack(path):
            pass
    with pytest.raises(FileNotFound):
        await sandbox.files.search(path, glob=None, query="x", ignore_case=False, limit=1)


@pytest.mark.parametrize("path", ["/workspace/d", ODD])
async def test_a_packed_directory_can_be_unpacked(sandbox: Sandbox, path: str) -> None:
    content = os.urandom(2 * MB)
    await _write(sandbox, path + "/a/b", content, mode=0o755)
    await _write(sandbox, path + "/-c \udcff\n", b"odd")
    async with sandbox.files.pack(path) as parts:
        packed = b"".join([part async for part in parts])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {name.removeprefix("./") for name in archive.getnames()} == {".", "a", "a/b", "-c \udcff\n"}
    assert await sandbox.files.unpack("/workspace/new/place", _parts(packed[:999], packed[999:])) == 4
    assert await _read(sandbox, "/workspace/new/place/a/b") == content
    assert await _read(sandbox, "/workspace/new/place/-c \udcff\n") == b"odd"
    assert (await sandbox.files.status("/workspace/new/place/a/b")).mode == 0o755


async def test_a_single_file_can_be_packed(sandbox: Sandbox) -> None:
    await _write(sandbox, "/workspace/-a", b"one")
    async with sandbox.files.pack("/workspace/-a") as parts:
        packed = b"".join([part async for part in parts])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert [name.removeprefix("./") for name in archive.getnames()] == ["-a"]


@pytest.mark.parametrize(
    "body",
    [b"", b"no archive", _tar({"a": b"a" * 9999})[:60], _tar({"../x": b"x"})],
    ids=["nothing", "no archive", "half an archive", "a name that leads out"],
)
async def test_an_incomplete_archive_is_refused(sandbox: Sandbox, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await sandbox.files.unpack("/workspace/d", _parts(body))


async def test_absolute_names_in_an_archive_stay_below_the_directory(sandbox: Sandbox) -> None:
    await sandbox.files.unpack("/workspace/d", _parts(_tar({"/etc/x": b"x"})))
    assert await _read(sandbox, "/workspace/d/etc/x") == b"x"


async def test_search_finds_names_and_contents(sandbox: Sandbox) -> None:
    texts = {"b.ts": b"one\ntwo twos\n", "a/c.ts": b"TWO\n", ".h/d.md": "é two".encode(), "node_modules/e.ts": b"two"}
    for name, content in texts.items():
        await _write(sandbox, f"/workspace/{name}", content)
    await _write(sandbox, ODD, b"two")

    async def found(**asked: object) -> list[tuple[str, int | None]]:
        wanted = {"glob": None, "query": None, "ignore_case": False, "limit": 99, "path": "/workspace", **asked}
        matches, truncated = await sandbox.files.search(**wanted)  # type: ignore[arg-type]
        assert not truncated
        return [(match.path, match.line) for match in matches]

    odd = ODD.removeprefix("/workspace/")
    assert await found(glob="*.ts") == [("a/c.ts", None), ("b.ts", None)]
    assert await found(query="two") == [(".h/d.md", 1), ("b.ts", 2), (odd, 1)]
    assert await found(query="two", ignore_case=True, glob="*.TS") == [("a/c.ts", 1), ("b.ts", 2)]
    assert await found(query="two", path="/workspace/node_modules") == [("node_modules/e.ts", 1)]
    assert await found(query="two", path="/workspace/b.ts") == [("b.ts", 2)]
    assert await found(query="nowhere") == []
    matches, truncated = await sandbox.files.search("/workspace", glob=None, query="two", ignore_case=False, limit=2)
    assert truncated
    assert [(match.text, list(match.ranges)) for match in matches] == [
        ("é two", [(2, 5)]),
        ("two twos", [(0, 3), (4, 7)]),
    ]


async def test_an_invalid_pattern_is_named(sandbox: Sandbox) -> None:
    for glob, query, field in [(None, "[", "query"), ("[", None, "glob"), ("[", "x", "glob")]:
        with pytest.raises(InvalidRequest) as wrong:
            await sandbox.files.search("/workspace", glob=glob, query=query, ignore_case=False, limit=1)
        assert wrong.value.details["field"] == field


async def test_every_call_fails_on_a_killed_sandbox(host: Host, sandbox: Sandbox) -> None:
    await host.sandboxes.kill(sandbox.id)
    for call in (
        _read(sandbox, "/workspace/a"),
        _write(sandbox, "/workspace/a", b"a"),
        sandbox.files.make_directory("/workspace/d"),
        sandbox.files.move("/workspace/a", "/workspace/b", overwrite=False),
        sandbox.files.status("/workspace/a"),
        sandbox.files.unpack("/workspace/d", _parts(b"")),
        sandbox.files.search("/workspace", glob=None, query="x", ignore_case=False, limit=1),
    ):
        with pytest.raises(SandboxGone):
            await call


# --- files that fit into JSON ---


async def test_a_batch_makes_parents_and_returns_sizes(sandbox: Sandbox) -> None:
    sizes = await sandbox.files.write_batch(
        [FileToWrite("/workspace/a/b/c", b"123"), FileToWrite("/workspace/d", b""), FileToWrite("/etc/e", b"\xff\0")]
    )
    assert list(sizes) == [3, 0, 2]
    assert await sandbox.files.read_whole("/workspace/a/b/c", 3) == b"123"
    assert await sandbox.files.read_whole("/etc/e", 100) == b"\xff\0"
    assert list(await sandbox.files.write_batch([FileToWrite("/workspace/d", b"x", append=True)])) == [1]
    assert list(await sandbox.files.write_batch([FileToWrite("/workspace/d", b"yz", append=True)])) == [3]
    assert await sandbox.files.read_whole("/workspace/d", 3) == b"xyz"
    assert (await sandbox.observe()).files == 2


async def test_a_batch_is_written_whole_or_not_at_all(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite("/workspace/file", b"old")])
    with pytest.raises(FileConflict):
        await sandbox.files.write_batch(
            [
                FileToWrite("/workspace/file", b"new"),
                FileToWrite("/workspace/n/f", b""),
                FileToWrite("/workspace/file/x", b""),
            ]
        )
    assert await sandbox.files.read_whole("/workspace/file", 3) == b"old"
    listed, total = await sandbox.files.list("/workspace", recursive=True, limit=10, offset=0)
    assert ([entry.path for entry in listed], total) == (["file"], 1)


async def test_a_write_past_the_disk_limit_changes_nothing(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"old")])
    with pytest.raises(DiskFull):
        await sandbox.files.write_batch([FileToWrite("/workspace/a", bytes(LIMITS.disk * MB + 1))])
    assert await sandbox.files.read_whole("/workspace/a", 3) == b"old"
    assert list(await sandbox.files.write_batch([FileToWrite("/workspace/a", b"newer")])) == [5]


async def test_a_list_is_sorted_and_paged_with_paths_relative_to_the_workspace(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite(f"/workspace/{name}", b"12") for name in ("b", "a/x", "c", "a/y")])
    await sandbox.files.write_batch([FileToWrite("/srv/d/e", b"")])

    async def listed(path: str, recursive: bool, limit: int = 10, offset: int = 0) -> tuple[list[str], int]:
        entries, total = await sandbox.files.list(path, recursive=recursive, limit=limit, offset=offset)
        return [f"{entry.path} {entry.type}" for entry in entries], total

    assert await listed("/workspace", False) == (["a directory", "b file", "c file"], 3)
    assert await listed("/workspace", True, 2, 1) == (["a/x file", "a/y file"], 5)
    assert await listed("/workspace/a", False) == (["a/x file", "a/y file"], 2)
    assert await listed("/srv/d", False) == (["/srv/d/e file"], 1)
    assert await listed("/workspace", True, 5, 5) == ([], 5)
    entries, _ = await sandbox.files.list("/workspace", recursive=False, limit=10, offset=1)
    assert entries[0].size == 2


async def test_delete_removes_files_and_with_recursive_also_trees(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite(f"/workspace/{name}", b"") for name in ("a", "d/e/f")])
    await sandbox.files.delete("/workspace/a", recursive=False)
    with pytest.raises(FileConflict) as refused:
        await sandbox.files.delete("/workspace/d", recursive=False)
    assert refused.value.details == {"path": "d", "reason": "ENOTEMPTY"}
    await sandbox.files.delete("/workspace/d", recursive=True)
    for path in ("/workspace", "/"):
        with pytest.raises(FileConflict) as refused:
            await sandbox.files.delete(path, recursive=True)
        assert refused.value.details["reason"] == "EBUSY"
    assert (await sandbox.observe()).files == 0


async def test_a_missing_path_is_named_as_clients_name_it(sandbox: Sandbox) -> None:
    for call in (
        lambda: sandbox.files.read_whole("/workspace/no/a", 1),
        lambda: sandbox.files.delete("/workspace/no/a", recursive=True),
        lambda: sandbox.files.list("/workspace/no/a", recursive=False, limit=1, offset=0),
    ):
        with pytest.raises(FileNotFound) as refused:
            await call()
        assert refused.value.details == {"path": "no/a"}


async def test_a_path_of_the_wrong_kind_is_a_conflict(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite("/workspace/d/file", b"content")])
    conflicts: list[tuple[Callable[[], Awaitable[object]], str]] = [
        (lambda: sandbox.files.read_whole("/workspace/d", 1), "EISDIR"),
        (lambda: sandbox.files.write_batch([FileToWrite("/workspace/d", b"")]), "EISDIR"),
        (lambda: sandbox.files.write_batch([FileToWrite("/workspace/d/file/x", b"")]), "ENOTDIR"),
        (lambda: sandbox.files.list("/workspace/d/file", recursive=False, limit=1, offset=0), "ENOTDIR"),
    ]
    for call, reason in conflicts:
        with pytest.raises(FileConflict) as refused:
            await call()
        assert refused.value.details["reason"] == reason


async def test_a_file_above_the_limit_is_too_large(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"12345")])
    assert await sandbox.files.read_whole("/workspace/a", 5) == b"12345"
    with pytest.raises(PayloadTooLarge):
        await sandbox.files.read_whole("/workspace/a", 4)
