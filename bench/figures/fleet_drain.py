"""A host with sleeping, idle and active sessions drains while clients use them. No request may fail."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.client import Client, Refused
from bench.context import Context, each, stopwatch
from bench.fleets import AT_ONCE, Place, Several, deep_sleep, several
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

HOSTS = 2
WITHIN_SECONDS = 10  # after which the drain ends what is still awake
LOOK_SECONDS = 0.05
ACTIVE_PAUSE, LOOK_PAUSE, WAKE_PAUSE = 0.5, 0.2, 2.0  # seconds between two requests of one client
BEFORE_SECONDS = 5.0


@dataclass(slots=True)
class Clients:
    """What clients of the sessions see, which use any host."""

    clients: Sequence[Client]
    times: list[float] = field(default_factory=list)  # milliseconds of executes in active sessions
    requests: int = 0
    failed: list[str] = field(default_factory=list)

    async def keep(self, pause: float, request: Callable[[Client], Awaitable[float | None]]) -> None:
        """For ever."""
        while True:
            self.requests += 1
            try:
                spent = await request(random.choice(self.clients))
                if spent is not None:
                    self.times.append(spent)
            except (Refused, OSError) as failed:
                self.failed.append(str(failed))
            await asyncio.sleep(pause)


async def measure(context: Context) -> list[Row]:
    asleep, idle, active = context.scale.drained
    async with several(context, HOSTS, context.scale.fleet_pool) as fleet:
        place = fleet.places[0]
        sleeping = await _sleeping(fleet, place, asleep)
        idling = await fleet.create_on(place, idle)
        for session in idling:
            await place.client.sleep(session, "idle")
        active_ones = await fleet.create_on(place, active)
        seen = Clients(fleet.clients)
        users = _start(seen, active_ones, [*sleeping, *idling, *active_ones], sleeping)
        try:
            await asyncio.sleep(BEFORE_SECONDS)
            before, seen.times = seen.times, []
            ends = await _drain(fleet, place)
        finally:
            for user in users:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)
    whole = max(ends.values())
    parts = ", ".join(f"{state} {seconds:.1f} s" for state, seconds in ends.items())
    failed = f"; first failure: {seen.failed[0]}" if seen.failed else ""
    return [
        Row(
            figure="fleet-drain",
            what=f"drain of a host with {asleep} sleeping, {idle} idle and {active} active sessions, "
            f"--within {WITHIN_SECONDS}",
            measured=summarise([whole]),
            unit="s",
            checks=(Check("failed requests", len(seen.failed), 0, ""),),
            note=f"none left: {parts}; {seen.requests} requests{failed}",
        ),
        Row(
            figure="fleet-drain",
            what="executes in the active sessions meanwhile, through any host",
            measured=summarise(seen.times or [0.0]),
            baselines=(Baseline("before", summarise(before)),),
        ),
    ]


async def _sleeping(fleet: Several, place: Place, count: int) -> list[str]:
    made = list[str]()
    while len(made) < count:
        fresh = await fleet.create_on(place, min(count - len(made), 50))

        async def settle(session: str) -> None:
            await place.client.execute(session, command="echo kept > file")
            await deep_sleep(fleet, place.client, session)

        await each(fresh, settle, AT_ONCE)
        made += fresh
    return made


def _start(
    seen: Clients, active: Sequence[str], every: Sequence[str], sleeping: Sequence[str]
) -> list[asyncio.Task[None]]:
    def execute(session: str) -> Callable[[Client], Awaitable[float]]:
        return lambda client: stopwatch(client.execute(session, command="true"))

    async def look(client: Client) -> None:
        await client.get(f"/sessions/{random.choice(every)}")

    async def wake(client: Client) -> None:
        await client.execute(random.choice(sleeping), command="cat file")

    kept = [seen.keep(ACTIVE_PAUSE, execute(session)) for session in active]
    others = (seen.keep(LOOK_PAUSE, look), seen.keep(WAKE_PAUSE, wake))
    return [asyncio.create_task(work) for work in (*kept, *others)]


async def _drain(fleet: Several, place: Place) -> dict[str, float]:
    """Returns the seconds until the host had no session in each state, for the last time. Raises HostFailed."""
    asked = f"SELECT DISTINCT state FROM sessions WHERE host = '{place.id}'"
    began, ends = time.perf_counter(), dict[str, float]()
    command = ("hosts", "drain", place.id, "--within", str(WITHIN_SECONDS), "--wait")
    draining = asyncio.create_task(asyncio.to_thread(place.command, *command))
    while not draining.done():
        found = await asyncio.to_thread(fleet.fleet.database.execute, asked)
        ends |= {str(state): time.perf_counter() - began for (state,) in found}
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(draining), LOOK_SECONDS)
    await draining
    return {**ends, "the command": time.perf_counter() - began}
