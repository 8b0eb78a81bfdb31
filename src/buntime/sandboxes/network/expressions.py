"""Netlink messages that make nftables' tables, chains, sets and rules, built from the kernel's own expressions.

Sources: linux/netfilter/nf_tables.h. `nft --debug=netlink` shows the expressions of a rule.
"""

import socket
import struct

from buntime.sandboxes.network.netlink import ACKNOWLEDGE, APPEND, CREATE, attribute, nested, text
from buntime.sandboxes.network.nfnetlink import IPV4, message

NEW_TABLE, NEW_CHAIN, NEW_RULE, NEW_SET = 0, 3, 6, 9
PREROUTING, OUTPUT = 0, 3
RAW, DSTNAT, FILTER = -300, -100, 0
DROP, ACCEPT, GOTO = 0, 1, -4
EQUAL, UNEQUAL, AT_LEAST = 0, 1, 5
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
INTERFACE_IN, INTERFACE_OUT, PROTOCOL = 6, 7, 16  # of `meta`
SET_DYNAMIC, SET_TIMEOUT = 0x20, 0x10
ADD, UPDATE, DELETE = 0, 1, 2
VERDICT_REGISTER, REGISTER = 0, 1
PIECE_REGISTERS = (1, 9, 10, 11)  # for a key of four pieces: register 1 holds 16 bytes, those from 8 on hold 4 each
SYN, RST, PSH, ACK, FIN = 0x02, 0x04, 0x08, 0x10, 0x01


def new_table(table: str) -> bytes:
    return _new(NEW_TABLE, 0, text(1, table))


def new_chain(table: str, chain: str, kind: str = "", hook: int = 0, priority: int = 0) -> bytes:
    """A chain without a kind is one that rules jump to."""
    hooked = (nested(4, _number(1, hook), _number(2, priority)), _number(5, ACCEPT), text(7, kind)) if kind else ()
    return _new(NEW_CHAIN, 0, text(1, table), text(3, chain), *hooked)


def new_set(table: str, name: str, kinds: int, length: int, size: int, clearing_ms: int) -> bytes:
    """A set that rules fill and whose elements expire. `kinds`: nft's number for the type of its keys. `clearing_ms`:
    how often the kernel clears the set; a deleted element takes up room until then. Of a set that is there, this alone
    can change."""
    return _new(
        NEW_SET,
        0,
        text(1, table),
        text(2, name),
        _number(3, SET_DYNAMIC | SET_TIMEOUT),
        _number(4, kinds),
        _number(5, length),
        _number(10, 1),
        nested(9, _number(1, size)),
        _number(12, clearing_ms),
    )


def new_rule(table: str, chain: str, *expressions: bytes) -> bytes:
    return _new(NEW_RULE, APPEND, text(1, table), text(2, chain), nested(4, *expressions))


def interface_is(which: int, name: str, how: int = EQUAL) -> bytes:
    return _meta(which) + compare(name.encode().ljust(16, b"\0"), how)


def is_tcp() -> bytes:
    return _meta(PROTOCOL) + compare(bytes([socket.IPPROTO_TCP]))


def is_not_tcp() -> bytes:
    return payload(NETWORK_HEADER, 9, 1) + compare(bytes([socket.IPPROTO_TCP]), UNEQUAL)


def flags(mask: int, value: int, how: int = EQUAL) -> bytes:
    """Compares the flags of a TCP header that are in the mask."""
    content = (_number(1, REGISTER), _number(2, REGISTER), _number(3, 1))
    masked = expression("bitwise", *content, _value(4, bytes([mask])), _value(5, b"\0"))
    return payload(TRANSPORT_HEADER, 13, 1) + masked + compare(bytes([value]), how)


def payload(base: int, offset: int, length: int, register: int = REGISTER) -> bytes:
    return expression("payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, length))


def compare(value: bytes, how: int = EQUAL) -> bytes:
    return expression("cmp", _number(1, REGISTER), _number(2, how), _value(3, value))


def is_in(name: str) -> bytes:
    """Matches where the key in the registers is in the set."""
    return expression("lookup", text(1, name), _number(2, REGISTER))


def change_set(how: int, name: str, seconds: int = 0) -> bytes:
    """Adds, updates or deletes the key in the registers. Where the set is full, the rule ends here."""
    timeout = (attribute(6, struct.pack("!Q", seconds * 1000)),) if seconds else ()
    return expression("dynset", text(1, name), _number(3, how), _number(4, REGISTER), *timeout)


def lead_to(address: str) -> bytes:
    """Changes a connection's destination."""
    value = expression("immediate", _number(1, REGISTER), _value(2, socket.inet_aton(address)))
    return value + expression("nat", _number(1, 1), _number(2, IPV4), _number(3, REGISTER))


def without_tracking() -> bytes:
    return expression("notrack")


def verdict(code: int, chain: str = "") -> bytes:
    target = (text(2, chain),) if chain else ()
    return expression("immediate", _number(1, VERDICT_REGISTER), nested(2, nested(2, _number(1, code), *target)))


def expression(name: str, *content: bytes) -> bytes:
    return nested(1, text(1, name), *([nested(2, *content)] if content else []))


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack("!i", number))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def _meta(key: int) -> bytes:
    return expression("meta", _number(1, REGISTER), _number(2, key))


def _new(number: int, how: int, *attributes: bytes) -> bytes:
    return message(number, ACKNOWLEDGE | CREATE | how, IPV4, *attributes)
