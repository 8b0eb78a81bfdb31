"""The units and settings of deploy/ are accepted by systemd and by buntime, and fit each other."""

import re
import subprocess
from pathlib import Path

import pytest

from buntime.config import Config, from_environment

CHECKOUT = Path(__file__).parents[2]
UNITS = CHECKOUT / "deploy/systemd"
DOCUMENTED_AT = "/opt/buntime"


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, as they are for this checkout."""
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(DOCUMENTED_AT, str(CHECKOUT)))
    return sorted(tmp_path.iterdir())


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("BUNTIME_"))


def test_systemd_accepts_the_units_without_a_warning(units: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "buntime" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_unit_of_the_metrics_reads_the_socket_of_the_default_data_directory() -> None:
    command = re.search(r"^ExecStart=\S+ (\S+)$", (UNITS / "buntime-metrics.service").read_text(), re.MULTILINE)
    assert command
    assert command[1] == str(Config().metrics_socket)


def test_the_port_of_the_metrics_is_the_one_that_prometheus_scrapes() -> None:
    port = re.search(r"^ListenStream=(\S+)$", (UNITS / "buntime-metrics.socket").read_text(), re.MULTILINE)
    assert port
    assert f'targets: ["{port[1]}"]' in (CHECKOUT / "deploy/monitoring/prometheus.yml").read_text()


def test_the_service_shares_the_hosts_mounts() -> None:
    """Volumes are mounts of the host. An option of this list would hide them."""
    options = set(re.findall(r"^(\w+)=", (UNITS / "buntime.service").read_text(), re.MULTILINE))
    namespaces = {"PrivateTmp", "PrivateMounts", "PrivateDevices", "ProtectSystem", "ProtectHome", "LogNamespace"}
    assert options & (namespaces | {"ReadWritePaths", "ProtectKernelTunables", "ProtectControlGroups"}) == set()


def test_both_ways_of_the_settings_file_are_settings_that_buntime_takes() -> None:
    text = (CHECKOUT / "deploy/buntime.env").read_text()
    before, _, after = text.partition("# Or a reverse proxy")
    facing = from_environment(settings(before))
    assert (facing.host, facing.port, facing.domain) == ("0.0.0.0", 443, "sandbox.example.com")
    assert facing.tls_cert
    assert facing.tls_key
    behind = from_environment({"BUNTIME_DOMAIN": facing.domain} | settings(after.replace("#BUNTIME", "BUNTIME")))
    assert (behind.port, [str(network) for network in behind.proxies]) == (8000, ["127.0.0.1/32"])


def test_the_hook_of_the_certificate_is_a_program_for_sh() -> None:
    hook = CHECKOUT / "deploy/reload-nginx"
    assert hook.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", str(hook)], check=False).returncode == 0


def test_journald_knows_the_settings_of_the_logs_retention() -> None:
    known = subprocess.run(["systemd-analyze", "cat-config", "systemd/journald.conf"], capture_output=True, text=True,
                           check=True).stdout  # fmt: skip
    names = re.findall(r"^(\w+)=", (CHECKOUT / "deploy/journald.conf").read_text(), re.MULTILINE)
    assert names
    assert [name for name in names if f"{name}=" not in known] == []
