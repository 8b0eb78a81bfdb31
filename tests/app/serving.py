"""Serves the app on a real socket, on top of the fakes."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn
from starlette.types import ASGIApp

from buntime.account import Account, Key, hash_key, new_key, new_key_secret
from buntime.config import Config
from buntime.daemon.tasks import Tasks
from buntime.fleet.hosts import Hosts
from buntime.fleet.listing import SoleHost
from buntime.lifecycle.assembly import Lifecycle, assemble_lifecycle
from buntime.lifecycle.keeper import Keeper, Pace
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.sealing import Vault
from buntime.operations.assembly import Operations, assemble_operations
from buntime.operations.previews import Previews
from buntime.operations.telling import Telling
from buntime.plan import load_plans, without_checkpoints
from buntime.scope import Scope
from buntime.testing.archive import FakeArchive
from buntime.testing.history import FakeHistory
from buntime.testing.owners import FakeOwners
from buntime.testing.sandboxes import FakeSandboxes, Runner, small_shell
from buntime.testing.store import FakeStore
from buntime.web.api.server import metrics_app
from buntime.web.app import create_app
from buntime.web.built_clients import NOT_BUILT, ClientFile
from buntime.web.edge_app import create_edge_app
from buntime.web.metrics import Metrics
from buntime.web.readings import Readings
from buntime.web.websocket import Connection
from tests.waiting import eventually

START = 1705660200.0  # 2024-01-19T10:30:00Z


@dataclass(slots=True)
class Clock:
    """Stands still until a test moves it."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.error["code"]


