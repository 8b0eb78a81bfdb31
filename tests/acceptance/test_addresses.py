"""Sandboxes keep their addresses when their server needs more addresses."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from buntime.config import SHARED_RUN_DIR
from buntime.sandboxes.kernel.host import BLOCK, Part, claim_part
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

MANY = 10_000
SERVE = "Bun.serve({ port: 8080, fetch: () => new Response('here') })"


def _serving(client: Client) -> Session:
    session = client.open()
    session.write("server.ts", SERVE).done()
    session.output("(bun server.ts >/dev/null 2>&1 &); until curl -s localhost:8080; do sleep 0.05; done")
    return session


def _preview(session: Session) -> bytes:
    host = f"{session.id.replace('_', '-')}.localhost:{session.client.port}"
    return Client(session.client.port, None).call("GET", "/", headers={"Host": host}).body


def _slot(server: Server, session: Session) -> int:
    record = server.config.data_dir / "sandboxes" / traces.sandbox_of(server.config, session.id) / "record.json"
    return int(json.loads(record.read_text())["slot"])


def _resolves(session: Session) -> bool:
    """Tells whether the name server serves the session's address: then it answers that there is no such name."""
    return "ENOTFOUND" in session.output("bun -e \"require('dns').lookup('no.invalid', e => console.log(e.code))\"")


def _claims_of_an_earlier_version(part: Part) -> None:
    """Writes the claim of an earlier version, which claimed one block and recorded no position."""
    (block,) = part.blocks
    claim = SHARED_RUN_DIR / f"part-{block}.json"
    claim.write_text(json.dumps({"data_dir": json.loads(claim.read_text())["data_dir"]}))


def test_a_server_that_is_told_to_have_more_addresses_takes_up_its_sandboxes(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    client = server.new_client()
    old = _serving(client)
    before, slot = claim_part(server.config), _slot(server, old)
    assert server.stop() == 0
    _claims_of_an_earlier_version(before)

    (server.config.run_dir / "slot").write_text(str(MANY - 1))  # for the next sandbox
    server.settings["BUNTIME_SANDBOX_ADDRESSES"] = str(MANY)
    server.start()
    after = claim_part(server.config)
    assert after.blocks[:1] == before.blocks
    assert after.address(slot) == before.address(slot)
    assert _preview(old) == b"here"
    assert _slot(server, old) == slot, "the session must keep its sandbox"
    assert _resolves(old)

    new = _serving(client)
    assert _slot(server, new) == MANY - 1
    assert new.output("hostname -I").split() == [after.address(MANY - 1)]
    assert not any(IPv4Address(after.address(MANY - 1)) in network for network in before.networks)
    assert int(new.output("awk '{print $2}' /proc/self/uid_map")) == after.first_uid(MANY - 1)
    assert _preview(new) == b"here"
    assert _resolves(new)
    new.patch(network={"egress": "none"}).done()
    assert not _resolves(new)
    assert int(Path("/proc/sys/kernel/threads-max").read_text()) >= 3 * BLOCK * 512
