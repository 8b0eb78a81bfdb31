"""Checks what this host needs to run sandboxes, and lists what buntime changes on it.

Nothing here changes the host. Each finding is a sentence, and a bad one says how to mend it.
"""

import ipaddress
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from buntime.admin import firewalls
from buntime.config import RESOLV_CONF, BadSetting, Config
from buntime.daemon.listening import listening
from buntime.edge.nginx import USER
from buntime.edge.process import has_lua, has_user
from buntime.sandboxes.kernel import seccomp
from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.host import BLOCK, RESERVED, Part, blocks_for, require_blocks
from buntime.sandboxes.network.edge_rules import edge_rules
from buntime.sandboxes.network.host_settings import SYSCTLS, host_settings
from buntime.sandboxes.network.namespaces import Network, check_rules, edge_user, takes_timeouts
from buntime.sandboxes.network.rules import whole
from buntime.stores.opening import check as check_store
from buntime.stores.unusable import StoreUnusable

GB = 1 << 30
SETUP = "run scripts/setup as root"

# program → Debian package; the server calls each by its name
PROGRAMS = {
    "btrfs": "btrfs-progs",
    "dnsmasq": "dnsmasq-base",
    "mkfs.erofs": "erofs-utils",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nft": "nftables",
    "nginx": "nginx",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
# Simple quotas came with Linux 6.7. The rest is older, such as idmapped layers of an overlay (5.19).
OLDEST_KERNEL = (6, 7)
OLDEST_MOUNT = (2, 39)  # X-mount.idmap
OLDEST_BTRFS = (6, 7)  # quota enable --simple
# crun 1.20 fixed CVE-2025-24965. runc 1.2.8 and 1.3.3 fixed the escapes of November 2025 (CVE-2025-31133, -52565,
# -52881), which by its maintainers do not affect crun.
OLDEST_CRUN = (1, 20)
FIXED_RUNC = ((1, 2, 8), (1, 3, 3))
CGROUPS_V1 = ("memory", "pids", "cpu", "cpuacct", "blkio", "freezer")
CGROUPS_V2 = ("memory", "pids", "cpu", "io")
# These cannot be mounted with other ids, as the image is for each sandbox.
NO_IDMAP = ("overlay", "nfs", "nfs4", "cifs", "9p", "zfs", "vboxsf")
SMALLEST_VOLUMES, IMAGE_SIZE = 4 * GB, 1 * GB
REFUSED_ROUTE = 0x200  # linux/route.h, RTF_REJECT: the host sends no packets there
LEAST_MEMORY = 1 * GB
RESERVE = 125  # of vm.watermark_scale_factor, as scripts/zram sets it
LONGEST_PREFIX = 17  # several /20 blocks for the servers of the host: see sandboxes/kernel/host.py


@dataclass(frozen=True, slots=True)
class Finding:
    ok: bool
    what: str  # without a full stop
    remedy: str = ""  # what to do when it is not ok
    needed: bool = True  # without it, the server does not start


@dataclass(frozen=True, slots=True)
class Setting:
    """A kernel setting of the host that buntime raises."""

    name: str
    now: int
    wanted: int  # at least


def findings(config: Config, *, advice: bool = True) -> list[Finding]:
    """All checks, including those that pass. `advice`: also what is never `needed` and takes long to find."""
    if os.geteuid() != 0:  # other checks would only fail for lack of permission
        return [Finding(False, "buntime does not run as root", "start it as root (sudo)")]
    checks: list[Callable[[Config], Iterator[Finding]]] = [
        *(_programs, _versions, _kernel, _cgroups, _packet_filter, _disk, _memory, _network),
        *([_firewalls] if advice else []),
        _store,
    ]
    return [finding for check in checks for finding in check(config)]


def missing(config: Config) -> list[str]:
    """A sentence for each thing that keeps the server from starting."""
    return [
        f"{found.what}: {found.remedy}." for found in findings(config, advice=False) if found.needed and not found.ok
    ]


def settings(config: Config) -> list[Setting]:
    """Every kernel setting of the host that buntime raises. A value that is high enough stays as it is."""
    found = []
    slots = blocks_for(config.sandbox_addresses) * BLOCK - RESERVED
    for name, wanted in host_settings(slots).items():
        file = SYSCTLS / name
        now = (
            int(file.read_text()) if file.exists() else 0
        )  # a setting for connections appears when the kernel first tracks one
        found.append(Setting(name.replace("/", "."), now, wanted))
    return found


def changes(config: Config) -> list[str]:
    """What else buntime makes on the host outside its data directory."""
    name = config.instance
    return [
        f"network interfaces buntime{name}…, addresses of {config.network}",
        f"the nftables table buntime_{name}",
        f"cgroups buntime-{name}",
        f"files below /run/buntime; a loop device and a mount at {config.data_dir / 'volumes'}",
        f"the numbers for Prometheus at {config.metrics_socket}",
    ]


def report(config: Config) -> int:
    """Prints the findings and the changes. Returns the exit status: 1 when something needed is missing."""
    from rich.console import Console  # the server's start checks the host too, and draws nothing
    from rich.table import Table

    console = Console(highlight=False)
    found = findings(config)
    for finding in found:
        mark = "[green]ok[/]  " if finding.ok else "[red]no[/]  " if finding.needed else "[yellow]look[/]"
        console.print(mark, finding.what + ("" if finding.ok else f": {finding.remedy}."), soft_wrap=True)
    table = Table("host setting", "now", "wanted, at least", title="\nWhat buntime changes on this host", box=None)
    for setting in settings(config):
        table.add_row(setting.name, str(setting.now), str(setting.wanted))
    console.print(table)
    for change in changes(config):
        console.print(f"  {change}", soft_wrap=True)
    return 1 if any(finding.needed and not finding.ok for finding in found) else 0


def _programs(config: Config) -> Iterator[Finding]:
    for program, package in PROGRAMS.items():
        found = _which(program)
        yield Finding(found is not None, f"{program} ({package})", f"it is not installed; {SETUP}")
    yield Finding(has_lua(), "nginx's Lua module (libnginx-mod-http-lua)", f"it is not installed; {SETUP}")
    yield Finding(has_user(), f"user {USER} for nginx's workers", f"it does not exist; {SETUP}")
    profile = seccomp.PROFILE
    yield Finding(profile.exists(), f"seccomp profile {profile}", f"{SETUP} (golang-github-containers-common)")
    known = platform.machine() in seccomp.MACHINES
    yield Finding(known, f"machine {platform.machine()}", f"buntime supports only {' and '.join(seccomp.MACHINES)}")


def _store(config: Config) -> Iterator[Finding]:
    if not config.store:
        return
    try:
        check_store(config)
    except StoreUnusable as wrong:
        yield Finding(False, str(wrong).rstrip("."), "see docs/operating-hosts.md")
    else:
        yield Finding(True, "the database of BUNTIME_STORE")


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def _versions(config: Config) -> Iterator[Finding]:
    yield _runtime(config.runtime)
    for command, oldest in (("mount", OLDEST_MOUNT), ("btrfs", OLDEST_BTRFS)):
        if _which(command):
            version = _version_of(command)
            needed = ".".join(map(str, oldest))
            yield Finding(version >= oldest, f"{command} {_text(version)}", f"buntime needs version {needed} or later")
    kernel = _version(platform.release())
    needed = ".".join(map(str, OLDEST_KERNEL))
    yield Finding(kernel >= OLDEST_KERNEL, f"Linux {_text(kernel)}", f"buntime needs version {needed} or later")


def _runtime(runtime: str) -> Finding:
    if _which(runtime) is None:
        return Finding(False, f"OCI runtime {runtime}", f"it is not installed; {SETUP}, or set BUNTIME_RUNTIME")
    version, name = _version_of(runtime), Path(runtime).name
    what = f"OCI runtime {runtime} {_text(version)}"
    if name == "crun":
        return Finding(
            version >= OLDEST_CRUN, what, f"install {_text(OLDEST_CRUN)} or later: earlier versions are not safe"
        )
    if name == "runc":
        fixed = version >= FIXED_RUNC[1] or FIXED_RUNC[0] <= version < (1, 3)
        safe = " or ".join(map(_text, FIXED_RUNC))
        return Finding(fixed, what, f"install {safe} or later: sessions can escape from this one")
    return Finding(True, what)


def _version_of(program: str) -> tuple[int, ...]:
    try:
        return _version(call([program, "--version"], timeout=10))
    except HostCommandFailed:
        return ()


def _version(text: str) -> tuple[int, ...]:
    """The first dotted number in the text."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of unknown version"


def _kernel(config: Config) -> Iterator[Finding]:
    for name in ("overlay", "btrfs", "erofs"):
        yield Finding(_has_file_system(name), f"file system {name}", "this kernel lacks it: use Debian's kernel")
    quotas = Path("/sys/fs/btrfs/features")
    if quotas.exists():
        yield Finding((quotas / "simple_quota").exists(), "simple quotas of btrfs", "this kernel lacks them")
    if not (config.data_dir / "volumes").is_mount():
        loop = Path("/dev/loop-control").exists() or _has_module("drivers/block/loop")
        volumes = config.data_dir / "volumes"
        yield Finding(loop, "loop devices", f"this kernel lacks them: mount a btrfs file system at {volumes}")
    spaces = _number("/proc/sys/user/max_user_namespaces")
    yield Finding(spaces > 0, "user namespaces", "allow them: sysctl -w user.max_user_namespaces=100000")
    filtering = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    yield Finding(filtering, "seccomp", "this kernel lacks it: use Debian's kernel")


def _has_file_system(name: str) -> bool:
    loaded = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    return name in loaded or _has_module(f"fs/{'overlayfs' if name == 'overlay' else name}/{name}")


def _has_module(path: str) -> bool:
    """Whether the kernel can load the module on demand."""
    whole = Path(f"/lib/modules/{platform.release()}/kernel/{path}.ko")
    return any(whole.parent.glob(whole.name + "*"))


def _number(path: str) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0


def _cgroups(config: Config) -> Iterator[Finding]:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        has = (root / "cgroup.controllers").read_text().split()
        lacking = [name for name in CGROUPS_V2 if name not in has]
        kind = "cgroups v2"
    else:
        lacking = [name for name in CGROUPS_V1 if not (root / name).is_dir()]
        kind = "cgroups v1" + (", hybrid" if (root / "unified").is_dir() else "")
    yield Finding(not lacking, kind, f"controllers are missing: {', '.join(lacking)}; boot with them enabled")
    writable = os.access(root / ("" if kind == "cgroups v2" else "memory"), os.W_OK)
    yield Finding(writable, "cgroups can be made", "in a container, mount a writable /sys/fs/cgroup")
    if kind == "cgroups v2":
        remedy = f"{root} has processes itself: give the container the host's cgroup namespace, or move them"
        yield Finding(cgroups_can_be_limited(root), "cgroups can be limited", f"{remedy} into a cgroup below it")


def cgroups_can_be_limited(root: Path) -> bool:
    """On cgroup v2, a cgroup with processes of its own, such as a container's root, hands no controllers to the cgroups
    below it. Only the host's root may do both, and it has no type."""
    if not (root / "cgroup.type").exists():
        return True
    handed = (root / "cgroup.subtree_control").read_text().split()
    return set(CGROUPS_V2) <= set(handed) or not (root / "cgroup.procs").read_text().strip()


def _packet_filter(config: Config) -> Iterator[Finding]:
    """Whether the kernel accepts the rules that the server will use. Puts nothing in force."""
    if _which("nft") is None:
        return
    part = Part(config.instance, ipaddress.IPv4Network("10.213.0.0/16"), (0,))
    network = Network(part)
    try:
        counted = edge_rules(listening(config), part.interfaces)
    except BadSetting as wrong:
        yield Finding(False, f"BUNTIME_HOST={config.host}", str(wrong).removesuffix("."))
        return
    short = takes_timeouts()
    rules = whole(network.table, part, edge_user(), {}, counted, short=short)
    try:
        check_rules(rules)
    except HostCommandFailed as failed:
        reason = str(failed).splitlines()[0]
        yield Finding(
            False, "nftables with NAT, fib and connection limits", f"the kernel refuses buntime's rules ({reason})"
        )
    else:
        yield Finding(True, "nftables with NAT, fib and connection limits")
    if not short:
        remedy = "use a kernel with CONFIG_NF_CONNTRACK_TIMEOUT"
        yield Finding(False, "ended connections of sessions stay in the host's table for minutes", remedy, needed=False)


def _disk(config: Config) -> Iterator[Finding]:
    home = config.data_dir
    while not home.exists():
        home = home.parent
    kind = _file_system_of(home)
    yield Finding(
        kind not in NO_IDMAP, f"{config.data_dir} on {kind}", "choose a BUNTIME_DATA_DIR on ext4, xfs or btrfs"
    )
    fresh = not (config.data_dir / "volumes.btrfs").exists() and not (config.data_dir / "volumes").is_mount()
    # a server starts on a full disk too: it serves its sessions and refuses new ones
    need = config.reserve_gb * GB + SMALLEST_VOLUMES + IMAGE_SIZE if fresh else 0
    free = shutil.disk_usage(home).free
    remedy = f"{need / GB:.0f} GB are needed; free some, or choose another BUNTIME_DATA_DIR"
    yield Finding(free >= need, f"{free / GB:.0f} GB free for {config.data_dir}", remedy)


def _file_system_of(path: Path) -> str:
    """The kind of file system at `path`: of the mount above it with the longest path."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) >= len(best[0]):
            best = (where, kind)
    return best[1]


def _memory(config: Config) -> Iterator[Finding]:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    names = ("MemTotal", "MemAvailable", "SwapTotal")
    total, available, swap = (int(fields[name].split()[0]) << 10 for name in names)
    what = f"{total / GB:.1f} GB of memory, {available / GB:.1f} GB available"
    yield Finding(available >= LEAST_MEMORY, what, f"less than {LEAST_MEMORY // GB} GB: few sessions fit", needed=False)
    yield swap_of(swap, Path("/sys/fs/cgroup/memory"))
    if swap:
        yield boost_of(_number("/proc/sys/vm/watermark_boost_factor"))
        yield reserve_of(_number("/proc/sys/vm/watermark_scale_factor"))


def swap_of(size: int, v1: Path) -> Finding:
    """`size`: bytes. `v1`: the cgroup v1 that counts memory, if there is one."""
    if size == 0:
        remedy = "suspended sessions keep their memory; add compressed memory (docs/production.md, Swap)"
        return Finding(False, "this host has no swap", remedy, needed=False)
    is_counted = not v1.is_dir() or (v1 / "memory.memsw.limit_in_bytes").exists()
    remedy = "the kernel does not count it, so suspended sessions keep their memory; boot with swapaccount=1"
    return Finding(is_counted, f"{size / GB:.1f} GB of swap", remedy, needed=False)


def boost_of(factor: int) -> Finding:
    """`factor`: vm.watermark_boost_factor."""
    remedy = "with thousands of sessions, the kernel frees memory without need; set it to 0 (docs/production.md, Swap)"
    return Finding(factor == 0, f"vm.watermark_boost_factor is {factor}", remedy, needed=False)


def reserve_of(factor: int) -> Finding:
    """`factor`: vm.watermark_scale_factor."""
    remedy = f"with thousands of sessions, programs wait for memory; set it to {RESERVE} (docs/production.md, Swap)"
    return Finding(factor >= RESERVE, f"vm.watermark_scale_factor is {factor}", remedy, needed=False)


def _network(config: Config) -> Iterator[Finding]:
    yield _name_servers(config.resolv_conf)
    try:
        network = ipaddress.IPv4Network(config.network)
    except ValueError as wrong:
        yield Finding(False, f"BUNTIME_NETWORK={config.network}", f"it is not a network ({wrong})")
        return
    length = LONGEST_PREFIX
    yield Finding(network.prefixlen <= length, f"BUNTIME_NETWORK={network}", f"it must be a /{length} or larger")
    yield _addresses(config)
    # a wider route of the host does no harm, because the longest prefix wins
    used = ", ".join(str(route) for route in _foreign_routes() if route.subnet_of(network))
    yield Finding(
        not used, f"addresses {network}", f"this host uses {used} itself; set BUNTIME_NETWORK to other addresses"
    )


def _name_servers(path: Path) -> Finding:
    """Reads the file as the sessions' name server does."""
    try:
        text = call(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", str(path)], timeout=10)
    except HostCommandFailed:
        text = ""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    if path == RESOLV_CONF:
        what = f"name servers: {', '.join(servers) or 'none'}"
        return Finding(bool(servers), what, f"sessions cannot resolve names: add one to {path}", needed=False)
    what = f"BUNTIME_RESOLV_CONF={path}"
    if servers:
        return Finding(True, f"{what}: {', '.join(servers)}")
    if not path.exists():
        return Finding(False, what, "there is no such file")
    return Finding(False, what, "it has no line with nameserver and an address, or the user nobody cannot read it")


def _addresses(config: Config) -> Finding:
    what = f"addresses for {config.sandbox_addresses} sandboxes"
    try:
        require_blocks(config)
    except BadSetting as wrong:
        return Finding(False, what, str(wrong).removesuffix("."))
    return Finding(True, what)


def _foreign_routes() -> Iterator[ipaddress.IPv4Network]:
    """Networks that this host has routes to, without the default route and buntime's own routes."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, to, _, flags, _, _, _, mask, *_ = line.split()
        if to == "00000000" or interface.startswith("buntime") or int(flags, 16) & REFUSED_ROUTE:
            continue
        address, bits = (int.from_bytes(bytes.fromhex(word), "little") for word in (to, mask))
        yield ipaddress.IPv4Network((address, bits.bit_count()))


def _firewalls(config: Config) -> Iterator[Finding]:
    if _which("nft") is None:
        return
    try:
        ruleset = call(["nft", "-j", "list", "ruleset"], timeout=10)
    except HostCommandFailed:
        return
    for obstacle in firewalls.obstacles(ruleset, config.network):
        yield Finding(False, obstacle.what, obstacle.remedy, needed=False)
