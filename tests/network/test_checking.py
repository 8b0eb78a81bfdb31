"""The check of rules before they are put in force."""

import subprocess

import pytest

from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network.namespaces import check_rules

pytestmark = pytest.mark.sandbox

TABLE = """
table inet buntime_check {{
  set counted {{ type ipv4_addr; flags {flags}; size 100; }}
  chain arriving {{
    type filter hook input priority 0; policy drop;
    add @counted {{ ip saddr ct count over 3 }} drop
  }}
}}
"""


def test_rules_that_the_kernel_takes_pass_and_are_not_in_force() -> None:
    check_rules(TABLE.format(flags="dynamic"))
    assert "buntime_check" not in subprocess.check_output(["nft", "list", "tables"], text=True)


def test_rules_that_only_the_kernel_refuses_do_not_pass() -> None:
    with pytest.raises(HostCommandFailed, match="not supported"):
        check_rules(TABLE.format(flags="dynamic,timeout"))
