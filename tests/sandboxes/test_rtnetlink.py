"""Compares the netlink messages about links, addresses and routes with the result of `ip` for the same."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Network
from typing import Any

import pytest

from buntime.sandboxes.network import rtnetlink
from buntime.sandboxes.network.rtnetlink import End, Kernel

pytestmark = pytest.mark.sandbox

OUTER, INNER = "02:62:75:6e:00:01", "02:62:75:6e:00:02"
ADDRESS, GATEWAY = "10.98.0.9", "10.98.0.1"
NETWORK = IPv4Network("10.98.0.0/20")
WITH_IP = f"""
link add eth0 mtu 1400 numtxqueues 1 numrxqueues 1 address {INNER} type veth peer name outer mtu 1400 numtxqueues 1 \
 numrxqueues 1 address {OUTER}
link set lo up
link set eth0 up
link set outer up
addr add {ADDRESS}/32 dev eth0
route add {GATEWAY} dev eth0 scope link
route add default via {GATEWAY} dev eth0 onlink
neigh add {GATEWAY} lladdr {OUTER} dev eth0 nud permanent
link add gateway type bridge
link set gateway addrgenmode none
addr replace {GATEWAY}/32 dev gateway
link set gateway up
route replace unreachable {NETWORK}
route replace 10.98.0.10/32 dev outer src {GATEWAY} scope link
"""
# different each time, or about other processes
VARIES = {"ifindex", "link_index", "link", "flags", "operstate", "used", "confirmed", "updated"}


@pytest.fixture
def inside() -> Iterator[Callable[..., Any]]:
    """Yields what runs a function in a network namespace of the test's own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(os.unshare, os.CLONE_NEWNET).result()
        yield lambda work, *given: thread.submit(work, *given).result()


def _put_by_messages() -> None:
    with rtnetlink.routing() as kernel:
        inner, outer = End("eth0", INNER, 1400, up=True), End("outer", OUTER, 1400)
        rtnetlink.apply(
            kernel,
            rtnetlink.new_veth(inner, outer),
            rtnetlink.set_up(rtnetlink.LOOPBACK),
            rtnetlink.new_bridge("gateway"),
        )
        eth0, peer, gateway = map(socket.if_nametoindex, ("eth0", "outer", "gateway"))
        rtnetlink.apply(
            kernel,
            rtnetlink.set_up(peer),
            rtnetlink.put_address(eth0, ADDRESS),
            rtnetlink.put_route(eth0, GATEWAY),
            rtnetlink.put_default_route(eth0, GATEWAY),
            rtnetlink.put_neighbour(eth0, GATEWAY, OUTER),
            rtnetlink.without_ipv6_addresses(gateway),
            rtnetlink.put_address(gateway, GATEWAY),
            rtnetlink.set_up(gateway),
            rtnetlink.put_unreachable(NETWORK),
            rtnetlink.put_route(peer, "10.98.0.10", source=GATEWAY),
        )


def _put_by_ip() -> None:
    subprocess.run(["ip", "-batch", "-"], input=WITH_IP, text=True, check=True)


def _shown() -> dict[str, list[Any]]:
    wanted = {
        "links": ("-d", "link"),
        "addresses": ("-4", "address"),
        "routes": ("-d", "-4", "route", "show", "table", "main"),
        "neighbours": ("-4", "neigh"),
        "ipv6": ("-6", "address", "show", "dev", "gateway"),
    }
    return {what: [_same(each) for each in _ip("-j", *words)] for what, words in wanted.items()}


def _ip(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout or "[]"))


def _same(listed: Any) -> Any:
    if isinstance(listed, dict):
        return {name: _same(value) for name, value in listed.items() if name not in VARIES}
    return [_same(each) for each in listed] if isinstance(listed, list) else listed


def _elsewhere(work: Callable[[], Any]) -> Any:
    """Runs it in another network namespace."""
    found: list[Any] = []

    def body() -> None:
        os.unshare(os.CLONE_NEWNET)
        work()
        found.append(_shown())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return found[0]


def test_the_messages_make_what_ip_would_make() -> None:
    messages, ip = _elsewhere(_put_by_messages), _elsewhere(_put_by_ip)
    for each in ip["links"] + messages["links"]:  # made by chance, and timers
        if each["ifname"] == "gateway":
            each["linkinfo"] = each["linkinfo"]["info_kind"]
            each["address"] = ""
    assert messages["links"] == ip["links"]
    assert messages == ip
    assert len(ip["routes"]) == 4


def _applied(*messages: bytes) -> None:
    with rtnetlink.routing() as kernel:
        rtnetlink.apply(kernel, *messages)


def test_the_first_failure_is_raised_and_the_others_are_applied(inside: Callable[..., Any]) -> None:
    inside(_applied, rtnetlink.new_bridge("one"))
    with pytest.raises(FileExistsError):
        inside(_applied, rtnetlink.new_bridge("one"), rtnetlink.set_up(99), rtnetlink.new_bridge("two"))
    assert inside(rtnetlink.exists, "two")


@pytest.mark.parametrize("at", [0, 1])
def test_a_link_that_does_not_exist_is_an_error(inside: Callable[..., Any], at: int) -> None:
    messages = [rtnetlink.set_up(rtnetlink.LOOPBACK), rtnetlink.set_up(rtnetlink.LOOPBACK)]
    messages[at] = rtnetlink.set_up(99)
    with pytest.raises(OSError, match="No such device"):
        inside(_applied, *messages)


def test_the_connection_works_after_a_failure(inside: Callable[..., Any]) -> None:
    def both() -> None:
        with rtnetlink.routing() as kernel:
            _refused(kernel, rtnetlink.set_up(99), rtnetlink.delete_link(98), rtnetlink.delete_link(97))
            rtnetlink.apply(kernel, rtnetlink.new_bridge("one"))

    def _refused(kernel: Kernel, *messages: bytes) -> None:
        with suppress(OSError):
            rtnetlink.apply(kernel, *messages)

    inside(both)
    assert inside(rtnetlink.exists, "one")


def test_links_and_routes_are_deleted_and_may_be_missing(inside: Callable[..., Any]) -> None:
    def work() -> None:
        _put_by_messages()
        with rtnetlink.routing() as kernel:
            rtnetlink.delete_named(kernel, "eth0")
            rtnetlink.delete_named(kernel, "eth0")
            rtnetlink.apply(kernel, rtnetlink.delete_unreachable(NETWORK))
            with pytest.raises(ProcessLookupError):
                rtnetlink.apply(kernel, rtnetlink.delete_unreachable(NETWORK))

    inside(work)
    assert not inside(rtnetlink.exists, "eth0")
    assert not inside(rtnetlink.exists, "outer")
    assert inside(_ip, "-j", "-4", "route") == []
