"""Compares the netlink messages of a session's rules with the result of nft for the same rules."""

import os
import subprocess
import threading

import pytest

from buntime.sandboxes.network import local_ports

pytestmark = pytest.mark.sandbox


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
