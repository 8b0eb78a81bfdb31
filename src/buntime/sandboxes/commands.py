"""Running the host's tools. Blocking: callers are on a worker thread."""

import subprocess
from collections.abc import Sequence


class HostCommandFailed(Exception):
    """A tool of the host failed; the message has its name and what it said. For logs, never shown."""


def call(argv: Sequence[str], given: str | None = None, timeout: float = 60.0) -> str:
    """Its standard output. Raises HostCommandFailed."""
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise HostCommandFailed(f"{argv[0]}: {failed}") from failed
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise HostCommandFailed(f"{' '.join(argv[:4])}: exit {done.returncode}: {said}")
    return done.stdout
