"""All sandboxes of a server end at once, and none of them runs on meanwhile."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.admin.purging import purge
from buntime.config import Config
from buntime.fleet.lease_file import LeaseFile
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.kernel.cgroup_tree import remove_tree
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from buntime.sandboxes.kernel.freezing import end_all, find_freezer, group_above
from buntime.sandboxes.network.namespaces import Network
from tests.waiting import until

pytestmark = pytest.mark.sandbox

COUNTING = "n=0; while :; do n=$((n + 1)); echo $n > {file}; done"
FORKING = "while :; do sleep 0.001 & sleep 0.001; done"
PATIENCE = 10.0


@pytest.fixture
def instance() -> Iterator[str]:
    instance = secrets.token_hex(4)
    yield instance
    until(lambda: remove_tree(group_above(instance)), "the cgroups to be empty")


def started(group: Path, command: str) -> subprocess.Popen[bytes]:
    group.mkdir(parents=True)
    shell = subprocess.Popen(["sh", "-c", f"read _; {command}"], stdin=subprocess.PIPE)
    (group / "cgroup.procs").write_text(str(shell.pid))
    assert shell.stdin
    shell.stdin.write(b"\n")
    shell.stdin.close()
    return shell


def test_frozen_processes_end_before_they_go_on_and_forking_ones_end_too(instance: str, tmp_path: Path) -> None:
    above, count = group_above(instance), tmp_path / "count"
    counting = started(above / "counting", COUNTING.format(file=count))
    forking = started(above / "forking", FORKING)
    until(lambda: count.exists() and count.read_text().strip(), "the first count")
    cgroups, freezer = find_cgroups(instance), find_freezer(instance)
    cgroups.freeze("counting", True)
    until(lambda: cgroups.is_frozen("counting"), "the freeze")
    stood = count.read_text()
    end_all(freezer, PATIENCE)
    assert freezer.is_empty()
    assert [process.wait(PATIENCE) for process in (counting, forking)] == [-9, -9]
    assert count.read_text() == stood
    assert not freezer.is_frozen()


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the name server of a purge
def test_a_purge_opens_nothing_before_all_sandboxes_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, ended = Config(data_dir=tmp_path / "data"), dict[str, int | None]()
    config.data_dir.mkdir()
    LeaseFile(config.lease_file).close()
    left = started(group_above(config.instance) / "sbx", "sleep 600")
    find_freezer(config.instance).freeze()  # as a fence does
    network, fence = Network.open, HostFence.remove

    def opened(self: Network, *arguments: object) -> None:
        ended["network"] = left.poll()
        network(self, *arguments)  # type: ignore[arg-type]

    def removed(self: HostFence) -> None:
        ended["fence"] = left.poll()
        fence(self)

    monkeypatch.setattr(Network, "open", opened)
    monkeypatch.setattr(HostFence, "remove", removed)
    try:
        purge(config)
    finally:
        left.kill()
    assert ended == {"fence": -9, "network": -9}
    assert not group_above(config.instance).exists()
