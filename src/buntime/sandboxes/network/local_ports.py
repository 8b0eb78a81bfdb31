"""The packet rules in a sandbox's own network namespace.

Programs that listen only on `localhost` can be reached from outside too. A connection that comes in on eth0, to a port
that a preview can name, goes to 127.0.0.1. Servers on `localhost` and on all addresses both answer there.

The kernel's table of connections belongs to no memory account, so it holds only these connections. A session cannot
open one: its own packets are never tracked, neither on `lo` nor on eth0.

The kernel charges what a connection holds to the program that accepts it. A connection over `lo` that nobody accepts
would hold uncounted memory of the host, so UNANSWERED bounds those. Data or an end from the server shows that it has
accepted. Until then the client's resets are dropped, because the server's end would keep its data, uncounted. After a
closing listener's reset the place stays taken for a while, because a keep-alive to a dead peer ends in the same reset.

The kernel clears the set of those now and then: what has ended takes up room until then. Often, while something of a
session runs (`clearing`), else seldom: each time takes some microseconds, and there are thousands of sandboxes. So
there is room for UNANSWERED new connections a second at first, and for eight times as many a second later.

The rules are put in force by netlink, in the calling thread's namespace.
"""

import os

from buntime.sandboxes.network.expressions import (
    ACCEPT,
    ACK,
    ADD,
    AT_LEAST,
    DELETE,
    DROP,
    DSTNAT,
    FILTER,
    FIN,
    GOTO,
    INTERFACE_IN,
    INTERFACE_OUT,
    NETWORK_HEADER,
    OUTPUT,
    PIECE_REGISTERS,
    PREROUTING,
    PSH,
    RAW,
    RST,
    SYN,
    TRANSPORT_HEADER,
    UNEQUAL,
    UPDATE,
    change_set,
    compare,
    flags,
    interface_is,
    is_in,
    is_not_tcp,
    is_tcp,
    lead_to,
    new_chain,
    new_rule,
    new_set,
    new_table,
    payload,
    verdict,
    without_tracking,
)
from buntime.sandboxes.network.nfnetlink import Connection

UNANSWERED = 512  # connections over `lo` that no server has answered, at a time
OFTEN_MS, SELDOM_MS = 125, 1000  # between two times that the kernel clears the set
FIRST_PORT = 1024
BEGUN, WAITING, RESET = 10, 86400, 3600  # seconds after a SYN, after the kernel's answer to it, after a listener's end
CLIENTS, SERVERS = "saddr . tcp sport . ip daddr . tcp dport", "daddr . tcp dport . ip saddr . tcp sport"


def _can_clear() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 2)


CAN_CLEAR = _can_clear()  # whether the kernel heeds `clear`
FIRST_MS = SELDOM_MS if CAN_CLEAR else OFTEN_MS
RULES = f"""
table ip buntime {{
  set unanswered {{
    type ipv4_addr . inet_service . ipv4_addr . inet_service
    size {UNANSWERED}
    flags dynamic,timeout
    gc-interval {"1s" if CAN_CLEAR else "125ms"}
  }}
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname "eth0" tcp dport >= {FIRST_PORT} accept
    notrack
  }}
  chain leaving {{
    type filter hook output priority raw; policy accept;
    oifname "eth0" ip saddr 127.0.0.1 tcp flags & (syn|ack) != syn accept
    notrack
  }}
  chain in {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" tcp dport >= {FIRST_PORT} dnat to 127.0.0.1
  }}
  chain local {{
    type filter hook output priority filter; policy accept;
    oifname != "lo" accept
    ip protocol != tcp accept
    tcp flags & (syn|ack) == syn add @unanswered {{ ip {CLIENTS} timeout {BEGUN}s }} accept
    tcp flags & (syn|ack) == syn drop
    tcp flags & (syn|ack) == (syn|ack) update @unanswered {{ ip {SERVERS} timeout {WAITING}s }} accept
    tcp flags & (syn|ack) == (syn|ack) drop
    ip {SERVERS} @unanswered goto answered
    tcp flags & rst == rst ip {CLIENTS} @unanswered drop
  }}
  chain answered {{
    tcp flags & (psh|fin) != 0 delete @unanswered {{ ip {SERVERS} }} accept
    tcp flags & rst == rst tcp sequence 0 delete @unanswered {{ ip {SERVERS} }} accept
    tcp flags & rst == rst update @unanswered {{ ip {SERVERS} timeout {RESET}s }} accept
  }}
}}
"""
TABLE, SET = "buntime", "unanswered"
ADDRESS, PORT = 7, 13  # nft's numbers of its types
KEY_TYPE, KEY_LENGTH = ((ADDRESS << 6 | PORT) << 6 | ADDRESS) << 6 | PORT, 16
SOURCE, DESTINATION = (NETWORK_HEADER, 12, 4), (NETWORK_HEADER, 16, 4)
SOURCE_PORT, DESTINATION_PORT = (TRANSPORT_HEADER, 0, 2), (TRANSPORT_HEADER, 2, 2)


