"""Runs the host's tools. Blocking: call it on a worker thread."""

import fcntl
import os
import select
import subprocess
from collections.abc import Sequence

MOST_OUTPUT = 16 << 10  # bytes
MFD_NOEXEC_SEAL = 8  # linux/memfd.h


class HostCommandFailed(Exception):
    """A tool of the host failed. The message has its name and its output: for logs and operators, never for clients."""


def call(argv: Sequence[str], given: str | None = None, timeout: float = 60.0) -> str:
    """Returns the standard output. Raises HostCommandFailed."""
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise HostCommandFailed(f"{argv[0]}: {failed}") from failed
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-2000:]
        raise HostCommandFailed(f"{' '.join(argv[:4])}: exit {done.returncode}: {output}")
    return done.stdout


def call_detached(argv: Sequence[str], timeout: float) -> None:
    """Runs a program that leaves untrusted processes behind, which inherit its output.

    A pipe would stay open with them, and a file could grow. So the output goes to memory of a fixed size. Raises
    HostCommandFailed with the end of the output.
    """
    output = os.memfd_create("buntime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)
    try:
        os.truncate(output, MOST_OUTPUT)
        fcntl.fcntl(output, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        code = _run_detached(argv, output, timeout)
        if code:
            text = os.pread(output, MOST_OUTPUT, 0).rstrip(b"\0").decode(errors="replace")
            raise HostCommandFailed(f"exit {code}: {text.strip()[-1000:]}")
    finally:
        os.close(output)


def _run_detached(argv: Sequence[str], output: int, timeout: float) -> int:
    """Returns the exit code. Kills the process after the timeout."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if not has_ended(process, timeout):
        process.kill()
    return process.wait()


def has_ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Waits up to `timeout` seconds. Nobody has waited for the process before, and it can still be waited for.

    `Popen.wait` with a timeout polls, and may be 16 ms late. A pidfd is ready at once.
    """
    handle = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(handle)
