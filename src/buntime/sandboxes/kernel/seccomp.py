"""Which system calls a session may make.

The base is Podman's maintained profile (Debian: golang-github-containers-common) in its OCI form. Left out is what a
nested user namespace would open, and what reaches beyond the session.
"""

import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROFILE = Path("/usr/share/containers/seccomp.json")
EPERM, EINVAL, ENOTTY, ENOSYS, EPROTONOSUPPORT = 1, 22, 25, 38, 93
NAMESPACE_FLAGS = 0x7E020000 | 0x00000080  # every CLONE_NEW*
CLONE_FILES, CLONE_THREAD = 0x400, 0x10000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM = 1, 2
SOCK_TYPE = 0xF  # the rest are flags
NETLINK_ROUTE, NETLINK_AUDIT = 0, 9
# No other protocol: the kernel would load a module for any program that asks.
PROTOCOLS = {
    (AF_INET, SOCK_STREAM): (0, 6),  # TCP
    (AF_INET, SOCK_DGRAM): (0, 17, 1),  # UDP, ping
    (AF_INET6, SOCK_STREAM): (0, 6),
    (AF_INET6, SOCK_DGRAM): (0, 17, 58),
}
# linux/fs.h. The archive would lose flags of files, as `chattr` sets them, so programs may read them but not set them.
FLAG_IOCTLS = (ord("f"), ord("X"))  # bits 8 to 15 of their numbers, which encryption and freezing share
GETFLAGS, FIEMAP, FSGETXATTR = 0x80086601, 0xC020660B, 0x801C581F
SETFLAGS, FSSETXATTR = 0x40086602, 0x401C5820
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 4, 0o4000  # linux/mman.h, memfd.h, shm.h
RLIMIT_CORE, LIMIT_KINDS = 4, 16  # asm-generic/resource.h
F_OFD_LOCKS = (36, 37, 38)  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
# Level → options of sockets: SO_RCVBUF, SO_RCVLOWAT, SO_TIMESTAMPING (old and new); IP_RECVERR; IPV6_RECVERR
IGNORED_OPTIONS = {1: (8, 18, 37, 65), 0: (11,), 41: (25,)}
MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}

# Namespaces and mounts belong to the host. Keys, BPF and userfaultfd are kernel attack surface with no use here.
DENIED = frozenset(
    [
        "unshare",
        "setns",
        "mount",
        "umount",
        "umount2",
        "fsopen",
        "fsmount",
        "fsconfig",
        "fspick",
        "move_mount",
        "open_tree",
        "open_tree_attr",
        "mount_setattr",
        "pivot_root",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "userfaultfd",
        "memfd_secret",  # each page splits the kernel's own map of memory, permanently
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "clone",
        "clone3",
        "sync",
        "syncfs",
        "socket",
        "setsockopt",
        "ioctl",
        "fcntl",
        "io_setup",
        "mmap",
        "memfd_create",
        "shmget",
        "setrlimit",
        "prlimit64",
        "quotactl",
        "quotactl_fd",
        "name_to_handle_at",
        "open_by_handle_at",
        "kexec_load",
        "kexec_file_load",
    ]
)


def profile(text: str, machine: str = platform.machine()) -> dict[str, Any]:
    """The `linux.seccomp` part of an OCI spec, from the text of Podman's profile."""
    arch, scmp = MACHINES[machine]
    rules: list[dict[str, Any]] = []
    for rule in json.loads(text)["syscalls"]:
        includes = rule.get("includes") or {}
        # a rule for a capability would widen the profile for programs that do not have the capability
        if includes.get("caps") or rule["action"] != "SCMP_ACT_ALLOW":
            continue
        if arch not in (includes.get("arches") or [arch]):
            continue
        names = [name for name in rule["names"] if name not in DENIED]
        if names:
            allowed = {"names": names, "action": "SCMP_ACT_ALLOW"}
            rules.append({**allowed, "args": rule["args"]} if rule.get("args") else allowed)
    rules += _own_rules()
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [scmp],
        "syscalls": rules,
    }


def _own_rules() -> list[dict[str, Any]]:
    return [
        *_clones(),
        # Its flags are behind a pointer, which a filter cannot read. Programs fall back to clone.
        _fails("clone3", ENOSYS),
        # Huge pages belong to the host: no memory limit counts them, and an operator sets them aside for others.
        _without_flag("mmap", 3, MAP_HUGETLB),
        _without_flag("memfd_create", 1, MFD_HUGETLB),
        _without_flag("shmget", 2, SHM_HUGETLB),
        # The kernel counts these for the whole host. Libraries fall back where the host has none.
        _fails("io_setup", ENOSYS),
        # These flush the whole host, so they succeed and do nothing. fsync of one's own files works.
        _succeeds("sync", "syncfs"),
        *_sockets(),
        *_ioctls(),
        *_locks(),
        *_socket_options(),
        *_limits("setrlimit", 0, []),
        *_limits("prlimit64", 1, [_equal(2, 0)]),
    ]


def _allow(name: str, *args: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(args)}


def _fails(name: str, error: int) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": error}


