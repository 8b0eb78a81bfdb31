"""The rules of a server's sandboxes, as text."""

import ipaddress
import re

from buntime.config import from_environment
from buntime.daemon.listening import listening
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.edge_rules import edge_rules
from buntime.sandboxes.network.rules import whole


def test_no_rule_names_an_interface_by_its_number() -> None:
    """nft lists all links to understand a number, and begins again whenever one comes or goes. On a host that deletes
    thousands of sandboxes, that takes minutes."""
    part = Part("zzzz", ipaddress.IPv4Network("10.213.0.0/16"), (0,))
    edge = edge_rules(listening(from_environment({})), part.interfaces)
    rules = whole("buntime_zzzz", part, 33, {}, edge, short=True)
    said = [line for line in rules.splitlines() if not line.lstrip().startswith("#")]
    numbers = re.findall(r"\b(?:iif|oif)\b.*", "\n".join(said))
    assert {found.partition(";")[0] for found in numbers} == {"iif oif missing drop"}
