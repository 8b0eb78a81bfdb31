"""The nftables table of one server's sandboxes, as text. Pure.

No packet meets a rule of its own session: sets are looked up by its address, so 4,000 sessions cost a packet what one
does. What a session with rules of its own may reach is decided once for a connection, which is marked with the version
of the rules that let it through; later packets pass by that mark until the rules change. That goes both ways: `ct
original` is the connection as the session opened it, whichever way the packet goes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from buntime.egress import Rules
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.control_frames import CONTROL_FRAME, control_frames

FLOWS = 512  # connections of one sandbox to the world at a time: the table of all is the host's
CONNECTS, CONNECTS_AT_ONCE = 100, 512  # new ones a second
# Seconds that an ended connection keeps its place in the host's table: FLOWS does not count it any more. Of a question
# to the name server: until it is answered (the name server gives up after 10), and after that.
ENDED, ASKED, ANSWERED = 10, 12, 3
# Packets to the world a second, dropped before anything is done for them: some 0.1 µs each. A stream at the bandwidth
# below is 70,000 at an Ethernet's size, far fewer where the sender's kernel joins them.
PACKETS, PACKETS_AT_ONCE = 100_000, 20_000
BANDWIDTH = 100  # MiB a second from the world and to it, a second's worth at once: a tenth of a 10 Gbit/s line
QUESTIONS = 100  # of one sandbox to the name server, a second: each takes a place in the host's table of connections
SCREENED_QUESTIONS = 30  # … to the one that decides by name, in our process: some 0.2 ms each
NAME_STREAMS = 4  # connections of one sandbox to the name server, which serves 20 in all
# Places that one sandbox can take in the host's table of connections
ENTRIES = FLOWS + CONNECTS_AT_ONCE + CONNECTS * ENDED + QUESTIONS * (1 + max(ASKED, ANSWERED))
TOUCH_SECONDS = 5.0  # that a touch is remembered: looks at them come more often
EDGE_PORTS = "1024-65535"  # those that a preview can name; the guest's is below
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
PLAIN = "ipv4_addr"
PAIR = "ipv4_addr . ipv4_addr"  # of a session and of what it reaches
PAIRED = "ct original ip saddr . ct original ip daddr"
# Of networks, as they are kept: one look at a hash for each and for a new connection alone. (nftables has sets of pairs
# with intervals too: taking a session out of one of 20,000 takes the kernel a third of a second.)
LENGTHS = range(0, 33, 4)

Elements = Mapping[str, list[str]]  # set → what is in it, as nftables writes it


@dataclass(frozen=True, slots=True)
class Learned:
    """An address that was answered for a name."""

    set: str  # "allowed_names" or "denied_names"
    address: IPv4Address


def version(address: str, rules: Rules) -> int:
    """The mark of connections that these rules let through: other than 0, and another one for other rules."""
    lists = [[sorted(map(str, part)) for part in (e.addresses, e.names, e.parents)] for e in (rules.allow, rules.deny)]
    digest = hashlib.sha256(f"{address} {rules.egress} {lists}".encode()).digest()
    return int.from_bytes(digest[:4]) | 1


def elements_of(address: str, rules: Rules) -> dict[str, list[str]]:
    """What one session's rules put into the sets. Empty for the default rules."""
    if not rules.egress:
        return {"no_egress": [address]}
    if not rules.of_addresses:
        return {}
    mark = version(address, rules)
    found = {
        "restricted": [address],
        "passed": [f"{address} . {mark:#x}"],
        "versions": [f"{address} : {mark:#x}"],
        **_by_length("allowed", address, rules.allow.addresses),
        **_by_length("denied", address, rules.deny.addresses),
        "strict": [address] if rules.allow else [],
        "screened": [address] if rules.of_names else [],
    }
    return {name: entries for name, entries in found.items() if entries}


def _by_length(name: str, address: str, networks: Iterable[IPv4Network]) -> dict[str, list[str]]:
    """In pieces of LENGTHS, so that each is found by its exact beginning."""
    found: dict[str, list[str]] = {}
    for network in networks:
        length = min(longer for longer in LENGTHS if longer >= network.prefixlen)
        pieces = (f"{address} . {piece.network_address}" for piece in network.subnets(new_prefix=length))
        found.setdefault(f"{name}_{length}", []).extend(pieces)
    return found


