"""Changes the elements of sets and maps of an `inet` table. Blocking.

A change costs what it changes, however much is in the sets. The sets of sessions are the kernel's hashes, which are not
built anew at a change.
"""

import struct
from collections.abc import Iterator, Sequence

from buntime.sandboxes.network.elements import Element, Elements, packed
from buntime.sandboxes.network.netlink import ACKNOWLEDGE, CREATE, attribute, nested, text
from buntime.sandboxes.network.nfnetlink import INET, Connection, message

NEW_ELEMENTS, DESTROY_ELEMENTS = 12, 30
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT, KEY, MAPPED, VALUE, TIMEOUT = 1, 1, 2, 1, 4
MOST = 1000  # elements in one message: a list of them has a length of 16 bits


def put_elements(tables: Connection, table: str, old: Elements, new: Elements) -> None:
    """Takes `old` out and puts `new` in, in one step: all or nothing. An element that is in both starts its time anew.
    `old` may be missing.

    Raises OSError; FileNotFoundError where the table or a set does not exist.
    """
    messages = [*_changes(DESTROY_ELEMENTS, 0, table, old), *_changes(NEW_ELEMENTS, CREATE, table, new)]
    if messages:
        tables.change(*messages)


def _changes(kind: int, flags: int, table: str, elements: Elements) -> Iterator[bytes]:
    for name, entries in elements.items():
        for start in range(0, len(entries), MOST):
            some = _listed(entries[start : start + MOST], whole=kind == NEW_ELEMENTS)
            yield message(kind, ACKNOWLEDGE | flags, INET, text(LIST_TABLE, table), text(LIST_SET, name), some)


def _listed(elements: Sequence[Element], *, whole: bool) -> bytes:
    return nested(LIST_ELEMENTS, *(nested(ELEMENT, _element(element, whole=whole)) for element in elements))


def _element(element: Element, *, whole: bool) -> bytes:
    key = nested(KEY, attribute(VALUE, element.packed_key))
    if not whole:
        return key
    value = b"" if element.value is None else nested(MAPPED, attribute(VALUE, packed(element.value)))
    seconds = element.seconds
    return (
        key + value + (b"" if seconds is None else attribute(TIMEOUT, struct.pack("!Q", max(1, int(seconds * 1000)))))
    )
