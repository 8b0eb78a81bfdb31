"""The server refuses to start with an unusable store, and deletes nothing that the store knew."""

import os
from pathlib import Path

import pytest

from buntime.stores import store_file
from tests.acceptance import traces
from tests.acceptance.conftest import Servers
from tests.acceptance.sleeping import deep_sleep, state

pytestmark = pytest.mark.sandbox


def _overwrite(store: Path) -> None:
    with store.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))


def _cut(store: Path) -> None:
    os.truncate(store, store.stat().st_size // 2)


def _replace(store: Path) -> None:
    store.write_bytes(b"no database at all")


def test_with_a_damaged_store_no_server_starts_and_no_session_is_taken_for_an_orphan(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    client = server.new_client()
    awake, asleep = client.open(), client.open()
    for session in (awake, asleep):
        session.write("file", session.id).done()
    pid = awake.output("sleep 100000 & echo $!")
    deep_sleep(asleep)
    assert server.stop() == 0
    store = store_file(server.config)
    good, before = store.read_bytes(), traces.sandboxes(server.config)
    objects = traces.objects(server.config.data_dir / "archive", "")
    for damage in (_overwrite, _cut, _replace):
        damage(store)
        refused = server.run_cli("serve")
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
        assert store.name in refused.stderr
        assert traces.sandboxes(server.config) == before
        assert traces.objects(server.config.data_dir / "archive", "") == objects
        store.write_bytes(good)
    server.start()
    assert awake.output("pgrep -x sleep") == pid
    assert state(asleep) == "deep-sleep"
    assert [session.text("file") for session in (awake, asleep)] == [awake.id, asleep.id]