@dataclass(slots=True)
class Api:
    """A running server, its fakes, and a client."""

    url: str
    http: aiohttp.ClientSession
    store: FakeStore
    sandboxes: FakeSandboxes
    archive: FakeArchive
    history: FakeHistory
    saving: Saving
    clock: Clock
    operations: Operations
    lifecycle: Lifecycle
    tasks: Tasks
    edge_url: str
    metrics_url: str
    key: str = ""
    checks: dict[str, bool] = field(default_factory=dict)
    owners: FakeOwners = field(default_factory=FakeOwners)

    async def account(self, plan: str = "paid", name: str = "one", **overrides: object) -> str:
        """Creates an account. Returns its key."""
        account, secret = Account(f"acc_{name:0<16}", plan, 0, overrides=overrides), new_key_secret()
        await self.store.add_account(account)
        await self.store.add_key(Key(f"key_{name:0<12}", account.id, hash_key(secret), secret[:8], 0))
        return secret

    async def key_with(self, *scopes: Scope, expires_at: int | None = None) -> str:
        """Adds a key with these scopes to the fixture's account."""
        key, secret = new_key("acc_one0000000000000", 0, scopes=frozenset(scopes), expires_at=expires_at)
        await self.store.add_key(key)
        return secret

    async def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> Answer:
        """Sends a request.

        Sends bytes unchanged and any other `body` as JSON. `key` replaces the fixture's key; "" sends none.
        """
        secret = self.key if key is None else key
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret:
            sent.setdefault("Authorization", f"Bearer {secret}")
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        request = self.http.request(
            method,
            self.url + path,
            data=content if content is None else io.BytesIO(content),
            headers=sent,
            skip_auto_headers=["Content-Type"],
        )
        async with request as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def ask(
        self, host: str, uri: str = "/", *, path: str = "/admit", request_id: str = "request", **said: str
    ) -> Answer:
        """Asks what the edge asks for a visitor's request to `host`. `said` are more X-Preview headers."""
        sent = {"host": host, "method": "GET", "uri": uri, "address": "192.0.2.1", **said}
        headers = {"X-Request-Id": request_id, **{f"X-Preview-{name}": value for name, value in sent.items()}}
        async with self.http.get(self.edge_url + path, headers=headers, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def renew(self, *visits: tuple[str, str]) -> list[str]:
        """Asks the edge's question about permissions in use: hosts and tokens. Returns the addresses."""
        body = "\n".join(f"{host}\0{token}\0" for host, token in visits).encode()
        async with self.http.post(f"{self.edge_url}/renew", data=body) as answer:
            assert answer.status == 200
            return (await answer.text()).split("\n")[:-1]

    async def metrics(self, path: str = "/metrics") -> Answer:
        """Sends a request to the operator's socket."""
        async with self.http.get(self.metrics_url + path) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def keeper(self, *, keeps: bool = False, **pace: float) -> Keeper:
        """Returns a keeper that does not run by itself. Use `keep` for one tick. It uses the test's clock."""
        clock = self.clock
        paced = Pace(**pace, keeps=keeps)
        return Keeper(self.store, self.sandboxes, self.lifecycle, self.owners, self.tasks, clock, paced, clock)

    async def keep(self, keeper: Keeper) -> None:
        """Runs one tick and waits for everything that it started."""
        await keeper.tick()
        await eventually(lambda: keeper.at_rest)

    async def session(self, **fields: object) -> str:
        """Creates a session. Returns its id."""
        made = await self.call("POST", "/sessions/create", fields)
        assert made.status == 200, made.body
        session_id: str = made.json["sessionId"]
        return session_id


@asynccontextmanager
async def serving(
    runner: Runner = small_shell,
    clock: Callable[[], float] | None = None,
    domain: str = "",
    cors_origins: str = "",
    files: Sequence[ClientFile] = NOT_BUILT,
    checkpoints: bool = False,
    owners: FakeOwners | None = None,
    hosts: Hosts | None = None,
) -> AsyncIterator[Api]:
    """`checkpoints`: by default, as where the archive is no directory."""
    store, sandboxes, still, checks = FakeStore(), FakeSandboxes(runner), Clock(), dict[str, bool]()
    owners = owners or FakeOwners()
    now, archive, history, vault = clock or still, FakeArchive(), FakeHistory(), Vault(bytes(32))
    sandboxes.on_exited(Telling(store, now).exited)
    saving = Saving(archive, vault, sandboxes.volumes, now)
    async with Tasks() as tasks, saving, aiohttp.ClientSession() as http:
        hosts = hosts or SoleHost("127.0.0.1:8000", store, sandboxes, now)
        metrics = Metrics(Readings(store, sandboxes, saving, lambda: checks, now, hosts))
        plans = load_plans(None) if checkpoints else without_checkpoints(load_plans(None))
        lifecycle = assemble_lifecycle(
            store, sandboxes, saving, owners, history, plans, tasks, now, metrics, releases=store
        )
        operations = assemble_operations(
            store, sandboxes, lifecycle, owners, history, vault, plans, tasks, now, hosts=hosts
        )
        config = Config(cors_origins=cors_origins, domain=domain)
        app = create_app(operations, config, metrics=metrics, ready=lambda: checks, clock=now, files=files)
        previews = Previews(store, lifecycle, owners, now, domain=domain, secure=bool(domain))
        edge_app = create_edge_app(previews, app, metrics, secure=bool(domain))
        numbers = metrics_app(metrics)
        async with _listening(app, edge_app, numbers) as (url, edge_url, metrics_url):
            urls = (edge_url, metrics_url)
            fakes = (store, sandboxes, archive, history)
            api = Api(
                url, http, *fakes, saving, still, operations, lifecycle, tasks, *urls, checks=checks, owners=owners
            )
            api.key = await api.account()
            yield api


TURNS_TO_CLOSE = 3  # turns of the loop until a connection without a request has closed


class _Server(uvicorn.Server):
    """A uvicorn server that stops at once. uvicorn's own loop checks only ten times a second."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, lifespan="off", ws=Connection, http="httptools"))
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the Date header of answers
        await self.ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops without a wait if no request is being answered. uvicorn always waits 0.1 s."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(TURNS_TO_CLOSE):
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)


@asynccontextmanager
async def _listening(*apps: ASGIApp) -> AsyncIterator[list[str]]:
    """Serves the apps and yields their URLs. Stops them together."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in apps]
        servers = [_Server(app) for app in apps]
        async with asyncio.TaskGroup() as running:
            for server, listener in zip(servers, listeners, strict=True):
                running.create_task(server._serve([listener]))
            try:
                yield [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
            finally:
                for server in servers:
                    server.ending.set()