def learned_element(address: str, learned: Learned, seconds: float) -> str:
    return f"{address} . {learned.address} timeout {max(1, int(seconds))}s"


def merged(all_elements: Iterable[Elements]) -> dict[str, list[str]]:
    together: dict[str, list[str]] = {}
    for elements in all_elements:
        for name, entries in elements.items():
            together.setdefault(name, []).extend(entries)
    return together


def change(table: str, old: Elements, new: Elements) -> str:
    """From one session's elements to others, in one step. It does not matter which of them are there."""
    lines = [f"destroy element inet {table} {name} {{ {', '.join(entries)} }}" for name, entries in old.items()]
    lines += [f"add element inet {table} {name} {{ {', '.join(entries)} }}" for name, entries in new.items()]
    return "\n".join(lines) + "\n"


def whole(
    table: str,
    part: Part,
    resolver: str,
    edge_user: int | None,
    elements: Elements,
    edge_rules: str = "",
    *,
    short: bool = True,
) -> str:
    """The whole table, put in force in one step. What a session may not reach refuses at once instead of letting its
    programs wait. `resolver`: where sessions ask for names that have rules about them. `edge_rules`: see the module
    of that name. `short`: whether connections of sessions have timeouts of their own, which a kernel without
    CONFIG_NF_CONNTRACK_TIMEOUT refuses."""
    ours, gateway = part.interfaces, part.gateway

    def filled(name: str, kind: str = PLAIN, flags: str = "") -> str:
        entries = elements.get(name)
        given = f"elements = {{ {', '.join(entries)} }};" if entries else ""
        return f"set {name} {{ type {kind}; {flags} {given} }}"

    def counting(name: str, flags: str = "dynamic") -> str:
        return f"set {name} {{ type {PLAIN}; flags {flags}; size 65535; }}"

    def by_length(name: str) -> str:
        return "\n  ".join(filled(f"{name}_{length}", PAIR) for length in LENGTHS)

    def found_in(name: str, verdict: str) -> str:
        beginnings = ((length, IPv4Network((0, length)).netmask) for length in LENGTHS)
        return "\n    ".join(f"{PAIRED} & {mask} @{name}_{length} {verdict}" for length, mask in beginnings)

    versions = filled("versions", f"{PLAIN} : mark").replace("set", "map", 1)
    timed = "flags timeout; size 4194304;"
    too_often = f"limit rate over {QUESTIONS}/second burst {QUESTIONS} packets"
    too_fast = f"limit rate over {BANDWIDTH} mbytes/second"
    screened_too_often = f"limit rate over {SCREENED_QUESTIONS}/second burst {QUESTIONS} packets"
    connects = f"limit rate over {CONNECTS}/second burst {CONNECTS_AT_ONCE} packets"
    packets = f"limit rate over {PACKETS}/second burst {PACKETS_AT_ONCE} packets"
    marked = "ct mark set ct original ip saddr map @versions"
    timeouts = TIMEOUTS if short else ""
    short_flow, short_question = (
        f'ct timeout set "{name}"' if short else "" for name in ("session_flow", "session_question")
    )
    edge = f"meta skuid {edge_user} tcp dport {EDGE_PORTS} accept" if edge_user is not None else ""
    return f"""
table inet {table}
delete table inet {table}
table inet {table} {{
  set unreachable {{ type {PLAIN}; flags interval; elements = {{ {", ".join(UNREACHABLE)} }}; }}
  {filled("no_egress")}
  {filled("restricted")}
  {filled("strict")}
  {filled("screened")}
  {filled("passed", f"{PLAIN} . mark")}
  {versions}
  {by_length("allowed")}
  {by_length("denied")}
  {filled("allowed_names", PAIR, timed)}
  {filled("denied_names", PAIR, timed)}
  {counting("packets")}
  {counting("connects")}
  {counting("outbound")}
  {counting("inbound")}
  {counting("names", "dynamic,timeout; timeout 1m")}
  {counting("screened_names", "dynamic,timeout; timeout 1m")}
  {counting("name_streams")}
  {counting("flows")}
  {counting("touched", f"dynamic,timeout; timeout {TOUCH_SECONDS:.0f}s")}
  {control_frames()}
  {timeouts}
  chain spoofed {{
    type filter hook prerouting priority -310; policy accept;
    iifname "{ours}" meta nfproto ipv6 drop
    iifname "{ours}" fib saddr . iif oif eq 0 drop
    iifname "{ours}" ip daddr != {gateway} add @packets {{ ip saddr {packets} }} drop
  }}
  chain questions {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{ours}" ip saddr @screened ip daddr {gateway} udp dport 53 dnat ip to {resolver}
    iifname "{ours}" ip saddr @screened ip daddr {gateway} tcp dport 53 dnat ip to {resolver}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{ours}" jump from_session
    oifname "{ours}" jump to_session
  }}
  chain refused {{
    iifname != "{ours}" drop
    limit rate 2000/second burst 500 packets reject with icmpx admin-prohibited
    drop
  }}
  chain from_session {{
    ip saddr @no_egress jump refused
    ip daddr @unreachable jump refused
    fib daddr type != unicast drop
    tcp dport {{ 25, 53, 853 }} jump refused
    udp dport {{ 53, 853 }} jump refused
    oifname "{ours}" jump refused
    ip saddr @restricted jump by_rules
    ct state new add @connects {{ ip saddr {connects} }} drop
    ct state new add @flows {{ ip saddr ct count over {FLOWS} }} drop
    add @outbound {{ ip saddr {too_fast} }} drop
    {short_flow}
  }}
  chain to_session {{
    ct state != {{ established, related }} drop
    ip daddr @no_egress drop
    ip daddr @restricted jump by_rules
    add @inbound {{ ip daddr {too_fast} }} drop
  }}
  chain by_rules {{
    ct state {{ invalid, untracked }} drop
    {PAIRED} @denied_names jump refused
    ct original ip saddr . ct mark @passed return
    ct mark set 0
    {found_in("denied", "jump refused")}
    ct original ip saddr != @strict {marked} return
    {found_in("allowed", f"{marked} return")}
    {PAIRED} @allowed_names {marked} return
    jump refused
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "{ours}" jump to_host
  }}
  chain to_host {{
    ip saddr @no_egress meta l4proto {{ tcp, udp }} th dport 53 jump refused
    ip saddr @no_egress ct state new jump refused
    # what a session asked before it had rules about names goes no further
    ip saddr @screened ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 jump refused
    # each packet: questions that come from one port are one connection to the kernel
    meta l4proto udp add @names {{ ip saddr {too_often} }} drop
    meta l4proto != udp ct state new add @names {{ ip saddr {too_often} }} drop
    ip daddr {resolver} meta l4proto udp add @screened_names {{ ip saddr {screened_too_often} }} drop
    ip daddr {resolver} ct state new add @screened_names {{ ip saddr {screened_too_often} }} drop
    tcp dport 53 ct state new add @name_streams {{ ip saddr ct count over {NAME_STREAMS} }} drop
    {short_question}
    ip daddr {{ {gateway}, {resolver} }} udp dport 53 accept
    ip daddr {{ {gateway}, {resolver} }} tcp dport 53 accept
    ct state established,related accept
    jump refused
  }}
  chain output {{
    type filter hook output priority -10; policy accept;
    oifname "{ours}" jump from_host
    # other local users would use up what sessions may ask
    oifname "lo" ip daddr {{ {gateway}, {resolver} }} udp dport 53 meta skuid != 0 reject with icmpx admin-prohibited
    oifname "lo" ip daddr {{ {gateway}, {resolver} }} tcp dport 53 meta skuid != 0 reject with tcp reset
  }}
  chain from_host {{
    meta nfproto ipv6 drop
    ct state established,related accept
    meta skuid 0 accept
    {edge}
    reject with icmpx admin-prohibited
  }}
  chain touching {{
    type filter hook output priority 0; policy accept;
    # data, not keep-alives and acknowledgements; on connections into the session, not those that it opened; and not
    # what the guest is told, which is below these ports
    oifname "{ours}" tcp dport {EDGE_PORTS} tcp flags & psh == psh ct direction original jump sent_data
  }}
  chain sent_data {{
    {CONTROL_FRAME} return
    update @touched {{ ip daddr }}
  }}
  chain to_world {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {{ {", ".join(map(str, part.networks))} }} oifname != "{ours}" masquerade
  }}
{edge_rules}}}
"""
