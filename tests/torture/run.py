"""The torture: sessions sleep and wake while the server is killed, stopped and restarted. No session may lose data."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.crashing_server import named_steps
from tests.torture.archive import ArchiveControl
from tests.torture.asked import COPY
from tests.torture.copying import WAYS_TO_STEPS, Copying
from tests.torture.tracked_session import WAYS_TO_WAKE, TrackedSession, begun
from tests.torture.triggers import AWAKE, COPIED, COPIED_ASLEEP, ONLY_ON_DEMAND, WRITING, Trigger, kill_at_step, order
from tests.torture.victim import NO_STEP, Gone, Victim, retry, send
from tests.torture.world import Outcome, Say, World
from tests.waiting import until

CHANGES = 40  # per tree between two sleeps
WRITES_SECONDS = 0.1  # minimum, before the trigger acts
CREATE_OR_DELETE = {"claim", "create", "delete", "remove"}  # groups of steps that neither sleep nor wake reaches
COPIES_SECONDS = 1.0  # within which a kill comes after copying began
KEPT = 2  # snapshots, and images, that stay from round to round, for each session
GONE_SECONDS = 150.0  # the server looks for images that nothing refers to once a minute


@dataclass(frozen=True, slots=True)
class Scale:
    sessions: int  # at the same time; copies take the places of those that are deleted
    cycles: int  # triggers take turns
    kills: int  # at named steps, after the cycles
    seconds: float  # no round starts after this time
    forks: int = 3  # at most, of one request


def torture(victim: Victim, archive: ArchiveControl, seed: str, scale: Scale, say: Say) -> Outcome:
    """Raises AssertionError if the server cannot continue, or if something is left over."""
    ends, rng = time.monotonic() + scale.seconds, random.Random(seed)
    world = World(victim, archive, say)
    world.ensure_running(ONLY_ON_DEMAND)
    client = victim.new_client("enterprise")
    torturing = _Torturing(world, client, Copying(client, scale.forks), rng, scale)
    torturing.begin([f"{seed}-{number}" for number in range(scale.sessions)])
    turns = order(scale.cycles, rng)
    for number, trigger in enumerate(turns, 1):
        if world.sessions and time.monotonic() < ends:
            torturing.round(trigger, trigger, f"{number}/{len(turns)}")
    if scale.kills:
        torturing.kill_at_steps(scale.kills, ends)
    torturing.finish()
    world.outcome.sleeps = world.count()
    world.outcome.copies = torturing.copying.done
    world.outcome.refused = victim.said().count('"status": 503')
    return world.outcome


@dataclass(frozen=True, slots=True)
class _Torturing:
    world: World
    client: Client
    copying: Copying
    rng: random.Random
    scale: Scale

    def begin(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(len(names)) as pool:
            self.world.add(list(pool.map(lambda name: begun(self.client, name), names)))

    def kill_at_steps(self, count: int, ends: float) -> None:
        world, rng = self.world, self.rng
        steps, kills = named_steps(), 0
        trigger = kill_at_step(rng.choice(steps), rng)
        while kills < count and world.sessions and time.monotonic() < ends:
            next_trigger = kill_at_step(rng.choice(steps), rng)
            self.round(trigger, next_trigger, f"kill {kills + 1}/{count}")
            kills = sum(world.outcome.kills[step] for step in steps)
            trigger = next_trigger

    def round(self, trigger: Trigger, next_trigger: Trigger, shown: str) -> None:
        """Runs one cycle. If the server dies in its sleep, it is restarted with the settings of `next_trigger`."""
        began, world = time.monotonic(), self.world
        world.ensure_running(trigger.settings, trigger.step)
        for tracked in world.sessions:
            tracked.note(f"[{trigger.name}]")
        world.each(lambda tracked: tracked.change(CHANGES))
        if trigger.step != NO_STEP:
            world.victim.arm()
        died = self._copy(trigger, trigger.settings, awake=True)
        if died:
            world.each(self.copying.repeat)
        trigger.before(world)
        _sleep(world, self.client, trigger, self.rng)
        died |= world.restart_if_dead(next_trigger.settings, next_trigger.step)
        world.each(TrackedSession.check_state)
        died |= self._copy(trigger, next_trigger.settings, awake=False)
        world.each(TrackedSession.check_state)
        died |= self._wake(trigger, next_trigger)
        if trigger.step != NO_STEP and not died:
            world.outcome.not_reached[trigger.step] += 1
        self._look(trigger)
        world.say(
            f"{shown}  {trigger.name}: {world.outcome.sessions} sessions and {world.count()} sleeps so far, "
            f"{time.monotonic() - began:.1f} s"
        )

    def _copy(self, trigger: Trigger, settings: Mapping[str, str], *, awake: bool) -> bool:
        """Copies sessions at random. Restarts the server with these settings if it dies, and returns whether it did."""
        world, phase = self.world, COPIED if awake else COPIED_ASLEEP
        wanted = WAYS_TO_STEPS.get(trigger.step.partition(":")[0], "")
        # of a session that lost something in a power cut, nobody knows what a copy must have
        sources = [tracked for tracked in world.sessions if awake or tracked.kept or not trigger.power_lost]
        killer = world.kill_soon(self.rng, COPIES_SECONDS) if trigger.kill_in == phase else None
        world.each(lambda tracked: self.copying.act(tracked, wanted, awake=awake), sources)
        if killer is not None:
            killer.join()
        return world.restart_if_dead(settings, NO_STEP)

    def _wake(self, trigger: Trigger, next_trigger: Trigger) -> bool:
        """Wakes all sessions. Returns whether the server died."""
        world = self.world
        killer = world.kill_soon(self.rng) if trigger.kill_in == "wake" else None
        world.each(lambda tracked: tracked.wake(tracked.rng.choice(list(WAYS_TO_WAKE))))
        if killer is not None:
            killer.join()
        world.victim.disarm()
        return world.restart_if_dead(next_trigger.settings, next_trigger.step)

    def _look(self, trigger: Trigger) -> None:
        """Checks all sessions. Deletes some that were copied before it looks at the copies, and some copies after."""
        world, copying = self.world, self.copying
        world.each(TrackedSession.check_after_power_cut if trigger.power_lost else TrackedSession.check)
        cut_off = [tracked for tracked in world.sessions if copying.was_cut_off(tracked)]
        world.each(copying.repeat, cut_off)
        world.each(TrackedSession.check, cut_off)
        born = copying.take_born()
        self._retire(min(len(born), len(world.sessions)) // 2)
        world.add(born)
        world.each(TrackedSession.check, born)
        self._retire(len(world.sessions) - self.scale.sessions)
        copying.thin_out(KEPT * self.scale.sessions)
        world.wait_until_tidy()

    def _retire(self, count: int) -> None:
        retired = self.rng.sample(list(self.world.sessions), max(count, 0))
        self.world.each(self.copying.retire, retired)
        self.world.remove(retired)

    def finish(self) -> None:
        """Checks each session once more, deletes everything, and checks that the host and the archive are empty."""
        world, config = self.world, self.world.victim.config
        world.ensure_running(ONLY_ON_DEMAND)
        self._delete_strays()
        world.each(lambda tracked: tracked.fall_asleep("deep"))
        until(
            lambda: {tracked.session.id for tracked in world.sessions} <= _owners(world), "all sessions to be archived"
        )
        world.wait_until_tidy()
        world.each(lambda tracked: tracked.wake("wake"))
        world.each(TrackedSession.check)
        world.each(TrackedSession.check_disk)
        for tracked in world.sessions:
            tracked.delete()
        self._delete_strays()  # also what was just found to be lost
        self.copying.delete_all()
        until(lambda: not _owners(world), "the archive to drop all objects", GONE_SECONDS)
        world.wait_until_tidy()
        traces.wait_until_whole(config, 0)
        until(lambda: len(traces.interfaces(config)) == 1, "all network interfaces except the gateway to disappear")

    def _delete_strays(self) -> None:
        """Deletes sessions that were created, but not deleted, when the server died. None of them is a copy."""
        known = {tracked.session.id for tracked in self.world.sessions}
        while True:
            listed = self.client.call("GET", "/sessions", query={"limit": 100}).done()["sessions"]
            strays = [entry for entry in listed if entry["sessionId"] not in known]
            if not strays:
                return
            for entry in strays:
                lost = entry["sessionId"] in self.world.outcome.lost
                assert lost or COPY not in entry["metadata"], f"nobody was told of the copy {entry}"
                send(Session(self.client, entry["sessionId"]).delete).done()


def _owners(world: World) -> set[str]:
    """Returns the ids of the sessions and layers that have objects in the archive."""
    return {name.partition("/")[0] for name in world.archive.objects(world.known)}


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
