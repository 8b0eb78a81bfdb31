"""How often the kernel clears a sandbox's set of unanswered connections: see `local_ports`."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import structlog

from buntime.daemon.tasks import Tasks, to_its_end
from buntime.ports import SandboxGone
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network.local_ports import CAN_CLEAR
from buntime.sandboxes.network.namespaces import Network

log = structlog.get_logger()

LATER = 0.25  # seconds: what a request waits for comes first, and the requests after it


class Clearing:
    """For one sandbox. `init`: holds a pidfd of its first process, or raises SandboxGone."""

    def __init__(self, network: Network, tasks: Tasks, init: Callable[[], AbstractContextManager[int]]) -> None:
        self._network = network
        self._tasks = tasks
        self._init = init
        self._wanted = False
        self._often: bool | None = None  # an earlier server may have changed it
        self._changing = False

    def set(self, *, often: bool) -> None:
        """Takes effect a moment later."""
        self._wanted = often
        if CAN_CLEAR and often != self._often and not self._changing:
            self._changing = True
            self._tasks.listen(self._change(), "clearing of unanswered connections")

    async def _change(self) -> None:
        try:
            while self._often != self._wanted:
                await asyncio.sleep(LATER)
                often = self._wanted
                with self._init() as init:
                    await to_its_end(self._network.clear(init, often=often))
                self._often = often
        except SandboxGone:
            pass
        except HostCommandFailed as failed:  # until the next change, it is as it was
            log.warning("clearing_not_changed", reason=str(failed))
        finally:
            self._changing = False
