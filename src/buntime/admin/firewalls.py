"""Finds firewalls of the host that drop what sessions send, and says how to let it pass. Pure.

Every nftables table decides about a packet: an accept in buntime's does not undo a drop in another.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HOOKS = {"forward": "what sessions send to the internet", "input": "the name lookups of sessions"}


@dataclass(frozen=True, slots=True)
class Obstacle:
    what: str
    remedy: str  # commands to run


def obstacles(ruleset: str, network: str) -> Iterator[Obstacle]:
    """`ruleset`: the output of `nft -j list ruleset`. `network`: the addresses of sessions.

    A firewall with a rule about this network counts as configured.
    """
    entries: list[Mapping[str, Any]] = json.loads(ruleset)["nftables"]
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    names = {chain["name"] for chain in chains} | {chain["table"] for chain in chains}
    configured = {_place(entry["rule"]) for entry in entries if "rule" in entry and _names(entry["rule"], network)}
    configured_tables = {table for table, _ in configured}
    last = {_place(entry["rule"]): entry["rule"]["expr"] for entry in entries if "rule" in entry}  # in order
    for chain in chains:
        hook = chain.get("hook")
        table = (chain["family"], chain["table"])
        if hook not in HOOKS or chain["table"].startswith("buntime_") or table in configured_tables:
            continue
        if chain.get("policy") != "drop" and not _drops_all(last.get((table, chain["name"]), [])):
            continue
        where = f"{chain['family']} {chain['table']} {chain['name']}"
        yield Obstacle(f"a firewall drops {HOOKS[hook]} (nftables chain {where})", _remedy(names, chain, hook, network))


def _place(rule: Mapping[str, Any]) -> tuple[tuple[str, str], str]:
    return (rule["family"], rule["table"]), rule["chain"]


def _drops_all(rule: Sequence[Mapping[str, Any]]) -> bool:
    """firewalld ends a chain so when its policy is to accept."""
    kinds = [kind for expression in rule for kind in expression]
    return any(kind in kinds for kind in ("drop", "reject")) and "match" not in kinds


def _names(rule: Mapping[str, Any], network: str) -> bool:
    address, _, length = network.partition("/")
    wanted = {"prefix": {"addr": address, "len": int(length or 32)}}
    return json.dumps(wanted) in json.dumps(rule)


def _remedy(names: set[str], chain: Mapping[str, Any], hook: str, network: str) -> str:
    """Commands of the firewall that made the chain."""
    if chain["table"] == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-source={network} && firewall-cmd --reload"
    if any(name.startswith("ufw-") for name in names) and chain["table"] == "filter":
        if hook == "input":
            return f"ufw allow from {network} to any port 53"
        return f"ufw route allow from {network} && ufw route allow to {network}"
    if "DOCKER-USER" in names and hook == "forward" and chain["table"] == "filter":
        return f"iptables -I DOCKER-USER -s {network} -j ACCEPT && iptables -I DOCKER-USER -d {network} -j ACCEPT"
    where = f"{chain['family']} {chain['table']} {chain['name']}"
    if hook == "input":
        ways = (f"nft insert rule {where} ip saddr {network} {way} dport 53 accept" for way in ("udp", "tcp"))
        return "; ".join(ways)
    return f"nft insert rule {where} ip saddr {network} accept; nft insert rule {where} ip daddr {network} accept"
