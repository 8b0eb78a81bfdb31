"""Values that commands read and print, without a server."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import typer
from buntime_cli.commands.errors import one_line
from buntime_cli.commands.screen import Leaving
from buntime_cli.commands.showing import plain, print_table, since, size, until, wire
from buntime_cli.commands.values import megabytes, pairs
from buntime_cli.time_spans import seconds

NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(("text", "number"), [("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_spans_of_time_have_units(text: str, number: int) -> None:
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1", "1w", "1h30m"])
def test_an_invalid_span_of_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a span of time"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("512", 512), ("512m", 512), ("512M", 512), ("512mb", 512), ("512 MiB", 512)),
        *(("1g", 1024), ("1gb", 1024), ("1GiB", 1024), ("1.5g", 1536)),
    ],
)
def test_sizes_of_limits_are_megabytes_unless_they_name_a_unit(text: str, number: int) -> None:
    assert megabytes(text, "--memory") == number


@pytest.mark.parametrize("text", ["", "big", "-1", "1tb", "512k", "1.5", "1b", "g"])
def test_an_invalid_size_is_refused_with_the_forms_that_are_good(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is not a size in whole megabytes\. Write 512, 512m, 2g or 2GiB\."):
        megabytes(text, "--memory")


def test_a_value_may_have_equal_signs_and_be_empty() -> None:
    assert pairs(["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    assert pairs(None) == {}


@pytest.mark.parametrize("text", ["A", "=b"])
def test_a_pair_without_a_name_or_an_equal_sign_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not NAME=VALUE"):
        pairs([text])


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        *[(30, "in 30 s"), (90, "in 1 min 30 s"), (14399, "in 4 h"), (14341, "in 3 h 59 min"), (84000, "in 23 h")],
        *[(86399, "in 1 d"), (86400, "in 1 d"), (129600, "in 1 d 12 h"), (0, "now"), (-5, "now")],
    ],
)
def test_future_times_are_rounded_and_never_by_much(ahead: int, said: str) -> None:
    assert until(NOW + timedelta(seconds=ahead), NOW) == said


def test_a_fast_server_clock_gives_no_negative_time() -> None:
    assert since(NOW + timedelta(seconds=3), NOW) == "0 s ago"
    assert since(NOW - timedelta(hours=2), NOW) == "2 h ago"


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 50, "1024.0 TiB")]
)
def test_sizes_have_a_unit(count: int, said: str) -> None:
    assert size(count) == said


def test_control_characters_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a\x1b[31mb\nc") == "a�[31mb�c"
    print_table(("NAME", "COMMAND"), [("x", "\x1b]0;title\x07ls"), ("longer", "ls")])
    assert capsys.readouterr().out == "NAME    COMMAND\nx       �]0;title�ls\nlonger  ls\n"


def test_a_message_of_several_lines_becomes_one() -> None:
    assert one_line("first\n  second\t\x1b[0m") == "first second �[0m"


@dataclass(frozen=True)
class Told:
    session_id: str
    created_at: datetime
    metadata: dict[str, object]
    ports: tuple[int, ...]
    _client: object = None


def test_json_uses_the_apis_names_and_keeps_user_data() -> None:
    told = Told("ses_a", NOW, {"my_key": {"in_it": 1}}, (8080,), object())
    assert wire([told]) == [
        {
            "sessionId": "ses_a",
            "createdAt": "2024-01-19T10:30:00Z",
            "metadata": {"my_key": {"in_it": 1}},
            "ports": [8080],
        }
    ]


@pytest.mark.parametrize(
    ("typed", "sent", "leaves"),
    [
        ([b"ls\r", b"~."], b"ls\r", True),
        ([b"~."], b"", True),
        ([b"ls ~.\r"], b"ls ~.\r", False),
        ([b"\r~", b"x"], b"\r~x", False),
        ([b"\r", b"~", b"~."], b"\r~~.", False),
        ([b"cd ~\r", b"~/bin\r"], b"cd ~\r~/bin\r", False),
        ([b"a\r~.", b"b"], b"a\r", True),
    ],
)
def test_tilde_dot_at_the_beginning_of_a_line_leaves(typed: list[bytes], sent: bytes, leaves: bool) -> None:
    leaving, got = Leaving(), b""
    for piece in typed:
        more, left = leaving.asked(piece)
        got += more
        if left:
            break
    assert (got, left) == (sent, leaves)
