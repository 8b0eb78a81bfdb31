"""Triggers: what happens to the server while sessions fall asleep, sleep and wake."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from buntime.plan import SHORTEST_CHECKPOINT
from tests.torture.tracked_session import TrackedSession
from tests.torture.victim import NO_STEP, dies_within
from tests.torture.world import World
from tests.waiting import until

ON_DEMAND = ("idle", "deep", "idle, then deep")
AWAKE = "awake"
COPIED, COPIED_ASLEEP = "copied", "copied asleep"  # phases
WRITING = "writing"
BY_TIMER = "by timer"
ARCHIVED_SECONDS = 30.0
DEATH_SECONDS = 2.0
CHECKPOINT_SECONDS = 3.0 + SHORTEST_CHECKPOINT
LIE_SECONDS = 1.0
A_START = "some time during startup"
STARTS = (0.5, 0.7, 0.9)  # seconds after launch: between opening the store and the first requests

ONLY_ON_DEMAND = {"BUNTIME_IDLE_AFTER": "0", "BUNTIME_DEEP_SLEEP_AFTER": "0"}
SOON = {"BUNTIME_IDLE_AFTER": "1", "BUNTIME_DEEP_SLEEP_AFTER": "2"}
NO_CACHE = {"BUNTIME_CACHE_GB": "0"}
PRESSURE = {"BUNTIME_MEMORY_RESERVE_MB": "1000000000"}


def nothing(_: World) -> None: ...


def crash(world: World) -> None:
    world.victim.kill_if_alive()


def crash_at_starts(world: World) -> None:
    """Kills the server during recovery, at several times."""
    for seconds in STARTS:
        world.victim.start_and_die(seconds)
        world.outcome.kills[A_START] += 1
    world.ensure_running(ONLY_ON_DEMAND)


def stop(world: World) -> None:
    world.victim.end_cleanly()


def reboot(world: World) -> None:
    world.victim.reboot()


def cut_power(world: World) -> None:
    world.victim.cut_power()


def wait_for_eviction(world: World) -> None:
    """Waits until all volumes are archived and evicted, or the server dies."""
    until(lambda: not world.victim.alive or world.evicted(), "volumes to be archived and evicted", ARCHIVED_SECONDS)


def run_out_of_memory(world: World) -> None:
    world.ensure_running({**ONLY_ON_DEMAND, **PRESSURE})


def wait_for_pressure(world: World) -> None:
    """Waits until pressure has put suspended sessions into deep sleep. Then ends it, so that they can wake."""
    world.each(lambda tracked: tracked.fall_asleep(BY_TIMER))
    world.ensure_running(ONLY_ON_DEMAND)


def lose_the_archive(world: World) -> None:
    world.archive.take_away()


def wake_without_the_archive(world: World) -> None:
    """Checks that sessions without a local volume refuse to wake while the archive is away."""
    wait_for_eviction(world)
    world.archive.take_away()
    world.each(TrackedSession.wake_without_the_archive, world.asleep())
    world.archive.bring_back()


def make_the_archive_lie(world: World) -> None:
    world.victim.lies.touch()


def wait_for_the_truth(world: World) -> None:
    """Sessions are evicted once they are archived, so now each of them depends on what the archive has."""
    time.sleep(LIE_SECONDS)
    world.victim.lies.unlink()
    wait_for_eviction(world)


def wake_beside_the_archives_absence(world: World) -> None:
    """Wakes all sessions while the archive is away: their volumes are still on the host."""
    world.each(lambda tracked: tracked.wake("wake"))
    world.archive.bring_back()


def evict_and_cut_power(world: World) -> None:
    wait_for_eviction(world)
    cut_power(world)


@dataclass(frozen=True, slots=True)
class Trigger:
    name: str
    settings: Mapping[str, str] = field(default_factory=lambda: ONLY_ON_DEMAND)
    ways_to_sleep: Sequence[str] = (*ON_DEMAND, AWAKE)  # one is chosen at random per session
    before: Callable[[World], None] = nothing  # acts before sessions fall asleep
    between: Callable[[World], None] = nothing  # acts while they sleep
    kill_in: str = ""  # "sleep", "wake", COPIED or COPIED_ASLEEP: the phase with a kill at a random moment
    step: str = NO_STEP  # the server dies when it reaches this step
    power_lost: bool = False


KILLED = (*ON_DEMAND, AWAKE, WRITING)

TRIGGERS = (
    Trigger("on demand", ways_to_sleep=ON_DEMAND),
    Trigger("by timer", SOON, ways_to_sleep=(BY_TIMER,)),
    Trigger("memory pressure", ways_to_sleep=("idle",), before=run_out_of_memory, between=wait_for_pressure),
    Trigger("killed while they sleep", between=crash),
    Trigger("killed during startup", between=crash_at_starts),
    Trigger("stopped while they sleep", between=stop),
    Trigger("killed while they go to sleep", ways_to_sleep=KILLED, kill_in="sleep"),
    Trigger("killed while they wake", kill_in="wake"),
    Trigger("killed while they are copied", kill_in=COPIED),
    Trigger("killed while they are copied asleep", kill_in=COPIED_ASLEEP),
    Trigger(
        "eviction, killed while they are copied",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        ways_to_sleep=("deep",),
        between=wait_for_eviction,
        kill_in=COPIED_ASLEEP,
    ),
    Trigger("host restart", ways_to_sleep=KILLED, between=reboot),
    Trigger("power cut", ways_to_sleep=KILLED, between=cut_power, power_lost=True),
    Trigger("eviction", {**ONLY_ON_DEMAND, **NO_CACHE}, ways_to_sleep=("deep",), between=wait_for_eviction),
    Trigger("archive away", before=lose_the_archive, between=wake_beside_the_archives_absence),
    Trigger(
        "archive lies",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        ways_to_sleep=("deep",),
        before=make_the_archive_lie,
        between=wait_for_the_truth,
    ),
    Trigger(
        "archive away at the wake",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        ways_to_sleep=("deep", "idle"),
        between=wake_without_the_archive,
    ),
    Trigger(
        "eviction, killed while they wake",
        {**ONLY_ON_DEMAND, **NO_CACHE},
        ways_to_sleep=("deep",),
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


def kill_at_step(step: str, rng: random.Random) -> Trigger:
    """Returns a trigger that kills the server when it reaches the step, in whatever operation that is."""
    cache = rng.choice([NO_CACHE, {}])
    between = wait_for_eviction if cache else wait_a_little
    ways_to_sleep: tuple[str, ...] = (*ON_DEMAND, AWAKE) if step.startswith("suspend") else ("deep", "idle, then deep")
    if step.startswith("checkpoint"):
        ways_to_sleep, between = (AWAKE,), wait_for_checkpoint
    return Trigger(f"killed at {step}", {**ONLY_ON_DEMAND, **cache}, ways_to_sleep, between=between, step=step)


def wait_a_little(world: World) -> None:
    """Gives the server time to die while it archives, which it does in the background."""
    if world.victim.step.startswith("archive"):
        dies_within(world.victim, DEATH_SECONDS)


def wait_for_checkpoint(world: World) -> None:
    """Gives the server time to die in a checkpoint."""
    dies_within(world.victim, CHECKPOINT_SECONDS)


def order(cycles: int, rng: random.Random) -> list[Trigger]:
    """Returns `cycles` triggers: all in random order, then all again in another order, and so on."""
    turns: list[Trigger] = []
    while len(turns) < cycles:
        turns += rng.sample(TRIGGERS, len(TRIGGERS))
    return turns[:cycles]
