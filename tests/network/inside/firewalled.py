"""Runs in new network and mount namespaces: firewalled.py RULES REMEDY – tests a session's network with a firewall.

RULES is a shell command that makes the firewall. REMEDY is a shell command that does the same as the doctor's line, for
a host without the firewall's own program. If it is empty, the doctor's line itself runs.

Prints a JSON object: the doctor's lines, and what is reachable before the firewall, with it, and after the remedy.
"""

import json
import subprocess
import sys
from ipaddress import IPv4Network

from buntime.admin import firewalls
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.namespaces import Network
from tests.network.place import PRIVATE, PUBLIC, enter_handle, nft, probe, world

PART = Part("tfwl", IPv4Network("10.213.0.0/20"), (0,))


def main(rules: str, remedy: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    network = Network(PART)
    with world():
        network.open({})
        namespace = network.make(0)
        targets = [f"tcp:{address}:80" for address in (*PUBLIC[:2], *PRIVATE)]

        def reached() -> list[str]:
            found = probe(enter_handle(namespace.handle), targets)
            return [target for target in targets if found[target] == "open"]

        seen = [reached()]
        subprocess.run(["sh", "-ec", rules], check=True)
        seen.append(reached())
        lines = [obstacle.remedy for obstacle in firewalls.obstacles(nft("-j", "list", "ruleset"), "10.213.0.0/16")]
        subprocess.run(["sh", "-ec", remedy or "\n".join(lines)], check=True)
        seen.append(reached())
        left = [obstacle.remedy for obstacle in firewalls.obstacles(nft("-j", "list", "ruleset"), "10.213.0.0/16")]
        print(json.dumps({"lines": lines, "seen": seen, "left": left}))
        namespace.close()
        network.close()


main(*sys.argv[1:])
