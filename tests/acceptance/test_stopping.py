"""A stopped server and a purge print a sentence, never a traceback."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from buntime.config import Config
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

GUARD_SECONDS = 120.0
SLOW = """
import os, pathlib, sys, time
from buntime import main
from buntime.config import from_environment
from buntime.daemon import steps
def wait_at(passed):
    if passed == sys.argv[1]:
        pathlib.Path(sys.argv[2]).touch()
        time.sleep(1.5)
steps.hook = wait_at
main.serve(from_environment(os.environ))
"""


def test_a_purge_beside_a_server_that_stops_is_refused_in_a_sentence_until_it_can_begin(servers: Servers) -> None:
    server = servers.start(pool_size=8)
    process = server._process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GUARD_SECONDS
    while (purge := server.run_cli("purge", "--yes")).returncode:
        assert f"another server uses {server.config.data_dir}" in purge.stderr
        assert "Traceback" not in purge.stderr
        assert time.monotonic() < deadline
    assert server.wait_end() == 0


def test_a_server_stops_cleanly_when_its_terminal_closes(servers: Servers) -> None:
    server = servers.start()
    until(lambda: "buntime keys create" in server.said(), "the welcome, after which it has started")
    assert server.stop(signal.SIGHUP) == 0
    assert "Stopping. Sessions stay" in server.said()


def test_a_server_that_nohup_started_outlives_its_terminal(servers: Servers) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, for the processes that it starts
    try:
        server = servers.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert server._process is not None
    server._process.send_signal(signal.SIGHUP)
    assert server.new_client().open().output("echo fine") == "fine\n"


@pytest.mark.parametrize("step", ["make: recorded", "make: volume"])
def test_a_server_that_stops_while_it_starts_a_sandbox_leaves_nothing_of_it(
    step: str, servers: Servers, tmp_path: Path
) -> None:
    """The thread that makes the sandbox is slow at the step."""
    there = tmp_path / "there"
    server = servers.make()
    server.launch([sys.executable, "-c", SLOW, step, there])
    wait_for(there, server)
    assert server.stop() == 0
    assert "Traceback" not in server.said()
    assert "pool_not_filled" not in server.said()
    assert "sandbox_not_removed" not in server.said()
    assert list((server.config.data_dir / "sandboxes").iterdir()) == []
    server.start()
    assert "orphans_removed" not in server.said()


def test_a_purge_is_refused_when_the_running_server_lost_what_was_in_its_data_directory(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    with emptied(server.config):
        purge = server.run_cli("purge", "--yes")
    assert purge.returncode == 1
    assert purge.stderr.startswith(f"buntime: another server uses {server.config.data_dir}: ")
    assert purge.stderr.count("\n") == 1


def test_a_purge_says_what_it_cannot_remove_when_the_data_directory_was_emptied(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    server.stop()
    with emptied(server.config):
        purge = server.run_cli("purge", "--yes")
    assert purge.returncode == 1
    assert purge.stderr.startswith(f"buntime: not everything of {server.config.data_dir} could be removed: ")
    assert "Traceback" not in purge.stderr


def test_a_server_that_is_stopped_while_it_makes_the_image_says_so(servers: Servers, tmp_path: Path) -> None:
    """The tool that makes the image has ended, but its child process still has its output open."""
    tool, helper = tmp_path / "setpriv", tmp_path / "helper"
    checks = f'[ "$1" = --pdeathsig ] || exec {shutil.which("setpriv")} "$@"'  # of `doctor`, with the same tool
    tool.write_text(f"#!/bin/sh\n{checks}\nsleep 1000 &\necho $! >{helper}.part\nmv {helper}.part {helper}\n")
    tool.chmod(0o755)
    server = servers.make()
    server.settings |= {"BUNTIME_IMAGES_DIR": str(tmp_path / "images"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    try:
        server.launch()
        wait_for(helper, server)
        assert server.stop() == 0
        assert server.said().endswith("Stopped before it had started.\n")
        assert "Traceback" not in server.said()
    finally:
        if helper.exists():
            os.kill(int(helper.read_text()), signal.SIGKILL)


@contextmanager
def emptied(config: Config) -> Iterator[None]:
    """Moves away everything that `rm -rf` could delete from a data directory, until the block ends."""
    away = config.data_dir.with_name("away")
    away.mkdir()
    for entry in list(config.data_dir.iterdir()):
        if not entry.is_mount():
            entry.rename(away / entry.name)
    try:
        yield
    finally:
        for entry in list(config.data_dir.iterdir()):
            if entry.is_dir() and not entry.is_mount():
                shutil.rmtree(entry)
            elif entry.is_file():
                entry.unlink()
        for entry in away.iterdir():
            entry.rename(config.data_dir / entry.name)
        away.rmdir()


def wait_for(file: Path, server: Server) -> None:
    deadline = time.monotonic() + GUARD_SECONDS
    while not file.exists():
        assert time.monotonic() < deadline, server.said()
        time.sleep(0.02)
