"""The one place where everything is built, in the order in which it is needed.

Starting is recovering: there is no other way to start. Stopping leaves sessions running.
"""

import asyncio
import fcntl
import math
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http import httptools_impl

from buntime.account import Account, Key, hash_key, new_key_secret
from buntime.admin import doctor
from buntime.archives.opening import open_archive
from buntime.config import BadSetting, Config
from buntime.daemon.tasks import Tasks
from buntime.daemon.trimming import keep_trimmed
from buntime.edge.process import EdgeFailed, edge, stop_left_over
from buntime.lifecycle.endings import Endings
from buntime.lifecycle.keeper import Keeper, Pace
from buntime.lifecycle.leases import Leases
from buntime.lifecycle.sealing import BadMasterKey, Damaged, Vault, load_master_key
from buntime.lifecycle.snapshots import Numbers, Snapshots
from buntime.operations.idempotency import Idempotency
from buntime.operations.previews import Previews
from buntime.operations.sessions import ControlPlane
from buntime.plan import Plan, load_plans
from buntime.ports import Archive
from buntime.preview import api_url
from buntime.sandboxes import opening
from buntime.sandboxes.guest.client import new_http_client
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import NoPart
from buntime.sandboxes.kernel.image import ImageFailed, ensure_image
from buntime.sandboxes.kernel.oci import CORE
from buntime.sandboxes.local import LocalSandboxes
from buntime.sandboxes.network.dnsmasq import NameServer
from buntime.session import DESTROYED, ID_ALPHABET, Session
from buntime.stores import store_file
from buntime.stores.database import StoreUnusable
from buntime.stores.sqlite import SqliteStore
from buntime.web.api.server import metrics_app
from buntime.web.app import create_app
from buntime.web.edge_app import create_edge_app
from buntime.web.logs import configure_logs
from buntime.web.metrics import Metrics
from buntime.web.streaming import OpenStreams
from buntime.web.websocket import LARGEST_MESSAGE, PING_SECONDS, Connection

log = structlog.get_logger()

Say = Callable[[str], None]
OPEN_FILES = 65536
STOP_SECONDS = 10
BODY_WAITING = 1 << 20  # bytes
NAMES_SECONDS = 5.0  # between looks at the name server
FIRST_PLAN = "paid"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    store: SqliteStore
    sandboxes: LocalSandboxes
    first_key: str | None  # made now, because there was no account yet


@asynccontextmanager
async def running(config: Config, say: Say) -> AsyncIterator[Server]:
    """Everything, until the block is left. Raises one of REFUSALS."""
    plans = _plans(config)
    _raise_file_limit()
    _allow_a_core_limit()
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_server(config))
        image = await ensure_image(config.images, say)
        store = await SqliteStore.open(store_file(config))
        stack.push_async_callback(store.close)
        http = await stack.enter_async_context(new_http_client())
        tasks = await stack.enter_async_context(Tasks())
        owned = {session.sandbox: session for session in await store.all_sessions()}
        limits = plans["free"].default
        sandboxes = await stack.enter_async_context(opening.opened(config, image, limits, owned, tasks, http))
        vault = _vault(config, owned.values())
        snapshots = Snapshots(_archive(config), vault, sandboxes, time.time)
        await stack.enter_async_context(snapshots)
        leases = Leases(store, sandboxes, snapshots, tasks, time.time)
        await leases.settle()
        endings = Endings(store, sandboxes, leases, snapshots, tasks)
        control_plane = ControlPlane(store, sandboxes, leases, endings, plans, tasks, time.time)
        keeper = Keeper(store, sandboxes, endings, leases, tasks, time.time, _pace(config))
        tasks.start_daemon(keeper.run(), "keeper")
        tasks.start_daemon(keeper.watch_connections(), "connections")
        tasks.start(leases.sweep(), "sweep of the archive")
        tasks.start_daemon(sandboxes.keep_pool(), "pool")
        tasks.start_daemon(sandboxes.keep_rules(), "rules")
        tasks.start_daemon(sandboxes.keep_kernel(), "kernel memory")
        tasks.start_daemon(sandboxes.keep_room_for_metadata(), "room for metadata")
        tasks.start_daemon(keep_trimmed(), "trimming")
        tasks.start_daemon(_keep_names(opening.watch_names(config)), "name server")
        streams = OpenStreams()
        metrics = Metrics(_gauges(sandboxes, snapshots), _counters(snapshots))
        app = create_app(
            control_plane,
            Idempotency(store, vault),
            config,
            metrics=metrics,
            ready=sandboxes.works,
            streams=streams,
        )
        secure = bool(config.domain)
        previews = Previews(store, leases, time.time, domain=config.domain, secure=secure)
        await stack.enter_async_context(_listening(app, config.api_socket, "api"))
        stack.callback(streams.end)
        await stack.enter_async_context(
            _listening(create_edge_app(previews, secure=secure), config.edge_socket, "previews")
        )
        await stack.enter_async_context(_listening(metrics_app(metrics), config.metrics_socket, "metrics"))
        await stack.enter_async_context(edge(config, plans, tasks))
        yield Server(api_url(config), store, sandboxes, await _first_key(store))


