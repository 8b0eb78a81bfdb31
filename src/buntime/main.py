"""The server: everything is built here, once, in the order in which it is needed.

Starting is recovering; there is no other way to start. Stopping leaves sessions running.
"""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uvloop

from buntime.admin.plan_settings import plans_of
from buntime.admin.welcome import first_key, welcome
from buntime.archives.belonging import AGREED, require_shared
from buntime.archives.opening import archive_of, is_directory
from buntime.config import BadSetting, Config, require_store_for_peers
from buntime.daemon.collecting import keep_collected
from buntime.daemon.haste import end_haste
from buntime.daemon.limits import raise_limits
from buntime.daemon.logs import configure_logs
from buntime.daemon.moments import host_moments
from buntime.daemon.only_server import only_server
from buntime.daemon.tasks import Tasks, cancel_and_wait
from buntime.daemon.trimming import keep_trimmed
from buntime.delivery.delivering import delivering
from buntime.edge.certificates import FleetHost, trusted_by
from buntime.edge.process import open_to_edge, start_edge
from buntime.errors import MayNotAct
from buntime.fleet.hosts import Hosts
from buntime.fleet.listing import FleetHosts, SoleHost
from buntime.fleet.marked import Marked
from buntime.fleet.numbers import ALONE, FleetNumbers
from buntime.fleet.places import Count, FleetPlaces
from buntime.fleet.rates import FleetRates
from buntime.fleet.reporting import capacity_of
from buntime.fleet.sole_owner import SoleOwner
from buntime.lifecycle.aside import Aside
from buntime.lifecycle.assembly import Lifecycle, assemble_lifecycle
from buntime.lifecycle.decisions import Waits
from buntime.lifecycle.default_image import find_default_image
from buntime.lifecycle.keeper import Keeper, Pace
from buntime.lifecycle.leftovers import Leftovers
from buntime.lifecycle.master_key import BadMasterKey, open_vault
from buntime.lifecycle.misplaced import MisplacedSandboxes
from buntime.lifecycle.saved_images import SavedImages
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.sealing import Vault
from buntime.operations.assembly import assemble_operations
from buntime.operations.entrance import Entrance
from buntime.operations.previews import Previews
from buntime.operations.signing import Signing
from buntime.operations.telling import Telling
from buntime.places import Counts
from buntime.plan import without_checkpoints
from buntime.ports import Owners, Store
from buntime.preview import api_url
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.images.host_image import HostImage
from buntime.sandboxes.images.pruning import keep_pruned, prune
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.host import NoPart
from buntime.sandboxes.kernel.image import Image, ImageFailed, ensure_image
from buntime.sandboxes.kernel.oci import CORE
from buntime.sandboxes.local import LocalSandboxes
from buntime.sandboxes.opening import keep_names, opened
from buntime.sandboxes.other_hosts import OtherHosts
from buntime.sandboxes.record import all_in as all_records
from buntime.session import Session
from buntime.snapshot import Layer
from buntime.stores.belonging import require_own
from buntime.stores.history import history_of
from buntime.stores.opening import opened_file, with_password
from buntime.stores.unusable import StoreUnusable
from buntime.web.assembly import web
from buntime.web.built_clients import are_built, client_files
from buntime.web.clients_page import short_lines
from buntime.web.metrics import Metrics
from buntime.web.readings import Readings

if TYPE_CHECKING:  # a server in no fleet imports nothing of it
    from buntime.joining import Member

Say = Callable[[str], None]
MASTER_KEY = "master-key"  # on whose fingerprint hosts agree
REFUSALS = (BadSetting, HostCommandFailed, ImageFailed, NoPart, StoreUnusable)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    first_key: str | None  # made now for a person at a terminal, because there was no account yet
    install: Sequence[str]  # lines that install the clients, if they were built


