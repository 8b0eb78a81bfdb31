"""Sessions that are suspended again and again with memory that does not compress: others stay as quick, and the host
keeps its swap and its memory.

The test adds some swap, less than the sessions fill, and removes it.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bench.machine import swap
from buntime.plan import MB
from buntime.sandboxes.kernel.host import memory_available
from tests.acceptance.client import Session
from tests.acceptance.conftest import DISK, fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep
from tests.attack.attack import MOST, TRIES
from tests.attack.neighbour import INSIDE, Neighbour, neighbour

pytestmark = pytest.mark.sandbox

ATTACKERS, SWAP_MB, LEAST_MB = 4, 400, 100  # LEAST_MB: with less in swap there was no attack
LIMITS = {"cpu": 0.25, "memory": 256}
QUIET_SECONDS, SECONDS, LONGER, ASLEEP_SECONDS = 5.0, 15.0, 60.0, 4.0
PAGING = [sys.executable, "-m", "tests.acceptance.paging_server", "0.1"]
SLACK = 32 * MB  # of swap that is taken between two looks at it
RESERVE = 512 * MB  # BUNTIME_MEMORY_RESERVE_MB


@pytest.fixture
def server() -> Iterator[Server]:
    directory = tempfile.TemporaryDirectory(prefix="buntime-test-swap-", dir=DISK)
    with directory as place, swap(Path(place) / "swap", SWAP_MB) as refused:
        if refused:
            pytest.skip(f"no swap can be made here: {refused}")
        with fresh_server(pool_size=6) as server:
            server.start(PAGING)
            yield server


def test_sessions_that_fill_the_hosts_swap_slow_down_nobody(server: Server) -> None:
    a, b, others = (server.new_client(plan) for plan in ("enterprise",) * 3)
    with neighbour(b, others) as seen_by:
        attackers = [a.open(resourceLimits=LIMITS) for _ in range(ATTACKERS)]
        ratios = list[float]()
        while len(ratios) < TRIES and (not ratios or ratios[-1] > MOST):
            ratios.append(_ratio(seen_by, attackers))
        for session in attackers:
            session.delete().done()
    print("B's p99 over its quiet p99:", *(f"{ratio:.1f}" for ratio in ratios))
    assert min(ratios) <= MOST, f"B's p99 is {ratios} times its quiet p99"


def _ratio(b: Neighbour, attackers: list[Session]) -> float:
    quiet = b.observe(lambda: time.sleep(QUIET_SECONDS))
    ended, most, least = threading.Event(), 0, sys.maxsize

    def attack() -> None:
        nonlocal most, least
        with ThreadPoolExecutor(ATTACKERS) as pool:
            running = [pool.submit(_sleep_and_wake, session, ended) for session in attackers]
            began = time.monotonic()
            while (spent := time.monotonic() - began) < SECONDS or (most < LEAST_MB * MB and spent < LONGER):
                total, free = _swap()
                most, least = max(most, total - free), min(least, memory_available())
                time.sleep(0.02)
            ended.set()
            for each in running:
                each.result()

    for session in attackers:
        _fill(session)
    during = b.observe(attack)
    assert not during.failures, during.failures[:3]
    total, _ = _swap()
    assert most > LEAST_MB * MB, "this attacks nothing"
    assert most <= total - total // 8 + SLACK, "the host keeps an eighth of its swap"
    assert least >= RESERVE
    print(f"{most / MB:.0f} of {total / MB:.0f} MB of swap were taken")
    return during.p99(*Neighbour.MIX) / quiet.p99(*Neighbour.MIX)


def _fill(session: Session) -> None:
    for program in ("held.py", "paged.py"):
        session.write(f"/root/{program}", (INSIDE / program).read_text()).done()
    session.command("pkill -f '[p]aged.py'")
    session.output("setsid python3 /root/paged.py >/root/log 2>&1 </dev/null &")
    session.output("until test $(cut -d' ' -f1 /run/held || echo 0) -gt 190; do sleep 0.1; done")


def _sleep_and_wake(session: Session, ended: threading.Event) -> None:
    while not ended.is_set():
        with suppress(AssertionError, OSError, HTTPException):  # only B must not fail
            ask_to_sleep(session, "idle").done()
            ended.wait(ASLEEP_SECONDS)
            session.command("sleep 1")


def _swap() -> tuple[int, int]:
    """Bytes of the host's swap, and those that are free."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(fields[name].split()[0]) << 10 for name in ("SwapTotal", "SwapFree"))
    return total, free
