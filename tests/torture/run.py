"""The torture: sessions sleep and wake while all that can happen to a server happens, and nothing of them is lost."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.crashing_server import named_steps
from tests.torture.life import UP, Life
from tests.torture.place import Place
from tests.torture.triggers import AWAKE, ONLY_ON_DEMAND, WRITING, Trigger, at_step, order
from tests.torture.victim import NO_STEP, Gone, Victim, once, patiently
from tests.torture.world import Outcome, Say, World
from tests.waiting import until

CHANGES = 40  # of each tree between two sleeps
WRITES_SECONDS = 0.1  # at least, before something happens to the server
COME_OR_GO = {"claim", "create", "delete", "remove"}  # steps that no sleep or wake passes
SNAPSHOTS = 2  # of a session: the newest, and the one before


@dataclass(frozen=True, slots=True)
class Scale:
    sessions: int
    cycles: int  # by every trigger in turn
    kills: int  # at named steps, after the cycles
    seconds: float  # after which no round is begun


def torture(victim: Victim, place: Place, seed: str, scale: Scale, say: Say) -> Outcome:
    """Raises AssertionError where the server itself cannot go on, or something is left over at the end."""
    ends, chance = time.monotonic() + scale.seconds, random.Random(seed)
    world = World(victim, place, say)
    world.up(ONLY_ON_DEMAND)
    client = victim.new_client("enterprise")

    def born(number: int) -> Life:
        name = f"{seed}-{number}"
        return Life(client, name, random.Random(name))

    with ThreadPoolExecutor(scale.sessions) as pool:
        everyone = world.lives = list(pool.map(born, range(scale.sessions)))
    turns = order(scale.cycles, chance)
    for number, trigger in enumerate(turns, 1):
        if world.lives and time.monotonic() < ends:
            _round(world, client, trigger, trigger, chance, f"{number}/{len(turns)}")
    if scale.kills:
        _kill_at_steps(world, client, chance, scale.kills, ends)
    world.outcome.sleeps = sum(life.sleeps for life in everyone)
    _settle(world, client, everyone)
    world.outcome.refused = victim.said().count('"status": 503')
    return world.outcome


def _kill_at_steps(world: World, client: Client, chance: random.Random, count: int, ends: float) -> None:
    steps, kills = named_steps(), 0
    trigger = at_step(chance.choice(steps), chance)
    while kills < count and world.lives and time.monotonic() < ends:
        then = at_step(chance.choice(steps), chance)
        _round(world, client, trigger, then, chance, f"kill {kills + 1}/{count}")
        kills = sum(world.outcome.kills[step] for step in steps)
        trigger = then


def _round(world: World, client: Client, trigger: Trigger, then: Trigger, chance: random.Random, shown: str) -> None:
    """`then`: what the server is started for where it dies in this one."""
    began = time.monotonic()
    world.up(trigger.settings, trigger.step)
    for life in world.lives:
        life.note(f"[{trigger.name}]")
    world.each(lambda life: life.change(CHANGES))
    trigger.before(world)
    if trigger.step != NO_STEP:
        world.victim.arm()
    _sleep(world, client, trigger, chance)
    died = world.bury(then.settings, then.step)
    world.each(Life.check_state)
    shot = world.shoot_soon(chance) if trigger.kill_in == "wake" else None
    world.each(lambda life: life.come_back(life.chance.choice(list(UP))))
    if shot is not None:
        shot.join()
    world.victim.disarm()
    died = world.bury(then.settings, then.step) or died
    if trigger.step != NO_STEP and not died:
        world.outcome.not_passed[trigger.step] += 1
    world.each(Life.check_after_power_cut if trigger.power_lost else Life.check)
    world.say(f"{shown}  {trigger.name}: {world.count()} sleeps so far, {time.monotonic() - began:.1f} s")


def _sleep(world: World, client: Client, trigger: Trigger, chance: random.Random) -> None:
    """Until everyone sleeps who is to, and what is to happen meanwhile has happened."""
    ways = {life.name: life.chance.choice(list(trigger.downs)) for life in world.lives}
    sleepers = [life for life in world.lives if ways[life.name] not in (AWAKE, WRITING)]
    writers = [life for life in world.lives if ways[life.name] == WRITING]
    ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        for life in world.lives:
            life.kept = False
        writing = pool.submit(world.each, lambda life: life.write_until(ended), writers)
        passing = pool.submit(_come_and_go, client, trigger)
        shot = world.shoot_soon(chance) if trigger.kill_in == "sleep" else None
        try:
            world.each(lambda life: life.go_down(ways[life.name]), sleepers)
            time.sleep(WRITES_SECONDS if writers else 0)
            passing.result()
            trigger.between(world)
            if shot is not None:
                shot.join()
        finally:
            ended.set()
        writing.result()


def _come_and_go(client: Client, trigger: Trigger) -> None:
    """A session that nobody will miss, for the steps of creating and deleting one."""
    if trigger.step.partition(":")[0] in COME_OR_GO:
        with suppress(Gone):
            made = Session(client, patiently(client.create).done()["sessionId"])
            deep = {"depth": "deep-sleep"}
            patiently(lambda: client.call("POST", f"/sessions/{made.id}/sleep", json_body=deep)).done()
            patiently(made.delete).done()


def _settle(world: World, client: Client, everyone: list[Life]) -> None:
    """Nothing is on the host or in the archive that does not belong to a session, and each is whole once more."""
    config = world.victim.config
    world.up(ONLY_ON_DEMAND)
    names = {life.session.id for life in everyone}
    strays: list[str] = []
    while found := _others(client, names):
        for stray in found:
            once(Session(client, stray).delete).done()
        strays += found
    world.each(lambda life: life.go_down("deep"))
    alive = {life.session.id for life in world.lives}

    def tidy() -> bool:
        objects = [name.partition("/")[0] for name in world.place.objects([*names, *strays])]
        return {*objects} - (names - alive) == alive and all(objects.count(name) <= SNAPSHOTS for name in alive)

    until(tidy, f"at most {SNAPSHOTS} objects of each of {sorted(alive)}, and no others")
    world.each(lambda life: life.come_back("wake"))
    world.each(Life.check)
    world.each(Life.check_disk)
    for life in everyone:
        patiently(life.session.delete)
    until(lambda: not world.place.objects([*names, *strays]), "no objects of deleted sessions")
    traces.wait_until_whole(config, 0)
    until(lambda: len(traces.interfaces(config)) == 1, "only the gateway is left of the network")


def _others(client: Client, names: set[str]) -> list[str]:
    """Up to a page of sessions that were created, but not deleted, when the server died."""
    listed = client.call("GET", "/sessions", query={"limit": 100}).done()["sessions"]
    return [entry["sessionId"] for entry in listed if entry["sessionId"] not in names]
