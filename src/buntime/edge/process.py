"""Runs nginx as a child of the server."""

import asyncio
import ipaddress
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from buntime.config import BadSetting, Config
from buntime.daemon.children import Program, keep_running, kill_group
from buntime.daemon.listening import Listening, listening
from buntime.daemon.tasks import Tasks, to_its_end
from buntime.edge.certificates import FleetHost, keep_certificate, listen_for
from buntime.edge.nginx import LUA_MODULES, MODULES, OTHER_FILES, USER, Certificate, Edge, connections_for, render
from buntime.edge.peers import Peers
from buntime.plan import Plan

ANSWER_SECONDS = 30.0  # a guard: nginx answers at once, but a host that boots may be busy with other services
STOP_SECONDS = 5.0
RENEWAL_SECONDS = 60.0  # between checks of the certificate


class EdgeFailed(BadSetting):
    """The edge cannot serve with these settings or on this host. The message says why and what to do."""


async def start_edge(
    config: Config,
    plans: Mapping[str, Plan],
    tasks: Tasks,
    me: FleetHost | None = None,
    may_listen: asyncio.Event | None = None,
) -> None:
    """Starts the edge, and returns when it accepts connections. Raises EdgeFailed.

    First stops the nginx of a server that was killed. The answers are 503 until the control plane listens on
    `config.api_socket`, and `open_to_edge` was called. A renewed certificate takes effect within a minute, which ends
    open streams. nginx ends with `tasks`, so that requests under way still get their answers when the server stops.
    `me`: this host in its fleet, for which other hosts are answered too. `may_listen`: set when the host's rules are in
    force, which count connections. What needs no connection is done before.
    """
    where, directory = listening(config), config.run_dir / "edge"
    largest = max(plan.body_mb for plan in plans.values())
    # to its end even if the caller leaves: nothing may start later
    program, peers = await to_its_end(asyncio.to_thread(_prepare, config, largest, where, me))
    if may_listen is not None:
        await may_listen.wait()
    tasks.start_daemon(keep_running(program), "nginx")
    await _until_it_answers(where.endpoints)
    if config.tls_cert and config.tls_key:
        files = (config.tls_cert, config.tls_key)
        tasks.start_daemon(take_up_renewals(files, directory), "certificate")
    if me is not None and peers is not None:
        tasks.start_daemon(keep_certificate(me, peers), "certificate of this host")
        tasks.start_daemon(take_up_renewals((peers.certificate,), directory), "certificate for hosts")


def open_to_edge(config: Config) -> None:
    """Lets only nginx's workers and root connect to the control plane, which listens already."""
    for path in (config.api_socket, config.edge_socket):
        shutil.chown(path, "root", USER)
        path.chmod(0o660)


async def take_up_renewals(files: tuple[Path, ...], directory: Path, seconds: float = RENEWAL_SECONDS) -> None:
    """Tells nginx to reload its configuration when one of the files changes.

    If the new files are unusable, nginx continues with the old ones.
    """
    known = _versions(files)
    while True:
        await asyncio.sleep(seconds)
        found = _versions(files)
        if found == known:
            continue
        master = _left_over(directory)
        if master is not None:  # otherwise it is restarting and reads the files anyway
            with suppress(ProcessLookupError):
                os.kill(master, signal.SIGHUP)
        known = found


def _versions(files: tuple[Path, ...]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            status = file.stat()  # follows links: a renewal often only moves the link
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns))
    return found


def _prepare(config: Config, body_mb: int, where: Listening, me: FleetHost | None) -> tuple[Program, Peers | None]:
    nginx = _nginx()
    directory = config.run_dir / "edge"
    directory.mkdir(parents=True, exist_ok=True)
    stop_left_over(directory)
    peers = None if me is None else listen_for(me, directory, config.bodies_dir, USER)
    for endpoint in where.endpoints:
        _check_free(*endpoint, "BUNTIME_PORT or BUNTIME_HOST")
    if peers is not None:
        host, _, port = peers.address.rpartition(":")
        _check_free(host.strip("[]"), int(port), "BUNTIME_PEER")
    listen = tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in where.endpoints)
    certificate = Certificate(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
    edge = Edge(
        listen,
        config.api_socket,
        config.edge_socket,
        directory,
        body_mb,
        https=bool(config.domain),
        certificate=certificate,
        proxies=tuple(str(network) for network in where.proxies),
        connections=_connections(),
        peers=peers,
    )
    file = directory / "nginx.conf"
    file.write_text(render(edge))
    command = (nginx, "-p", str(directory), "-e", "stderr", "-c", str(file))
    tested = subprocess.run([*command, "-t", "-q"], capture_output=True, text=True, check=False)
    if tested.returncode:
        raise EdgeFailed(f"nginx rejects its configuration: {tested.stderr.strip()}")
    return Program("nginx", command, stop_seconds=STOP_SECONDS), peers


def _connections() -> int:
    """The connections of one worker: by the host's memory, and at most the files that it may open."""
    wanted = connections_for(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    files = _open_files(wanted + OTHER_FILES)
    return min(wanted, max(files - OTHER_FILES, files // 2))


def _open_files(wanted: int) -> int:
    """`wanted`, if this host lets nginx's master raise its limit that far, else the current limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], wanted))
    except (ValueError, OSError):
        return limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return wanted


def _nginx() -> str:
    """The path of nginx. Raises EdgeFailed if something that it needs is not installed."""
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if nginx is None or not has_lua():
        raise EdgeFailed("nginx or its Lua module is not installed. Run scripts/setup.")
    if not has_user():
        raise EdgeFailed(f"There is no user {USER} for nginx's workers. Run scripts/setup.")
    return nginx


def has_lua() -> bool:
    return all((MODULES / name).exists() for name in LUA_MODULES)


def has_user(name: str = USER) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _check_free(host: str, port: int, settings: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as failed:
            reason = os.strerror(failed.errno or 0)
            raise EdgeFailed(
                f"Cannot listen on {host} port {port}: {reason}. Set {settings} to another value."
            ) from None


async def _until_it_answers(addresses: list[tuple[str, int]]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    for host, port in addresses:
        unspecified = ipaddress.ip_address(host).is_unspecified
        reachable = ("::1" if ":" in host else "127.0.0.1") if unspecified else host
        while True:
            try:
                _, writer = await asyncio.open_connection(reachable, port)
                break
            except OSError as failed:
                if time.monotonic() > deadline:
                    raise EdgeFailed(f"nginx does not answer on {host} port {port}: {failed}.") from None
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()


def stop_left_over(directory: Path) -> None:
    """Stops the nginx of a server that was killed, including workers that outlived their master."""
    group = _left_over(directory)
    if group is None:
        return
    kill_group(group, signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while _members(group) and time.monotonic() < deadline:
        time.sleep(0.01)


def _left_over(directory: Path) -> int | None:
    """The process group of the nginx whose pid file is in the directory, if that nginx still runs."""
    try:
        master = int((directory / "nginx.pid").read_text())
    except (OSError, ValueError):
        return None
    try:
        title = Path(f"/proc/{master}/cmdline").read_bytes()
    except OSError:
        # The kernel does not reuse a number while a group has it, so these can only be the master's workers.
        return master if "nginx" in _members(master) else None
    return master if str(directory / "nginx.conf").encode() in title else None


def _members(group: int) -> list[str]:
    """The names of the processes in a group."""
    names = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (directory / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if rest.split()[2] == str(group) and rest.split()[0] != "Z":
            names.append(name)
    return names