def put_session_rules() -> None:
    """Puts the rules into the calling thread's network namespace. Raises OSError."""
    with Connection() as tables:
        tables.change(*MESSAGES)


def clear(*, often: bool) -> None:
    """How often the kernel clears the set in the calling thread's network namespace. It begins after the next time.
    Raises OSError."""
    with Connection() as tables:
        tables.change(_set(OFTEN_MS if often else SELDOM_MS))


def _set(clearing_ms: int) -> bytes:
    return new_set(TABLE, SET, KEY_TYPE, KEY_LENGTH, UNANSWERED, clearing_ms)


def _key(*pieces: tuple[int, int, int]) -> bytes:
    return b"".join(payload(*piece, register) for piece, register in zip(pieces, PIECE_REGISTERS, strict=True))


def _rule(chain: str, *expressions: bytes) -> bytes:
    return new_rule(TABLE, chain, *expressions)


_FROM_CLIENT = _key(SOURCE, SOURCE_PORT, DESTINATION, DESTINATION_PORT)
_FROM_SERVER = _key(DESTINATION, DESTINATION_PORT, SOURCE, SOURCE_PORT)
_PREVIEWED = (
    interface_is(INTERFACE_IN, "eth0")
    + is_tcp()
    + payload(*DESTINATION_PORT)
    + compare(FIRST_PORT.to_bytes(2), AT_LEAST)
)
_PREVIEW_ANSWER = interface_is(INTERFACE_OUT, "eth0") + payload(*SOURCE) + compare(bytes([127, 0, 0, 1])) + is_tcp()
_OPENS, _OPENED = is_tcp() + flags(SYN | ACK, SYN), is_tcp() + flags(SYN | ACK, SYN | ACK)
_RESET = is_tcp() + flags(RST, RST)
MESSAGES = (
    new_table(TABLE),
    _set(FIRST_MS),
    new_chain(TABLE, "arriving", "filter", PREROUTING, RAW),
    new_chain(TABLE, "leaving", "filter", OUTPUT, RAW),
    new_chain(TABLE, "in", "nat", PREROUTING, DSTNAT),
    new_chain(TABLE, "local", "filter", OUTPUT, FILTER),
    new_chain(TABLE, "answered"),
    _rule("arriving", _PREVIEWED, verdict(ACCEPT)),
    _rule("arriving", without_tracking()),
    _rule("leaving", _PREVIEW_ANSWER, flags(SYN | ACK, SYN, UNEQUAL), verdict(ACCEPT)),
    _rule("leaving", without_tracking()),
    _rule("in", _PREVIEWED, lead_to("127.0.0.1")),
    _rule("local", interface_is(INTERFACE_OUT, "lo", UNEQUAL), verdict(ACCEPT)),
    _rule("local", is_not_tcp(), verdict(ACCEPT)),
    _rule("local", _OPENS, _FROM_CLIENT, change_set(ADD, SET, BEGUN), verdict(ACCEPT)),
    _rule("local", _OPENS, verdict(DROP)),
    _rule("local", _OPENED, _FROM_SERVER, change_set(UPDATE, SET, WAITING), verdict(ACCEPT)),
    _rule("local", _OPENED, verdict(DROP)),
    _rule("local", is_tcp(), _FROM_SERVER, is_in(SET), verdict(GOTO, "answered")),
    _rule("local", _RESET, _FROM_CLIENT, is_in(SET), verdict(DROP)),
    _rule("answered", is_tcp(), flags(PSH | FIN, 0, UNEQUAL), _FROM_SERVER, change_set(DELETE, SET), verdict(ACCEPT)),
    _rule(
        "answered",
        _RESET,
        payload(TRANSPORT_HEADER, 4, 4),
        compare(bytes(4)),
        _FROM_SERVER,
        change_set(DELETE, SET),
        verdict(ACCEPT),
    ),
    _rule("answered", _RESET, _FROM_SERVER, change_set(UPDATE, SET, RESET), verdict(ACCEPT)),
)
