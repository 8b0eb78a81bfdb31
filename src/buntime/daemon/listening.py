"""Which addresses the edge listens on, and which proxies it trusts."""

import ipaddress
import socket
from dataclasses import dataclass, replace

from buntime.config import BadSetting, Config, Subnet


@dataclass(frozen=True, slots=True)
class Listening:
    addresses: tuple[str, ...]  # a wildcard address means all addresses of its family
    port: int
    proxies: tuple[Subnet, ...] = ()  # trusted to tell a client's address
    for_hosts: int | None = None  # a port on any address, for the other hosts of a fleet

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        return [(address, self.port) for address in self.addresses]


def listening(config: Config) -> Listening:
    """Includes both loopback addresses, because a client may use either for `localhost`. Raises BadSetting."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as failed:
        raise BadSetting(f"BUNTIME_HOST={config.host} is not an address of this machine: {failed.strerror}.") from None
    addresses = {str(ipaddress.ip_address(entry[4][0])) for entry in found}
    if "127.0.0.1" in addresses and _has_ipv6_loopback():
        addresses.add("::1")
    return Listening(tuple(sorted(addresses)), config.port, config.proxies)


def listening_as_member(config: Config) -> Listening:
    """The same, with the port for other hosts."""
    return replace(listening(config), for_hosts=config.peer_port)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
