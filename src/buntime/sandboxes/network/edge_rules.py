"""nftables text that bounds one source's connections to the edge, before the edge reads a byte. Pure.

The kernel counts open connections, and removes a source when its last connection has ended. When a set is full, new
sources are not counted here. The edge still counts them once it has read a request's header.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address

from buntime.daemon.listening import Listening

CONNECTIONS_OF_SOURCE = 256  # at a time: of an IPv4 address, or of an IPv6 /64, which is what one customer has
SOURCES = 262144  # counted at a time, of each family


def edge_rules(edge: Listening, sandboxes: str) -> str:
    """Sets and chains for the server's table. `sandboxes`: the pattern of their interfaces. Other rules keep sandboxes
    from the edge."""
    ip4 = [network for network in edge.proxies if isinstance(network, IPv4Network)]
    ip6 = [network for network in edge.proxies if isinstance(network, IPv6Network)]
    return f"""
  set edge_sources {{ type ipv4_addr; flags dynamic; size {SOURCES}; }}
  set edge_sources6 {{ type ipv6_addr; flags dynamic; size {SOURCES}; }}
  chain edge {{
    type filter hook input priority -5; policy accept;
    meta l4proto != tcp accept # the next two match TCP alone, and would let other packets through to the count
    tcp dport != {edge.port} accept
    tcp flags & (fin | syn | rst | ack) != syn accept
    iifname "{sandboxes}" accept
    {_among("ip saddr", list(map(str, collapse_addresses(ip4))))}
    {_among("ip6 saddr", list(map(str, collapse_addresses(ip6))))}
    {_counted("ip", "edge_sources", "ip saddr", [a for a in edge.addresses if ":" not in a])}
    {_counted("ip6", "edge_sources6", "ip6 saddr & ffff:ffff:ffff:ffff::", [a for a in edge.addresses if ":" in a])}
  }}
  chain edge_refused {{
    limit rate 2000/second burst 500 packets reject with tcp reset
    drop
  }}
"""


def _among(what: str, networks: Sequence[str]) -> str:
    return f"{what} {{ {', '.join(networks)} }} accept" if networks else ""


def _counted(family: str, name: str, source: str, addresses: Sequence[str]) -> str:
    """A rule for connections to these addresses. An unspecified address means all of its family."""
    if not addresses:
        return ""
    is_any = any(ip_address(address).is_unspecified for address in addresses)
    to = "" if is_any else f"{family} daddr {{ {', '.join(addresses)} }} "
    return f"{to}add @{name} {{ {source} ct count over {CONNECTIONS_OF_SOURCE} }} jump edge_refused"
