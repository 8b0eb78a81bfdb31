"""Questions and answers of the domain name system, as bytes: the parts that decide by name. Pure and strict.

Source: RFC 1035, sections 4.1 and 3.3. Names are compared in lower case. Names with characters that no host name has
are malformed here.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

HEADER = struct.Struct("!6H")  # id, flags, and how many questions, answers, authorities, additional records
QUESTION = struct.Struct("!2H")  # type, class
RECORD = struct.Struct("!2HIH")  # type, class, seconds, length
RESPONSE, OPCODE, RECURSION, CODE = 0x8000, 0x7800, 0x0100, 0x000F
RECURSION_AVAILABLE = 0x0080
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0, 2, 3
A, CNAME, AAAA, SVCB, HTTPS, ANY = 1, 5, 28, 64, 65, 255
INTERNET = 1
LABEL = re.compile(rb"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?")
LONGEST_NAME = 253
LONGEST_CHAIN = 16  # aliases from the name in question to the addresses


class Malformed(Exception):
    """The bytes are no valid message."""


@dataclass(frozen=True, slots=True)
class Question:
    name: str  # lower case, without the dot at the end; "" is the root
    type: int
    end: int  # where the bytes of the question end


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    names: tuple[str, ...]  # the name in question and its aliases
    addresses: tuple[IPv4Address, ...]
    seconds: int  # for which all of it holds, at most


def parse_question(message: bytes) -> Question:
    """Parses a message with exactly one question. Raises Malformed."""
    try:
        _, flags, questions, answers, authorities, _ = HEADER.unpack_from(message)
        if flags & (RESPONSE | OPCODE) or (questions, answers, authorities) != (1, 0, 0):
            raise Malformed
        name, start = _name(message, HEADER.size)
        kind, family = QUESTION.unpack_from(message, start)
    except (struct.error, IndexError) as short:
        raise Malformed from short
    if family != INTERNET:
        raise Malformed
    return Question(name, kind, start + QUESTION.size)


def parse_answer(message: bytes, question: Question) -> Answer:
    """Parses an answer to this question. Raises Malformed, also for addresses of names other than the question's and
    its aliases."""
    try:
        _, flags, questions, answers, _, _ = HEADER.unpack_from(message)
        name, start = _name(message, HEADER.size)
        repeated = (name, QUESTION.unpack_from(message, start)[0])
        if not flags & RESPONSE or questions != 1 or repeated != (question.name, question.type):
            raise Malformed
        aliases, addresses, seconds = _records(message, start + QUESTION.size, answers)
    except (struct.error, IndexError) as short:
        raise Malformed from short
    names = [name]
    while names[-1] in aliases:
        names.append(aliases[names[-1]])
        if len(names) > LONGEST_CHAIN:
            raise Malformed
    if any(owner not in names for owner, _ in addresses):
        raise Malformed
    return Answer(flags & CODE, tuple(names), tuple(address for _, address in addresses), seconds)


def with_id(message: bytes, number: int) -> bytes:
    return number.to_bytes(2) + message[2:]


def id_of(message: bytes) -> int:
    return int.from_bytes(message[:2])


def nothing(message: bytes, question: Question, code: int) -> bytes:
    """An answer without records."""
    number, flags, *_ = HEADER.unpack_from(message)
    header = HEADER.pack(number, RESPONSE | flags & RECURSION | RECURSION_AVAILABLE | code, 1, 0, 0, 0)
    return header + message[HEADER.size : question.end]


def question_for(name: str, number: int) -> bytes:
    """A message that asks for the addresses of a name."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return HEADER.pack(number, RECURSION, 1, 0, 0, 0) + labels + b"\0" + QUESTION.pack(A, INTERNET)


def shortened(message: bytes, question: Question, longest: int) -> bytes:
    """The message with no record that holds for more than `longest` seconds. `parse_answer` must have read it."""
    out = bytearray(message)
    start = question.end
    for _ in range(HEADER.unpack_from(message)[3]):
        start = _after_name(message, start)
        kind, family, seconds, length = RECORD.unpack_from(message, start)
        RECORD.pack_into(out, start, kind, family, min(seconds, longest), length)
        start += RECORD.size + length
    return bytes(out)


def _records(message: bytes, start: int, count: int) -> tuple[dict[str, str], list[tuple[str, IPv4Address]], int]:
    """Aliases, addresses with their names, and the shortest time that one of them holds, in seconds."""
    aliases, addresses, least = {}, [], 0x7FFFFFFF
    for _ in range(count):
        owner_at, start = start, _after_name(message, start)
        kind, family, seconds, length = RECORD.unpack_from(message, start)
        start += RECORD.size
        if start + length > len(message):
            raise Malformed
        if family == INTERNET and kind in (A, CNAME):
            owner, least = _name(message, owner_at)[0], min(least, seconds)
            if kind == CNAME:
                aliases[owner] = _name(message, start)[0]
            elif length == 4:
                addresses.append((owner, IPv4Address(message[start : start + 4])))
            else:
                raise Malformed
        start += length
    return aliases, addresses, least if addresses else 0


def _name(message: bytes, start: int) -> tuple[str, int]:
    """The name at `start`, and where it ends. Pointers lead back, so this comes to an end."""
    labels: list[bytes] = []
    end, limit = -1, start
    while length := message[start]:
        if length >= 0xC0:
            to = int.from_bytes(message[start : start + 2]) & 0x3FFF
            if end < 0:
                end = start + 2
            if to >= limit or to < HEADER.size:
                raise Malformed
            start = limit = to
            continue
        label = message[start + 1 : start + 1 + length]
        if length > 63 or len(label) != length or not LABEL.fullmatch(label):
            raise Malformed
        labels.append(label)
        if sum(map(len, labels)) + len(labels) - 1 > LONGEST_NAME:
            raise Malformed
        start += 1 + length
    return b".".join(labels).decode().lower(), start + 1 if end < 0 else end


def _after_name(message: bytes, start: int) -> int:
    while length := message[start]:
        if length >= 0xC0:
            return start + 2
        start += 1 + length
    return start + 1
