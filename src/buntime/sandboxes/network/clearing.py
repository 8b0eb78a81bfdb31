"""How often the kernel clears a sandbox's set of unanswered connections: see `local_ports`.

Often while something of the session runs, and for a while after it, and otherwise seldom: the kernel clears empty sets
too. Most runs are over before the interval would change, so it stays as it is for them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import Context

import structlog

from buntime.daemon.tasks import Tasks, to_its_end
from buntime.ports import SandboxGone
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network.local_ports import CAN_CLEAR
from buntime.sandboxes.network.namespaces import Network

log = structlog.get_logger()

LATER = 0.25  # seconds: what a request waits for comes first, and the requests after it
LOOK_SECONDS = 30.0  # between looks whether something still runs


class Clearing:
    """For one sandbox. `init`: holds a pidfd of its first process, or raises SandboxGone. `runs`: whether something of
    the session is there that may run."""

    def __init__(
        self,
        network: Network,
        tasks: Tasks,
        init: Callable[[], AbstractContextManager[int]],
        runs: Callable[[], Awaitable[bool]],
    ) -> None:
        self._network = network
        self._tasks = tasks
        self._init = init
        self._runs = runs
        self._often: bool | None = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking = self._again = self._closed = False

    def doubt(self) -> None:
        """To be called for a sandbox of an earlier server, which may have changed the interval."""
        self._often = None
        if not self._looking:
            self._look_after(LOOK_SECONDS)

    def look(self) -> None:
        """To be called when something starts. Takes effect a moment later."""
        if self._looking:
            self._again = True
        elif not self._looks_soon():
            self._look_after(LATER)

    def rest(self) -> None:
        """To be called when nothing of the session runs from now on."""
        if self._looking:
            self._again = True
        elif self._often is not False:
            self._look_after(LATER)

    def close(self) -> None:
        """To be called when the sandbox is given up. Nothing changes any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _looks_soon(self) -> bool:
        """Or often enough, while the kernel clears the set often."""
        if self._timer is None:
            return False
        return self._often is True or self._timer.when() - asyncio.get_running_loop().time() <= LATER

    def _look_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if CAN_CLEAR and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin, context=Context())

    def _begin(self) -> None:
        self._timer = None
        self._looking, self._again = True, False
        self._tasks.listen(self._settle(), "clearing of unanswered connections")

    async def _settle(self) -> None:
        is_settled = False
        try:
            with self._init() as init:
                often = await self._runs()
                if often != self._often:
                    await to_its_end(self._network.clear(init, often=often))
                    self._often = often
            is_settled = not often
        except SandboxGone:
            return
        except (HostCommandFailed, OSError) as failed:  # until the next look, it is as it was
            log.warning("clearing_not_changed", reason=str(failed))
        finally:
            self._looking = False
        if self._again or not is_settled:
            self._look_after(LATER if self._again else LOOK_SECONDS)
