"""A fleet for tests: a real nginx and a real web layer for each host, on fakes, and one store for all of them."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from buntime.account import Account, Key, hash_key, new_key_secret
from buntime.config import SHARED_RUN_DIR, Config
from buntime.daemon.tasks import Tasks
from buntime.edge import process
from buntime.edge.certificates import FleetHost, trusted_by
from buntime.fleet.asking import PeerHome, asking
from buntime.fleet.homes import Homes
from buntime.fleet.rates import FleetRates
from buntime.lifecycle.assembly import assemble_lifecycle
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.sealing import Vault
from buntime.operations.assembly import Operations, assemble_operations
from buntime.operations.previews import Previews
from buntime.plan import load_plans
from buntime.ports import AnotherHost, Peer
from buntime.session import Session
from buntime.testing.archive import FakeArchive
from buntime.testing.history import FakeHistory
from buntime.testing.owners import FakeOwners
from buntime.testing.rates import FakePot
from buntime.testing.sandboxes import FakeSandbox, FakeSandboxes, Runner, small_shell
from buntime.testing.store import FakeStore
from buntime.web.assembly import web
from buntime.web.built_clients import NOT_BUILT
from buntime.web.metrics import Metrics
from tests.app.serving import Clock
from tests.edge.test_tls import DOMAIN, make_certificate
from tests.ports import free_port

SECRET = bytes(32)  # of the hosts, from their master key


class Owners(FakeOwners):
    """Each session's row names its host; `elsewhere` of one host may be wrong, as after a move."""

    def __init__(self, me: Peer, peers: dict[str, Peer]) -> None:
        super().__init__()
        self.host = me.id
        self.peers = peers
        self.asked: list[str] = []  # sessions that this host was asked for and does not have

    def is_mine(self, session: Session) -> bool:
        return super().is_mine(session) and session.host == self.host

    async def here(self, session: Session) -> Session:
        self.asked.append(session.id)
        await super().here(session)
        if session.host != self.host:
            raise AnotherHost(self.peers[session.host])
        return session


@dataclass
class Host:
    me: Peer
    config: Config
    owners: Owners
    sandboxes: FakeSandboxes
    operations: Operations
    store: FakeStore
    key: str
    homes: Homes
    home: PeerHome

    @property
    def port(self) -> int:
        return self.config.port

    def sandbox_of(self, session: str) -> FakeSandbox:
        return self.sandboxes.running[self.store.sessions[session].sandbox]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def peer(number: int, port: int) -> Peer:
    return Peer(f"hst_{number:018}", f"127.0.0.1:{port}")


@asynccontextmanager
async def fleet(
    directory: Path,
    count: int = 2,
    runner: Runner = small_shell,
    *,
    tls: bool = False,
    secret: bytes = SECRET,
    rate: int | None = None,
    pot: FakePot | None = None,
) -> AsyncIterator[Sequence[Host]]:
    """`count` hosts. All have one account, with a key. `tls`: clients use HTTPS, for DOMAIN. `secret`: see
    `FleetHost`. `rate`: requests per minute of one key. `pot`: what they count requests with; by default, each host
    counts alone."""
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    store, key = FakeStore(), new_key_secret()
    own = {} if rate is None else {"requests_per_minute": rate}
    await store.add_account(account := Account("acc_one0000000000000", "paid", 0, overrides=own))
    await store.add_key(Key("key_one000000000", account.id, hash_key(key), key[:8], 0))
    peers = {(each := peer(number, free_port())).id: each for number in range(count)}
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(
                _host(_config(directory / me.id, tls=tls), me, peers, store, key, runner, secret, pot)
            )
            for me in peers.values()
        ]
        yield hosts


def _config(directory: Path, *, tls: bool) -> Config:
    config = Config(data_dir=directory, port=free_port())
    if not tls:
        return config
    directory.mkdir()
    cert, key = directory / "cert.pem", directory / "key.pem"
    make_certificate(cert, key)
    return replace(config, domain=DOMAIN, tls_cert=cert, tls_key=key)


@asynccontextmanager
async def _host(
    config: Config,
    me: Peer,
    peers: dict[str, Peer],
    store: FakeStore,
    key: str,
    runner: Runner,
    secret: bytes,
    pot: FakePot | None,
) -> AsyncIterator[Host]:
    sandboxes, clock, archive, history, vault = (
        FakeSandboxes(runner), Clock(), FakeArchive(), FakeHistory(), Vault(bytes(32)),
    )  # fmt: skip
    owners, plans = Owners(me, peers), load_plans(None)
    homes = Homes(me.id)
    homes.see(list(peers.values()))
    saving = Saving(archive, vault, sandboxes.volumes, clock)
    async with Tasks() as tasks, saving, asking(lambda: trusted_by(config.run_dir / "edge")) as home:
        rates = None if pot is None else FleetRates(pot, homes, home)
        metrics = Metrics()
        lifecycle = assemble_lifecycle(store, sandboxes, saving, owners, history, plans, tasks, clock, metrics)
        parts = (store, sandboxes, lifecycle, owners, history, vault, plans, tasks, clock)
        operations = assemble_operations(*parts, me=me)
        previews = Previews(store, lifecycle, owners, clock, domain=config.domain)
        try:
            async with web(config, operations, previews, metrics, dict, NOT_BUILT, rates):
                process.open_to_edge(config)
                await process.start_edge(config, plans, tasks, FleetHost(me.id, me.address, secret))
                yield Host(me, config, owners, sandboxes, operations, store, key, homes, home)
        finally:
            shutil.rmtree(config.bodies_dir, ignore_errors=True)