def _archive(config: Config) -> Archive:
    try:
        return open_archive(config.archive, config.data_dir / "archive", os.environ, config.reserve_gb << 30)
    except ValueError as wrong:
        raise BadSetting(f"BUNTIME_ARCHIVE={config.archive}: {wrong}") from wrong


def _vault(config: Config, sessions: Collection[Session]) -> Vault:
    """Of the key that the sessions' keys are wrapped with. Raises BadSetting where it is missing or another one."""
    path = config.master_key_file or config.data_dir / "master.key"
    wrapped = [session for session in sessions if session.key not in ("", DESTROYED)]
    try:
        vault = Vault(load_master_key(path, may_create=not wrapped))
        if wrapped:
            vault.unwrap(wrapped[0].id, wrapped[0].key)
    except BadMasterKey as wrong:
        raise BadSetting(str(wrong)) from wrong
    except Damaged as wrong:
        raise BadSetting(f"{path} is not the master key of this store's sessions. Put the right one back.") from wrong
    return vault


def _plans(config: Config) -> Mapping[str, Plan]:
    try:
        return load_plans(config.plans)
    except (OSError, ValueError) as wrong:
        raise BadSetting(f"the plans in BUNTIME_PLANS={config.plans} cannot be read: {wrong}.") from wrong


REFUSALS = (BadSetting, EdgeFailed, HostCommandFailed, ImageFailed, NoPart, StoreUnusable)


def serve(config: Config) -> None:
    """Until SIGINT or SIGTERM. Raises BadSetting for whatever keeps it from starting."""
    refused = doctor.missing(config)
    if refused:
        raise BadSetting("this host lacks something:\n" + "\n".join(f"  - {line}" for line in refused))
    configure_logs(config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config))
        except asyncio.CancelledError:
            _say("Stopped before it had started.")
        except REFUSALS as refusal:
            raise BadSetting(str(refusal)) from refusal


async def _serve(config: Config) -> None:
    stopped = asyncio.get_running_loop().create_future()
    starting = asyncio.current_task()
    assert starting is not None

    def stop() -> None:
        if not started:
            starting.cancel()  # the image may take minutes: nobody who wants to stop waits for it
        elif not stopped.done():
            stopped.set_result(None)

    started = False
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with running(config, _say) as server:
        started = True
        _say(_welcome(server))
        await stopped
        _say("Stopping. Sessions stay for the next start.")


