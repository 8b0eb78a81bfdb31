"""What nginx is told, as text."""

from dataclasses import replace
from pathlib import Path

from buntime.edge.nginx import Edge, render
from buntime.edge.peers import Peers

PEERS = Peers("hst_" + "a" * 18, "192.0.2.7:8443", Path("/peers"), Path("/peer"), Path("/peer"), Path("/bodies"))
ALONE = Edge(("127.0.0.1:8000",), Path("/api"), Path("/edge"), Path("/run"), 100)
OF_A_FLEET = (
    'require("carrying")', "carrying.lua", "@peer", "ssl_verify_client", "proxy_ssl", "8443",
    "client_body_temp_path /bodies", "proxy_request_buffering on",
)  # fmt: skip


def test_a_host_alone_has_nothing_of_a_fleet_on_the_way_of_a_request() -> None:
    text = render(ALONE)
    assert [word for word in OF_A_FLEET if word in text] == []
    assert 'proxy_set_header X-Buntime-Hops "";' in text


def test_only_the_listener_for_hosts_believes_what_they_say() -> None:
    public, _, ours = render(replace(ALONE, peers=PEERS)).partition("# Requests that other hosts carry here.")
    for word in ("ssl_verify_client on", "real_ip_header"):
        assert word not in public
        assert word in ours
    assert public.count("listen 192.0.2.7:8443") == 0
