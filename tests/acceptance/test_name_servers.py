"""Names are asked of the servers that the operator chose."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.conftest import DISK, Servers
from tests.network.place import PUBLIC, Upstream, upstream
from tests.waiting import until

pytestmark = pytest.mark.sandbox

ADDRESS = "127.0.213.54"  # other tests have a name server at another address
KNOWN = "known.example.com"


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream(ADDRESS) as above:
        above.records = {KNOWN: [("A", PUBLIC[0], 0)]}
        yield above


@pytest.fixture
def resolv_conf() -> Iterator[Path]:
    """Yields a file that the name server can read, which runs as nobody. It is gone when the server is purged."""
    with TemporaryDirectory(dir=DISK) as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "resolv.conf"
        path.write_text(f"nameserver {ADDRESS}\n")
        yield path


def test_the_name_servers_of_the_setting_are_asked_alone(servers: Servers, above: Upstream, resolv_conf: Path) -> None:
    server = servers.start(BUNTIME_RESOLV_CONF=str(resolv_conf))
    session = server.new_client().open()
    ask = f"getent ahostsv4 {KNOWN} || true"
    assert PUBLIC[0] in session.output(ask)
    assert session.command("getent hosts registry.npmjs.org")["exitCode"] == 2
    assert set(above.asked) == {KNOWN, "registry.npmjs.org"}
    os.kill(int((server.config.run_dir / "dnsmasq.pid").read_text().split()[0]), signal.SIGKILL)
    until(lambda: PUBLIC[0] in session.output(ask, timeout=60), "the name server")


def test_a_changed_setting_is_in_force_after_a_restart(servers: Servers, above: Upstream, resolv_conf: Path) -> None:
    server = servers.start()
    session = server.new_client().open()
    assert session.command(f"getent hosts {KNOWN}")["exitCode"] == 2
    server.stop()
    server.settings["BUNTIME_RESOLV_CONF"] = str(resolv_conf)
    server.start()
    assert PUBLIC[0] in session.output(f"getent ahostsv4 {KNOWN}")