@asynccontextmanager
async def running(config: Config, say: Say, *, is_watched: bool) -> AsyncIterator[Server]:
    """The server runs within the block; the caller holds `only_server`. Raises one of REFUSALS.

    `is_watched`: `say` reaches a terminal. Only then is the first key made, because a log would keep it.
    """
    plans = plans_of(config)
    if is_directory(config.archive) and not config.store:
        plans = without_checkpoints(plans)
    raise_limits(core=CORE)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        reading = asyncio.get_running_loop().run_in_executor(None, all_records, config.data_dir / "sandboxes")
        image = None if config.store else await ensure_image(config.images, say)
        require_own(config)
        member = await _joined(config, stack)
        clock: Callable[[], float] = member.clock if member else time.time
        store: Store = member.store if member else await enter(opened_file(config))
        owners: Owners = member.owners if member else SoleOwner()
        links, tasks = await enter(Links()), await enter(Tasks())
        sessions, layers = await store.all_sessions(), await store.all_layers()
        vault = await _vault(config, member, [*sessions, *layers])
        archive = archive_of(config)
        if member:
            shown, seen = config.archive or str(config.data_dir / "archive"), config.data_dir / "archive-mark"
            await require_shared(archive, await member.store.agreed(AGREED), member.store.agree, shown, seen)
            image = await _image_of_fleet(config, member, SavedImages(archive, vault), say)
            sessions, layers = await store.all_sessions(), await store.all_layers()  # that may have taken minutes
            tasks.start_daemon(keep_pruned(config, store.used_images), "unused images")
        assert image is not None
        await prune(config, store.used_images)
        fleet_host = FleetHost(member.me.id, member.me.address, vault.peer_secret) if member else None
        may_listen = asyncio.Event()
        edge = asyncio.create_task(start_edge(config, plans, tasks, fleet_host, may_listen), name="edge")
        stack.push_async_callback(cancel_and_wait, edge)

        made = await store.all_made_images()
        owned = {session.sandbox: session for session in sessions}
        left = await member.store.left_behind() if member else ()
        ids = [layer.id for layer in layers] + [each.volume for each in left]
        parked, thaws = plans["free"].default, member.thaws if member else lambda: 0
        found = await reading
        sandboxes = await enter(opened(config, image, parked, owned, tasks, links, ids, made, thaws, found))
        may_listen.set()
        if member:
            choices = member.choices
            others = OtherHosts(lambda: choices.neighbours, sandboxes.close_hosts)
            await others.look()
            tasks.start_daemon(others.keep(), "other hosts")
        sandboxes.on_exited(Telling(store, clock).exited)

        saving = await enter(Saving(archive, vault, sandboxes.volumes, clock))
        hosts: Hosts = SoleHost(f"{config.host}:{config.port}", store, sandboxes, clock)
        if member:
            hosts = FleetHosts(member.members)
            member.holding.report(lambda: capacity_of(sandboxes))

        rates, places = await _limits(config, member, stack) if member else (None, None)

        def fleet() -> FleetNumbers:
            if not (member and lifecycle.draining and rates):
                return ALONE
            numbers = member.numbers(lifecycle.draining.released)
            return replace(numbers, shares=rates.refills, counts=rates.asked)

        metrics = Metrics(Readings(store, sandboxes, saving, sandboxes.works, clock, hosts, fleet))
        history = history_of(config)
        await history.keep({session.id for session in sessions})
        own, rows = (store, sandboxes, saving, owners, history, plans, tasks, clock), member.store if member else None
        lifecycle = assemble_lifecycle(*own, metrics, host_moments(), releases=rows, defaults=rows)
        await lifecycle.transitions.settle()
        sandboxes.on_lost(lifecycle.transitions.settle_one)
        if member:
            sandboxes.look_before_adopting(_current(store, owners))
            aside = Aside(member.store, sandboxes, lifecycle, owners.may_act, member.moved)
            tasks.start_daemon(aside.keep(), "what moved sessions left")
            membership = (lambda: member.holding.membership, member.moved)
            misplaced = MisplacedSandboxes(member.comparing, sandboxes, lifecycle.holds, *membership)
            tasks.start_daemon(misplaced.keep(), "comparison with the rows")
        if member and lifecycle.draining:
            marked = Marked(owners.host, member.members, lambda: member.holding.state)
            tasks.start_daemon(lifecycle.draining.keep(marked), "drain")
        tasks.start_daemon(Leftovers(store, archive, saving, owners, clock).keep(), "leftovers of uploads")

        parts = (store, sandboxes, lifecycle, owners, history, vault, plans, tasks, clock)
        me = member.me if member else None
        operations = assemble_operations(*parts, Waits(*_after(config)), config.receivers, me, hosts, places)
        previews = Previews(store, lifecycle, owners, clock, domain=config.domain, secure=bool(config.domain))
        files = client_files()
        if rates:
            tasks.start_daemon(rates.keep(), "shares of rates")
        if member and places:
            tasks.start_daemon(places.keep(_opened(operations.entrance, member)), "places of accounts")
        await enter(web(config, operations, previews, metrics, sandboxes.works, files, rates))
        await edge
        open_to_edge(config)
        _keep(config, store, sandboxes, lifecycle, owners, tasks, clock)  # the first answer does not wait for it
        await enter(
            delivering(store, Signing(vault), config.receivers, clock, metrics.attempted, has_duty=owners.has_duty)
        )
        url = api_url(config)
        key = await first_key(store) if is_watched else None
        yield Server(url, key, short_lines(url) if are_built(files) else ())


async def _joined(config: Config, stack: AsyncExitStack) -> "Member | None":
    """None where the host is in no fleet."""
    if not config.store:
        return None
    from buntime.joining import joined

    return await stack.enter_async_context(joined(config))


async def _vault(config: Config, member: "Member | None", owners: Sequence[Session | Layer]) -> Vault:
    """All hosts of a fleet have one master key: any of them opens what another one has sealed. Raises BadMasterKey."""
    known = await member.store.agreed(MASTER_KEY) if member else None
    vault = open_vault(config, owners, may_create=known is None)
    if member and await member.store.agree(MASTER_KEY, vault.fingerprint) != vault.fingerprint:
        raise BadMasterKey("the master key is another one than that of the other hosts of BUNTIME_STORE. Copy theirs.")
    return vault


