"""Which system calls a session may make.

Podman's maintained profile (Debian: golang-github-containers-common) in its OCI form, less what a
nested user namespace would open and what reaches beyond the session.
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
# No other protocol: the kernel would load its module for whoever asks.
PROTOCOLS = {
    (AF_INET, SOCK_STREAM): (0, 6),  # TCP
    (AF_INET, SOCK_DGRAM): (0, 17, 1),  # UDP, ping
    (AF_INET6, SOCK_STREAM): (0, 6),
    (AF_INET6, SOCK_DGRAM): (0, 17, 58),
}
# linux/fs.h: flags of files as `chattr` sets them would be lost in the archive, so there are none. They may be read.
FLAG_IOCTLS = (ord("f"), ord("X"))  # the kinds of their numbers, bits 8 to 15: encryption and freezing are of them too
GETFLAGS, FIEMAP, FSGETXATTR = 0x80086601, 0xC020660B, 0x801C581F
SETFLAGS, FSSETXATTR = 0x40086602, 0x401C5820
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 4, 0o4000  # linux/mman.h, memfd.h, shm.h
RLIMIT_CORE, LIMIT_KINDS = 4, 16  # asm-generic/resource.h
F_OFD_LOCKS = (36, 37, 38)  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
# Level → options of sockets: SO_RCVBUF, SO_RCVLOWAT, SO_TIMESTAMPING (old and new); IP_RECVERR; IPV6_RECVERR
IGNORED_OPTIONS = {1: (8, 18, 37, 65), 0: (11,), 41: (25,)}
MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}

# Namespaces and mounts belong to the host; keys, BPF and userfaultfd are kernel attack surface with no use here.
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
        "memfd_secret",  # each page splits the kernel's own map of memory, for good
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
        # a rule for a capability would widen the profile for programs that do not have it anyway
        if includes.get("caps") or rule["action"] != "SCMP_ACT_ALLOW":
            continue
        if arch not in (includes.get("arches") or [arch]):
            continue
        names = [name for name in rule["names"] if name not in DENIED]
        if names:
            allowed = {"names": names, "action": "SCMP_ACT_ALLOW"}
            rules.append({**allowed, "args": rule["args"]} if rule.get("args") else allowed)
    rules += _our_rules()
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [scmp],
        "syscalls": rules,
    }


def _our_rules() -> list[dict[str, Any]]:
    def allow(name: str, *args: dict[str, Any]) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(args)}

    def equal(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    def is_type(kind: int) -> dict[str, Any]:
        return {"index": 1, "value": SOCK_TYPE, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"}

    def without(name: str, index: int, flag: int) -> dict[str, Any]:
        return allow(name, {"index": index, "value": flag, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"})

    return [
        *_clones(),
        # its flags are behind a pointer, which a filter cannot read: programs fall back to clone
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        # huge pages are the host's: in no memory limit, and what an operator set aside for others
        without("mmap", 3, MAP_HUGETLB),
        without("memfd_create", 1, MFD_HUGETLB),
        without("shmget", 2, SHM_HUGETLB),
        # the kernel counts them for the whole host; libraries fall back where it has none
        {"names": ["io_setup"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        # these flush the whole host: they succeed and do nothing; fsync of one's own files works
        {"names": ["sync", "syncfs"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
        allow("socket", equal(0, AF_UNIX)),
        *(
            allow("socket", equal(0, family), is_type(kind), equal(2, protocol))
            for (family, kind), protocols in PROTOCOLS.items()
            for protocol in protocols
        ),
        allow("socket", equal(0, AF_NETLINK), equal(2, NETLINK_ROUTE)),
        # what a kernel without auditing says: at EPERM `su`, `useradd` and the packages that call them give up
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPROTONOSUPPORT,
            "args": [equal(0, AF_NETLINK), equal(2, NETLINK_AUDIT)],
        },
        *_ioctls(),
        *_locks(),
        *_socket_options(),
        *_limits("setrlimit", 0, []),
        *_limits("prlimit64", 1, [{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}]),
    ]


def _limits(name: str, resource: int, reading: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every limit may be changed but the one of core files: that succeeds and does nothing. `resource`: the argument
    that names the limit. `reading`: what tells a call that only reads.

    The limit is 1 byte, which is special: at any other, 0 too, the kernel starts the host's own core handler, as root
    of the host, for each program that crashes in a session. The kernel looks at 32 bits of the argument."""

    def named(number: int) -> dict[str, Any]:
        return {"index": resource, "value": 0xFFFFFFFF, "valueTwo": number, "op": "SCMP_CMP_MASKED_EQ"}

    def rule(action: dict[str, Any], *args: dict[str, Any]) -> dict[str, Any]:
        return {"names": [name], **action, "args": list(args)}

    allowed, ignored = {"action": "SCMP_ACT_ALLOW"}, {"action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    changing = [{**condition, "op": "SCMP_CMP_NE"} for condition in reading]
    return [
        *(rule(allowed, named(number)) for number in range(LIMIT_KINDS) if number != RLIMIT_CORE),
        *([rule(allowed, named(RLIMIT_CORE), *reading)] if reading else []),
        rule(ignored, named(RLIMIT_CORE), *changing),
    ]


def _clones() -> list[dict[str, Any]]:
    """No namespaces. Threads of one process, and only these, share their table of open files: else a process could take
    locks, end, and leave them to another, and no list of the kernel's would tell whose they are."""
    shared = CLONE_FILES | CLONE_THREAD
    return [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NAMESPACE_FLAGS | shared, "valueTwo": both, "op": "SCMP_CMP_MASKED_EQ"}],
        }
        for both in (0, shared)
    ]


