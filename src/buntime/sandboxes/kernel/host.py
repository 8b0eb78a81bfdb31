"""What all servers of one host share, and which part of it is this server's: addresses and user ids.

Both are given out in blocks. A server takes as many blocks as BUNTIME_SANDBOX_ADDRESSES needs. Its data directory tells
it from other servers. It claims its blocks under a host-wide lock, and they stay claimed while the directory exists,
because sandboxes outlive their server. Claims end with a purge or a reboot. A server that needs more than it has
claims more, and its sandboxes keep their addresses.
"""

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, BadSetting, Config
from buntime.errors import Unavailable
from buntime.sandboxes.kernel.cgroup_tree import text_of

BLOCK_PREFIX = 20
BLOCK = 1 << 32 - BLOCK_PREFIX  # addresses in a block, and ranges of user ids
RESERVED = 2  # addresses of a server's first block that no sandbox gets: the resolver's and the gateway's
FIRST_UID = 0x40000000
UIDS = 65536  # ids of one sandbox
BLOCKS = 11  # of one host: user ids above theirs are too few for another block
REST_SECONDS = 60.0  # before an address or id range is given to another session


@dataclass(frozen=True, slots=True)
class Part:
    """This server's addresses and user ids. Each of its sandboxes has a slot, a number from 0 to `slots` - 1."""

    instance: str
    network: IPv4Network  # of all servers of this host
    blocks: tuple[int, ...]  # numbers of this server's, in the order in which it claimed them

    @property
    def slots(self) -> int:
        return len(self.blocks) * BLOCK - RESERVED

    @property
    def networks(self) -> list[IPv4Network]:
        """One for each block."""
        return [IPv4Network((self._address(place * BLOCK), BLOCK_PREFIX)) for place in range(len(self.blocks))]

    @property
    def resolver(self) -> str:
        """Where sandboxes ask for names when they have rules about them."""
        return str(self._address(0))

    @property
    def gateway(self) -> str:
        """The one address of the host that sandboxes know: their router and name server."""
        return str(self._address(1))

    def address(self, slot: int) -> str:
        return str(self._address(RESERVED + slot))

    def slot_of(self, address: IPv4Address) -> int | None:
        """None where the address belongs to no sandbox of this server."""
        block, within = divmod(int(address) - int(self.network.network_address), BLOCK)
        if block not in self.blocks:
            return None
        slot = self.blocks.index(block) * BLOCK + within - RESERVED
        return slot if slot >= 0 else None

    def first_uid(self, slot: int) -> int:
        return FIRST_UID + self._number(slot) * UIDS

    def interface(self, slot: int) -> str:
        """15 characters, the longest that Linux takes."""
        return f"buntime{self.instance}{slot:04x}"

    @property
    def interfaces(self) -> str:
        """The pattern of all of them, as nftables writes it."""
        return f"buntime{self.instance}*"

    def _address(self, place: int) -> IPv4Address:
        return self.network.network_address + self._number(place)

    def _number(self, place: int) -> int:
        """Where a place in this server's blocks stands among all blocks of the host."""
        return self.blocks[place // BLOCK] * BLOCK + place % BLOCK


class NoPart(Exception):
    """Other servers of this host have the blocks that this one needs; the message lists them."""


def blocks_for(addresses: int) -> int:
    """How many blocks have addresses for so many sandboxes."""
    return -(-(addresses + RESERVED) // BLOCK)


def require_blocks(config: Config) -> int:
    """How many blocks the settings ask for. Raises BadSetting where BUNTIME_NETWORK or the user ids are too few."""
    network, wanted = IPv4Network(config.network), config.sandbox_addresses
    needed, most = blocks_for(wanted), _blocks_in(network) * BLOCK - RESERVED
    if needed > BLOCKS:
        raise BadSetting(
            f"BUNTIME_SANDBOX_ADDRESSES={wanted} is too large: a host has user ids for "
            f"{BLOCKS * BLOCK - RESERVED} sandboxes."
        )
    if needed > _blocks_in(network):
        raise BadSetting(
            f"BUNTIME_SANDBOX_ADDRESSES={wanted} is too large: BUNTIME_NETWORK={network} has addresses for {most} "
            "sandboxes."
        )
    return needed


def claim_part(config: Config) -> Part:
    """The part of `config.data_dir`, claimed now if need be. Raises BadSetting and NoPart."""
    needed, network = require_blocks(config), IPv4Network(config.network)
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    with (SHARED_RUN_DIR / "lock").open("w") as lock:
        os.fchmod(lock.fileno(), 0o600)  # a user who could open it could lock it, and keep every server from starting
        fcntl.flock(lock, fcntl.LOCK_EX)
        claims, mine = _claims(), config.data_dir.resolve()
        blocks = [claim.block for claim in claims if claim.owner == mine]
        if any(block >= _blocks_in(network) for block in blocks):
            raise NoPart(
                f"BUNTIME_NETWORK={network} is smaller than the network that this data directory has addresses of"
            )
        for block in _free(needed - len(blocks), network, claims, config):
            _claim_file(block).write_text(json.dumps({"data_dir": str(mine), "place": len(blocks)}))
            blocks.append(block)
    return Part(config.instance, network, tuple(blocks))


def held_part(config: Config) -> Part | None:
    """The part that `config.data_dir` has claimed, be it less than the settings ask for. None: it has none."""
    blocks = tuple(claim.block for claim in _claims() if claim.owner == config.data_dir.resolve())
    return Part(config.instance, IPv4Network(config.network), blocks) if blocks else None


def other_data_dirs(config: Config) -> list[Path]:
    """Data directories of this host's other servers."""
    return list({claim.owner: None for claim in _claims() if claim.owner != config.data_dir.resolve()})


def release_part(part: Part) -> None:
    for block in part.blocks:
        _claim_file(block).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Claim:
    block: int
    owner: Path  # a data directory
    place: int  # of the block among those of its owner


def _free(count: int, network: IPv4Network, claims: list[_Claim], config: Config) -> list[int]:
    """Blocks that nobody has claimed, in the order of their numbers. Raises NoPart where there are fewer."""
    free = [block for block in range(_blocks_in(network)) if block not in {claim.block for claim in claims}]
    if len(free) < count:
        owners = Counter(str(claim.owner) for claim in claims)
        taken = ", ".join(f"{owner} ({number})" for owner, number in owners.items())
        raise NoPart(
            f"Addresses for {config.sandbox_addresses} sandboxes need {count} more blocks of {BLOCK} addresses. "
            f"This host has {_blocks_in(network)} blocks and {len(free)} are "
            f"free. Data directories hold the others: {taken}"
        )
    return free[: max(0, count)]


def _claim_file(block: int) -> Path:
    return SHARED_RUN_DIR / f"part-{block}.json"


def _claims() -> list[_Claim]:
    """In the order of their places, without the claims of directories that are gone."""
    claims = []
    for block in range(BLOCKS):
        try:
            claim = json.loads(_claim_file(block).read_text())
            # earlier versions claimed one block and wrote no place
            found = _Claim(block, Path(claim["data_dir"]), int(claim.get("place", 0)))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found.owner.exists():
            claims.append(found)
    return sorted(claims, key=lambda claim: claim.place)


def _blocks_in(network: IPv4Network) -> int:
    """How many blocks of the network the servers of a host can use."""
    return min(BLOCKS, 1 << max(0, BLOCK_PREFIX - network.prefixlen))


class Slots:
    """The numbers of sandboxes that run. A freed number rests before it is used again.

    Numbers are given out in turn. A file keeps the next one, so that after a restart the numbers freed before it come
    last.
    """

    def __init__(self, count: int, turn: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._clock = clock
        self._turn = turn
        self._used: set[int] = set()
        self._rests_until: dict[int, float] = {}
        self._next = _number_in(turn) % count
        self.refused = 0  # since the start

    @property
    def used(self) -> int:
        """How many are in use."""
        return len(self._used)

    def use(self, slots: Iterable[int]) -> None:
        """Marks the slots of sandboxes that run at a start."""
        self._used.update(slots)

    def take(self) -> int:
        """Raises Unavailable when all are in use or resting."""
        now = self._clock()
        for _ in range(self._count):
            slot, self._next = self._next, (self._next + 1) % self._count
            if slot not in self._used and self._rests_until.get(slot, 0.0) <= now:
                self._used.add(slot)
                self._turn.write_text(str(self._next))
                return slot
        self.refused += 1
        raise Unavailable("This host has no address free for another session.", 30)

    def free(self, slot: int) -> None:
        self._used.discard(slot)
        self._rests_until[slot] = self._clock() + REST_SECONDS


def _number_in(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def host_disk_free(directory: Path) -> int:
    """Free bytes on the file system of `directory`."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def memory_available() -> int:
    """Bytes that programs can get without swapping."""
    return _memory("MemAvailable")


def total_memory() -> int:
    """Bytes."""
    return _memory("MemTotal")


def _memory(name: str) -> int:
    _, _, rest = ("\n" + text_of("/proc/meminfo")).partition(f"\n{name}:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if rest else 0
