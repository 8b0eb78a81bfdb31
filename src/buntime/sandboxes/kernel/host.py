"""This server's part of what all servers of one host share: addresses and user ids.

Servers are told apart by their data directory. A part is claimed under a host-wide lock and stays
claimed while its directory exists, because its sandboxes outlive the server.
"""

import fcntl
import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, Config
from buntime.errors import Unavailable

PARTS = 8
SLOTS = 4094  # sandboxes of one part: its /20 less the network's and the gateway's address
FIRST_UID = 0x40000000
UIDS = 65536  # ids of one sandbox
REST_SECONDS = 60.0  # before an address or id range is given to another session


@dataclass(frozen=True, slots=True)
class Part:
    """Which addresses and user ids are this server's."""

    index: int  # 0 … PARTS-1
    instance: str
    network: ipaddress.IPv4Network

    @property
    def gateway(self) -> str:
        """The one address of the host that sandboxes know: their router and name server."""
        return str(self.network[1])

    def address(self, slot: int) -> str:
        return str(self.network[2 + slot])

    def first_uid(self, slot: int) -> int:
        return FIRST_UID + (self.index * (SLOTS + 2) + slot) * UIDS

    def interface(self, slot: int) -> str:
        """15 characters, the longest that Linux takes."""
        return f"buntime{self.instance}{slot:04x}"

    @property
    def interfaces(self) -> str:
        """The pattern of all of them, as nftables writes it."""
        return f"buntime{self.instance}*"


class NoPart(Exception):
    """Too many servers with different data directories on this host; the message lists them."""


def claim_part(config: Config) -> Part:
    """The part of `config.data_dir`, claimed now if need be. Raises NoPart."""
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    with (SHARED_RUN_DIR / "lock").open("w") as lock:
        os.fchmod(lock.fileno(), 0o600)  # whoever can open it can hold it, and keep every server from starting
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine, taken = str(config.data_dir.resolve()), _claims()
        index = next((i for i, owner in taken.items() if owner == mine), None)
        if index is None:
            free = [i for i in range(PARTS) if i not in taken]
            if not free:
                raise NoPart(f"{PARTS} data directories are in use on this host: {', '.join(taken.values())}")
            index = free[0]
            _claim_file(index).write_text(json.dumps({"data_dir": mine}))
    whole = ipaddress.IPv4Network(config.network)
    return Part(index, config.instance, list(whole.subnets(new_prefix=20))[index])


def other_data_dirs(config: Config) -> list[Path]:
    """Of the other servers of this host."""
    mine = str(config.data_dir.resolve())
    return [Path(owner) for owner in _claims().values() if owner != mine]


def release_part(part: Part) -> None:
    _claim_file(part.index).unlink(missing_ok=True)


def _claim_file(index: int) -> Path:
    return SHARED_RUN_DIR / f"part-{index}.json"


def _claims() -> dict[int, str]:
    """Part → data directory, without the claims of directories that are gone."""
    taken = {}
    for index in range(PARTS):
        try:
            owner = str(json.loads(_claim_file(index).read_text())["data_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if Path(owner).exists():
            taken[index] = owner
    return taken


class Slots:
    """Which numbers are in use. A freed one rests before it is used again.

    They are given out in turn, and where the turn is is kept in a file: after a restart the numbers that
    were freed before it come last.
    """

    def __init__(self, turn: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = turn
        self._used: set[int] = set()
        self._rests_until: dict[int, float] = {}
        self._next = _number_in(turn)

    def use(self, slots: Iterable[int]) -> None:
        """Marks slots of sandboxes that were found at start."""
        self._used.update(slots)

    def take(self) -> int:
        """Raises Unavailable when all are in use or resting."""
        now = self._clock()
        for _ in range(SLOTS):
            slot, self._next = self._next, (self._next + 1) % SLOTS
            if slot not in self._used and self._rests_until.get(slot, 0.0) <= now:
                self._used.add(slot)
                self._turn.write_text(str(self._next))
                return slot
        raise Unavailable("This host has no address free for another session.", 30)

    def free(self, slot: int) -> None:
        self._used.discard(slot)
        self._rests_until[slot] = self._clock() + REST_SECONDS


def _number_in(file: Path) -> int:
    try:
        return int(file.read_text()) % SLOTS
    except (OSError, ValueError):
        return 0


def host_disk_free(directory: Path) -> int:
    """Bytes that are free for us on the file system of `directory`."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def memory_available() -> int:
    """Bytes that programs can get without swapping."""
    return _memory("MemAvailable")


def total_memory() -> int:
    """Bytes."""
    return _memory("MemTotal")


def _memory(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
