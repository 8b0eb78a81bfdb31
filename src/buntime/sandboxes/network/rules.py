"""The nftables table of one server's sandboxes, as text. Pure.

A packet meets no rule of its own session. It is looked up in sets by the session's address, so 4,000 sessions cost a
packet what one does. A session with rules of its own has each connection judged once. The connection is then marked
with the version of the rules that let it through, and later packets pass by that mark until the rules change. This
works in both directions: `ct original` is the connection as the session opened it, whichever way the packet goes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from string import Template

from buntime.egress import Rules
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.kernel.oci import GUEST_PORT
from buntime.sandboxes.network.control_frames import CONTROL_FRAME, control_frames
from buntime.sandboxes.network.elements import Element, Elements

TEMPLATE = Template(Path(__file__).with_name("rules.nft").read_text())

FLOWS = 512  # connections of one sandbox to the world at a time: the kernel has one table for the whole host
CONNECTS, CONNECTS_AT_ONCE = 100, 512  # new ones a second
# Seconds that an ended connection keeps its place in the host's table, where FLOWS no longer counts it. For a question
# to the name server: until the answer (the name server gives up after 10), and after the answer.
ENDED, ASKED, ANSWERED = 10, 12, 3
# Packets to the world a second. Dropping one comes before all other work and takes some 0.1 µs. A stream at the
# bandwidth below has 70,000 packets of Ethernet's size, and far fewer where the sender's kernel joins them.
PACKETS, PACKETS_AT_ONCE = 100_000, 20_000
BANDWIDTH = 100  # MiB a second from the world and to it, a second's worth at once: a tenth of a 10 Gbit/s line
QUESTIONS = 100  # of one sandbox to the name server, a second: each takes a place in the host's table of connections
SCREENED_QUESTIONS = 30  # … to the resolver that decides by name, in this process: some 0.2 ms each
NAME_STREAMS = 4  # connections of one sandbox to the name server, which serves 20 in all
# Places that one sandbox can take in the host's table of connections
ENTRIES = FLOWS + CONNECTS_AT_ONCE + CONNECTS * ENDED + QUESTIONS * (1 + max(ASKED, ANSWERED))
TOUCH_SECONDS = 5.0  # that the kernel remembers activity: the server looks more often
EDGE_PORTS = "1024-65535"  # those that a preview can name; the guest's, for bodies of files, is below
TIMEOUTS = f"""ct timeout session_flow {{
    protocol tcp; l3proto ip; policy = {{ time_wait: {ENDED}, close: {ENDED} }};
  }}
  ct timeout session_question {{
    protocol udp; l3proto ip; policy = {{ unreplied: {ASKED}, replied: {ANSWERED} }};
  }}"""
# Never reachable, whatever a session is allowed: this host and networks that are not the public internet.
UNREACHABLE = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
]
# Networks are kept in pieces of these lengths, one set for each, so a new connection costs one look into a hash for
# each length. (nftables also has sets of pairs with intervals. To take a session out of one of 20,000, the kernel needs
# a third of a second.)
LENGTHS = range(0, 33, 4)


@dataclass(frozen=True, slots=True)
class Learned:
    """An address that was answered for a name."""

    set: str  # "allowed_names" or "denied_names"
    address: IPv4Address


# --- one session's rules ---


def version(address: str, rules: Rules) -> int:
    """The mark of connections that these rules let through. Never 0, and different for different rules."""
    lists = [[sorted(map(str, part)) for part in (e.addresses, e.names, e.parents)] for e in (rules.allow, rules.deny)]
    digest = hashlib.sha256(f"{address} {rules.egress} {lists}".encode()).digest()
    return int.from_bytes(digest[:4]) | 1


def elements_of(address: str, rules: Rules) -> dict[str, list[Element]]:
    """What one session's rules put into the sets. Empty for the default rules."""
    session = IPv4Address(address)
    alone = Element((session,))
    if not rules.egress:
        return {"no_egress": [alone]}
    if not rules.of_addresses:
        return {}
    mark = version(address, rules)
    found = {
        "restricted": [alone],
        "passed": [Element((session, mark))],
        "versions": [Element((session,), value=mark)],
        **_by_length("allowed", session, rules.allow.addresses),
        **_by_length("denied", session, rules.deny.addresses),
        "strict": [alone] if rules.allow else [],
        "screened": [alone] if rules.of_names else [],
    }
    return {name: entries for name, entries in found.items() if entries}


