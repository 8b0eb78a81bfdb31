"""Which host makes a new session: the best of a few, by what they report. The host's own word is final."""

from collections.abc import Sequence

from buntime.ports import AnotherHost, Owners, Peer

MOST_TRIED = 3  # hosts for one new session


class TakenElsewhere(AnotherHost):
    """Another host shall make the session. This one has done nothing for it."""

    def __init__(self, peer: Peer, rest: Sequence[Peer]) -> None:
        """`rest`: the hosts to ask next, if that one cannot."""
        super().__init__(peer)
        self.rest = rest


class Placing:
    def __init__(self, owners: Owners, me: Peer | None) -> None:
        """`me`: this host as the others reach it, if it is in a fleet."""
        self._owners = owners
        self._me = me

    async def begin(self, image: str, chosen: Sequence[Peer] | None) -> Sequence[Peer]:
        """Returns the hosts to ask if this one cannot make the session. Raises TakenElsewhere if a better one shall.

        `chosen`: those hosts, where another one has chosen them, and this one before them.
        """
        if chosen is not None:
            return chosen[:MOST_TRIED]
        found = list(await self._owners.candidates(image))[:MOST_TRIED] or [None]
        peers = [peer for each in found if (peer := each or self._me)]
        if found[0] is not None:
            raise TakenElsewhere(found[0], peers[1:])
        return peers[1:]

    @staticmethod
    def go_on(rest: Sequence[Peer]) -> None:
        """This host has no room. Raises TakenElsewhere if another one may have some."""
        if rest:
            raise TakenElsewhere(rest[0], rest[1:])
