"""Running the host's tools. Blocking: callers are on a worker thread."""

import fcntl
import os
import select
import subprocess
from collections.abc import Sequence

MOST_SAID = 16 << 10  # bytes
MFD_NOEXEC_SEAL = 8  # linux/memfd.h


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


def call_detached(argv: Sequence[str], timeout: float) -> None:
    """For a program that leaves processes behind, which inherit its output and are not trusted.

    It gets neither a pipe, which would stay open with them, nor a file, which they could make grow, but memory of a
    fixed size. Raises HostCommandFailed with the end of what it said.
    """
    said = os.memfd_create("buntime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)
    try:
        os.truncate(said, MOST_SAID)
        fcntl.fcntl(said, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        code = _run_detached(argv, said, timeout)
        if code:
            text = os.pread(said, MOST_SAID, 0).rstrip(b"\0").decode(errors="replace")
            raise HostCommandFailed(f"exit {code}: {text.strip()[-1000:]}")
    finally:
        os.close(said)


def _run_detached(argv: Sequence[str], said: int, timeout: float) -> int:
    """The exit code; it is killed when it takes longer."""
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
    return process.wait()
