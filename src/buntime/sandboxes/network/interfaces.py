"""Where the kernel shows the interfaces of this process's network namespace."""

import os
from functools import cache
from pathlib import Path

from buntime.sandboxes.kernel.mount_calls import new_sysfs


@cache
def interfaces() -> Path:
    """A directory with a link for each interface, kept open for the life of the process.

    /sys/class/net shows those of the namespace that /sys was mounted in. That is another one for a server that was
    started by `nsenter --net`. Raises HostCommandFailed.
    """
    with new_sysfs() as tree:
        return Path(f"/proc/self/fd/{os.dup(tree)}/class/net")