async def _image_of_fleet(config: Config, member: "Member", saved: SavedImages, say: Say) -> Image:
    """The host is a member meanwhile, so it goes on with what runs. Nobody reaches it yet, so it takes no creates."""
    found = await find_default_image(HostImage(config, say), member.store, saved)
    return Image(found, config.images / found)


async def _limits(config: Config, member: "Member", stack: AsyncExitStack) -> tuple[FleetRates, FleetPlaces]:
    """What counts over all hosts."""
    from buntime.fleet.asking import asking

    home = await stack.enter_async_context(asking(lambda: trusted_by(config.run_dir / "edge")))
    rates = FleetRates(member.store, member.choices.homes, home)
    return rates, FleetPlaces(member.store, lambda: member.holding.membership)


def _current(store: Store, owners: Owners) -> Callable[[str], Awaitable[Session | None]]:
    """What a session is now, while this host has it and may act. Otherwise it is None, or raises Unavailable."""

    async def current(session_id: str) -> Session | None:
        session = await store.get_session(session_id)
        if not owners.may_act():
            raise MayNotAct
        return session if session is not None and owners.is_mine(session) else None

    return current


def _opened(entrance: Entrance, member: "Member") -> Count:
    """Counts what accounts have open on this host."""

    async def count() -> Callable[[], Counts]:
        return await entrance.find_open(await member.store.awake_here())

    return count


def _keep(
    config: Config,
    store: Store,
    sandboxes: LocalSandboxes,
    lifecycle: Lifecycle,
    owners: Owners,
    tasks: Tasks,
    clock: Callable[[], float],
) -> None:
    """Starts the loops that run for as long as the server."""
    pace = Pace(config.tick_ms / 1000, *_after(config), keeps=config.keep_suspended == 1)
    keeper = Keeper(store, sandboxes, lifecycle, owners, tasks, clock, pace)
    tasks.start_daemon(keeper.run(), "keeper")
    tasks.start_daemon(keeper.watch_connections(), "connections")
    tasks.start(sandboxes.adopt(), "adoption")
    tasks.listen(lifecycle.services.resume(), "services")  # not to its end: it waits for each sandbox
    tasks.start(lifecycle.archiving.sweep(), "sweep of the archive")
    tasks.start_daemon(lifecycle.layers.keep(), "layers")
    if not owners.is_alone and config.archive:  # without the setting, no other host could fetch them
        tasks.start_daemon(lifecycle.layers.shared.keep(), "images in the archive")
    tasks.start_daemon(sandboxes.keep_pool(), "pool")
    tasks.start_daemon(sandboxes.keep_rules(), "rules")
    tasks.start_daemon(sandboxes.keep_kernel(), "kernel memory")
    tasks.start_daemon(sandboxes.keep_room_for_metadata(), "room for metadata")
    tasks.start_daemon(sandboxes.keep_quotas(), "quotas")
    tasks.start_daemon(sandboxes.keep_quiet(), "rest of guests")
    tasks.start_daemon(keep_trimmed(), "trimming")
    tasks.start_daemon(keep_collected(), "collection of garbage")
    tasks.start_daemon(keep_names(config), "name server")


def _after(config: Config) -> tuple[float, float]:
    """Seconds without activity before a session is suspended, and before it goes to deep sleep."""
    return config.idle_after or math.inf, config.deep_sleep_after or math.inf


def serve(config: Config, missing: Sequence[str] = ()) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP. Raises BadSetting for whatever keeps it from starting. `missing`: see
    `doctor`."""
    require_store_for_peers(config)
    if missing:
        raise BadSetting("this host lacks something:\n" + "\n".join(f"  - {line}" for line in missing))
    configure_logs(config.log_level)
    try:
        config = with_password(config, os.environ)
    except StoreUnusable as refusal:
        raise BadSetting(str(refusal)) from refusal
    for name in ("BUNTIME_STORE", "PGPASSWORD"):  # programs that the server starts must not get the password
        os.environ.pop(name, None)
    # the lock is held until the last thread has ended: a purge that comes then finds nothing at work
    with only_server(config), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config))
        except asyncio.CancelledError:
            _say("Stopped before it had started.")
        except REFUSALS as refusal:
            raise BadSetting(str(refusal)) from refusal


async def _serve(config: Config) -> None:
    # uvloop would note each asynchronous generator, to close those that are left at its end. Ours end with their tasks.
    sys.set_asyncgen_hooks(firstiter=None)
    stopped = asyncio.get_running_loop().create_future()
    starting = asyncio.current_task()
    assert starting is not None

    def stop() -> None:
        if not started:
            starting.cancel()  # making the image may take minutes
        elif not stopped.done():
            stopped.set_result(None)

    started = False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and so shall its server
            asyncio.get_running_loop().add_signal_handler(number, stop)
    async with running(config, _say, is_watched=sys.stderr.isatty()) as server:
        started = True
        end_haste()
        _say(welcome(server.url, server.first_key, server.install))
        await stopped
        _say("Stopping. Sessions stay for the next start.")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
