"""The units and settings of deploy/ are accepted by systemd and by buntime, and fit each other."""

import re
import subprocess
from pathlib import Path

import pytest

from buntime.config import Config, from_environment
from tests.deploy.systemd import UNITS, install

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, as they are for this checkout."""
    install(tmp_path, CHECKOUT)
    return sorted(file for file in tmp_path.iterdir() if file.is_file())


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("BUNTIME_"))


def test_systemd_accepts_the_units_without_a_warning(units: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "buntime" in line]
    assert (done.returncode, ours) == (0, [])
    assert [unit.name for unit in units if "watchdog" in unit.name or "drain" in unit.name]


def test_a_unit_of_the_watchdog_makes_the_server_start_none() -> None:
    drop_in = (UNITS / "fleet/buntime.service.d/fleet.conf").read_text()
    (told,) = re.findall(r"^Environment=(.+)$", drop_in, re.MULTILINE)
    assert from_environment(settings(told)).own_watchdog == 0


def test_the_unit_of_the_metrics_reads_the_socket_of_the_default_data_directory() -> None:
    command = re.search(r"^ExecStart=\S+ (\S+)$", (UNITS / "buntime-metrics.service").read_text(), re.MULTILINE)
    assert command
    assert command[1] == str(Config().metrics_socket)


def test_the_port_of_the_metrics_is_the_one_that_prometheus_scrapes() -> None:
    port = re.search(r"^ListenStream=(\S+)$", (UNITS / "buntime-metrics.socket").read_text(), re.MULTILINE)
    assert port
    assert f'targets: ["{port[1]}"]' in (CHECKOUT / "deploy/monitoring/prometheus.yml").read_text()


@pytest.mark.parametrize("unit", ["buntime.service", "fleet/buntime-watchdog.service"])
def test_the_service_shares_the_hosts_mounts(unit: str) -> None:
    """Volumes are mounts of the host. An option of this list would hide them."""
    options = set(re.findall(r"^(\w+)=", (UNITS / unit).read_text(), re.MULTILINE))
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
