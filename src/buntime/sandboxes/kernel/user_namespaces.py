"""User namespaces for sandboxes, and the id maps of their mounts.

The kernel counts pending signals, message queues, inotify watches and the like for the user who made a user namespace,
over all namespaces of that user. So a different host user id makes each sandbox's namespace: the id that the sandbox's
root has on the host. One session then cannot use up what another needs.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import UIDS

SECONDS = 5.0  # a guard against a hang: it takes about two milliseconds
# One more id of a mount. Without it, overlay cannot make its work directory and silently turns read-only.
HOST_ROOT = f"{UIDS} 0 1\n"
CAPABILITY = "-all,+sys_admin"  # some hosts let only privileged users make user namespaces


@dataclass(frozen=True, slots=True)
class UserNamespaces:
    """One sandbox's user namespaces, as file descriptors."""

    session: int  # of its processes
    mounts: int  # the id map of its layers

    @property
    def session_path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.session}"


@contextmanager
def user_namespaces(first_uid: int) -> Iterator[UserNamespaces]:
    """`first_uid`: the first of the session's host ids. Blocking. Raises HostCommandFailed."""
    ids = f"0 {first_uid} {UIDS}\n"
    with ExitStack() as stack:
        # start both before waiting for either
        session = stack.enter_context(_sleeping([*_as_user(first_uid), "unshare", "--user", "cat"]))
        mounts = stack.enter_context(_sleeping(["unshare", "--user", "cat"]))
        handles = [_mapped(session, ids), _mapped(mounts, ids + HOST_ROOT)]
        for handle in handles:
            stack.callback(os.close, handle)
        yield UserNamespaces(*handles)


@contextmanager
def id_map(first_uid: int) -> Iterator[int]:
    """The same for mounts alone: a user namespace, as a file descriptor."""
    with _sleeping(["unshare", "--user", "cat"]) as mounts:
        handle = _mapped(mounts, f"0 {first_uid} {UIDS}\n" + HOST_ROOT)
        try:
            yield handle
        finally:
            os.close(handle)


def _as_user(uid: int) -> Sequence[str]:
    caps = [f"--{kind}={CAPABILITY}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *caps]


@contextmanager
def _sleeping(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process ends with the block, or with this server: its pipe closes."""
    try:
        sleeper = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as failed:
        raise HostCommandFailed(f"{command[0]}: {failed}") from failed
    try:
        yield sleeper
    finally:
        sleeper.kill()
        sleeper.communicate()


def _mapped(sleeper: subprocess.Popen[bytes], ids: str) -> int:
    """Waits until the process has made its namespace, and maps these ids. Returns the namespace."""
    process, ours = Path(f"/proc/{sleeper.pid}"), Path("/proc/self/ns/user").readlink()
    deadline = time.monotonic() + SECONDS
    try:
        while (process / "ns/user").readlink() == ours:
            if sleeper.poll() is not None or time.monotonic() > deadline:
                raise HostCommandFailed("unshare: no user namespace could be made")
            time.sleep(0.0001)
        for name in ("uid_map", "gid_map"):
            (process / name).write_text(ids)
        return os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failed:
        raise HostCommandFailed(f"user namespace: {failed}") from failed