def _succeeds(*names: str) -> dict[str, Any]:
    """The calls succeed and do nothing."""
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 0}


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _masked(index: int, value: int, mask: int) -> dict[str, Any]:
    """Compares only the bits of an argument that are in the mask."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _without_flag(name: str, index: int, flag: int) -> dict[str, Any]:
    return _allow(name, _masked(index, 0, flag))


def _sockets() -> list[dict[str, Any]]:
    return [
        _allow("socket", _equal(0, AF_UNIX)),
        *(
            _allow("socket", _equal(0, family), _masked(1, kind, SOCK_TYPE), _equal(2, protocol))
            for (family, kind), protocols in PROTOCOLS.items()
            for protocol in protocols
        ),
        _allow("socket", _equal(0, AF_NETLINK), _equal(2, NETLINK_ROUTE)),
        # A kernel without auditing gives this error. At EPERM, `su`, `useradd` and packages that call them give up.
        {**_fails("socket", EPROTONOSUPPORT), "args": [_equal(0, AF_NETLINK), _equal(2, NETLINK_AUDIT)]},
    ]


def _limits(name: str, resource: int, reading: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Programs may change every limit except the one on core files, where the call succeeds and does nothing.
    `resource`: the argument that names the limit. `reading`: conditions of a call that only reads.

    The limit on core files is 1 byte, which is special. At any other value, even 0, the kernel starts the host's core
    handler, as root of the host, for each program that crashes in a session. The kernel looks at 32 bits of the
    argument.
    """

    def named(number: int) -> dict[str, Any]:
        return _masked(resource, number, 0xFFFFFFFF)

    changing = [{**condition, "op": "SCMP_CMP_NE"} for condition in reading]
    return [
        *(_allow(name, named(number)) for number in range(LIMIT_KINDS) if number != RLIMIT_CORE),
        *([_allow(name, named(RLIMIT_CORE), *reading)] if reading else []),
        {**_succeeds(name), "args": [named(RLIMIT_CORE), *changing]},
    ]


def _clones() -> list[dict[str, Any]]:
    """No namespaces. Only threads of one process share their table of open files. Else a process could take locks, end,
    and leave them to another process, and no list of the kernel would tell whose they are."""
    shared = CLONE_FILES | CLONE_THREAD
    return [_allow("clone", _masked(0, both, NAMESPACE_FLAGS | shared)) for both in (0, shared)]


def _locks() -> list[dict[str, Any]]:
    """`fcntl` without locks of open files, which the kernel lists without their process. They fail as on a kernel that
    does not know them. No other commands end in the same byte."""
    return [
        *(_allow("fcntl", _masked(1, value, mask)) for value, mask in _bytes_but(F_OFD_LOCKS)),
        *({**_fails("fcntl", EINVAL), "args": [_masked(1, command, 0xFF)]} for command in F_OFD_LOCKS),
    ]


def _socket_options() -> list[dict[str, Any]]:
    """Some options succeed and do nothing. No account counts what waits in a connection that nobody has accepted, or in
    a socket's queue of errors. The size of receive buffers bounds both, and the other options fill the queue. The
    kernel looks at 32 bits of level and option, so comparisons are masked. No other levels end in the same byte."""
    rules = [_allow("setsockopt", _masked(1, value, mask)) for value, mask in _bytes_but(tuple(IGNORED_OPTIONS))]
    for number, options in IGNORED_OPTIONS.items():
        level = _masked(1, number, 0xFFFFFFFF)
        others = (_masked(2, value, mask | 0xFFFFFF00) for value, mask in _bytes_but(options))
        rules += [_allow("setsockopt", level, option) for option in others]
        ignored = (_masked(2, option, 0xFFFFFFFF) for option in options)
        rules += [{**_succeeds("setsockopt"), "args": [level, option]} for option in ignored]
    return rules


def _ioctls() -> list[dict[str, Any]]:
    """The kernel looks at 32 bits of the number and a filter at 64, so comparisons are masked. Where rules contradict
    each other any may win, so the allowed numbers leave out the others."""
    reading, setting = (GETFLAGS, FIEMAP, FSGETXATTR), (SETFLAGS, FSSETXATTR)
    return [
        *(_allow("ioctl", _masked(1, value << 8, mask << 8)) for value, mask in _bytes_but(FLAG_IOCTLS)),
        *(_allow("ioctl", _masked(1, number, 0xFFFFFFFF)) for number in reading),
        *({**_fails("ioctl", ENOTTY), "args": [_masked(1, number, 0xFFFFFFFF)]} for number in setting),
    ]


def _bytes_but(taken: Sequence[int], start: int = 0, bits: int = 8) -> Iterator[tuple[int, int]]:
    """Values and masks that together match every byte except those taken. `start` and `bits`: only bytes that differ
    from `start` in the last `bits`."""
    inside = [byte for byte in taken if byte >> bits == start >> bits]
    if not inside:
        yield start, 0xFF << bits & 0xFF
    elif bits:
        half = bits - 1
        yield from _bytes_but(inside, start, half)
        yield from _bytes_but(inside, start | 1 << half, half)
