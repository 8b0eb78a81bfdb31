"""Which addresses and names a session may reach, by its `network`. Pure.

Deny wins over allow. If anything is allowed, everything else is denied. With egress `none`, nothing is reachable. A
name stands for itself. `*.name` stands for all names below it, at any depth, but not for `name`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from buntime.session import Network

ENTRIES = 100  # in each list
LONGEST_NAME = 253
NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
ADDRESS = re.compile(r"[0-9./]+")


@dataclass(frozen=True, slots=True)
class Entries:
    """One of the two lists, prepared for comparing."""

    addresses: tuple[IPv4Network, ...]  # they do not overlap
    names: frozenset[str]
    parents: frozenset[str]  # of `*.parent`

    def have(self, name: str) -> bool:
        """`name` is in lower case, without a dot at the end."""
        labels = name.split(".")
        return name in self.names or any(".".join(labels[i:]) in self.parents for i in range(1, len(labels)))

    def __bool__(self) -> bool:
        return bool(self.addresses or self.names or self.parents)


@dataclass(frozen=True, slots=True)
class Rules:
    egress: bool  # False: nothing is reachable
    allow: Entries
    deny: Entries

    @property
    def of_names(self) -> bool:
        """Whether the rules allow some names and not others."""
        return self.egress and bool(self.allow or self.deny.names or self.deny.parents)

    @property
    def of_addresses(self) -> bool:
        return self.egress and bool(self.allow or self.deny)

    def denies(self, name: str) -> bool:
        return self.deny.have(name)

    def resolves(self, name: str) -> bool:
        return not self.denies(name) and (not self.allow or self.allow.have(name))


def rules_of(network: Network) -> Rules:
    """Raises ValueError for an invalid entry."""
    return Rules(network.egress == "internet", _entries(network.allow), _entries(network.deny))


def parse_entry(text: str) -> IPv4Network | str:
    """Addresses, or a name in lower case. Raises ValueError; its message continues a sentence that begins with the
    entry."""
    if ADDRESS.fullmatch(text):
        try:
            return IPv4Network(text)
        except ValueError as wrong:
            raise ValueError(f"is not an IPv4 network such as 192.0.2.0/24: {wrong}") from wrong
    if ":" in text:
        raise ValueError("is not an IPv4 network or a domain name (sessions have no IPv6)")
    if not text.isascii():
        raise ValueError("has other letters than ASCII: write the name in its xn-- form")
    name = text.lower()
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise ValueError("is neither an IPv4 network nor a domain name such as example.com or *.example.com")
    return name


def _entries(texts: Iterable[str]) -> Entries:
    parsed = [parse_entry(text) for text in texts]
    names = [entry for entry in parsed if isinstance(entry, str)]
    return Entries(
        tuple(collapse_addresses(entry for entry in parsed if isinstance(entry, IPv4Network))),
        frozenset(name for name in names if not name.startswith("*.")),
        frozenset(name.removeprefix("*.") for name in names if name.startswith("*.")),
    )
