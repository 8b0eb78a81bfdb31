import asyncio

import pytest

from bench.client import Refused
from bench.retrying import LATE, with_patience


class Host:
    """Refuses as often as it is told to, and answers then."""

    def __init__(self, *refusals: Refused) -> None:
        self._refusals = list(refusals)

    async def create(self) -> str:
        if self._refusals:
            raise self._refusals.pop(0)
        return "ses_1"


def busy(retry_after: int | None) -> Refused:
    return Refused("/sessions/create", 503, b"", retry_after)


def test_a_request_that_is_refused_for_now_is_sent_again() -> None:
    host = Host(busy(0), busy(0))
    assert asyncio.run(with_patience(host.create)) == ("ses_1", 2)


def test_a_request_with_a_key_is_sent_again_when_it_was_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.retrying.LATE_SECONDS", 0)
    late, going_on = Refused("/sessions/create", 408, b""), Refused("/sessions/create", 409, b"", 0)
    assert asyncio.run(with_patience(Host(late, going_on, busy(0)).create, again=LATE)) == ("ses_1", 3)
    with pytest.raises(Refused):
        asyncio.run(with_patience(Host(late).create))


@pytest.mark.parametrize("refused", [busy(None), busy(10), Refused("/sessions/create", 429, b"", 0)])
def test_another_refusal_and_one_for_too_long_are_final(refused: Refused) -> None:
    with pytest.raises(Refused) as raised:
        asyncio.run(with_patience(Host(refused).create, patience=5))
    assert raised.value is refused
