"""Looks from outside, at cgroups, which sessions run on which hosts. What runs on a lost host may be acknowledged to
nobody."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from buntime.sandboxes.held import HeldSandboxes
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from tests.fleet.history.operations import Both
from tests.fleet.lab.hosts import Host

LOOK_SECONDS = 0.1
BOTH_SECONDS = 0.4  # so more than one look has seen it, and no session that moved between two hosts is meant


class Watching:
    """`both`: sessions that ran on two hosts at the same time."""

    def __init__(self, hosts: Sequence[Host], ended: threading.Event) -> None:
        self._hosts, self._ended = hosts, ended
        self._since: dict[str, float] = {}  # session → since when it runs on two
        self.both: dict[str, Both] = {}

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.look([(host.name, session) for host in self._hosts for session in running_on(host)], time.time())

    def look(self, seen: Sequence[tuple[str, str]], now: float) -> None:
        """`seen`: hosts with sessions that run there."""
        hosts: dict[str, list[str]] = {}
        for host, session in seen:
            hosts.setdefault(session, []).append(host)
        twice = {session: some for session, some in hosts.items() if len(set(some)) > 1}
        self._since = {session: self._since.get(session, now) for session in twice}
        for session, since in self._since.items():
            if now - since >= BOTH_SECONDS:
                self.both[session] = Both(session, tuple(twice[session]), since, now)


def running_on(host: Host) -> set[str]:
    """Sessions with a sandbox that is neither frozen nor stopped."""
    cgroups = find_cgroups(host.config.instance)
    held = HeldSandboxes(host.config.data_dir / "sandboxes", cgroups)
    found = set[str]()
    try:
        for sandbox, each in held.all().items():
            if not cgroups.is_frozen(sandbox) and any(map(_runs, cgroups.guest_processes(sandbox))):
                found.add(each.session)
    except OSError:  # one has just ended, or the host has no power
        pass
    return found


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "TtZX"
