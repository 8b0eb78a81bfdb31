"""DNS messages: valid ones are read, and any other is refused without a crash."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.sandboxes.network.messages import (
    AAAA,
    CNAME,
    NO_SUCH_NAME,
    A,
    Answer,
    Malformed,
    Question,
    nothing,
    parse_answer,
    parse_question,
    question_for,
    shortened,
    with_id,
)

ASKED = question_for("www.Example.com", 7)
QUESTION = parse_question(ASKED)
POINTER = b"\xc0\x0c"  # to the name in the question


def answer(*records: bytes, question: bytes = ASKED, flags: int = 0x8180) -> bytes:
    return struct.pack("!6H", 7, flags, 1, len(records), 0, 0) + question[12:] + b"".join(records)


def record(owner: bytes, kind: int, data: bytes, seconds: int = 300, family: int = 1) -> bytes:
    return owner + struct.pack("!2HIH", kind, family, seconds, len(data)) + data


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def test_a_question_is_read_in_lower_case() -> None:
    assert parse_question(ASKED) == Question("www.example.com", A, len(ASKED))
    assert parse_question(ASKED + b"options of some kind").name == "www.example.com"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        ASKED[:11],
        ASKED[:-1],
        ASKED[:20],
        answer(),  # an answer is not a question
        ASKED[:4] + b"\0\2" + ASKED[6:],
        ASKED[:4] + b"\0\0" + ASKED[6:],
        ASKED[:2] + b"\x28" + ASKED[3:],  # an update
        ASKED[:-1] + b"\3",  # another class
        ASKED[:12] + b"\xc0\x0c" + ASKED[-4:],  # a name that points to itself
        ASKED[:12] + b"\x03a.b\0" + ASKED[-4:],  # a dot within a label
        ASKED[:12] + b"\x02a\0\0" + ASKED[-4:],
        ASKED[:12] + b"\x40" + b"a" * 64 + b"\0" + ASKED[-4:],
        ASKED[:12] + name(".".join(["a" * 63] * 5)) + ASKED[-4:],
    ],
)
def test_a_message_that_is_no_question_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        parse_question(message)


def test_addresses_are_read_with_the_aliases_that_lead_to_them() -> None:
    message = answer(
        record(POINTER, CNAME, name("Edge.provider.example"), 20),
        record(name("edge.provider.example"), A, b"\1\2\3\4", 60),
        record(name("edge.provider.example"), A, b"\1\2\3\5", 60),
        record(name("edge.provider.example"), 46, b"a signature", 5),
    )
    assert parse_answer(message, QUESTION) == Answer(
        0, ("www.example.com", "edge.provider.example"), (IPv4Address("1.2.3.4"), IPv4Address("1.2.3.5")), 20
    )


@pytest.mark.parametrize(
    "message",
    [
        answer(record(name("other.example"), A, b"\1\2\3\4")),
        answer(record(POINTER, CNAME, name("a.example")), record(name("b.example"), A, b"\1\2\3\4")),
        answer(record(POINTER, CNAME, POINTER), record(POINTER, A, b"\1\2\3\4")),
        answer(record(POINTER, A, b"\1\2\3")),
        answer(record(POINTER, A, b"\1\2\3\4"))[:-1],
        answer(record(b"\xc0\xff", A, b"\1\2\3\4")),
        answer(question=question_for("another.example", 7)),
        answer(question=ASKED[:-3] + bytes([AAAA]) + ASKED[-2:]),
        ASKED,
    ],
)
def test_an_answer_to_something_else_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        parse_answer(message, QUESTION)


def test_an_answer_without_addresses_has_none() -> None:
    assert parse_answer(answer(flags=0x8183), QUESTION) == Answer(NO_SUCH_NAME, ("www.example.com",), (), 0)


def test_shortening_changes_only_the_seconds_of_records() -> None:
    def message(*seconds: int) -> bytes:
        return answer(
            record(POINTER, CNAME, name("a.example"), seconds[0]), record(name("a.example"), A, b"\1\2\3\4", seconds[1])
        )

    assert shortened(message(86400, 20), QUESTION, 3600) == message(3600, 20)


def test_an_empty_answer_repeats_the_question() -> None:
    said = nothing(with_id(ASKED, 513) + b"options", QUESTION, NO_SUCH_NAME)
    assert said == struct.pack("!6H", 513, 0x8183, 1, 0, 0, 0) + ASKED[12:]


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_malformed(message: bytes) -> None:
    for read in (parse_question, lambda text: parse_answer(text, QUESTION)):
        try:
            read(message)
        except Malformed:
            continue


@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_records_are_parsed_or_malformed(records: bytes, count: int) -> None:
    message = struct.pack("!6H", 7, 0x8180, 1, count, 0, 0) + ASKED[12:] + records
    try:
        parse_answer(message, QUESTION)
    except Malformed:
        return
    assert len(shortened(message, QUESTION, 60)) == len(message)
