"""Keeps the kernel's limits of volumes that share content in step with what these contain. See `kernel/shares.py`."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from buntime.daemon.tasks import Tasks
from buntime.plan import MB
from buntime.sandboxes.kernel.shares import FULL_MARGIN, Charges, Measured, Share
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.sharing import Shared

log = structlog.get_logger()

FASTEST = 1 << 30  # bytes that we expect a session to write in a second
SOONEST, LATEST = 0.05, 5.0  # seconds between looks at the charges of a volume
NEAR, NEAR_SECONDS = 64 * MB, 0.02  # so close to the kernel's limit, a volume is measured again after so many seconds
PART, CREDIT = 0.1, 1.0  # of the time a volume may be measured; seconds that it may save up
SETTLE_SECONDS = 3.0
SYNC_SECONDS = 1.0  # between syncs for a volume
LONGEST_WAIT = 1.0  # seconds that a client's write waits for a measurement
LEAST_KNOWN = 64 * MB  # more new content of a volume that has a parent is measured: so much the parent may keep
REFUSED_SECONDS = 2.0  # before the end of a failed run, in which a refusal may be why it failed
PAST_SECONDS = 60.0  # between looks at the accounts of volumes that are gone


@dataclass(slots=True)
class Watch:
    """What the loop remembers of one volume. Times are `time.monotonic`."""

    credit: float = CREDIT  # seconds of measuring
    credit_at: float = 0.0
    look_at: float = 0.0
    rest_until: float = 0.0  # not measured before
    sync_at: float = 0.0  # not synced before
    last: Charges | None = None  # at the last look
    freed: int = 0  # bytes by which the charges fell since the measurement
    measured_at: Charges | None = None
    one: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while it is measured

    def spend(self, seconds: float, now: float) -> None:
        """Accounts for a measurement."""
        self.credit = min(CREDIT, self.credit + PART * (now - self.credit_at)) - seconds
        self.credit_at = now
        self.rest_until = now if self.credit > 0 else now - self.credit / PART

    def look(self, charges: Charges) -> None:
        if self.last is not None:
            self.freed += max(0, self.last.data - charges.data)
        self.last = charges


class Quotas:
    def __init__(self, volumes: Volumes, tasks: Tasks, sync: Shared) -> None:
        self._volumes = volumes
        self._tasks = tasks
        self._sync = sync
        self._watches: dict[str, Watch] = {}
        self._settling: deque[asyncio.TimerHandle] = deque()  # volumes that will be measured
        self._is_closed = False
        self._scan = asyncio.Semaphore()  # one at a time on this host
        self.measured = 0  # since the start

    async def keep(self, awake: Callable[[], Collection[str]]) -> None:
        """Runs forever. `awake`: volumes that running processes use."""
        forget_at = 0.0
        while True:
            await asyncio.sleep(SOONEST)
            now = time.monotonic()
            for volume in awake():
                share = self._volumes.shares.get(volume)
                if share is not None and now >= self._watch(volume).look_at:
                    self._look(volume, share, now)
            if now >= forget_at:
                forget_at = now + PAST_SECONDS
                await asyncio.to_thread(self._volumes.forget_past)
                self._watches = {name: watch for name, watch in self._watches.items() if name in self._volumes.shares}

    def close(self) -> None:
        """From now on, nothing is measured later."""
        self._is_closed = True
        for timer in self._settling:
            timer.cancel()

    def settle(self, volume: str) -> None:
        """Measures a volume that nothing uses any more, so that its next sandbox has the right limit. First comes what
        somebody may wait for: it is being archived."""
        if self._is_closed:
            return
        timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle, volume)
        self._settling.append(timer)

    def _settle(self, volume: str) -> None:
        self._settling.popleft()  # they come in order
        if volume in self._volumes.shares:
            self._tasks.start(self._measure(volume), f"measure {volume}")

    async def make_room(self, volume: str, size: int) -> None:
        """Before a client writes so many bytes: measures the volume if the kernel would refuse them, maybe wrongly."""
        if volume not in self._volumes.shares or self._has_room(volume, size):
            return
        rest = self._watch(volume).rest_until - time.monotonic()
        if rest <= LONGEST_WAIT:
            await asyncio.sleep(max(0.0, rest))
            await self._measure(volume)

    def _has_room(self, volume: str, size: int) -> bool:
        with suppress(OSError):
            return sum(self._volumes.charges(volume)) + size + FULL_MARGIN <= self._volumes.limit_of(volume)
        return True  # it is being removed, which the writer will find out

    async def is_full(self, volume: str, since: float) -> bool:
        """For a run that failed. A volume may be full although the kernel's limit is further away: when a layer is
        removed, the volume that wrote its content is charged for less. It counts as full, too, if the kernel may have
        refused it content a moment ago. `since`: when the run began, by `time.monotonic`."""
        volumes, share = self._volumes, self._volumes.shares.get(volume)
        if share is not None and share.refused_at >= max(since, time.monotonic() - REFUSED_SECONDS):
            return True
        if share is None or not self._may_be_full(volume, share):
            if not volumes.is_full(volume):
                return False
            await self._sync.done(volumes.sync)  # until then, what was deleted counts
            return volumes.is_full(volume)
        await self._sync.done(volumes.sync)
        if time.monotonic() >= self._watch(volume).rest_until:
            await self._measure(volume)
        return volumes.is_full(volume) or share.measured is None or share.measured.left(share.limit) < FULL_MARGIN

    def _may_be_full(self, volume: str, share: Share) -> bool:
        """Whether the last measurement says so, or is too old to tell."""
        if share.measured is None or share.measured.left(share.limit) < FULL_MARGIN:
            return True
        watch, charges = self._watch(volume), self._volumes.charges(volume)
        watch.look(charges)
        return share.measured.is_due(share.limit, charges, watch.freed)

    def _watch(self, volume: str) -> Watch:
        return self._watches.setdefault(volume, Watch())

    def _look(self, volume: str, share: Share, now: float) -> None:
        """Reads three small files. Starts a measurement where one is due."""
        watch = self._watch(volume)
        try:
            charges = self._volumes.charges(volume)
        except OSError:  # it is being removed
            return
        watch.look(charges)
        watch.look_at = now + _pause(share, charges)
        if share.measured is not None and sum(charges) + FULL_MARGIN > share.measured.bound(share.limit):
            share.note_bound()
        if now < watch.rest_until or watch.one.locked():
            return
        if _is_due(share, watch, charges) or self._may_be_kept(volume, share, charges):
            self._tasks.start(self._follow(volume, share, watch), f"measure {volume}")

    def _may_be_kept(self, volume: str, share: Share, charges: Charges) -> bool:
        """Whether a parent may have more that its volume has not than is known."""
        grown = charges.data - share.measured.charged if share.measured is not None else 0
        return grown > LEAST_KNOWN and bool(self._volumes.parents.marks(volume))

    async def _follow(self, volume: str, share: Share, watch: Watch) -> None:
        """Measures the volume, and goes on while the kernel might soon refuse what it should not."""
        while await self._measure(volume):
            await asyncio.sleep(NEAR_SECONDS)
            if time.monotonic() < watch.rest_until or not self._is_near(volume, share, watch):
                return

    def _is_near(self, volume: str, share: Share, watch: Watch) -> bool:
        if share.measured is None or share.measured.is_full(share.limit):
            return False
        with suppress(OSError):
            charges = self._volumes.charges(volume)
            return charges != watch.measured_at and charges.data + NEAR > share.measured.bound(share.limit)
        return False

    async def _measure(self, volume: str) -> bool:
        """Returns False when the volume is gone."""
        watch = self._watch(volume)
        async with watch.one, self._scan:
            try:
                watch.last = watch.measured_at = self._volumes.charges(volume)
                watch.freed = 0
                measured, seconds = await asyncio.to_thread(self._measured, volume)
            except OSError as failed:
                log.warning("volume_not_measured", volume=volume, reason=str(failed))
                return False
        self.measured += 1
        now, share = time.monotonic(), self._volumes.shares.get(volume)
        watch.spend(seconds, now)
        watch.look_at = 0.0
        if share is None:
            return False
        if measured.is_vague(share.limit) and now >= watch.sync_at:
            watch.sync_at = math.inf
            self._tasks.start(self._synced(watch), f"sync for {volume}")
        return True

    def _measured(self, volume: str) -> tuple[Measured, float]:
        """With the seconds of CPU time that it took. Blocking. Raises OSError."""
        began = time.thread_time()
        return self._volumes.measure(volume), time.thread_time() - began

    async def _synced(self, watch: Watch) -> None:
        try:
            await self._sync.done(self._volumes.sync)
        finally:
            watch.sync_at = time.monotonic() + SYNC_SECONDS


def _is_due(share: Share, watch: Watch, charges: Charges) -> bool:
    if share.measured is None:
        return True
    if share.measured.is_full(share.limit) and charges == watch.measured_at:
        return False  # nothing has changed
    return share.measured.is_due(share.limit, charges, watch.freed)


def _pause(share: Share, charges: Charges) -> float:
    """Seconds until the next look: sooner than a session can write what is left."""
    if share.measured is None or share.measured.left(share.limit) == 0:
        return SOONEST
    left = share.measured.charged + share.measured.trigger(share.limit) - charges.data
    return min(LATEST, max(SOONEST, left / FASTEST))
