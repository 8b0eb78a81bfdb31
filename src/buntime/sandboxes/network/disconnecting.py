"""Ends connections that another process holds, such as nginx's to sessions. The kernel can do that (SOCK_DESTROY)."""

from buntime.preview import LOWEST_PORT
from buntime.sandboxes.kernel.commands import call


def end_connections(address: str) -> int:
    """Ends all TCP connections from this network namespace to programs' ports of `address`, and returns how many. Both
    ends see a reset. Blocking. Raises HostCommandFailed."""
    ended = call(["ss", "-K", "-H", "-t", "-n", "dst", address, "dport", "ge", f":{LOWEST_PORT}"], timeout=10.0)
    return len(ended.splitlines())
