"""The torture: sessions sleep and wake while the server is killed, stopped and restarted. No session may lose data."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.crashing_server import named_steps
from tests.torture.archive import ArchiveControl
from tests.torture.tracked_session import WAYS_TO_WAKE, TrackedSession
from tests.torture.triggers import AWAKE, ONLY_ON_DEMAND, WRITING, Trigger, kill_at_step, order
from tests.torture.victim import NO_STEP, Gone, Victim, retry, send
from tests.torture.world import Outcome, Say, World
from tests.waiting import until

CHANGES = 40  # per tree between two sleeps
WRITES_SECONDS = 0.1  # minimum, before the trigger acts
CREATE_OR_DELETE = {"claim", "create", "delete", "remove"}  # groups of steps that neither sleep nor wake reaches
SNAPSHOTS = 2  # per session: the newest and the previous one


@dataclass(frozen=True, slots=True)
class Scale:
    sessions: int
    cycles: int  # triggers take turns
    kills: int  # at named steps, after the cycles
    seconds: float  # no round starts after this time


def torture(victim: Victim, archive: ArchiveControl, seed: str, scale: Scale, say: Say) -> Outcome:
    """Raises AssertionError if the server cannot continue, or if something is left over at the end."""
    ends, rng = time.monotonic() + scale.seconds, random.Random(seed)
    world = World(victim, archive, say)
    world.ensure_running(ONLY_ON_DEMAND)
    client = victim.new_client("enterprise")

    def create(number: int) -> TrackedSession:
        name = f"{seed}-{number}"
        return TrackedSession(client, name, random.Random(name))

    with ThreadPoolExecutor(scale.sessions) as pool:
        all_sessions = world.sessions = list(pool.map(create, range(scale.sessions)))
    turns = order(scale.cycles, rng)
    for number, trigger in enumerate(turns, 1):
        if world.sessions and time.monotonic() < ends:
            _round(world, client, trigger, trigger, rng, f"{number}/{len(turns)}")
    if scale.kills:
        _kill_at_steps(world, client, rng, scale.kills, ends)
    world.outcome.sleeps = sum(tracked.sleeps for tracked in all_sessions)
    _finish(world, client, all_sessions)
    world.outcome.refused = victim.said().count('"status": 503')
    return world.outcome


def _kill_at_steps(world: World, client: Client, rng: random.Random, count: int, ends: float) -> None:
    steps, kills = named_steps(), 0
    trigger = kill_at_step(rng.choice(steps), rng)
    while kills < count and world.sessions and time.monotonic() < ends:
        next_trigger = kill_at_step(rng.choice(steps), rng)
        _round(world, client, trigger, next_trigger, rng, f"kill {kills + 1}/{count}")
        kills = sum(world.outcome.kills[step] for step in steps)
        trigger = next_trigger


def _round(
    world: World, client: Client, trigger: Trigger, next_trigger: Trigger, rng: random.Random, shown: str
) -> None:
    """Runs one cycle. If the server dies, it is restarted with the settings of `next_trigger`."""
    began = time.monotonic()
    world.ensure_running(trigger.settings, trigger.step)
    for tracked in world.sessions:
        tracked.note(f"[{trigger.name}]")
    world.each(lambda tracked: tracked.change(CHANGES))
    trigger.before(world)
    if trigger.step != NO_STEP:
        world.victim.arm()
    _sleep(world, client, trigger, rng)
    died = world.restart_if_dead(next_trigger.settings, next_trigger.step)
    world.each(TrackedSession.check_state)
    killer = world.kill_soon(rng) if trigger.kill_in == "wake" else None
    world.each(lambda tracked: tracked.wake(tracked.rng.choice(list(WAYS_TO_WAKE))))
    if killer is not None:
        killer.join()
    world.victim.disarm()
    died = world.restart_if_dead(next_trigger.settings, next_trigger.step) or died
    if trigger.step != NO_STEP and not died:
        world.outcome.not_reached[trigger.step] += 1
    world.each(TrackedSession.check_after_power_cut if trigger.power_lost else TrackedSession.check)
    world.say(f"{shown}  {trigger.name}: {world.count()} sleeps so far, {time.monotonic() - began:.1f} s")


def _sleep(world: World, client: Client, trigger: Trigger, rng: random.Random) -> None:
    """Puts sessions to sleep and runs the trigger's action. Returns when both are done."""
    ways = {tracked.name: tracked.rng.choice(list(trigger.ways_to_sleep)) for tracked in world.sessions}
    sleepers = [tracked for tracked in world.sessions if ways[tracked.name] not in (AWAKE, WRITING)]
    writers = [tracked for tracked in world.sessions if ways[tracked.name] == WRITING]
    ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        for tracked in world.sessions:
            tracked.kept = False
        writing = pool.submit(world.each, lambda tracked: tracked.write_until(ended), writers)
        passing = pool.submit(_create_and_delete, client, trigger)
        killer = world.kill_soon(rng) if trigger.kill_in == "sleep" else None
        try:
            world.each(lambda tracked: tracked.fall_asleep(ways[tracked.name]), sleepers)
            time.sleep(WRITES_SECONDS if writers else 0)
            passing.result()
            trigger.between(world)
            if killer is not None:
                killer.join()
        finally:
            ended.set()
        writing.result()


def _create_and_delete(client: Client, trigger: Trigger) -> None:
    """Creates and deletes a session if the trigger's step is part of that."""
    if trigger.step.partition(":")[0] in CREATE_OR_DELETE:
        with suppress(Gone):
            made = Session(client, retry(client.create).done()["sessionId"])
            deep = {"depth": "deep-sleep"}
            retry(lambda: client.call("POST", f"/sessions/{made.id}/sleep", json_body=deep)).done()
            retry(made.delete).done()


def _finish(world: World, client: Client, all_sessions: list[TrackedSession]) -> None:
    """Deletes strays, checks each session once more, and checks that the host and the archive have no leftovers."""
    config = world.victim.config
    world.ensure_running(ONLY_ON_DEMAND)
    names = {tracked.session.id for tracked in all_sessions}
    strays: list[str] = []
    while found := _others(client, names):
        for stray in found:
            send(Session(client, stray).delete).done()
        strays += found
    world.each(lambda tracked: tracked.fall_asleep("deep"))
    alive = {tracked.session.id for tracked in world.sessions}

    def tidy() -> bool:
        objects = [name.partition("/")[0] for name in world.archive.objects([*names, *strays])]
        return {*objects} - (names - alive) == alive and all(objects.count(name) <= SNAPSHOTS for name in alive)

    until(tidy, f"an archive with at most {SNAPSHOTS} objects for each of {sorted(alive)} and no others")
    world.each(lambda tracked: tracked.wake("wake"))
    world.each(TrackedSession.check)
    world.each(TrackedSession.check_disk)
    for tracked in all_sessions:
        retry(tracked.session.delete)
    until(lambda: not world.archive.objects([*names, *strays]), "the archive to drop objects of deleted sessions")
    traces.wait_until_whole(config, 0)
    until(lambda: len(traces.interfaces(config)) == 1, "all network interfaces except the gateway to disappear")


def _others(client: Client, names: set[str]) -> list[str]:
    """Returns up to a page of other sessions: they were created, but not deleted, when the server died."""
    listed = client.call("GET", "/sessions", query={"limit": 100}).done()["sessions"]
    return [entry["sessionId"] for entry in listed if entry["sessionId"] not in names]
