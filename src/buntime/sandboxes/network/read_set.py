"""Reads an nftables set whose elements expire. Blocking, quick."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from buntime.sandboxes.network.nfnetlink import (
    ATTRIBUTE,
    DONE,
    DUMP,
    FAMILY,
    INET,
    NF_TABLES,
    answers,
    connected,
    message,
    require_done,
    text,
)

NEW_ELEMENTS, GET_ELEMENTS = 12, 13
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
KEY, EXPIRATION = 1, 5
VALUE = 1
TYPE_MASK = 0x3FFF


def expiring_addresses(table: str, name: str) -> dict[IPv4Address, float]:
    """The elements of a set of addresses of an `inet` table, each with the seconds until it expires.

    Raises OSError; FileNotFoundError where the table or set does not exist.
    """
    with connected() as kernel:
        kernel.send(message(GET_ELEMENTS, DUMP, INET, text(LIST_TABLE, table), text(LIST_SET, name)))
        found: dict[IPv4Address, float] = {}
        for kind, body in answers(kernel):
            require_done(kind, body)
            if kind == DONE:
                break
            if kind == NF_TABLES << 8 | NEW_ELEMENTS:
                found.update(_element(element) for element in _elements(body[FAMILY.size :]))
        return found


def _elements(listing: bytes) -> Iterator[bytes]:
    for kind, content in _attributes(listing):
        if kind == LIST_ELEMENTS:
            yield from (element for _, element in _attributes(content))


def _element(element: bytes) -> tuple[IPv4Address, float]:
    parts = dict(_attributes(element))
    address = dict(_attributes(parts[KEY]))[VALUE]
    return IPv4Address(address), int.from_bytes(parts[EXPIRATION]) / 1000


def _attributes(listing: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(listing):
        length, kind = ATTRIBUTE.unpack_from(listing, start)
        yield kind & TYPE_MASK, listing[start + ATTRIBUTE.size : start + length]
        start += length + -length % 4
