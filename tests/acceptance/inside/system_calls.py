"""Runs in a session: tries system calls that reach beyond the session, and prints the outcomes as JSON.

Each call runs in a child process, so that a call that succeeds affects only the child.
"""

import ctypes
import errno
import json
import os
import platform
import socket
from collections.abc import Callable
from functools import partial
from signal import SIGCHLD

LIBC = ctypes.CDLL(None, use_errno=True)
# name → number on x86_64, on arm64
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mmap": (9, 222),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "shmget": (29, 194),
    "statmount": (457, 457),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
NAMESPACES = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000, "time": 0x00000080,
}  # fmt: skip
FAMILIES = {"key": 15, "packet": 17, "can": 29, "bluetooth": 31, "alg": 38, "vsock": 40, "xdp": 44}


def call(name: str, *arguments: int | bytes) -> None:
    """Makes a system call. Raises OSError with the kernel's errno."""
    number = NUMBERS[name][platform.machine() == "aarch64"]
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    words = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in padded]
    if LIBC.syscall(ctypes.c_long(number), *words) < 0:
        raise OSError(ctypes.get_errno(), name)


def tried(action: Callable[[], object]) -> str:
    """Runs the action in a child process. Returns "done" or the errno's name."""
    child = os.fork()
    if child == 0:
        try:
            action()
            code = 0
        except OSError as refused:
            code = refused.errno or 255
        os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return "done" if code == 0 else errno.errorcode.get(code, str(code))


def enter_own_network() -> None:
    call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)


ACTIONS: dict[str, Callable[[], object]] = {
    **{f"unshare {name}": partial(call, "unshare", flag) for name, flag in NAMESPACES.items()},
    # clone has no "time" flag: that bit belongs to the signal
    **{f"clone {name}": partial(call, "clone", flag | SIGCHLD) for name, flag in NAMESPACES.items() if name != "time"},
    **{f"socket {name}": partial(socket.socket, number, socket.SOCK_RAW) for name, number in FAMILIES.items()},
    "socket raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "socket netfilter": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),
    "socket audit": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
    "clone3": lambda: call("clone3", 0, 0),
    "setns": enter_own_network,
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs"),
    "bind mount": lambda: call("mount", b"/etc", b"/mnt", 0, 4096),
    "remount": lambda: call("mount", b"none", b"/sys", 0, 32),
    "umount2": lambda: call("umount2", b"/proc", 2),
    "fsopen": lambda: call("fsopen", b"tmpfs"),
    "open_tree": lambda: call("open_tree", -100, b"/", 1),
    "move_mount": lambda: call("move_mount", -100, b"/proc", -100, b"/mnt"),
    "mount_setattr": lambda: call("mount_setattr", -100, b"/"),
    "pivot_root": lambda: call("pivot_root", b"/", b"/mnt"),
    "open_tree of a process": lambda: call("open_tree", os.open("/proc/1/root", os.O_PATH), b"", 0x1001),
    "listmount": lambda: call("listmount", 0, 0, 0, 0),
    "statmount": lambda: call("statmount", 0, 0, 0, 0),
    "keyctl": lambda: call("keyctl", 0, -3, 1),
    "add_key": lambda: call("add_key", b"user", b"name", b"value", 5, -3),
    "request_key": lambda: call("request_key", b"user", b"name"),
    "bpf": lambda: call("bpf", 0),
    "userfaultfd": lambda: call("userfaultfd", 1),
    "perf_event_open": lambda: call("perf_event_open"),
    "io_uring_enter": lambda: call("io_uring_enter"),
    "io_uring_setup": lambda: call("io_uring_setup", 1),
    "fanotify_init": lambda: call("fanotify_init"),
    "memfd_secret": lambda: call("memfd_secret"),
    "quotactl_fd": lambda: call("quotactl_fd"),
    "kexec_load": lambda: call("kexec_load"),
    "init_module": lambda: call("init_module"),
    "delete_module": lambda: call("delete_module", b"nothing"),
    "reboot": lambda: call("reboot", 0),  # 0 is not a command: an allowed call fails with EINVAL
    "swapon": lambda: call("swapon", b"/nothing"),
    "acct": lambda: call("acct", b"/nothing"),
    "quotactl": lambda: call("quotactl"),
    "syslog": lambda: call("syslog", 10),
    "sethostname": lambda: call("sethostname", b"other", 5),
    "clock_settime": lambda: call("clock_settime", 0, 0),
    "name_to_handle_at": lambda: call("name_to_handle_at", -100, b"/", 0, 0),
    "open_by_handle_at": lambda: call("open_by_handle_at", -100, 0, 0),
    "block device": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)),
    "character device": lambda: os.mknod("/tmp/memory", 0o20600, os.makedev(1, 1)),
    "real-time scheduling": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "huge pages": lambda: call("mmap", 0, 2 << 20, 3, 0x40022, -1, 0),
    "huge pages, other high bits": lambda: call("mmap", 0, 2 << 20, 3, (1 << 32) + 0x40022, -1, 0),
    "huge pages of a file": lambda: call("memfd_create", b"huge", 4),
    "huge pages of shared memory": lambda: call("shmget", 0, 2 << 20, 0o4600),
    "asynchronous I/O": lambda: call("io_setup", 1, bytes(8)),
    "lower niceness": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
}

if __name__ == "__main__":
    print(json.dumps({name: tried(action) for name, action in ACTIONS.items()}))
