"""Opens the target of the attack: a server that already runs on this host, or a new one."""

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
from tests.attack.outside_world import LINK, Outside, outside, resolv_conf

DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory
PLANS = ("free", "enterprise", "enterprise")  # of A, B and the others
KEYS = ("ATTACKER_KEY", "NEIGHBOUR_KEY", "OTHERS_KEY")


class Unusable(Exception):
    """There is no usable target; the message says what is missing."""


@contextmanager
def open_target(environ: Mapping[str, str]) -> Iterator[Target]:
    """Yields the target that the environment describes.

    Raises Unusable if there is none. Raises AssertionError if a server that it started leaves something on the host.
    """
    with ExitStack() as stack:
        beyond = stack.enter_context(outside()) if os.geteuid() == 0 else None
        if url := environ.get("BUNTIME_URL"):
            yield stack.enter_context(_running(url, environ, beyond))
        elif beyond is None:
            raise Unusable("set BUNTIME_URL, or run this as root to start a server")
        else:
            server = stack.enter_context(_fresh(stack.enter_context(resolv_conf())))
            server.start()
            a, b, others = (server.new_client(plan) for plan in PLANS)
            yield Target(a, b, others, beyond, edge_is_public=True)


@contextmanager
def _fresh(names: Path) -> Iterator[Server]:
    """Yields a server that is not started. `names` is its resolv.conf."""
    directory, before = Path(tempfile.mkdtemp(prefix="buntime-attack-", dir=DISK)), settings()
    server = Server(directory / "data", pool_size=6)
    server.settings["BUNTIME_HOST"] = "0.0.0.0"  # makes the edge reachable from another address
    server.settings["BUNTIME_RESOLV_CONF"] = str(names)
    try:
        yield server
    finally:
        server.end()
        left = traces.left_behind(server.config)
        shutil.rmtree(directory)
        assert not left, "left on the host after purge:\n" + "\n".join(left)
        changed = unlisted(before)
        assert not changed, f"host settings changed that `buntime doctor` does not list: {changed}"


@contextmanager
def _running(url: str, environ: Mapping[str, str], beyond: Outside | None) -> Iterator[Target]:
    where = urlsplit(url)
    if where.scheme != "http" or where.hostname not in ("127.0.0.1", "localhost"):
        raise Unusable("BUNTIME_URL must be http://127.0.0.1:PORT: attack only your own server, on its host")
    port = where.port or 80
    with ExitStack() as stack:
        given = [environ[name] for name in KEYS if name in environ]
        keys = given if len(given) == len(KEYS) else [stack.enter_context(_account(plan)) for plan in PLANS]
        a, b, others = (Client(port, key) for key in keys)
        yield Target(a, b, others, beyond, beyond is not None and _listens_beyond_loopback(port))


@contextmanager
def _account(plan: str) -> Iterator[str]:
    """Yields the key of a temporary account. BUNTIME_DATA_DIR must be the server's."""
    account = _buntime("accounts", "create", "--plan", plan)
    try:
        yield _buntime("keys", "create", "--account", account)
    finally:
        _buntime("accounts", "delete", account, "--yes")


def _buntime(*arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in ("BUNTIME_URL", "BUNTIME_API_KEY")}
    done = subprocess.run([BUNTIME, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Unusable(f"buntime {' '.join(arguments)}: {done.stderr.strip()}; or set {', '.join(KEYS)}")
    return done.stdout.strip()


def _listens_beyond_loopback(port: int) -> bool:
    """Tells whether the port answers on the host's end of the namespace link."""
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", LINK], capture_output=True, text=True, check=True).stdout
    try:
        socket.create_connection((shown.split()[3].partition("/")[0], port), timeout=2).close()
    except OSError:
        return False
    return True
