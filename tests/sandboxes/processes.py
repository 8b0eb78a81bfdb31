"""The processes of a sandbox, as the host sees them."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from buntime.ports import Sandbox
from tests.contracts.test_sandboxes import LocalHost


def processes_in(host: LocalHost, sandbox: Sandbox) -> Iterator[Path]:
    """Their directories in /proc. A process may end meanwhile."""
    inside = f"/buntime-{host.instance}/{sandbox.id}"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if inside in (process / "cgroup").read_text():
                yield process