def _locks() -> list[dict[str, Any]]:
    """`fcntl` without locks of open files, as a kernel that does not know them: the kernel lists these without their
    process. Commands that end in the same byte do not exist."""

    def rule(action: dict[str, Any], value: int, mask: int) -> dict[str, Any]:
        command = {"index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        return {"names": ["fcntl"], **action, "args": [command]}

    allowed, unknown = {"action": "SCMP_ACT_ALLOW"}, {"action": "SCMP_ACT_ERRNO", "errnoRet": EINVAL}
    return [
        *(rule(allowed, value, mask) for value, mask in _bytes_but(F_OFD_LOCKS)),
        *(rule(unknown, command, 0xFF) for command in F_OFD_LOCKS),
    ]


def _socket_options() -> list[dict[str, Any]]:
    """Some succeed and do nothing: no account counts what waits in a connection that is not accepted, nor in a socket's
    queue of errors. The size of receive buffers bounds both; the other options fill the queue. The kernel looks at
    32 bits of level and option: comparisons are masked. Levels that end in the same byte do not exist."""

    def rule(action: dict[str, Any], *masked: tuple[int, int, int]) -> dict[str, Any]:
        args = [{"index": i, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"} for i, value, mask in masked]
        return {"names": ["setsockopt"], **action, "args": args}

    allowed, done = {"action": "SCMP_ACT_ALLOW"}, {"action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    rules = [rule(allowed, (1, value, mask)) for value, mask in _bytes_but(tuple(IGNORED_OPTIONS))]
    for number, options in IGNORED_OPTIONS.items():
        level = (1, number, 0xFFFFFFFF)
        others = ((2, value, mask | 0xFFFFFF00) for value, mask in _bytes_but(options))
        rules += [rule(allowed, level, option) for option in others]
        rules += [rule(done, level, (2, option, 0xFFFFFFFF)) for option in options]
    return rules


def _ioctls() -> list[dict[str, Any]]:
    """The kernel looks at 32 bits of the number and a filter at 64: comparisons are masked. Of rules that contradict
    each other any may win, so what is allowed leaves out what is not."""

    def rule(action: dict[str, Any], value: int, mask: int) -> dict[str, Any]:
        number = {"index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        return {"names": ["ioctl"], **action, "args": [number]}

    allowed, unknown = {"action": "SCMP_ACT_ALLOW"}, {"action": "SCMP_ACT_ERRNO", "errnoRet": ENOTTY}
    return [
        *(rule(allowed, value << 8, mask << 8) for value, mask in _bytes_but(FLAG_IOCTLS)),
        *(rule(allowed, number, 0xFFFFFFFF) for number in (GETFLAGS, FIEMAP, FSGETXATTR)),
        *(rule(unknown, number, 0xFFFFFFFF) for number in (SETFLAGS, FSSETXATTR)),
    ]


def _bytes_but(taken: Sequence[int], start: int = 0, bits: int = 8) -> Iterator[tuple[int, int]]:
    """Values and masks that together match every byte from `start` with its last `bits` free, but those taken."""
    inside = [byte for byte in taken if byte >> bits == start >> bits]
    if not inside:
        yield start, 0xFF << bits & 0xFF
    elif bits:
        half = bits - 1
        yield from _bytes_but(inside, start, half)
        yield from _bytes_but(inside, start | 1 << half, half)
