"""What `buntime doctor` finds on this host, with right and wrong settings."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench import machine
from buntime.admin import doctor
from buntime.admin.firewalls import obstacles
from buntime.config import Config
from buntime.edge.process import has_user

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="looking takes root")]

NETWORK = "10.213.0.0/16"


@pytest.fixture
def config() -> Iterator[Config]:
    """A configuration with its data on a disk. /tmp is in memory on Debian 13, and may be too small."""
    with TemporaryDirectory(dir="/var/tmp") as directory:
        yield Config(data_dir=Path(directory))


def ruleset(rules: str) -> str:
    """Loads nftables rules in a temporary network namespace. Returns the kernel's form of them."""
    script, rules = "nft -f - && nft -j list ruleset", rules.replace("}", "}\n").replace("; }", ";\n}")
    return subprocess.run(
        ["unshare", "--net", "sh", "-ec", script], input=rules, capture_output=True, text=True, check=True
    ).stdout


def lines(rules: str) -> list[str]:
    return [obstacle.remedy for obstacle in obstacles(ruleset(rules), NETWORK)]


def test_a_host_that_is_set_up_passes_every_check(config: Config) -> None:
    assert doctor.missing(config) == []


def test_a_start_does_not_list_all_firewall_rules_and_the_doctor_does(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list grows with the sessions, and says nothing that keeps a server from starting."""
    asked = config.data_dir / "asked"
    program = config.data_dir / "nft"
    program.write_text(f'#!/bin/sh\necho "$@" >>{asked}; echo \'{{"nftables": []}}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{config.data_dir}:{os.environ['PATH']}")
    doctor.missing(config)
    assert "list ruleset" not in asked.read_text()
    doctor.findings(config)
    assert "list ruleset" in asked.read_text()


def test_the_edge_needs_its_module_and_its_user(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_lua", lambda: False)
    monkeypatch.setattr(doctor, "has_user", lambda: has_user("buntime-nobody"))
    lua, user = doctor.missing(config)
    assert "libnginx-mod-http-lua" in lua
    assert "buntime-edge" in user


def test_the_doctor_changes_nothing_in_the_data_directory(config: Config) -> None:
    doctor.findings(replace(config, data_dir=config.data_dir / "not/yet"))
    assert list(config.data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said", "safe"),
    [
        ("crun", "crun version 1.21", True),
        ("crun", "crun version 1.14.1", False),
        ("runc", "runc version 1.1.15+ds1", False),
        ("runc", "runc version 1.2.8", True),
        ("runc", "runc version 1.3.2", False),
        ("runc", "runc version 1.4.0", True),
    ],
)
def test_a_runtime_with_known_holes_is_refused(config: Config, name: str, said: str, safe: bool) -> None:
    runtime = config.data_dir / name
    runtime.write_text(f"#!/bin/sh\necho '{said}'\n")
    runtime.chmod(0o755)
    refused = doctor.missing(replace(config, runtime=str(runtime)))
    assert [name in sentence for sentence in refused] == ([] if safe else [True])


@pytest.mark.parametrize(
    ("files", "limited"),
    [
        ({"cgroup.procs": "1\n", "cgroup.subtree_control": "\n"}, True),  # the root cgroup of the host
        ({"cgroup.procs": "1\n", "cgroup.subtree_control": "\n", "cgroup.type": "domain\n"}, False),
        ({"cgroup.procs": "", "cgroup.subtree_control": "\n", "cgroup.type": "domain\n"}, True),
        ({"cgroup.procs": "1\n", "cgroup.subtree_control": "cpu io memory pids\n", "cgroup.type": "domain\n"}, True),
    ],
)
def test_processes_in_a_containers_root_cgroup_are_found(tmp_path: Path, files: dict[str, str], limited: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert doctor.cgroups_can_be_limited(tmp_path) is limited


def test_a_missing_runtime_is_named_with_its_setting(config: Config) -> None:
    (sentence,) = doctor.missing(replace(config, runtime="no-such-runtime"))
    assert "no-such-runtime" in sentence
    assert "BUNTIME_RUNTIME" in sentence


def test_too_little_disk_is_reported_with_the_size_needed(config: Config) -> None:
    (sentence,) = doctor.missing(replace(config, reserve_gb=1_000_000))
    assert "1000005 GB are needed" in sentence


@pytest.mark.parametrize("network", ["10.213.0.1/16", "none", "10.213.0.0/24"])
def test_a_network_that_cannot_be_used_is_named(config: Config, network: str) -> None:
    (sentence,) = doctor.missing(replace(config, network=network))
    assert sentence.startswith("BUNTIME_NETWORK=")


def test_a_file_that_names_servers_for_names_is_reported_with_them(config: Config) -> None:
    config.data_dir.chmod(0o755)
    file = config.data_dir / "resolv.conf"
    file.write_text("search example.com\n nameserver 192.0.2.53\n#nameserver 192.0.2.54\nnameserver 2001:db8::53\n")
    config = replace(config, resolv_conf=file)
    assert doctor.missing(config) == []
    shown = [found.what for found in doctor.findings(config) if "RESOLV_CONF" in found.what]
    assert shown == [f"BUNTIME_RESOLV_CONF={file}: 192.0.2.53, 2001:db8::53"]


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (None, 0, "there is no such file"),
        ("search example.com\n#nameserver 192.0.2.53\n", 0o644, "it has no line with nameserver"),
        ("nameserver 192.0.2.53\n", 0o600, "the user nobody cannot read it"),
    ],
)
def test_a_file_that_names_no_server_for_names_is_refused_with_its_setting(
    config: Config, text: str | None, mode: int, why: str
) -> None:
    config.data_dir.chmod(0o755)
    file = config.data_dir / "resolv.conf"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    (sentence,) = doctor.missing(replace(config, resolv_conf=file))
    assert sentence.startswith(f"BUNTIME_RESOLV_CONF={file}: ")
    assert why in sentence


def test_more_addresses_than_the_network_has_are_named_with_their_setting(config: Config) -> None:
    (sentence,) = doctor.missing(replace(config, network="10.213.0.0/17", sandbox_addresses=40_000))
    assert sentence == (
        "addresses for 40000 sandboxes: BUNTIME_SANDBOX_ADDRESSES=40000 is too large: "
        "BUNTIME_NETWORK=10.213.0.0/17 has addresses for 32766 sandboxes."
    )


def test_host_settings_have_room_for_all_sandboxes_that_have_addresses(config: Config) -> None:
    few, many = (
        {setting.name: setting.wanted for setting in doctor.settings(replace(config, sandbox_addresses=addresses))}
        for addresses in (4094, 10_000)
    )
    for name in ("kernel.threads-max", "kernel.pty.max", "net.netfilter.nf_conntrack_max", "net.ipv4.tcp_max_orphans"):
        assert many[name] > 2 * few[name]


def test_every_host_setting_is_listed_with_its_value_now_and_wanted(config: Config) -> None:
    settings = {setting.name: setting for setting in doctor.settings(config)}
    assert settings["net.ipv4.ip_forward"].wanted == 1
    assert settings["net.ipv4.ip_forward"].now == int(Path("/proc/sys/net/ipv4/ip_forward").read_text())


def test_the_report_ends_with_1_when_something_is_missing(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.report(config) == 0
    assert doctor.report(replace(config, runtime="no-such-runtime")) == 1
    assert "no-such-runtime" in capsys.readouterr().out


def test_a_firewall_that_drops_forwarding_gets_a_line_to_add() -> None:
    assert lines("table ip mine { chain f { type filter hook forward priority 0; policy drop; } }") == [
        f"nft insert rule ip mine f ip saddr {NETWORK} accept; nft insert rule ip mine f ip daddr {NETWORK} accept"
    ]


def test_a_firewall_with_a_rule_for_sessions_is_no_obstacle() -> None:
    accept = f"ip saddr {NETWORK} accept; ip daddr {NETWORK} accept;"
    assert lines(f"table ip mine {{ chain f {{ type filter hook forward priority 0; policy drop; {accept} }} }}") == []


def test_a_firewall_that_accepts_and_buntimes_own_table_are_no_obstacle() -> None:
    assert lines("table ip mine { chain f { type filter hook forward priority 0; policy accept; } }") == []
    assert lines("table inet buntime_ab12 { chain f { type filter hook forward priority 0; policy drop; } }") == []
    assert list(obstacles(json.dumps({"nftables": []}), NETWORK)) == []


def test_docker_ufw_and_firewalld_get_their_own_commands() -> None:
    drop = "chain FORWARD { type filter hook forward priority 0; policy drop; }"
    docker = lines(f"table ip filter {{ chain DOCKER-USER {{ }} {drop} }}")
    ufw = lines(f"table ip filter {{ chain ufw-user-forward {{ }} {drop} }}")
    firewalld = lines(f"table inet firewalld {{ {drop} }}")
    assert [line.split()[0] for line in docker + ufw + firewalld] == ["iptables", "ufw", "firewall-cmd"]


def test_a_firewall_that_drops_incoming_packets_keeps_sessions_from_the_name_server() -> None:
    (line,) = lines("table inet mine { chain i { type filter hook input priority 0; policy drop; } }")
    assert "dport 53 accept" in line


def test_a_chain_that_ends_with_a_reject_drops() -> None:
    hook = "type filter hook forward priority 10; policy accept; ct state established accept;"
    (line,) = lines(f"table inet firewalld {{ chain f {{ {hook} counter reject with icmpx admin-prohibited; }} }}")
    assert line.startswith("firewall-cmd")
    assert lines(f"table inet mine {{ chain f {{ {hook} tcp dport 25 drop; }} }}") == []


def test_a_host_that_frees_memory_without_need_is_told_the_setting() -> None:
    boosted, quiet = doctor.boost_of(15000), doctor.boost_of(0)
    assert (boosted.ok, boosted.needed, quiet.ok) == (False, False, True)
    assert "vm.watermark_boost_factor is 15000" in boosted.what


def test_the_doctor_and_the_benchmark_want_what_the_script_sets() -> None:
    script = (Path(__file__).parents[2] / "scripts/zram").read_text()
    (settings,) = re.findall(r'^settings="(.*)"$', script, re.MULTILINE)
    assert settings.split() == [f"vm.{name}={value}" for name, value in machine.SETTINGS.items()]
    assert machine.SETTINGS["watermark_scale_factor"] == str(doctor.RESERVE)


def test_a_host_that_keeps_little_memory_free_is_told_the_setting() -> None:
    short, enough = doctor.reserve_of(10), doctor.reserve_of(125)
    assert (short.ok, short.needed, enough.ok) == (False, False, True)
    assert "vm.watermark_scale_factor is 10" in short.what
    assert "set it to 125" in short.remedy


def test_a_host_without_swap_is_told_that_suspended_sessions_keep_their_memory(tmp_path: Path) -> None:
    none, uncounted = doctor.swap_of(0, tmp_path / "v2"), doctor.swap_of(doctor.GB, tmp_path)
    assert "no swap" in none.what
    assert "keep their memory" in none.remedy
    assert "swapaccount=1" in uncounted.remedy
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    counted = [doctor.swap_of(doctor.GB, place) for place in (tmp_path, tmp_path / "v2")]
    assert [found.ok for found in (none, uncounted, *counted)] == [False, False, True, True]
    assert not none.needed
    assert not uncounted.needed
