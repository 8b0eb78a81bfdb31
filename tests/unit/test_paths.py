import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.errors import InvalidRequest
from buntime.paths import LONGEST_NAME, LONGEST_PATH, for_client, from_bytes, in_bytes, inside_session, shown


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("a.txt", "/workspace/a.txt"),
        ("./src//a.ts", "/workspace/src/a.ts"),
        ("src/../a.ts", "/workspace/a.ts"),
        (".", "/workspace"),
        ("dir/", "/workspace/dir"),
        ("/etc/hosts", "/etc/hosts"),
        ("//etc/hosts", "/etc/hosts"),
        ("/", "/"),
        ("..", "/"),
        ("../../../../etc", "/etc"),
        ("/../..", "/"),
        (" ", "/workspace/ "),
        ("new\nline", "/workspace/new\nline"),
        ("naïve/日本", "/workspace/naïve/日本"),
        ("-rf", "/workspace/-rf"),
    ],
)
def test_a_path_is_made_absolute_and_plain(path: str, whole: str) -> None:
    assert inside_session(path) == whole


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a\0b",
        "\ud800",
        "x" * (LONGEST_NAME + 1),
        "é" * (LONGEST_NAME // 2 + 1),
        "/" + "d/" * (LONGEST_PATH // 2) + "x",
        "d/" * (LONGEST_PATH // 2 - 1) + "x",
    ],
    ids=["empty", "NUL", "surrogate", "long name", "long name in bytes", "long", "long under /workspace"],
)
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        inside_session(path, "files[0].path")
    assert refused.value.details["field"] == "files[0].path"


def test_the_longest_names_and_paths_are_fine() -> None:
    assert inside_session("x" * LONGEST_NAME) == "/workspace/" + "x" * LONGEST_NAME
    longest = "/" + "d/" * (LONGEST_PATH // 2 - 1) + "xx"
    assert len(longest) == LONGEST_PATH
    assert inside_session(longest) == longest


@given(st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text))
def test_every_accepted_path_is_absolute_and_inside_the_session(path: str) -> None:
    try:
        whole = inside_session(path)
    except InvalidRequest:
        return
    assert whole.startswith("/")
    assert not {"..", "."} & set(whole.split("/"))
    assert whole == "/" or "" not in whole.split("/")[1:]
    assert inside_session(whole) == whole


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/workspace/a/b", "a/b"),
        ("/workspace", "."),
        ("/workspaces/a", "/workspaces/a"),
        ("/etc/hosts", "/etc/hosts"),
        ("/", "/"),
    ],
)
def test_clients_see_paths_relative_to_the_workspace(path: str, shown: str) -> None:
    assert for_client(path) == shown
    assert inside_session(shown) == path


@given(st.binary(min_size=1, max_size=300))
def test_a_path_may_have_any_bytes_where_that_is_allowed(raw: bytes) -> None:
    try:
        whole = inside_session(from_bytes(raw), any_bytes=True)
    except InvalidRequest:
        assert b"\0" in raw or any(len(name) > LONGEST_NAME for name in raw.split(b"/"))
        return
    assert in_bytes(whole).startswith(b"/")
    assert shown(whole).encode() == in_bytes(whole) or "\ufffd" in shown(whole)


def test_bytes_that_are_not_utf8_are_refused_elsewhere() -> None:
    with pytest.raises(InvalidRequest):
        inside_session(from_bytes(b"\xff"))
    assert in_bytes(inside_session(from_bytes(b"\xff"), any_bytes=True)) == b"/workspace/\xff"
    with pytest.raises(InvalidRequest):
        inside_session("\ud800", any_bytes=True)
