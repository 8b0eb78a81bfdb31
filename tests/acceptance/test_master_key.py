"""The master key, which wraps all session keys: made once, private, and never replaced."""

import secrets
from pathlib import Path

import pytest

from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, evict

pytestmark = pytest.mark.sandbox


def _refusal(server: Server) -> str:
    """Returns the message with which the server refuses to start."""
    refused = server.run_cli("serve")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert refused.stderr.startswith("buntime: ")
    return refused.stderr


def test_the_first_start_makes_a_key_without_which_no_later_one_begins(servers: Servers) -> None:
    server = servers.start(pool_size=0, **EVICTING)
    key = server.config.data_dir / "master.key"
    assert key.stat().st_mode & 0o7777 == 0o600
    assert server.stop() == 0
    key.unlink()
    server.start()  # nothing is sealed with the key yet
    session = server.new_client().open()
    session.write("file", "kept").done()
    evict(server, session)
    right = key.read_text()
    assert server.stop() == 0
    key.unlink()
    assert str(key) in (refusal := _refusal(server))
    assert "missing" in refusal
    assert not key.exists(), "the server must not make a new key"
    for wrong, words in ((secrets.token_hex(32), "not the master key"), ("short", "64 hexadecimal characters")):
        key.write_text(wrong)
        key.chmod(0o600)
        assert words in (refusal := _refusal(server))
        assert right.strip() not in refusal
        assert wrong not in refusal
    key.write_text(right)
    key.chmod(0o644)
    assert "chmod 600" in _refusal(server)
    key.chmod(0o600)
    server.start()
    assert session.text("file") == "kept"


def test_the_operator_can_bring_the_key(servers: Servers, tmp_path: Path) -> None:
    server, file = servers.make(pool_size=0), tmp_path / "key"
    file.write_text(secrets.token_hex(32))
    file.chmod(0o600)
    server.settings |= {**EVICTING, "BUNTIME_MASTER_KEY_FILE": str(file)}
    server.start()
    session = server.new_client().open()
    session.write("file", "kept").done()
    evict(server, session)
    assert session.text("file") == "kept"
    assert not (server.config.data_dir / "master.key").exists()
    assert server.stop() == 0
    del server.settings["BUNTIME_MASTER_KEY_FILE"]
    assert "missing" in _refusal(server)
    server.settings["BUNTIME_MASTER_KEY_FILE"] = str(file)
    server.start()
    evict(server, session)
    assert session.text("file") == "kept"
