"""`fleet.comparing.Held`: by the records on this host's disk, so also before a server knows of its sandboxes."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from buntime.fleet.comparing import HeldSandbox
from buntime.sandboxes import record
from buntime.sandboxes.kernel.cgroup import Cgroups


class HeldSandboxes:
    def __init__(self, home: Path, cgroups: Cgroups) -> None:
        self._home = home
        self._cgroups = cgroups

    def all(self) -> Mapping[str, HeldSandbox]:
        found = record.all_in(self._home).values()
        return {one.sandbox: HeldSandbox(one.session, one.volume) for one in found if one and one.session}

    def keep_frozen(self, sandboxes: Collection[str]) -> None:
        for sandbox in sandboxes:
            with suppress(OSError):  # it does not run
                self._cgroups.freeze(sandbox, frozen=True)
