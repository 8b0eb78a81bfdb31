"""Clients that use a fleet while a test does something to it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.fleet.history.operations import History
from tests.fleet.history.recording import Asking, Recorder
from tests.fleet.history.running import finish
from tests.fleet.history.working import Worker, World


def under_load(
    asking: Sequence[Asking], recorder: Recorder, seed: str, happens: Callable[[], None], clients: int = 4
) -> History:
    """Clients work until `happens` returns. Then each session that they made is asked until it answers."""
    world, ended = World(""), threading.Event()
    workers = [Worker(f"{seed} {number}", asking, world, ended, repeats=True) for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(worker.work) for worker in workers]
        try:
            happens()
        finally:
            ended.set()
    for each in working:
        each.result()
    finish(recorder, asking, seed)
    return History(recorder.operations, asking[0].list())
