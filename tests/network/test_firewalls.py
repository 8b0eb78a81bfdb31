"""Sessions on a host with another firewall, whose rules have that firewall's form.

Nothing private becomes reachable, and the command that `buntime doctor` prints lets sessions out.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network.place import INSIDE, PUBLIC

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).parents[2]
NETWORK = "10.213.0.0/16"
OPEN = [f"tcp:{address}:80" for address in PUBLIC[:2]]
PLAIN = """nft -f - <<'END'
table inet filter {
  chain input { type filter hook input priority 0; policy drop; ct state established,related accept; }
  chain forward { type filter hook forward priority 0; policy drop; }
}
END"""
DOCKER = """
iptables -N DOCKER-USER; iptables -N DOCKER-FORWARD
iptables -A DOCKER-USER -j RETURN
iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
iptables -P FORWARD DROP"""
UFW = """
iptables -N ufw-before-forward; iptables -N ufw-user-forward
iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A ufw-before-forward -j ufw-user-forward
iptables -A FORWARD -j ufw-before-forward
iptables -P FORWARD DROP"""
UFW_TOLD = f"""
iptables -A ufw-user-forward -s {NETWORK} -j ACCEPT
iptables -A ufw-user-forward -d {NETWORK} -j ACCEPT"""
FIREWALLD = """nft -f - <<'END'
table inet firewalld {
  chain filter_FWD_trusted { accept; }
  chain filter_FORWARD_ZONES { }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
}
END"""
FIREWALLD_TOLD = f"nft add rule inet firewalld filter_FORWARD_ZONES ip saddr {NETWORK} goto filter_FWD_trusted"


@pytest.mark.parametrize(
    ("rules", "told", "words"),
    [
        pytest.param(PLAIN, "", ["nft", "nft"], id="a chain that drops"),
        pytest.param(DOCKER, "", ["iptables"], id="Docker"),
        pytest.param(UFW, UFW_TOLD, ["ufw"], id="ufw"),
        pytest.param(FIREWALLD, FIREWALLD_TOLD, ["firewall-cmd"], id="firewalld"),
    ],
)
def test_beside_another_firewall_the_doctors_line_lets_sessions_out(rules: str, told: str, words: list[str]) -> None:
    program = f'mount -t sysfs sysfs /sys && exec {sys.executable} {INSIDE / "firewalled.py"} "$@"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", program, "sh", rules, told],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [line.split()[0] for line in found["lines"]] == words
    assert found["seen"] == [OPEN, [], OPEN]
    assert found["left"] == []
