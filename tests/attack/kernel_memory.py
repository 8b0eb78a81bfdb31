"""Measures kernel memory: the host's total, and the part that is charged to a session."""

from pathlib import Path

from buntime.config import Config
from tests.acceptance import traces

CGROUPS = Path("/sys/fs/cgroup")
PAGE = 4096
# fields of memory.stat on cgroup v2: kernel memory of a session's processes
KERNEL_V2 = ("kernel", "sock")


def host_bytes() -> int:
    """Returns the host's unreclaimable kernel memory in bytes: objects, socket buffers, page tables, stacks."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = sum(int(fields[name].split()[0]) for name in ("SUnreclaim", "PageTables", "KernelStack", "Percpu"))
    return kilobytes * 1024 + _socket_pages() * PAGE


def _socket_pages() -> int:
    """Returns the pages in TCP and UDP buffers, summed over all network namespaces."""
    words = Path("/proc/net/sockstat").read_text().split()
    return sum(int(words[number + 1]) for number, word in enumerate(words) if word == "mem")


def charged_bytes(config: Config, session_id: str) -> int:
    """Returns the bytes of kernel memory charged to a session's cgroup."""
    sandbox = traces.sandbox_of(config, session_id)
    group = Path(f"buntime-{config.instance}") / sandbox
    old = CGROUPS / "memory" / group
    if not old.exists():
        stat = dict(line.split() for line in (CGROUPS / group / "memory.stat").read_text().splitlines())
        return sum(int(stat[name]) for name in KERNEL_V2)
    # the first counter includes child groups; TCP memory is limited and counted only in the group of the runs
    counters = (old / "memory.kmem.usage_in_bytes", old / "runs/memory.kmem.tcp.usage_in_bytes")
    return sum(int(counter.read_text()) for counter in counters)
