"""The network of sandboxes: a namespace with a veth pair for each, one nftables table for all. Blocking."""

import pwd
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from ipaddress import IPv4Address

import structlog

from buntime.daemon.listening import Listening
from buntime.egress import Rules, rules_of
from buntime.fleet.neighbours import Endpoint
from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.edge_rules import edge_rules
from buntime.sandboxes.network.elements import Element, Elements, Port, merged
from buntime.sandboxes.network.gateway import put_gateway, remove_gateway
from buntime.sandboxes.network.host_settings import raise_host_settings
from buntime.sandboxes.network.nfnetlink import Connection
from buntime.sandboxes.network.put import put_elements
from buntime.sandboxes.network.read_table import elements, expiring_addresses, leads_to
from buntime.sandboxes.network.rules import (
    TIMEOUTS,
    TOUCH_SECONDS,
    Learned,
    elements_of,
    version,
    whole,
)
from buntime.sandboxes.network.veth import Namespace, Namespaces
from buntime.session import DEFAULT_NETWORK

log = structlog.get_logger()

DEFAULT_RULES = rules_of(DEFAULT_NETWORK)

EDGE_USERS = ("buntime-edge", "www-data")  # nginx's workers; the first of these users that exists
KNOWN = 1024  # addresses of names that one session may reach at a time
SHORTEST, LONGEST = 60, 3600  # seconds that an answered address stays reachable for new connections
MARGIN = 5  # seconds beyond an answer's own time: a program may connect at its end
ENTRANCES = (("forward", "from_session"), ("input", "to_host"), ("output", "from_host"))  # chains, where they lead
TOUCH_BLUR = 0.1  # seconds, by which two looks at the same touch may differ


