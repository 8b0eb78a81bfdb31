"""No session costs a start of `ip`, `nft` or their like, which list every link of the host at each call."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.client import Session
from tests.acceptance.conftest import DISK, Servers
from tests.acceptance.server import Server
from tests.network.place import nft
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PROGRAMS = ("ip", "nft", "ss", "tc", "bridge", "sysctl", "conntrack", "ifconfig", "route", "iptables")
PROGRAM = """#!/bin/sh
echo "$0 $*" >> {calls}
if [ -e {failing} ]; then echo "$0: no program for one session" >&2; exit 97; fi
exec {real} "$@"
"""


@dataclass(frozen=True)
class Programs:
    """Programs in front of the host's. They note each call, and fail on demand."""

    directory: Path

    @property
    def path(self) -> str:
        return f"{self.directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def calls(self) -> list[str]:
        """Those since the last call of this method."""
        noted = self.directory / "calls"
        found = noted.read_text().splitlines() if noted.exists() else []
        noted.unlink(missing_ok=True)
        return found

    def fail(self, fails: bool) -> None:
        failing = self.directory / "failing"
        if fails:
            failing.touch()
        else:
            failing.unlink()


@pytest.fixture
def programs() -> Iterator[Programs]:
    with TemporaryDirectory(dir=DISK) as name:
        programs = Programs(Path(name))
        for program in PROGRAMS:
            mine = programs.directory / program
            lines = PROGRAM.format(
                calls=programs.directory / "calls",
                failing=programs.directory / "failing",
                real=which(program) or "/bin/false",
            )
            mine.write_text(lines)
            mine.chmod(0o755)
        yield programs


def test_sessions_live_and_end_while_such_programs_fail(servers: Servers, programs: Programs) -> None:
    server = servers.start(pool_size=1, PATH=programs.path)
    assert programs.calls(), "otherwise the test would not notice a call"
    programs.fail(True)
    client = server.new_client()
    parked = client.open()
    others = [client.open(network={"deny": ["192.0.2.0/24"], "allow": ["example.com", "0.0.0.0/0"]}) for _ in range(2)]
    for session in (parked, *others):
        assert session.output("echo works") == "works\n"
        session.patch(network={"egress": "none"}).done()
        assert _in_set(server, session, "no_egress")
        session.patch(network={"allow": ["198.51.100.0/24"]}).done()
        assert not _in_set(server, session, "no_egress")
        assert _in_set(server, session, "restricted")
    addresses = [_address(session) for session in (parked, *others)]
    for session in (parked, *others):
        session.delete().done()
    until(lambda: not any(each in _routes() for each in addresses), "the networks to end")
    until(lambda: not any(each in _listed(server, "restricted") for each in addresses), "the rules to end")
    assert programs.calls() == []
    programs.fail(False)


def test_a_start_takes_sessions_over_without_a_call_for_each(servers: Servers, programs: Programs) -> None:
    server = servers.start(pool_size=0, PATH=programs.path)
    alone = programs.calls()
    sessions = [server.new_client().open(network={"deny": ["192.0.2.0/24"]}) for _ in range(3)]
    server.kill()
    server.start()
    assert len(programs.calls()) <= len(alone)
    for session in sessions:
        assert session.output("echo works") == "works\n"
        assert _in_set(server, session, "restricted")


def _address(session: Session) -> str:
    return session.output("hostname -I").strip()


def _in_set(server: Server, session: Session, name: str) -> bool:
    return _address(session) in _listed(server, name)


def _listed(server: Server, name: str) -> list[str]:
    return _addresses(nft("list", "set", "inet", f"buntime_{server.config.instance}", name))


def _routes() -> list[str]:
    return _addresses(subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=True).stdout)


def _addresses(text: str) -> list[str]:
    return re.findall(r"\d+\.\d+\.\d+\.\d+", text)