def purge(config: Config) -> None:
    """Removes every session, and everything else that servers of this data directory made on the host."""
    if not config.data_dir.exists():
        return
    configure_logs("warning")

    async def work() -> None:
        async with new_http_client() as http, Tasks() as tasks:
            await opening.purge(config, tasks, http)
            await asyncio.to_thread(stop_left_over, config.run_dir / "edge")

    with _only_server(config), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
        for entry in list(config.data_dir.iterdir()):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def _only_server(config: Config) -> Iterator[None]:
    """The data directory is this process's alone. Raises BadSetting."""
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_dir.mkdir(mode=0o700, exist_ok=True)
    with (config.data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSetting(
                f"another server uses {config.data_dir}: stop it first, or choose another BUNTIME_DATA_DIR."
            ) from None
        yield


class _ApiServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: uvicorn's way would end the process before sandboxes are let go in order."""
        yield


@asynccontextmanager
async def _listening(app: object, path: Path, name: str) -> AsyncIterator[None]:
    """The control plane's HTTP on a socket that only root can open, and the edge's workers when it is there."""
    # uvicorn stops reading a body whenever this much of it waits for the application, and goes on when it was taken:
    # at its 64 KiB that costs more than the reading. How much is held in all is the web layer's to say (`BodyMemory`).
    httptools_impl.HIGH_WATER_LIMIT = BODY_WAITING  # type: ignore[attr-defined]
    listener = _listener(path)
    try:
        server = _ApiServer(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                http="httptools",
                ws=Connection,
                ws_max_size=LARGEST_MESSAGE,
                ws_ping_interval=PING_SECONDS,
                ws_ping_timeout=None,  # who types into a program that does not read waits
                ws_per_message_deflate=False,
                lifespan="off",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=STOP_SECONDS,
                backlog=4096,
                server_header=False,
                date_header=False,
                proxy_headers=False,
            )
        )
        serving = asyncio.create_task(server.serve([listener]), name=name)
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            if not server.started:
                raise HostCommandFailed(f"the control plane did not start to listen: {name}")
            yield
        finally:
            server.should_exit = True
            await serving
    finally:
        listener.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - no disk is waited for


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _pace(config: Config) -> Pace:
    return Pace(config.tick_ms / 1000, config.idle_after or math.inf, config.deep_sleep_after or math.inf)


async def _keep_names(names: NameServer) -> None:
    """Sessions keep their name server, whatever happens to it."""
    while True:
        try:
            await asyncio.to_thread(names.ensure)
        except HostCommandFailed as failed:
            log.error("name_server_not_started", reason=str(failed))
        await asyncio.sleep(NAMES_SECONDS)


async def _first_key(store: SqliteStore) -> str | None:
    if await store.list_accounts():
        return None
    now, secret = int(time.time()), new_key_secret()

    def name(length: int) -> str:
        return "".join(secrets.choice(ID_ALPHABET) for _ in range(length))

    account = Account(f"acc_{name(16)}", FIRST_PLAN, now)
    await store.add_account(account)
    await store.add_key(Key(f"key_{name(12)}", account.id, hash_key(secret), secret[:8], now))
    return secret


def _gauges(sandboxes: LocalSandboxes, snapshots: Snapshots) -> Mapping[str, Callable[[], int]]:
    return {
        "pool": lambda: sandboxes.parked,
        "sandboxes": lambda: sandboxes.running,
        "cached_volumes": lambda: len(sandboxes.cached()),
        "cached_bytes": lambda: sum(sandboxes.cached().values()),
        "archive_transfers": lambda: snapshots.under_way,
    }


def _counters(snapshots: Snapshots) -> Mapping[str, Callable[[], int]]:
    return {f"archive_{field.name}": partial(getattr, snapshots.numbers, field.name) for field in fields(Numbers)}


def _welcome(server: Server) -> str:
    """What a person needs to go on. The first key is shown this once; later lines make a key of their own."""
    key = server.first_key or "${BUNTIME_API_KEY:-$(uv run buntime keys create)}"
    lines = ["", f"buntime serves on {server.url}"]
    if server.first_key:
        lines.append(f"First API key (shown this once): {server.first_key}")
    else:
        lines.append("API keys: uv run buntime keys create")
    lines += ["Create a session:", f'  curl -sS -X POST {server.url}/sessions/create -H "Authorization: Bearer {key}"']
    return "\n".join(lines) + "\n"


def _raise_file_limit() -> None:
    """A connection and a handle per session add up. Beyond the hard limit only where we may raise it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(OPEN_FILES, hard), max(OPEN_FILES, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _allow_a_core_limit() -> None:
    """Sandboxes get one of a byte, which they could not have if ours were 0. Ours in force stays as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, CORE))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
