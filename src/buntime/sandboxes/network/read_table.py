"""Reads an nftables table: the elements of one set, or where the rules of one chain lead. Blocking, quick."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from buntime.sandboxes.network.netlink import DUMP, attributes, text
from buntime.sandboxes.network.nfnetlink import INET, Connection, message

NEW_RULE, GET_RULES, NEW_ELEMENTS, GET_ELEMENTS = 6, 7, 12, 13
TABLE, CHAIN, SET, ELEMENTS = 1, 2, 2, 3
RULE_EXPRESSIONS, EXPRESSION_NAME, EXPRESSION_CONTENT = 4, 1, 2
IMMEDIATE_CONTENT, VERDICT, VERDICT_CHAIN = 2, 2, 2
KEY, EXPIRATION = 1, 5
VALUE = 1


def elements(tables: Connection, table: str, name: str) -> Iterator[tuple[bytes, float]]:
    """The key of each element of a set of an `inet` table, with the seconds until it expires, 0 if it does not.

    Raises OSError; FileNotFoundError where the table or set does not exist.
    """
    asked = message(GET_ELEMENTS, DUMP, INET, text(TABLE, table), text(SET, name))
    for body in tables.read(asked, NEW_ELEMENTS):
        for _, element in attributes(dict(attributes(body)).get(ELEMENTS, b"")):
            parts = dict(attributes(element))
            yield dict(attributes(parts[KEY]))[VALUE], int.from_bytes(parts.get(EXPIRATION, b"")) / 1000


def expiring_addresses(tables: Connection, table: str, name: str) -> dict[IPv4Address, float]:
    """The same for a set of addresses."""
    return {IPv4Address(key): left for key, left in elements(tables, table, name)}


def leads_to(tables: Connection, table: str, chain: str) -> set[str]:
    """Chains that the rules of a chain of an `inet` table lead to. Empty where there are none, or no such chain or
    table. Raises OSError."""
    asked = message(GET_RULES, DUMP, INET, text(TABLE, table), text(CHAIN, chain))
    return {target for rule in tables.read(asked, NEW_RULE) for target in _targets(rule)}


def _targets(rule: bytes) -> Iterator[str]:
    for _, expression in attributes(dict(attributes(rule)).get(RULE_EXPRESSIONS, b"")):
        parts = dict(attributes(expression))
        if parts[EXPRESSION_NAME] == b"immediate\0":
            content = dict(attributes(parts[EXPRESSION_CONTENT]))
            verdict = dict(attributes(dict(attributes(content[IMMEDIATE_CONTENT])).get(VERDICT, b"")))
            if VERDICT_CHAIN in verdict:
                yield verdict[VERDICT_CHAIN].rstrip(b"\0").decode()
