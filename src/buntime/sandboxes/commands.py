"""Running the host's tools. Blocking: callers are on a worker thread."""

import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path


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


def call_detached(argv: Sequence[str], log: Path, timeout: float) -> None:
    """For a program that leaves processes behind: it gets no pipe, which they would inherit, but a log file.

    Raises HostCommandFailed with the end of the log.
    """
    with log.open("wb") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    # Popen.wait with a timeout looks every so often, up to 16 ms late; a pidfd tells at once
    handle = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(timeout * 1000):
            process.kill()
    finally:
        os.close(handle)
    if process.wait():
        raise HostCommandFailed(f"exit {process.returncode}: {log.read_text(errors='replace').strip()[-1000:]}")
