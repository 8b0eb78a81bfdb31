"""The host's kernel settings that sessions need. A setting that is high enough stays as it is. None is lowered."""

import stat
from pathlib import Path

from buntime.sandboxes.kernel.oci import PTYS
from buntime.sandboxes.network.rules import ENTRIES

SYSCTLS = Path("/proc/sys")
KEPT_PTYS = 1024  # kernel.pty.reserve: only the host's own programs get these
MOST_THREADS = 1024  # that one sandbox can have at most: the kernel counts them for the whole host
ORPHANS = 512  # connections of one sandbox that no program holds any more and that still have data to send


def host_settings(sandboxes: int) -> dict[str, int]:
    """Name below SYSCTLS → least value, for so many sandboxes at a time."""
    return {
        "net/ipv4/ip_forward": 1,
        "kernel/pid_max": 4194304,
        "kernel/threads-max": sandboxes * MOST_THREADS,
        "kernel/pty/max": sandboxes * PTYS + KEPT_PTYS,
        "fs/file-max": (1 << 63) - 1,  # an open file is memory of its session, which has a limit
        "fs/inotify/max_user_instances": 128,  # of one session, like the next
        "fs/inotify/max_user_watches": 65536,
        # what all sandboxes can use together: the host's tables must not be full before
        "net/netfilter/nf_conntrack_max": sandboxes * ENTRIES,
        "net/ipv4/tcp_max_orphans": sandboxes * ORPHANS,
    }


def raise_host_settings(sandboxes: int) -> None:
    """Raises OSError where the kernel refuses."""
    for name, wanted in host_settings(sandboxes).items():
        setting = SYSCTLS / name
        # in a network namespace other than the host's, some settings are missing or read-only
        if setting.exists() and setting.stat().st_mode & stat.S_IWUSR and int(setting.read_text()) < wanted:
            setting.write_text(str(wanted))
