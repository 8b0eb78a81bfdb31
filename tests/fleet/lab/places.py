"""Names and addresses of one fleet on this machine. Several fleets can be up at the same time, each at its place."""

from dataclasses import dataclass
from ipaddress import IPv4Network

PLACES = 10
MOST_HOSTS = 9
PORT = 8000  # of each host's edge
DATABASE_PORT = 15432
ARCHIVE_PORTS = 20  # of one fleet, because SeaweedFS names files in /tmp by its ports


@dataclass(frozen=True, slots=True)
class Place:
    """A bridge in this machine's own network namespace, with PostgreSQL and S3 at its address. Each host is a network
    namespace with a link to the bridge."""

    number: int = 0  # less than PLACES; 0: of the fleet that `scripts/fleet` starts

    @property
    def bridge(self) -> str:
        """The name of the nftables tables too."""
        return f"buntimefl{self.number}"

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(f"10.214.{self.number}.0/24")

    @property
    def services(self) -> str:
        """The bridge's address."""
        return f"10.214.{self.number}.1"

    @property
    def archive_port(self) -> int:
        """The first of ARCHIVE_PORTS, and the one for S3."""
        return 18300 + self.number * ARCHIVE_PORTS

    @property
    def prefix(self) -> str:
        """Of the names of network namespaces."""
        return f"buntime-f{self.number}-" if self.number else "buntime-f"

    def namespace(self, host: int) -> str:
        """`host`: a number from 1 to MOST_HOSTS."""
        return f"{self.prefix}{host}"

    def namespaces(self) -> list[str]:
        return [self.namespace(host) for host in range(1, MOST_HOSTS + 1)]

    def link(self, host: int) -> str:
        """The bridge's end."""
        return f"{self.bridge}p{host}"

    def address(self, host: int) -> str:
        return f"10.214.{self.number}.{10 + host}"
