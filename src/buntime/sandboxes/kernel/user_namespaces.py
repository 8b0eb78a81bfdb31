"""User namespaces for sandboxes, and the id maps of their mounts.

The kernel counts pending signals, message queues, inotify watches and the like for the user who made a user namespace,
over all namespaces of that user. So a different host user id makes each sandbox's namespace: the id that the sandbox's
root has on the host. One session then cannot use up what another needs.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from buntime.sandboxes.kernel import namespace_maker
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import UIDS

SECONDS = 5.0  # a guard against a hang: it takes about a millisecond
TRIES = 2  # the helper may have been killed since the last request
# One more id of a mount. Without it, overlay cannot make its work directory and silently turns read-only.
HOST_ROOT = f"{UIDS} 0 1\n"


@dataclass(frozen=True, slots=True)
class UserNamespaces:
    """One sandbox's user namespaces, as file descriptors."""

    session: int  # of its processes
    mounts: int  # the id map of its layers

    @property
    def session_path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.session}"


class NamespaceMaker:
    """Makes user namespaces with a helper, which it starts when one is asked for. For all threads. Blocking."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._closed = False
        self._helper: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    @contextmanager
    def of_sandbox(self, first_uid: int) -> Iterator[UserNamespaces]:
        """`first_uid`: the first of the session's host ids. Raises HostCommandFailed."""
        with self._made(first_uid, f"0 {first_uid} {UIDS}\n") as session, self.id_map(first_uid) as mounts:
            yield UserNamespaces(session, mounts)

    @contextmanager
    def id_map(self, first_uid: int) -> Iterator[int]:
        """The same for mounts alone: a user namespace, as a file descriptor."""
        with self._made(os.getuid(), f"0 {first_uid} {UIDS}\n" + HOST_ROOT) as namespace:
            yield namespace

    def close(self) -> None:
        """Afterwards it makes none."""
        self._closed = True
        with self._turn:
            self._end()

    @contextmanager
    def _made(self, uid: int, ids: str) -> Iterator[int]:
        with self._turn:
            namespace = self._ask(f"{uid} {ids}".encode())
        try:
            yield namespace
        finally:
            os.close(namespace)

    def _ask(self, request: bytes) -> int:
        failure = "the server stops"
        for _ in range(TRIES):
            if self._closed:
                break
            try:
                connection = self._connection()
                connection.send(request)
                answer, descriptors, _, _ = socket.recv_fds(
                    connection, namespace_maker.LARGEST, 1, socket.MSG_CMSG_CLOEXEC
                )
            except OSError as failed:  # also when it takes too long
                self._end()
                failure = str(failed)
                continue
            if descriptors:
                return descriptors[0]
            if answer == namespace_maker.DONE:
                raise HostCommandFailed("user namespace: this process has no room for another open file")
            if answer:
                raise HostCommandFailed(f"user namespace: {answer.decode(errors='replace')}")
            self._end()
            failure = "the helper has ended"
        raise HostCommandFailed(f"user namespace: {failure}")

    def _connection(self) -> socket.socket:
        if self._helper is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-I", "-S", namespace_maker.__file__]
                helper = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/")
            ours.settimeout(SECONDS)
            self._helper = helper, ours
        return self._helper[1]

    def _end(self) -> None:
        if self._helper is None:
            return
        helper, connection = self._helper
        self._helper = None
        connection.close()
        helper.kill()
        with suppress(subprocess.TimeoutExpired):
            helper.wait(SECONDS)
