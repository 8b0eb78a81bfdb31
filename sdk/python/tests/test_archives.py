"""Archives: what comes out of a session is not trusted, and local files appear only when complete."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from buntime_sdk import BuntimeError, InvalidRequest, RateLimitExceeded, Unavailable, archives
from buntime_sdk._async.files import PIECE
from stand_in import Answer, Player, StandIn, refusal


def packed(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    made.seek(0)
    return made


def file(name: str, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def device(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.CHRTYPE
    return entry


HOSTILE = {
    "a name that climbs": [(file("../stolen"), b"x")],
    "a name that climbs inside": [(file("a/../../stolen"), b"x")],
    "an absolute link": [(link("etc", "/etc"), b"")],
    "a link that climbs": [(link("up", "../.."), b"")],
    "a file through a link that climbs": [(link("up", ".."), b""), (file("up/stolen"), b"x")],
    "a hard link that climbs": [(link("hard", "../secret", tarfile.LNKTYPE), b"")],
    "a device": [(device("null"), b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_leads_out_of_its_directory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    target = tmp_path / "target"
    with pytest.raises(tarfile.FilterError):
        archives.unpack(packed(*HOSTILE[name]), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "target"]
    assert not any(target.iterdir())


def test_a_hard_link_to_a_link_is_checked_at_its_own_path(tmp_path: Path) -> None:
    """At its original path the link would lead out of the directory, and its mode would apply to the target."""
    secret = tmp_path / ".ssh" / "id"
    secret.parent.mkdir()
    secret.write_text("mine")
    secret.chmod(0o600)
    hostile = packed(
        (file(".ssh/id"), b"decoy"),
        (link("a/up", "../.ssh/id"), b""),
        (link("notes.txt", "a/up", tarfile.LNKTYPE), b""),
    )
    with pytest.raises(tarfile.FilterError):
        archives.unpack(hostile, tmp_path / "target")
    assert not (tmp_path / "target/notes.txt").is_symlink()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_hard_link_to_a_link_that_stays_inside_is_extracted(tmp_path: Path) -> None:
    entries = [(file("deep/file"), b"x"), (link("deep/link", "file"), b"")]
    archives.unpack(packed(*entries, (link("deep/again", "deep/link", tarfile.LNKTYPE), b"")), tmp_path)
    assert (tmp_path / "deep/again").read_bytes() == b"x"


def dated(when: float) -> bytes:
    entry = file("a")
    entry.mtime = when
    return packed((entry, b"x")).getvalue()


NONSENSE = {
    "a time that cannot be": dated(1e30),
    "cut off": dated(0)[:40],
    "broken": b"\x1f\x8b\x08\x00" + b"?" * 99,
    "a name with NUL": packed((file("a"), b"x"), (link("b", "x" * 120 + "\0y"), b"")).getvalue(),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_malformed_archive_raises_a_tar_error(name: str, tmp_path: Path) -> None:
    content = NONSENSE[name]
    with pytest.raises(tarfile.TarError):
        archives.unpack(io.BytesIO(content), tmp_path / "target")


def test_a_download_follows_a_local_link(player: Player, tmp_path: Path) -> None:
    (tmp_path / "big").write_text("old")
    (tmp_path / "data").symlink_to("big")
    player.once(
        [Answer(body=b"new")],
        lambda client: client.sessions.open("ses_1").files.download("a", tmp_path / "data"),
    )
    assert (tmp_path / "data").is_symlink()
    assert (tmp_path / "big").read_text() == "new"


def test_a_download_writes_to_a_local_device_without_replacing_it(player: Player, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        player.once([Answer(body=b"new")], lambda client: client.sessions.open("ses_1").files.download("a", fifo))
        assert fifo.is_fifo()
        assert os.read(reader, 9) == b"new"
    finally:
        os.close(reader)


def test_an_absolute_name_stays_below_the_directory_and_dangerous_mode_bits_are_removed(tmp_path: Path) -> None:
    archives.unpack(packed((file("/stolen", 0o4777), b"x")), tmp_path / "target")
    assert (tmp_path / "target/stolen").read_bytes() == b"x"
    assert (tmp_path / "target/stolen").stat().st_mode & 0o7022 == 0


def test_both_halves_refuse_a_hostile_archive(player: Player, tmp_path: Path) -> None:
    hostile = Answer(body=packed(*HOSTILE["a name that climbs"]).getvalue())
    with pytest.raises(tarfile.FilterError):
        player.once(
            [hostile],
            lambda client: client.sessions.open("ses_1").files.download_archive("", tmp_path / "target"),
        )
    assert not (tmp_path / "stolen").exists()


def test_packing_and_unpacking_preserves_a_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(b"\x00\xff")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep/er/file")
    made = io.BytesIO()
    archives.pack(source, made)
    made.seek(0)
    archives.unpack(made, tmp_path / "target")
    assert (tmp_path / "target/deep/er/file").read_bytes() == b"\x00\xff"
    assert (tmp_path / "target/run").stat().st_mode & 0o111 == 0o111
    assert (tmp_path / "target/link").readlink() == Path("deep/er/file")


def test_a_file_cannot_be_uploaded_as_a_directory(player: Player, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with pytest.raises(NotADirectoryError):
        player.play(
            "http://127.0.0.1:9", lambda client: client.sessions.open("ses_1").files.upload_archive(tmp_path / "a", "a")
        )


def test_progress_rises_to_the_size_of_the_transfer(player: Player, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "local").write_bytes(content)
    seen: list[tuple[int, int | None]] = []

    def note(moved: int, size: int | None) -> None:
        seen.append((moved, size))

    def upload(client: Any) -> Any:
        return client.sessions.open("ses_1").files.upload(tmp_path / "local", "a", progress=note)

    _, server = player.once([Answer(body={"path": "a", "size": len(content)})], upload)
    assert server.asked[0].body == content
    assert seen[-1] == (len(content), len(content))
    assert seen == sorted(seen)
    assert len(seen) > 1
    seen.clear()

    def download(client: Any) -> Any:
        return client.sessions.open("ses_1").files.download("a", tmp_path / "back", progress=note)

    moved, _ = player.once([Answer(body=content)], download)
    assert moved == len(content)
    assert (tmp_path / "back").read_bytes() == content
    assert seen[-1] == (len(content), len(content))
    assert (tmp_path / "back").stat().st_mode & 0o600 == 0o600


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_a_file_that_cannot_be_read_twice_is_sent_once(player: Player) -> None:
    _, server = player.once(
        [Answer(body={"path": "a", "size": 3})],
        lambda client: client.sessions.open("ses_1").files.upload(Pipe(b"abc"), "a"),
    )
    assert server.asked[0].body == b"abc"
    assert "content-length" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("rate_limit_exceeded", 429, after=1), RateLimitExceeded),
        (refusal("unavailable", 503, after=1, waking=True), Unavailable),
    ],
)
def test_an_upload_that_cannot_be_repeated_is_not_retried(
    player: Player, answer: Answer, kind: type[BuntimeError]
) -> None:
    with StandIn([answer, Answer(body={"path": "a", "size": 0})]) as server:
        with pytest.raises(kind):
            player.play(server.url, lambda client: client.sessions.open("ses_1").files.upload(Pipe(b"abc"), "a"))
        assert [one.body for one in server.asked] == [b"abc"]


def test_a_growing_file_is_sent_up_to_its_size_at_the_start(player: Player, tmp_path: Path) -> None:
    content = b"x" * (3 * PIECE)
    log = tmp_path / "log"
    log.write_bytes(content)

    def grow(moved: int, size: int | None) -> None:
        with log.open("ab") as file:
            file.write(b"more")

    _, server = player.once(
        [Answer(body={"path": "a", "size": len(content)})],
        lambda client: client.sessions.open("ses_1").files.upload(log, "a", progress=grow),
    )
    assert server.asked[0].body == content


def test_a_file_that_shrinks_during_the_upload_raises_an_os_error(player: Player, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (3 * PIECE))

    def shrink(moved: int, size: int | None) -> None:
        os.truncate(log, PIECE)

    with pytest.raises(OSError, match="shrank"):
        player.once(
            [Answer(body={"path": "a", "size": 1})],
            lambda client: client.sessions.open("ses_1").files.upload(log, "a", progress=shrink),
        )


@pytest.mark.parametrize(("start", "end"), [(5, 5), (7, 3), (0, 0)])
def test_an_empty_range_yields_nothing(player: Player, start: int, end: int) -> None:
    parts, _ = player.once(
        [Answer(body=b"0123456789")],  # how a server responds to an invalid range
        lambda client: client.sessions.open("ses_1").files.chunks("a", start=start, end=end),
    )
    assert b"".join(parts) == b""


def test_a_negative_start_is_refused(player: Player) -> None:
    with pytest.raises(InvalidRequest) as caught:
        player.once(
            [Answer(body=b"0123456789")], lambda client: client.sessions.open("ses_1").files.chunks("a", start=-2)
        )
    assert caught.value.details == {"field": "start"}
