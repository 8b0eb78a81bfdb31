"""The kernel's own memory: what the host has lost, and what of it is charged to a session."""

from pathlib import Path

from buntime.config import Config
from tests.acceptance import traces

CGROUPS = Path("/sys/fs/cgroup")
PAGE = 4096
# of memory.stat on v2: what the kernel keeps for a session's processes
KERNEL_V2 = ("kernel", "sock")


def of_host() -> int:
    """Bytes that nothing can reclaim: objects, buffers of sockets, page tables, stacks."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = sum(int(fields[name].split()[0]) for name in ("SUnreclaim", "PageTables", "KernelStack", "Percpu"))
    return kilobytes * 1024 + _socket_pages() * PAGE


def _socket_pages() -> int:
    """Of TCP and UDP in all network namespaces together."""
    words = Path("/proc/net/sockstat").read_text().split()
    return sum(int(words[number + 1]) for number, word in enumerate(words) if word == "mem")


def charged(config: Config, session_id: str) -> int:
    """Bytes of kernel memory in a session's own account."""
    sandbox = traces.sandbox_of(config, session_id)
    group = Path(f"buntime-{config.instance}") / sandbox
    old = CGROUPS / "memory" / group
    if not old.exists():
        stat = dict(line.split() for line in (CGROUPS / group / "memory.stat").read_text().splitlines())
        return sum(int(stat[name]) for name in KERNEL_V2)
    # the first counts what is below it, too; the second is limited, and counted, for the runs alone
    counters = (old / "memory.kmem.usage_in_bytes", old / "runs/memory.kmem.tcp.usage_in_bytes")
    return sum(int(counter.read_text()) for counter in counters)
