"""Claims a part of this host's addresses. There are few parts, so tests that run side by side wait for a free one."""

import time

from buntime.config import Config
from buntime.sandboxes.kernel.host import NoPart, claim_part

PATIENCE = 600.0  # seconds; a guard against a hang


def wait_for_part(config: Config) -> None:
    """Makes a data directory and claims a part for it. The purge frees the part."""
    config.data_dir.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            claim_part(config)
            return
        except NoPart:
            assert time.monotonic() < deadline, "no part of this host became free"
            time.sleep(0.1)
