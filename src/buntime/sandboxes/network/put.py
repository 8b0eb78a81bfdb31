"""Puts elements that expire into an nftables set. Blocking."""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

from buntime.sandboxes.network.nfnetlink import ACKNOWLEDGE, CREATE, INET, attribute, change, message, nested, text

NEW_ELEMENTS, DESTROY_ELEMENTS = 12, 30
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT, KEY, VALUE, TIMEOUT = 1, 1, 1, 4


def put_pairs(table: str, name: str, first: IPv4Address, seconds_of: Iterable[IPv4Address], seconds: float) -> None:
    """Puts pairs of `first` and each other address into a set of an `inet` table. They expire after `seconds`; for
    pairs that are in the set already, the time starts again.

    Puts all or none. Raises OSError; FileNotFoundError where the table or set does not exist.
    """
    timeout = attribute(TIMEOUT, struct.pack("!Q", int(seconds * 1000)))
    keys = [nested(KEY, attribute(VALUE, first.packed + second.packed)) for second in seconds_of]
    change(
        message(DESTROY_ELEMENTS, ACKNOWLEDGE, INET, _elements(table, name, keys)),
        message(NEW_ELEMENTS, ACKNOWLEDGE | CREATE, INET, _elements(table, name, [key + timeout for key in keys])),
    )


def _elements(table: str, name: str, elements: Iterable[bytes]) -> bytes:
    listed = nested(LIST_ELEMENTS, *(nested(ELEMENT, element) for element in elements))
    return text(LIST_TABLE, table) + text(LIST_SET, name) + listed
