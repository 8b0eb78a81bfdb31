"""The packet rules of a session's own network: the netlink messages, and how often the kernel clears their set."""

import asyncio
import os
import re
import subprocess
import threading
from typing import Any

import pytest

from buntime.ports import Run
from buntime.sandboxes.network import local_ports
from buntime.sandboxes.network.clearing import LATER
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost
from tests.waiting import eventually

pytestmark = REAL


def _rules(load: list[str] | None) -> str:
    """Returns nft's list in a new network namespace, after the messages or after `load` has loaded RULES."""
    seen: list[str] = []

    def body() -> None:
        os.unshare(os.CLONE_NEWNET)
        if load is None:
            local_ports.put_session_rules()
        else:
            subprocess.run(load, input=local_ports.RULES, text=True, check=True)
        seen.append(subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return seen[0]


def test_nft_lists_the_messages_as_the_rules_they_stand_for() -> None:
    listed = _rules(None)
    assert "dnat to 127.0.0.1" in listed
    assert listed == _rules(["nft", "-f", "-"])


def clearing(host: LocalHost, sandbox_id: str) -> str:
    """Returns the interval that the kernel has."""
    pid = (host.data_dir / "sandboxes" / sandbox_id / "pid").read_text().split()[0]
    listing = ["nsenter", "--net", "--target", pid, "nft", "list", "set", "ip", "buntime", "unanswered"]
    found = re.search(r"gc-interval (\S+)", subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
    assert found is not None
    return found[1]


@pytest.mark.skipif(not local_ports.CAN_CLEAR, reason="before Linux 6.2, the interval of a set cannot change")
async def test_the_kernel_clears_the_set_often_only_while_programs_of_a_session_run(host: LocalHost) -> None:
    sandboxes: Any = host.sandboxes
    filling = asyncio.create_task(sandboxes.keep_pool())
    await eventually(lambda: sandboxes.numbers().parked == 1)
    filling.cancel()
    (parked,) = (host.data_dir / "sandboxes").iterdir()
    assert clearing(host, parked.name) == "1s"
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    await sandbox.run(Run(10, command="true"))
    await asyncio.sleep(2 * LATER)
    assert clearing(host, sandbox.id) == "1s", "it is over"
    running = asyncio.create_task(sandbox.run(Run(60, command="sleep 60 & sleep 3")))
    await eventually(lambda: clearing(host, sandbox.id) == "125ms")
    await running
    assert await sandbox.freeze()
    await eventually(lambda: clearing(host, sandbox.id) == "1s")
    await sandbox.thaw()
    await eventually(lambda: clearing(host, sandbox.id) == "125ms")


@pytest.mark.skipif(not local_ports.CAN_CLEAR, reason="before Linux 6.2, the interval of a set cannot change")
async def test_a_while_after_the_last_program_has_ended_it_clears_seldom(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buntime.sandboxes.network.clearing.LOOK_SECONDS", 0.5)
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    await sandbox.run(Run(10, command="sleep 4 &"))
    await eventually(lambda: clearing(host, sandbox.id) == "125ms")
    await eventually(lambda: clearing(host, sandbox.id) == "1s")
