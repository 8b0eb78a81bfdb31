"""The server that is attacked: one that runs already on this host, or one that is made for it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance import traces
from tests.acceptance.client import Client
from tests.acceptance.server import BUNTIME, Server
from tests.attack.attack import Target
from tests.attack.host_settings import settings, unlisted
from tests.attack.outside_world import LINK, Outside, outside

DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory
PLANS = ("free", "enterprise", "enterprise")  # of A, of B, of the others
KEYS = ("ATTACKER_KEY", "NEIGHBOUR_KEY", "OTHERS_KEY")


class Unusable(Exception):
    """The message says what is missing."""


@contextmanager
def place(environ: Mapping[str, str]) -> Iterator[Target]:
    """Raises Unusable, and AssertionError where something of a server made here is left on the host."""
    with ExitStack() as stack:
        beyond = stack.enter_context(outside()) if os.geteuid() == 0 else None
        if url := environ.get("BUNTIME_URL"):
            yield stack.enter_context(_running(url, environ, beyond))
        elif beyond is None:
            raise Unusable("without BUNTIME_URL this starts a server, and for that it must run as root")
        else:
            server = stack.enter_context(_fresh())
            server.start()
            a, b, others = (server.new_client(plan) for plan in PLANS)
            yield Target(a, b, others, beyond, edge_is_public=True)


@contextmanager
def _fresh() -> Iterator[Server]:
    directory, before = Path(tempfile.mkdtemp(prefix="buntime-attack-", dir=DISK)), settings()
    server = Server(directory / "data", pool_size=6)
    server.settings["BUNTIME_HOST"] = "0.0.0.0"  # another address reaches its edge
    try:
        yield server
    finally:
        server.end()
        left = traces.left_behind(server.config)
        shutil.rmtree(directory)
        assert not left, "left on the host after purge:\n" + "\n".join(left)
        changed = unlisted(before)
        assert not changed, f"settings of the host changed that doctor does not list: {changed}"


@contextmanager
def _running(url: str, environ: Mapping[str, str], beyond: Outside | None) -> Iterator[Target]:
    where = urlsplit(url)
    if where.scheme != "http" or where.hostname not in ("127.0.0.1", "localhost"):
        raise Unusable(
            "BUNTIME_URL must be http://127.0.0.1:PORT: the attack is for a server of one's own, on its host"
        )
    port = where.port or 80
    with ExitStack() as stack:
        given = [environ[name] for name in KEYS if name in environ]
        keys = given if len(given) == len(KEYS) else [stack.enter_context(_account(plan)) for plan in PLANS]
        a, b, others = (Client(port, key) for key in keys)
        yield Target(a, b, others, beyond, beyond is not None and _listens_beyond_loopback(port))


@contextmanager
def _account(plan: str) -> Iterator[str]:
    """The key of an account that goes again, with its sessions. BUNTIME_DATA_DIR is the server's."""
    account = _buntime("accounts", "create", "--plan", plan)
    try:
        yield _buntime("keys", "create", "--account", account)
    finally:
        _buntime("accounts", "delete", account)


def _buntime(*arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in ("BUNTIME_URL", "BUNTIME_API_KEY")}
    done = subprocess.run([BUNTIME, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Unusable(f"buntime {' '.join(arguments)}: {done.stderr.strip()}; or set {', '.join(KEYS)}")
    return done.stdout.strip()


def _listens_beyond_loopback(port: int) -> bool:
    """On the address of the host's end of the namespace, as on any other of the host."""
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", LINK], capture_output=True, text=True, check=True).stdout
    try:
        socket.create_connection((shown.split()[3].partition("/")[0], port), timeout=2).close()
    except OSError:
        return False
    return True
