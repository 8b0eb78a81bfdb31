"""The host's own kernel settings that sessions need. One that is high enough stays as it is; none is ever lowered."""

import stat
from pathlib import Path

from buntime.sandboxes.kernel.oci import PTYS
from buntime.sandboxes.network.rules import ENTRIES

SYSCTLS = Path("/proc/sys")
KEPT_PTYS = 1024  # kernel.pty.reserve: those that only the host's own programs get
MOST_THREADS = 1024  # that one sandbox can have, see `cgroup.py`; these too are counted for the whole host
ORPHANS = 512  # connections of one sandbox that no program has any more, and that still have something to send


def host_settings(sandboxes: int) -> dict[str, int]:
    """Name below SYSCTLS → at least. For so many sandboxes at a time."""
    return {
        "net/ipv4/ip_forward": 1,
        "kernel/pid_max": 4194304,
        "kernel/threads-max": sandboxes * MOST_THREADS,
        "kernel/pty/max": sandboxes * PTYS + KEPT_PTYS,
        "fs/file-max": (1 << 63) - 1,  # an open file is memory of its session, whose limit is the bound
        "fs/inotify/max_user_instances": 128,  # of one session, as the next
        "fs/inotify/max_user_watches": 65536,
        # what all sandboxes can use: the host's tables are not to be full before
        "net/netfilter/nf_conntrack_max": sandboxes * ENTRIES,
        "net/ipv4/tcp_max_orphans": sandboxes * ORPHANS,
    }


def raise_host_settings(sandboxes: int) -> None:
    """Raises OSError where the kernel does not let us."""
    for name, wanted in host_settings(sandboxes).items():
        setting = SYSCTLS / name
        # in another network namespace than the host's own, some are not there or are only shown
        if setting.exists() and setting.stat().st_mode & stat.S_IWUSR and int(setting.read_text()) < wanted:
            setting.write_text(str(wanted))