class Network:
    """All sandboxes' connections to the world, for one server. Several threads may call its methods."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._namespaces: Namespaces | None = None
        self._edge_user: int | None = None
        self._edge_rules = ""
        self._short = False  # whether this kernel takes TIMEOUTS
        self._tables = Connection()
        self._changing = threading.Lock()  # held while the table, and what is known of it, changes
        self._rules: dict[int, Rules] = {}  # slot → its rules, where they are not the default
        self._doubted: set[int] = set()  # slots for which the kernel may have other rules than these
        self._hosts: Elements = {}  # where the other hosts of the fleet listen
        self._learned: dict[int, dict[Learned, float]] = {}  # slot → answered addresses, until when (monotonic)
        self._touches: dict[int, float] = {}  # slot → its last activity, on the monotonic clock

    @property
    def table(self) -> str:
        return f"buntime_{self._part.instance}"

    @property
    def resolver(self) -> str:
        return self._part.resolver

    @property
    def gateway(self) -> str:
        return self._part.gateway

    def open(self, rules: Mapping[int, Rules], edge: Listening | None = None) -> None:
        """Puts the host settings, the gateway and the rules in force. `rules`: of the slots whose sandboxes may still
        run. `edge`: where its connections are counted.

        Raises HostCommandFailed. No sandbox may start then.
        """
        self._namespaces = Namespaces(self._part)
        self._short = takes_timeouts()
        with _kernel("the gateway of sandboxes"):
            put_gateway(self._part)
        self._edge_user = edge_user()
        self._edge_rules = edge_rules(edge, self._part.interfaces) if edge else ""
        with self._changing:
            self._rules = {slot: rules[slot] for slot in rules if elements_of(self._part.address(slot), rules[slot])}
            self._learned = self._still_known()
            self._put()
        raise_host_settings(self._part.slots)  # after the rules: some belong to modules that these load

    def ensure(self) -> bool:
        """Puts the rules back if somebody has flushed them, or if those of a slot could not be put. Returns whether
        they were there.

        Debian's nftables.service flushes all rules at each of its restarts. Raises HostCommandFailed.
        """
        with self._changing:
            with _kernel("the rules of sandboxes"):
                there = all(target in leads_to(self._tables, self.table, chain) for chain, target in ENTRANCES)
            if not there or self._doubted:
                self._put()
            return there

    def close(self) -> None:
        """Keeps what running sandboxes need."""
        self._tables.close()
        if self._namespaces is not None:
            self._namespaces.close()

    def remove(self) -> None:
        """For a purge, when no sandbox is left. Idempotent."""
        call(["nft", "-f", "-"], f"table inet {self.table}\ndelete table inet {self.table}\n")
        with _kernel("the gateway of sandboxes"):
            remove_gateway(self._part)

    # --- rules ---

    def restrict(self, slot: int, rules: Rules, lives: Callable[[], bool] = lambda: True) -> bool:
        """Takes effect at once, on open connections too. `lives`: whether the sandbox that the rules are for still has
        the slot. Returns False, with nothing changed, where it has not: the slot may be another one's by now.

        Raises HostCommandFailed where the kernel may still have the rules before. The next call puts these all the
        same, and `ensure` tries again.
        """
        with self._changing:
            if not lives():
                return False
            if self._rules.get(slot) != rules or slot in self._doubted:
                self._put_rules(slot, rules)
            return True

    def _put_rules(self, slot: int, rules: Rules) -> None:
        old = self._elements(slot) if slot in self._rules else {}
        new = elements_of(self._part.address(slot), rules)
        self._learned.pop(slot, None)
        if new:
            self._rules[slot] = rules
        else:
            self._rules.pop(slot, None)
        if slot in self._doubted:  # nobody knows what to take out
            self._put()
        elif old or new:
            self._doubted.add(slot)
            try:
                put_elements(self._tables, self.table, old, new)
            except OSError as refused:  # somebody has just flushed the rules
                log.warning("rules_put_anew", reason=str(refused))
                self._put()
            self._doubted.discard(slot)

    def close_hosts(self, hosts: Collection[Endpoint]) -> None:
        """No session may connect to these listeners for hosts. Replaces what was given before. Sandboxes have no IPv6.
        Raises HostCommandFailed."""
        found = [Element((each.address, Port(each.port))) for each in hosts if isinstance(each.address, IPv4Address)]
        new = {"hosts": found} if found else {}
        with self._changing:
            old, self._hosts = self._hosts, new
            try:
                put_elements(self._tables, self.table, old, new)
            except OSError as refused:  # somebody has just flushed the rules
                log.warning("rules_put_anew", reason=str(refused))
                self._put()

    def forget(self, slot: int) -> None:
        """The next sandbox at this address starts with the default rules. Raises HostCommandFailed.

        To be called when what had the slot lives no more: see `restrict`.
        """
        self.restrict(slot, DEFAULT_RULES)

    def rules_at(self, address: str) -> tuple[int, Rules] | None:
        """The slot of an address and its rules. None where the address belongs to no sandbox."""
        slot = self._part.slot_of(IPv4Address(address))
        return None if slot is None else (slot, self._rules.get(slot, DEFAULT_RULES))

    def restricted(self) -> list[tuple[int, Rules]]:
        """Slots whose rules are not the default."""
        return list(self._rules.items())

    def learn(self, slot: int, rules: Rules, kind: str, addresses: Iterable[IPv4Address], seconds: float) -> bool:
        """Adds addresses that were answered for names. `kind`: "allowed_names" or "denied_names". `rules`: those of
        the slot that the answer was judged by. `seconds`: how long the addresses hold for new connections, at least.

        They are in force when this returns. Returns False, and adds nothing, where the slot has other rules by now or
        too many addresses. Raises OSError.
        """
        lasting, now = max(SHORTEST, min(seconds, LONGEST)) + MARGIN, time.monotonic()
        with self._changing:
            if self._rules.get(slot) != rules:
                return False
            known = {what: end for what, end in self._learned.get(slot, {}).items() if end > now}
            fresh = [what for what in (Learned(kind, a) for a in addresses) if known.get(what, 0.0) < now + seconds]
            if len(known.keys() | set(fresh)) > KNOWN:
                return False
            if fresh:
                session = IPv4Address(self._part.address(slot))
                put_elements(
                    self._tables, self.table, *_renewed(kind, [(session, what.address) for what in fresh], lasting)
                )
            self._learned[slot] = known | dict.fromkeys(fresh, now + lasting)
            return True

    def _put(self) -> None:
        every = merged([self._hosts, *(self._elements(slot) for slot in self._rules)])
        rules = whole(self.table, self._part, self._edge_user, every, self._edge_rules, short=self._short)
        call(["nft", "-f", "-"], rules)
        self._doubted.clear()

    def _elements(self, slot: int) -> dict[str, list[Element]]:
        """One slot's elements of all sets, with the addresses that it has learned."""
        address, now = self._part.address(slot), time.monotonic()
        found = elements_of(address, self._rules[slot])
        for what, end in self._learned.get(slot, {}).items():
            if end > now:
                learned = Element((IPv4Address(address), what.address), seconds=end - now)
                found.setdefault(what.set, []).append(learned)
        return found

    def _still_known(self) -> dict[int, dict[Learned, float]]:
        """What an earlier server has learned for slots whose rules are still the same."""
        known: dict[int, dict[Learned, float]] = {}
        now, versions = time.monotonic(), {key for key, _ in self._listed("passed")}
        for kind in ("allowed_names", "denied_names"):
            for key, left in self._listed(kind):
                session, answered = IPv4Address(key[:4]), IPv4Address(key[4:])
                slot = self._part.slot_of(session)
                rules = None if slot is None else self._rules.get(slot)
                if slot is None or rules is None:
                    continue
                if Element((session, version(str(session), rules))).packed_key in versions:
                    known.setdefault(slot, {})[Learned(kind, answered)] = now + left
        return known

    def _listed(self, name: str) -> Iterator[tuple[bytes, float]]:
        """What is in a set, each with the seconds that it has left. Yields nothing where the set does not exist."""
        with suppress(OSError):
            yield from elements(self._tables, self.table, name)

    def touched(self) -> set[int]:
        """Slots of sandboxes, suspended ones included, that got data on connections into them since the last call and
        within TOUCH_SECONDS. For one caller. Blocking; takes less than a millisecond for few slots.

        Empty where the kernel cannot tell now. The next call makes up for it.
        """
        before, now = self._touches, time.monotonic()
        try:
            left = expiring_addresses(self._tables, self.table, "touched")
        except OSError as failed:  # somebody flushed the rules (see `ensure`), or the host is short of something
            log.warning("touches_not_read", reason=str(failed))
            return set()
        self._touches = {
            slot: now - TOUCH_SECONDS + rest
            for address, rest in left.items()
            if (slot := self._part.slot_of(address)) is not None
        }
        return {slot for slot, at in self._touches.items() if at > before.get(slot, 0.0) + TOUCH_BLUR}

    def make(self, slot: int) -> Namespace:
        """A namespace with its `eth0`, connected to the host. Raises HostCommandFailed."""
        assert self._namespaces is not None, "the network is not open"
        with _kernel("the network of a sandbox"):
            return self._namespaces.make(slot)

    async def clear(self, init: int, *, often: bool) -> None:
        """See `Namespaces.clear`. Raises HostCommandFailed."""
        assert self._namespaces is not None, "the network is not open"
        with _kernel("the ports of a sandbox"):
            await self._namespaces.clear(init, often=often)


