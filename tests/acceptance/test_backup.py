"""Follows "Backup and restore" in docs/lifecycle.md: a new data directory has the sessions of the old one."""

import json
import shutil
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox


def _deep_sleep(client: Client, session: Session) -> None:
    client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": "deep-sleep"}).done()


def _back_up(server: Server, to: Path) -> None:
    archive = server.config.data_dir / "archive"
    shutil.copytree(archive, to / "archive")
    assert json.loads(server.cli("backup", str(to / "server"), "--json")) == {"directory": str(to / "server")}
    shutil.copytree(archive, to / "archive", dirs_exist_ok=True)


def test_a_backup_made_while_the_server_runs_brings_sessions_back_on_a_new_disk(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    slept, woken, awake = client.open(metadata={"name": "slept"}), client.open(), client.open()
    for session in (slept, woken, awake):
        session.output("echo kept > file; rm /etc/motd")
    for session in (slept, woken):
        _deep_sleep(client, session)
    woken.output("echo later > file")
    data, copy = server.config.data_dir, server.config.data_dir.with_name("backup")
    _back_up(server, copy)
    assert "exists already" in server.run_cli("backup", str(copy / "server")).stderr
    assert (copy / "server").stat().st_mode & 0o077 == 0
    server.stop()
    assert json.loads(server.cli("purge", "--yes", "--json")) == {"purged": True, "dataDir": str(data)}
    for file in (copy / "server").iterdir():
        shutil.copy2(file, data)
    shutil.copytree(copy / "archive", data / "archive")
    server.start()
    assert slept.look().done()["state"] == "deep-sleep"
    assert slept.look().done()["metadata"] == {"name": "slept"}
    for session in (slept, woken):
        assert session.output("cat file; ls /etc/motd 2>&1 | grep -c cannot") == "kept\n1\n"
    details = awake.execute(command="cat file").refused(409, "invalid_state")
    assert details["reason"] == "volume_lost"
    assert server.said().count("volume_lost") >= 2
    awake.delete().done()
    shutil.rmtree(copy)
