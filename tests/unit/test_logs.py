"""A line of the log is one ASCII line of JSON, whatever it says."""

import json
from pathlib import Path

import pytest

from buntime.daemon.logs import _as_line


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("plain", "plain"),
        (1.5, 1.5),
        (None, None),
        ("two\nlines \x1b[31m", "two\nlines \x1b[31m"),
        ("grüße \u202e", "grüße \u202e"),
        ("half a pair \ud800", "half a pair \ud800"),
        (Path("/x"), "PosixPath('/x')"),
        (b"\xff", "/w=="),
        (ValueError("wrong"), "ValueError('wrong')"),
        ({"a": [object]}, {"a": ["<class 'object'>"]}),
    ],
)
def test_a_line_is_json_in_ascii(value: object, said: object) -> None:
    line = _as_line(None, "info", {"event": "x", "value": value})
    assert line.isascii()
    assert b"\n" not in line
    assert b"\x1b" not in line
    assert json.loads(line) == {"event": "x", "value": said}