def edge_user() -> int | None:
    """The user id of nginx's workers, which may open connections to sandboxes."""
    for name in EDGE_USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


@cache
def takes_timeouts() -> bool:
    """Whether the kernel lets connections of sessions have timeouts of their own (CONFIG_NF_CONNTRACK_TIMEOUT). The
    doctor and `Network.open` both ask at a start."""
    try:
        check_rules(f"table inet buntime_check {{\n{TIMEOUTS}\n}}\n")
    except HostCommandFailed as refused:
        log.warning("ended_connections_take_room_longer", reason=str(refused))
        return False
    return True


def check_rules(rules: str) -> None:
    """Puts nothing in force, but may load modules of the kernel. Raises HostCommandFailed where it refuses the rules.

    In a network namespace of its own: nft lists all rules that are there, which takes longer on a host with thousands
    of sandboxes.
    """
    call(["unshare", "--net", "nft", "--check", "-f", "-"], rules)


@contextmanager
def _kernel(what: str) -> Iterator[None]:
    """Raises HostCommandFailed where the kernel refuses what is done for `what`."""
    try:
        yield
    except OSError as refused:
        raise HostCommandFailed(f"{what}: {refused}") from refused


def _renewed(
    kind: str, pairs: Iterable[tuple[IPv4Address, IPv4Address]], seconds: float
) -> tuple[dict[str, list[Element]], dict[str, list[Element]]]:
    """Pairs to take out of a set and to put in, so that their time starts again."""
    new = [Element(pair, seconds=seconds) for pair in pairs]
    return {kind: new}, {kind: new}
