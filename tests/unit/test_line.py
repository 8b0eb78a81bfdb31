"""A burst of claims is served at the pace of the host, or told when it can be."""

import asyncio

import pytest

from buntime.errors import Unavailable
from buntime.sandboxes.line import FIRST_PACE, LONGEST_RETRY, LONGEST_WAIT, Line
from tests.app.serving import Clock

AT_ONCE = 4


class Host:
    """Starts sandboxes, a few at a time, each in so many seconds of a clock that the test turns."""

    def __init__(self, seconds: float) -> None:
        self.clock = Clock(1000.0)
        self.line = Line(self.clock)
        self.seconds = seconds
        self.served = 0
        self.told: list[int] = []
        self._places = asyncio.Semaphore(AT_ONCE)

    async def claim(self) -> None:
        try:
            self.line.require()
        except Unavailable as refused:
            self.told.append(int(str(refused.details["retryAfter"])))
            return
        with self.line.place():
            async with self._places:
                ready = self.clock.now + self.seconds
                while self.clock.now < ready:  # noqa: ASYNC110 - the test turns the clock
                    await asyncio.sleep(0)
        self.served += 1

    async def burst(self, count: int) -> None:
        claims = asyncio.gather(*(self.claim() for _ in range(count)))
        while not claims.done():
            await asyncio.sleep(0)
            self.clock.now += self.seconds / 20
        await claims


async def test_a_claim_alone_is_never_refused() -> None:
    host = Host(seconds=60.0)
    for _ in range(5):
        await host.burst(1)
    assert (host.served, host.told) == (5, [])


async def test_a_burst_is_served_as_far_as_its_time_goes_and_the_rest_is_told_to_come_later() -> None:
    host = Host(seconds=0.2)
    await host.burst(500)
    assert host.served == int(LONGEST_WAIT / FIRST_PACE)
    assert host.served + len(host.told) == 500
    assert host.told == sorted(host.told)
    assert 1 <= host.told[0] < host.told[-1] <= LONGEST_RETRY


async def test_those_that_come_back_when_they_were_told_are_served() -> None:
    host = Host(seconds=0.2)
    began, refusals = host.clock.now, 0
    claims: list[asyncio.Task[None]] = []
    back = [began] * 500
    while back or not all(claim.done() for claim in claims):
        due = [at for at in back if at <= host.clock.now]
        back = [at for at in back if at > host.clock.now]
        host.told = []
        claims += [asyncio.create_task(host.claim()) for _ in due]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        back += [host.clock.now + seconds for seconds in host.told]
        refusals += len(host.told)
        host.clock.now += 0.01
    assert host.served == 500
    assert refusals < 500, "most must be served when they come back, even those that were refused at first"
    assert host.clock.now - began < 500 * host.seconds / AT_ONCE + LONGEST_WAIT


async def test_a_host_that_turned_out_to_be_slow_lets_fewer_wait() -> None:
    host = Host(seconds=4.0)
    await host.burst(20)
    assert (host.served, host.told) == (20, [])
    await host.burst(20)
    assert host.served < 40
    assert all(1 <= seconds <= LONGEST_RETRY for seconds in host.told)


async def test_a_host_that_was_slow_for_a_while_serves_bursts_again() -> None:
    host = Host(seconds=20.0)
    await host.burst(10)
    host.seconds, host.served, host.told = 0.2, 0, []
    await host.burst(1)
    await host.burst(50)
    assert host.served + len(host.told) == 51
    assert host.served >= 30


@pytest.mark.parametrize("fails", [RuntimeError, asyncio.CancelledError])
async def test_a_start_that_fails_leaves_the_line(fails: type[BaseException]) -> None:
    line = Line()
    with pytest.raises(fails), line.place():
        raise fails
    assert line.waiting == 0
