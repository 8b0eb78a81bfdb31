"""Which host counts the small keys of an account. Pure.

Each host works it out for itself from the hosts that it sees, by rendezvous hashing: when a host comes or goes, only
the accounts move that it has or had. Two hosts that see different hosts for a second may disagree. That does no harm:
who counts takes its shares from the database.
"""

from collections.abc import Sequence
from hashlib import blake2b

from buntime.ports import Peer

MOST_KNOWN = 10_000  # accounts


class Homes:
    def __init__(self, host: str) -> None:
        """`host`: the id of this one, which is always among the hosts."""
        self._host = host
        self._hosts: Sequence[Peer] = ()
        self._known: dict[str, Peer | None] = {}

    def see(self, hosts: Sequence[Peer]) -> None:
        """The hosts whose leases run."""
        if hosts != self._hosts:
            self._hosts, self._known = hosts, {}

    @property
    def number(self) -> int:
        """How many hosts there are."""
        return len(self._others) + 1

    def of(self, account: str) -> Peer | None:
        """None is this host."""
        if account not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            best = max(self._others, key=lambda host: _weight(host.id, account), default=None)
            is_ours = best is None or _weight(self._host, account) > _weight(best.id, account)
            self._known[account] = None if is_ours else best
        return self._known[account]

    @property
    def _others(self) -> Sequence[Peer]:
        return [host for host in self._hosts if host.id != self._host]


def _weight(host: str, account: str) -> bytes:
    return blake2b(f"{host} {account}".encode(), digest_size=16).digest()
