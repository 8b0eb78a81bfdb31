"""The name server of sandboxes: dnsmasq on the gateway address, which asks the servers in BUNTIME_RESOLV_CONF.

Like the sandboxes, it outlives the server, so programs in them can still resolve names. The next start takes it over,
or replaces it when its settings have changed.
"""

import hashlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path

from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.rules import UNREACHABLE

START_SECONDS = 5.0


class NameServer:
    def __init__(self, part: Part, run_dir: Path, resolv_conf: Path) -> None:
        """`resolv_conf`: lists the name servers to ask. dnsmasq reads it as nobody, and again when it changes."""
        self._pid_file = run_dir / "dnsmasq.pid"
        self._command = _command(part, resolv_conf)
        self._process: subprocess.Popen[bytes] | None = None  # if this server has started it
        self._mark = hashlib.sha256("\0".join(self._command).encode()).hexdigest()

    def ensure(self) -> None:
        """When this returns, dnsmasq runs with the present settings. Raises HostCommandFailed."""
        if self._running() is not None:
            return
        self.stop()
        log = self._pid_file.with_suffix(".log")
        with log.open("wb") as output:
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
            )
        self._pid_file.write_text(f"{process.pid} {self._mark}\n")
        # it says when it is ready, and exits at once when it cannot serve
        deadline = time.monotonic() + START_SECONDS
        while "started" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise HostCommandFailed(f"dnsmasq did not start: {log.read_text(errors='replace').strip()[-300:]}")
            time.sleep(0.005)

    def stop(self) -> None:
        pid = self._ours()
        if pid is None:
            return
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            ended.poll()  # its command line goes sooner than its hold on the address
        finally:
            os.close(handle)
        self._pid_file.unlink(missing_ok=True)
        if self._process is not None and self._process.pid == pid:
            self._process.wait()

    def _running(self) -> int | None:
        try:
            _, mark = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return self._ours() if mark == self._mark else None

    def _ours(self) -> int | None:
        """The pid in the file, if that process is still this server's dnsmasq."""
        try:
            pid = int(self._pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if _is_dnsmasq(pid, self._command) else None


def _is_dnsmasq(pid: int, command: list[str]) -> bool:
    listen = next(word for word in command if word.startswith("--listen-address="))
    try:
        return listen.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _command(part: Part, resolv_conf: Path) -> list[str]:
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--user=nobody",
        "--group=nogroup",
        "--pid-file",
        f"--listen-address={part.gateway}",
        "--bind-interfaces",
        "--no-hosts",
        f"--resolv-file={resolv_conf}",
        "--filter-AAAA",  # sessions have IPv4 only
        "--no-ident",  # else it tells its version and the host's name servers
        "--cache-size=4000",
        # one sandbox may ask 100 a second, and an unanswered question waits 10 seconds
        "--dns-forward-max=20000",
        "--bogus-priv",
        "--domain-needed",
        # drops answers with addresses inside: no public name has one
        *(f"--ignore-address={network}" for network in UNREACHABLE),
    ]
