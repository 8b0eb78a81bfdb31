"""The interface with the addresses of this host that sandboxes know, and the routes that refuse all other addresses of
sandboxes. Blocking.
"""

import socket
from contextlib import suppress

from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network import rtnetlink
from buntime.sandboxes.network.interfaces import interfaces


def put_gateway(part: Part) -> None:
    """Idempotent. Raises OSError."""
    name = _name(part)
    with rtnetlink.routing() as kernel:
        if not rtnetlink.exists(name):
            rtnetlink.apply(kernel, rtnetlink.new_bridge(name))
        index = socket.if_nametoindex(name)
        rtnetlink.apply(
            kernel,
            rtnetlink.without_ipv6_addresses(index),
            *(rtnetlink.put_address(index, address) for address in (part.gateway, part.resolver)),
            rtnetlink.set_up(index),
            # packets to an address without a sandbox are refused here; the default route would send them out
            *(rtnetlink.put_unreachable(network) for network in part.networks),
        )


def remove_gateway(part: Part) -> None:
    """With all interfaces of sandboxes, when none is left. Idempotent."""
    with rtnetlink.routing() as kernel:
        for link in interfaces().glob(part.interfaces):
            if link.name != _name(part):  # of an ended sandbox that the kernel has not cleared away yet
                rtnetlink.delete_named(kernel, link.name)
        for network in part.networks:
            with suppress(OSError):  # it is not there
                rtnetlink.apply(kernel, rtnetlink.delete_unreachable(network))
        rtnetlink.delete_named(kernel, _name(part))


def _name(part: Part) -> str:
    return f"buntime{part.instance}gw"
