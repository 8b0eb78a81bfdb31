"""Runs in network and mount namespaces of its own: firewalled.py RULES TOLD – a session's network beside another
firewall. RULES and TOLD are commands of a shell: what makes the firewall, and what the doctor's line does where the
program that it names is not there; "" runs the line itself.

Prints a JSON object: the lines, and what is reachable before the firewall, with it and when it was told.
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


def main(rules: str, told: str) -> None:
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
        subprocess.run(["sh", "-ec", told or "\n".join(lines)], check=True)
        seen.append(reached())
        left = [obstacle.remedy for obstacle in firewalls.obstacles(nft("-j", "list", "ruleset"), "10.213.0.0/16")]
        print(json.dumps({"lines": lines, "seen": seen, "left": left}))
        namespace.close()
        network.close()


main(*sys.argv[1:])
