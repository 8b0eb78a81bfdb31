"""Which side of a copy is in a session, and the name of the copy there."""

import pytest
from buntime_cli.commands.copying import CopySide, copy_side, landing
from buntime_cli.commands.running import command_line

ID = "ses_abc123def456ghi789"


@pytest.mark.parametrize(
    ("word", "session", "path"),
    [
        (f"{ID}:a/b", ID, "a/b"),
        ("ses_abc1:/etc/hosts", "ses_abc1", "/etc/hosts"),
        ("demo:", "demo", "/workspace"),
        ("demo:a:b", "demo", "a:b"),
        ("a/b", None, "a/b"),
        ("./demo:x", None, "./demo:x"),
        ("/tmp/demo:x", None, "/tmp/demo:x"),
        (".", None, "."),
        ("ses_abc:x", None, "ses_abc:x"),
    ],
)
def test_a_name_before_a_colon_is_a_session(word: str, session: str | None, path: str) -> None:
    assert copy_side(word) == CopySide(session, path)


@pytest.mark.parametrize(
    ("target", "found", "contents", "landed"),
    [
        ("new", None, False, "new"),
        ("new/", None, False, "new/f"),
        ("new", "file", False, "new"),
        ("old", "directory", False, "old/f"),
        ("old/", "directory", False, "old/f"),
        ("old", "directory", True, "old"),
        ("/", "directory", False, "/f"),
        ("/", "directory", True, "/"),
    ],
)
def test_in_a_folder_a_copy_keeps_its_name(target: str, found: str | None, contents: bool, landed: str) -> None:
    assert landing(CopySide("demo", target), "f", found, contents=contents) == landed


def test_several_words_are_quoted_and_one_is_not() -> None:
    assert command_line(["ls | wc"]) == "ls | wc"
    assert command_line(["printf", "a b", "$HOME", "it's"]) == """printf 'a b' '$HOME' 'it'"'"'s'"""
