"""Whether the processes of a cgroup met the limit on processes, as the kernel counts.

Each run has its own limit, below the session's, so a run that forks without end leaves processes for the next. On
cgroup v1, and on v2 before Linux 6.11, the kernel counts a refused fork at the group that forked. On later v2 it
counts at the group whose limit was met: at the run for the run's own limit, at `runs` for the session's. The latter
does not say who forked, so a run with many of the session's processes is blamed.
"""

from contextlib import suppress

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import Read, text_of


class ProcessLimit:
    """Watches a cgroup from now on. `used`: whether processes have run in it before. `read`: see `OpenFiles`."""

    def __init__(self, cgroups: Cgroups, sandbox: str, run: str, read: Read = text_of, *, used: bool = False) -> None:
        self._cgroups = cgroups
        self._sandbox = sandbox
        self._run = run
        self._own = cgroups.refused_forks(sandbox, run, read) if used else 0
        self._session = cgroups.refused_by_session(sandbox, read)
        self._met = False
        self._settled = False

    def is_met(self, read: Read = text_of) -> bool:
        """Stays true once it is true."""
        if not (self._met or self._settled):
            with suppress(OSError):  # the cgroup is gone
                self._met = self._is_met(read)
        return self._met

    def settle(self) -> None:
        """Call it before killing the cgroup's processes: on cgroup v1 the kill itself sets a limit."""
        self.is_met()
        self._settled = True

    def _is_met(self, read: Read) -> bool:
        if self._cgroups.refused_forks(self._sandbox, self._run, read) > self._own:
            return True
        if self._cgroups.refused_by_session(self._sandbox, read) == self._session:
            return False
        return self._cgroups.crowds(self._sandbox, self._run)
