"""What is done to the server while sessions go to sleep, sleep and wake."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.torture.life import Life
from tests.torture.victim import NO_STEP, dies
from tests.torture.world import World
from tests.waiting import until

ON_DEMAND = ("idle", "deep", "idle, then deep")
AWAKE = "awake"
WRITING = "writing"
BY_ITSELF = "by itself"
ARCHIVED_SECONDS = 30.0
DEATH_SECONDS = 2.0
A_START = "a moment of a start"
STARTS = (0.5, 0.7, 0.9)  # seconds after the beginning: from the opening of the store to the first requests

ONLY_ON_DEMAND = {"BUNTIME_IDLE_AFTER": "0", "BUNTIME_DEEP_SLEEP_AFTER": "0"}
SOON = {"BUNTIME_IDLE_AFTER": "1", "BUNTIME_DEEP_SLEEP_AFTER": "2"}
NO_CACHE = {"BUNTIME_CACHE_GB": "0"}
PRESSURE = {"BUNTIME_MEMORY_RESERVE_MB": "1000000000"}


def nothing(_: World) -> None: ...


def crash(world: World) -> None:
    world.victim.down()


def crash_at_starts(world: World) -> None:
    """Recovery may be killed too."""
    for seconds in STARTS:
        world.victim.start_and_die(seconds)
        world.outcome.kills[A_START] += 1
    world.up(ONLY_ON_DEMAND)


def stop(world: World) -> None:
    world.victim.end_cleanly()


def reboot(world: World) -> None:
    world.victim.reboot()


def cut_power(world: World) -> None:
    world.victim.cut_power()


def wait_for_eviction(world: World) -> None:
    """Where the server lives to see it."""
    until(lambda: not world.victim.alive or world.evicted(), "archived and evicted", ARCHIVED_SECONDS)


def run_out_of_memory(world: World) -> None:
    world.up({**ONLY_ON_DEMAND, **PRESSURE})


def wait_for_pressure(world: World) -> None:
    """Suspended sessions go down early. Nobody wakes on such a host, so it gets its memory back."""
    world.each(lambda life: life.go_down(BY_ITSELF))
    world.up(ONLY_ON_DEMAND)


def lose_the_archive(world: World) -> None:
    world.place.take_away()


def wake_without_the_archive(world: World) -> None:
    """Those that need it are told to come again, and are whole when it is back."""
    wait_for_eviction(world)
    world.place.take_away()
    world.each(Life.wake_without_the_archive, world.asleep())
    world.place.bring_back()


def wake_beside_the_archives_absence(world: World) -> None:
    """They slept without it, so their volumes are here: all wake."""
    world.each(lambda life: life.come_back("wake"))
    world.place.bring_back()


def evict_and_cut_power(world: World) -> None:
    wait_for_eviction(world)
    cut_power(world)


@dataclass(frozen=True, slots=True)
class Trigger:
    name: str
    settings: Mapping[str, str] = field(default_factory=lambda: ONLY_ON_DEMAND)
    downs: Sequence[str] = (*ON_DEMAND, AWAKE)  # the ways that sessions go to sleep meanwhile
    before: Callable[[World], None] = nothing  # they go
    between: Callable[[World], None] = nothing  # while they sleep
    kill_in: str = ""  # "sleep" or "wake": killed at a random moment of it
    step: str = NO_STEP  # killed where it passes this
    power_lost: bool = False


KILLED = (*ON_DEMAND, AWAKE, WRITING)

TRIGGERS = (
    Trigger("on demand", downs=ON_DEMAND),
    Trigger("by itself", SOON, downs=(BY_ITSELF,)),
    Trigger("memory pressure", downs=("idle",), before=run_out_of_memory, between=wait_for_pressure),
    Trigger("killed while they sleep", between=crash),
    Trigger("killed at its starts", between=crash_at_starts),
    Trigger("stopped while they sleep", between=stop),
    Trigger("killed while they go to sleep", downs=KILLED, kill_in="sleep"),
    Trigger("killed while they wake", kill_in="wake"),
    Trigger("host restart", downs=KILLED, between=reboot),
    Trigger("power cut", downs=KILLED, between=cut_power, power_lost=True),
    Trigger("eviction", {**ONLY_ON_DEMAND, **NO_CACHE}, downs=("deep",), between=wait_for_eviction),
    Trigger("archive away", before=lose_the_archive, between=wake_beside_the_archives_absence),
    Trigger(
        "archive away at the wake",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        downs=("deep", "idle"),
        between=wake_without_the_archive,
    ),
    Trigger(
        "eviction, killed while they wake",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        downs=("deep",),
        between=wait_for_eviction,
        kill_in="wake",
    ),
    Trigger(
        "eviction, power cut",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        between=evict_and_cut_power,
        power_lost=True,
    ),
)


def at_step(step: str, chance: random.Random) -> Trigger:
    """Killed where it passes the step, wherever that is: while sessions go to sleep, sleep, wake, come or go."""
    cache = chance.choice([NO_CACHE, {}])
    between = wait_for_eviction if cache else wait_a_little
    downs = (*ON_DEMAND, AWAKE) if step.startswith("suspend") else ("deep", "idle, then deep")
    return Trigger(f"killed at {step}", {**ONLY_ON_DEMAND, **cache}, downs, between=between, step=step)


def wait_a_little(world: World) -> None:
    """The archive is filled behind the sleep."""
    if world.victim.step.startswith("archive"):
        dies(world.victim, DEATH_SECONDS)


def order(cycles: int, chance: random.Random) -> list[Trigger]:
    """Every trigger as often as the others, in random order."""
    turns: list[Trigger] = []
    while len(turns) < cycles:
        turns += chance.sample(TRIGGERS, len(TRIGGERS))
    return turns[:cycles]
