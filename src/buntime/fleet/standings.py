"""What hosts tell each other about requests that are counted, as JSON.

`POST /.hosts/count` takes `[[account, key, rate], …]` and answers with two standings for each, the key's own and the
one that decides, or null for the second where the key's own decides.
"""

from collections.abc import Sequence

import msgspec

from buntime.fleet.rates import Asked, PeerAway
from buntime.rates import Standing, Standings

type _Standing = tuple[int, int, int, float, bool]


def body_of(asked: Sequence[Asked]) -> bytes:
    return msgspec.json.encode([(each.account, each.key, each.rate) for each in asked])


def asked_of(body: bytes) -> Sequence[Asked]:
    """Raises msgspec.DecodeError."""
    return [Asked(*each) for each in msgspec.json.decode(body, type=list[tuple[str, str, int]])]


def answer_of(counted: Sequence[Standings]) -> bytes:
    return msgspec.json.encode([(_told(own), None if own is decides else _told(decides)) for own, decides in counted])


def counted_of(body: bytes, number: int) -> Sequence[Standings]:
    """Raises PeerAway and msgspec.DecodeError."""
    told = msgspec.json.decode(body, type=list[tuple[_Standing, _Standing | None]])
    if len(told) != number:
        raise PeerAway("It answered another question.")
    counted = []
    for own, decides in told:
        standing = Standing(*own)
        counted.append((standing, standing if decides is None else Standing(*decides)))
    return counted


def _told(standing: Standing) -> _Standing:
    return (standing.limit, standing.remaining, standing.reset, standing.seconds, standing.allowed)