def _by_length(name: str, session: IPv4Address, networks: Iterable[IPv4Network]) -> dict[str, list[Element]]:
    """In pieces of LENGTHS, so that the exact beginning of an address finds each."""
    found: dict[str, list[Element]] = {}
    for network in networks:
        length = min(longer for longer in LENGTHS if longer >= network.prefixlen)
        pieces = (Element((session, piece.network_address)) for piece in network.subnets(new_prefix=length))
        found.setdefault(f"{name}_{length}", []).extend(pieces)
    return found


# --- the table ---


def whole(
    table: str, part: Part, edge_user: int | None, elements: Elements, edge_rules: str = "", *, short: bool = True
) -> str:
    """The whole table, put in force in one step. Where a session may not connect, the kernel refuses at once, so its
    programs do not wait.

    `edge_rules`: from the module of that name. `short`: whether connections of sessions have timeouts of their own,
    which a kernel without CONFIG_NF_CONNTRACK_TIMEOUT refuses.
    """
    return TEMPLATE.substitute(
        table=table,
        ours=part.interfaces,
        gateway=part.gateway,
        resolver=part.resolver,
        networks=", ".join(map(str, part.networks)),
        unreachable=", ".join(UNREACHABLE),
        edge=f"meta skuid {edge_user} tcp dport {{ {GUEST_PORT}, {EDGE_PORTS} }} accept"
        if edge_user is not None
        else "",
        edge_ports=EDGE_PORTS,
        edge_rules=edge_rules,
        control_frames=control_frames(),
        control_frame=CONTROL_FRAME,
        **_timeouts(short),
        **_bounds(),
        **_filled_sets(elements),
        **_judging(),
    )


def _timeouts(short: bool) -> dict[str, str]:
    return {
        "timeouts": TIMEOUTS if short else "",
        "short_flow": 'ct timeout set "session_flow"' if short else "",
        "short_question": 'ct timeout set "session_question"' if short else "",
    }


def _bounds() -> dict[str, object]:
    return {
        "packets": PACKETS,
        "packets_at_once": PACKETS_AT_ONCE,
        "connects": CONNECTS,
        "connects_at_once": CONNECTS_AT_ONCE,
        "flows": FLOWS,
        "bandwidth": BANDWIDTH,
        "name_streams": NAME_STREAMS,
        "too_often": f"limit rate over {QUESTIONS}/second burst {QUESTIONS} packets",
        "screened_too_often": f"limit rate over {SCREENED_QUESTIONS}/second burst {QUESTIONS} packets",
        "touch_seconds": f"{TOUCH_SECONDS:.0f}",
    }


def _filled_sets(elements: Elements) -> dict[str, str]:
    """What is in the sets of sessions from the beginning."""

    def given(name: str) -> str:
        listed = ", ".join(element.text for element in elements.get(name, ()))
        return f"elements = {{ {listed} }};" if listed else ""

    def of_lengths(name: str) -> str:
        sets = (f"{name}_{length}" for length in LENGTHS)
        return "\n  ".join(f"set {each} {{ type ipv4_addr . ipv4_addr;  {given(each)} }}" for each in sets)

    plain = (
        "hosts",
        "no_egress",
        "restricted",
        "strict",
        "screened",
        "passed",
        "versions",
        "allowed_names",
        "denied_names",
    )
    return {"allowed": of_lengths("allowed"), "denied": of_lengths("denied"), **{name: given(name) for name in plain}}


def _judging() -> dict[str, str]:
    """What decides about a new connection by its session and what it reaches."""
    marked = "ct mark set ct original ip saddr map @versions"

    def found_in(name: str, verdict: str) -> str:
        beginnings = ((length, IPv4Network((0, length)).netmask) for length in LENGTHS)
        pair = "ct original ip saddr . ct original ip daddr"
        return "\n    ".join(f"{pair} & {mask} @{name}_{length} {verdict}" for length, mask in beginnings)

    return {
        "marked": marked,
        "when_denied": found_in("denied", "jump refused"),
        "when_allowed": found_in("allowed", f"{marked} return"),
    }
