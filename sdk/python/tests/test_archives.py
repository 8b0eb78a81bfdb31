"""Archives: what comes out of a session is not trusted; files are there whole or not at all."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from buntime_sdk import archives
from stand_in import Answer, Player


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


def test_an_absolute_name_stays_below_the_directory_and_modes_lose_what_is_dangerous(tmp_path: Path) -> None:
    archives.unpack(packed((file("/stolen", 0o4777), b"x")), tmp_path / "target")
    assert (tmp_path / "target/stolen").read_bytes() == b"x"
    assert (tmp_path / "target/stolen").stat().st_mode & 0o7022 == 0


def test_both_halves_refuse_it(player: Player, tmp_path: Path) -> None:
    hostile = Answer(body=packed(*HOSTILE["a name that climbs"]).getvalue())
    with pytest.raises(tarfile.FilterError):
        player.once(
            [hostile],
            lambda client: client.sessions.open("ses_1").files.download_archive("", tmp_path / "target"),
        )
    assert not (tmp_path / "stolen").exists()


def test_what_is_packed_comes_out_as_it_was(tmp_path: Path) -> None:
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


def test_what_is_no_directory_is_not_packed(player: Player, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with pytest.raises(NotADirectoryError):
        player.play(
            "http://127.0.0.1:9", lambda client: client.sessions.open("ses_1").files.upload_archive(tmp_path / "a", "a")
        )


def test_progress_of_a_transfer_goes_up_to_all_of_it(player: Player, tmp_path: Path) -> None:
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


def test_a_file_that_cannot_be_read_twice_is_sent_once(player: Player, tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    _, server = player.once(
        [Answer(body={"path": "a", "size": 3})],
        lambda client: client.sessions.open("ses_1").files.upload(Pipe(b"abc"), "a"),
    )
    assert server.asked[0].body == b"abc"
    assert "content-length" not in server.asked[0].headers
