"""Runs clients and faults on a fleet, and returns what happened."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tests.fleet.history.injecting import Injecting, mend
from tests.fleet.history.operations import History, Kind, Outcome
from tests.fleet.history.planning import Fault, planned
from tests.fleet.history.recording import PATIENCE, Asking, Recorder
from tests.fleet.history.takeovers import note_takeovers, noted
from tests.fleet.history.watching import Watching
from tests.fleet.history.working import Worker, World
from tests.fleet.lab.fleets import Fleet
from tests.fleet.lab.hosts import INJECTED

FINAL_SECONDS = 120.0  # in which a session must answer when all is mended
LOOK_SECONDS = 0.05
IMPATIENCE = 4.0  # seconds after which most clients give up, so a host that is paused does not stop them all
HASTE = 0.7  # seconds: a host that cannot reach the database keeps a request until it is fenced
MOST_LONG = 6  # runs that one fault interrupts
MOST_RESCUED = 3  # of their sessions, which a client asks for all the time meanwhile
SETTINGS = {
    "BUNTIME_CACHE_GB": "0",  # so a wake from deep sleep comes from the archive
    "BUNTIME_POOL_SIZE": "4",
    "BUNTIME_POOL_PREPARED": "0",
    "BUNTIME_IDLE_AFTER": "60",
    "BUNTIME_DEEP_SLEEP_AFTER": "120",
    **INJECTED,
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    hosts: int
    operations: int
    clients: int = 16
    every: int = 150  # operations between two faults
    seconds: float = 36_000.0  # the clients end after this time
    repeats: bool = True  # see `Worker`


def run(fleet: Fleet, seed: str, faults: Sequence[Fault], scale: Scale, say: Say) -> History:
    """`fleet`: with SETTINGS. Its hosts may be up or not."""
    hosts = fleet.up(scale.hosts)
    note_takeovers(fleet.database.execute)
    key = hosts[0].new_key(["--plan", "enterprise"])
    recorder, world, ended = Recorder(), World(""), threading.Event()
    asking, impatient, hasty = (
        [Asking(host.name, host.client(key), recorder, patience) for host in hosts]
        for patience in (PATIENCE, IMPATIENCE, HASTE)
    )
    plan = planned(seed, faults, scale.hosts, scale.operations, scale.every)
    workers = [
        Worker(f"{seed} {number}", asking if number % 4 == 0 else impatient, world, ended, repeats=scale.repeats)
        for number in range(scale.clients)
    ]
    interrupted = list[Future[None]]()
    with ThreadPoolExecutor(3 * (MOST_LONG + MOST_RESCUED)) as long, ThreadPoolExecutor(scale.clients + 2) as pool:

        def interrupt() -> None:
            begun = Worker(f"{seed} long {recorder.count}", asking, world, ended)
            sessions = begun.some_sessions(MOST_LONG)
            interrupted.extend(long.submit(begun.run_long, each) for each in sessions)
            for each in sessions[:MOST_RESCUED]:
                rescuing = Worker(f"{seed} rescue {recorder.count} {each}", hasty, world, ended)
                interrupted.append(long.submit(rescuing.rescue, each))

        watching = Watching(hosts, ended)
        injecting = Injecting(fleet, lambda: recorder.count, interrupt, ended, say)
        working = [pool.submit(worker.work) for worker in workers]
        faulting = pool.submit(injecting.run, plan)
        seeing = pool.submit(watching.run)
        try:
            _wait(recorder, scale, [*working, faulting, seeing])
        finally:
            ended.set()
    for each in (*working, *interrupted, faulting, seeing):
        each.result()
    say(f"{recorder.count} operations: the end; mending")
    mend(fleet)
    finish(recorder, asking, seed)
    takeovers = noted(fleet.database.execute, {host.id: host.name for host in hosts})
    happened, both = tuple(injecting.happened), tuple(watching.both.values())
    return History(recorder.operations, asking[0].list(), happened, both, takeovers)


def _wait(recorder: Recorder, scale: Scale, threads: Sequence[Future[None]]) -> None:
    """Until so much is done, or one of the threads has failed."""
    deadline = time.monotonic() + scale.seconds
    while recorder.count < scale.operations and time.monotonic() < deadline:
        if any(each.done() and each.exception() for each in threads):
            return
        time.sleep(LOOK_SECONDS)


def finish(recorder: Recorder, asking: Sequence[Asking], seed: str) -> None:
    """Asks each session that was created, and was not deleted for certain."""
    known, world, never = recorder.operations, World("final"), threading.Event()
    gone = {each.session for each in known if each.kind is Kind.DELETE and each.outcome is Outcome.OK}
    left = sorted({each.session for each in known if each.kind is Kind.CREATE and each.session} - gone)
    deadline = time.monotonic() + FINAL_SECONDS

    def ask(session: str) -> None:
        Worker(f"{seed} {session}", asking, world, never).finish(session, lambda: time.monotonic() < deadline)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, left))


def report(history: History) -> list[str]:
    """What happened, in lines."""
    counts = Counter((each.kind, each.outcome) for each in history.operations)
    whys = Counter(each.why for each in history.operations if each.why)
    happened = Counter(each.fault for each in history.faults)
    most = max((each.lease_left for each in history.takeovers), default=None)
    return [
        *(f"  {kind:9}" + ", ".join(f"{counts[kind, outcome]:6} {outcome}" for outcome in Outcome) for kind in Kind),
        *(f"  {count:6} × {why}" for why, count in whys.most_common()),
        "  faults: " + (", ".join(f"{count} {fault}" for fault, count in happened.most_common()) or "none"),
        f"  taken over: {len(history.takeovers)}"
        + ("" if most is None else f", with at most {most:.2f} s of a lease left"),
    ]
