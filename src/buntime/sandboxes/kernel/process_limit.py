"""Whether what lives in a cgroup met the limit on processes, by the kernel's word.

Each run has a limit of its own, below the session's: one that forks without end leaves processes for the next. On
cgroup v1, and on v2 before Linux 6.11, the kernel counts a refused fork at the group that forked. On v2 since then it
counts it at the group whose limit was met: at the run's for its own limit, at `runs` for the session's. The latter
says nothing of who forked, so what holds many of the session's processes is taken to have.
"""

from contextlib import suppress

from buntime.sandboxes.kernel.cgroup import Cgroups


class ProcessLimit:
    """Of what a cgroup does from now on. `used`: something has run in it before."""

    def __init__(self, cgroups: Cgroups, sandbox: str, run: str, *, used: bool = False) -> None:
        self._cgroups = cgroups
        self._sandbox = sandbox
        self._run = run
        self._own = cgroups.refused_forks(sandbox, run) if used else 0
        self._session = cgroups.refused_by_session(sandbox)
        self._met = False
        self._settled = False

    def is_met(self) -> bool:
        """Once it is, it stays so."""
        if not (self._met or self._settled):
            with suppress(OSError):  # the cgroup is gone
                self._met = self._is_met()
        return self._met

    def settle(self) -> None:
        """Before we kill what lives in it: on cgroup v1 we do that with a limit, too."""
        self.is_met()
        self._settled = True

    def _is_met(self) -> bool:
        if self._cgroups.refused_forks(self._sandbox, self._run) > self._own:
            return True
        if self._cgroups.refused_by_session(self._sandbox) == self._session:
            return False
        return self._cgroups.crowds(self._sandbox, self._run)
