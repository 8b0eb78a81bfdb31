"""Ending connections that somebody else holds: nginx its own to sessions. The kernel does it (SOCK_DESTROY)."""

from buntime.preview import LOWEST_PORT
from buntime.sandboxes.kernel.commands import call


def end_connections(address: str) -> int:
    """All TCP connections of this network namespace to programs' ports of `address`; how many. Both ends see them
    reset. Blocking. Raises HostCommandFailed."""
    ended = call(["ss", "-K", "-H", "-t", "-n", "dst", address, "dport", "ge", f":{LOWEST_PORT}"], timeout=10.0)
    return len(ended.splitlines())
