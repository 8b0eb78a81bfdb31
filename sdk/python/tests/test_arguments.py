"""What a caller may give, and how the rest is refused before any request."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from buntime_sdk import AsyncBuntime, Buntime, File, InvalidRequest
from buntime_sdk.testing import FakeBuntime
from stand_in import KEY, Answer, Player

NOWHERE = "http://127.0.0.1:9"
PATH = Path("src/a.txt")


@pytest.mark.parametrize("client", [Buntime, AsyncBuntime])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("timeout", value) for value in (-1, 0, float("nan"), float("inf"), 1e12, None, "60", True)],
        *[("max_retries", value) for value in (-1, 1.5, None, "2", True)],
        *[("retry_delay", value) for value in (-0.1, float("nan"), None, "1")],
    ],
)
def test_a_number_out_of_range_is_refused_when_the_client_is_made(
    client: type[Buntime], setting: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{setting} must be .*, not {value!r}") as caught:
        client(KEY, NOWHERE, **{setting: value})
    assert caught.value.details == {"field": setting}


def test_no_retries_and_no_delay_are_allowed() -> None:
    with Buntime(KEY, NOWHERE, timeout=0.1, max_retries=0, retry_delay=0):
        pass


@pytest.mark.parametrize("empty", ["", None, 12])
def test_an_empty_session_id_is_refused_before_any_request(player: Player, empty: Any) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda client: client.sessions.get(empty),
        lambda client: client.sessions.open(empty),
        lambda client: client.sessions.delete(empty),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match="session_id must be") as caught:
            player.play(NOWHERE, call)
        assert caught.value.details == {"field": "session_id"}


def test_every_path_of_a_session_may_be_a_path_object(tmp_path: Path) -> None:
    files = FakeBuntime().sessions.create().files
    assert files.write(PATH, "one").path == "src/a.txt"
    assert (files.read(PATH), files.read_bytes(PATH), b"".join(files.chunks(PATH))) == ("one", b"one", b"one")
    assert [entry.path for entry in files.list(Path("src"))] == ["src/a.txt"]
    assert (files.stat(PATH).size, files.exists(PATH), files.mkdir(PurePosixPath("made"))) == (3, True, True)
    assert files.search(path=Path("src"), glob="*.txt").matches
    assert files.move(PATH, Path("b.txt")) == "b.txt"
    files.download(Path("b.txt"), tmp_path / "b.txt")
    assert files.upload(tmp_path / "b.txt", Path("c.txt")).path == "c.txt"
    (tmp_path / "site").mkdir()
    files.upload_archive(tmp_path / "site", Path("www"))
    files.download_archive(Path("www"), tmp_path / "back")
    files.delete(Path("c.txt"))
    with files.watch(Path("made")):
        pass


def test_several_files_may_have_path_objects() -> None:
    fake = FakeBuntime().on_execute("1", "").on_start("serve", "")
    session = fake.sessions.create()
    assert [one.path for one in session.files.write({Path("a"): "a", Path("b"): b"b"})] == ["a", "b"]
    assert session.files.write([File(Path("c"), "c")])[0].path == "c"
    session.execute("1", files={Path("d"): "d"}, working_dir=Path("src"))
    assert session.files.read("d") == "d"
    session.processes.start("serve", working_dir=Path("src"))
    session.contexts.create(working_dir=Path("src"))
    session.terminal(working_dir=Path("src"))
    asked = {one.path.rpartition("/")[2]: one for one in fake.requests}
    assert [asked[name].fields["workingDir"] for name in ("execute", "start")] == ["src", "src"]
    assert (asked["terminal"].query["workingDir"], asked["create"].fields["workingDir"]) == ("src", "src")


@pytest.mark.parametrize("wrong", [b"a.txt", 12])
def test_what_is_no_path_is_refused(wrong: Any) -> None:
    session = FakeBuntime().sessions.create()
    with pytest.raises(InvalidRequest, match=r"^path must be a str or an os\.PathLike, not"):
        session.files.read(wrong)
    with pytest.raises(InvalidRequest, match="working_dir must be"):
        session.execute_command("ls", working_dir=wrong)
    with pytest.raises(InvalidRequest, match="to_path must be"):
        session.files.move("a", wrong)


def test_standard_input_may_be_bytes() -> None:
    session = FakeBuntime().on_execute("cat", lambda run: run.stdin).sessions.create()
    assert session.execute_command("cat", stdin="olá".encode()).stdout == "olá"


@pytest.mark.parametrize(("wrong", "why"), [(b"a\xff", "at byte 1"), (12, "not int"), (["a"], "not list")])
def test_standard_input_that_is_no_text_is_refused(player: Player, wrong: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=f"stdin must be .*{why}") as caught:
        player.play(NOWHERE, lambda client: client.sessions.open("ses_1").execute("1", stdin=wrong))
    assert caught.value.details == {"field": "stdin"}


@pytest.mark.parametrize("key", [12, "", "a b", "é", b"a", "a" * 256])
def test_an_idempotency_key_that_cannot_be_sent_is_refused(player: Player, key: Any) -> None:
    for call in (
        lambda client: client.sessions.create(idempotency_key=key),
        lambda client: client.sessions.open("ses_1").execute("1", idempotency_key=key),
    ):
        with pytest.raises(InvalidRequest, match="1 to 255 visible ASCII"):
            player.once([Answer()], call)
