"""A server that was started by `nsenter --net` sees the interfaces of its own network namespace."""

import subprocess
import sys

import pytest

from tests.fleet.networks import Namespace

pytestmark = pytest.mark.root

LIST = """
from buntime.sandboxes.network.interfaces import interfaces
print(*(each.name for each in interfaces().iterdir()))
"""
MTU = "from buntime.sandboxes.network.veth import world_mtu; print(world_mtu())"


def test_interfaces_are_those_of_the_namespace_that_a_program_was_started_in() -> None:
    with Namespace() as namespace:
        namespace.ip("link add buntimeseen type bridge")
        assert set(_said(namespace, LIST).split()) == {"lo", "buntimeseen"}


def test_the_mtu_is_that_of_the_namespaces_own_default_route() -> None:
    with Namespace() as namespace:
        namespace.ip(
            "link add eth0 mtu 1300 type bridge",
            "addr add 192.0.2.1/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.0.2.2",
        )
        assert _said(namespace, MTU) == "1300"


def _said(namespace: Namespace, program: str) -> str:
    command = [*namespace.enter(), sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
