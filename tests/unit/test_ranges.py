import pytest

from buntime.web.ranges import WHOLE, Part, asked_part, etag, http_date, is_known, is_same


def _headers(**values: bytes):  # type: ignore[no-untyped-def]
    sent = {name.replace("_", "-").encode(): value for name, value in values.items()}
    return lambda name: [sent[name]] if name in sent else []


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=5-9", (5, 10)),
        (b"Bytes= 5-9 ", (5, 10)),
        (b"bytes=5-", (5, None)),
        (b"bytes=-5", (None, 5)),
        (b"bytes=-0", (None, 0)),
        (b"bytes=9-5", WHOLE),
        (b"bytes=-", WHOLE),
        (b"bytes=0-1,2-3", WHOLE),
        (b"bytes=a-b", WHOLE),
        (b"bytes=1-" + b"9" * 30, WHOLE),
        (b"lines=0-1", WHOLE),
        (b"", WHOLE),
    ],
)
def test_one_range_of_bytes_is_understood_and_all_else_passed_over(value: bytes, part: Part) -> None:
    assert asked_part(_headers(range=value)) == part


def test_two_range_headers_are_passed_over() -> None:
    assert asked_part(lambda _: [b"bytes=0-1", b"bytes=2-3"]) == WHOLE
    assert asked_part(_headers()) == WHOLE


def test_a_client_that_has_the_version_needs_nothing() -> None:
    assert is_known(_headers(if_none_match=b'"v"'), "v", 0)
    assert is_known(_headers(if_none_match=b'"a", W/"v"'), "v", 0)
    assert is_known(_headers(if_none_match=b"*"), "v", 0)
    assert not is_known(_headers(if_none_match=b'"w"', if_modified_since=http_date(9)), "v", 5)
    assert is_known(_headers(if_modified_since=http_date(5)), "v", 5)
    assert not is_known(_headers(if_modified_since=http_date(4)), "v", 5)
    assert not is_known(_headers(if_modified_since=b"yesterday"), "v", 5)
    assert not is_known(_headers(), "v", 5)


def test_a_part_is_sent_of_the_version_that_the_client_has() -> None:
    assert is_same(_headers(), "v")
    assert is_same(_headers(if_range=etag("v")), "v")
    assert not is_same(_headers(if_range=etag("w")), "v")
    assert not is_same(_headers(if_range=http_date(5)), "v")
