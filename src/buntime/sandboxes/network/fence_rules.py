"""The nftables table that closes a fenced host, as text. Pure.

A rule lets packets pass for as long as one element is in a set. The element has a timeout, so the kernel closes the
host by itself, whatever happens to the processes that open it.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from string import Template

from buntime.daemon.listening import Listening
from buntime.sandboxes.network.elements import Element, Elements

TEMPLATE = Template(Path(__file__).with_name("fence.nft").read_text())
CLOSED = "meta mark & 0 != @open"  # nft has no constants: of each packet's mark, this looks at no bit


def fence_table(instance: str) -> str:
    return f"buntime_{instance}_fence"


def opened_for(seconds: float) -> Elements:
    """The element that opens the host, to the millisecond."""
    return {"open": [Element((0,), seconds=seconds)]}


def fence_rules(instance: str, edge: Listening) -> str:
    return TEMPLATE.substitute(
        table=fence_table(instance),
        ours=f"buntime{instance}*",
        # the reset below goes out by this port, too
        from_edge="\n    ".join(
            f"{way} tcp flags & rst == 0 {CLOSED} drop" for way in _of_edge(edge, "saddr", "sport")
        ),
        to_edge="\n    ".join(f"{way} {CLOSED} reject with tcp reset" for way in _of_edge(edge, "daddr", "dport")),
    )


def _of_edge(edge: Listening, address: str, port: str) -> Iterator[str]:
    for each in edge.addresses:
        family = "ip6" if ":" in each else "ip"
        any_address = f"meta nfproto {'ipv6' if family == 'ip6' else 'ipv4'}"
        where = any_address if ip_address(each).is_unspecified else f"{family} {address} {each}"
        yield f"{where} tcp {port} {edge.port}"
    if edge.for_hosts is not None:
        yield f"tcp {port} {edge.for_hosts}"
