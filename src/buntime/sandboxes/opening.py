"""Opening this host for sandboxes, and leaving it as it was found."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from buntime.config import Config
from buntime.daemon.listening import listening
from buntime.daemon.tasks import Tasks, to_its_end
from buntime.egress import Rules, rules_of
from buntime.plan import MB, Limits
from buntime.sandboxes import record as records
from buntime.sandboxes.containers import Settings
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.images.made import MadeImages
from buntime.sandboxes.kernel import seccomp
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.file_system import GB
from buntime.sandboxes.kernel.host import (
    NoPart,
    Part,
    claim_part,
    held_part,
    other_data_dirs,
    release_part,
    total_memory,
)
from buntime.sandboxes.kernel.huge import Huge
from buntime.sandboxes.kernel.image import DEBIAN_CAS, HOST_CAS, Image, extra_cas
from buntime.sandboxes.kernel.oci import Runtime
from buntime.sandboxes.kernel.packed import Packed
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.local import LocalSandboxes
from buntime.sandboxes.machinery import Machinery, Runs
from buntime.sandboxes.network import resolver
from buntime.sandboxes.network.dnsmasq import NameServer
from buntime.sandboxes.network.namespaces import Network
from buntime.sandboxes.record import Record
from buntime.session import Session
from buntime.snapshot import MadeImage

log = structlog.get_logger()

NAMES_SECONDS = 5.0  # between looks at the name server
POOL_MEMORY_SHARE, POOL_MEMBER, LARGEST_POOL = 0.02, 4 * MB, 128
PREPARED_MEMBER = 5 * MB


def default_pool_size(memory: int) -> int:
    """How many sandboxes to park. They take at most a fiftieth of the host's memory, which is in bytes."""
    return max(4, min(LARGEST_POOL, int(memory * POOL_MEMORY_SHARE) // POOL_MEMBER))


def default_prepared(memory: int) -> int:
    """How many of them have a started Bun, which takes as much again."""
    return min(default_pool_size(memory), int(memory * POOL_MEMORY_SHARE) // PREPARED_MEMBER)


@asynccontextmanager
async def opened(
    config: Config,
    image: Image,
    parked_limits: Limits,
    owned: Mapping[str, Session],
    tasks: Tasks,
    links: Links,
    layers: Collection[str],
    made: Collection[MadeImage],
    thaws: Callable[[], int] = lambda: 0,
    found: Mapping[str, Record | None] | None = None,
) -> AsyncIterator[LocalSandboxes]:
    """Mounts volumes, puts rules in force and resolves names before the first sandbox starts, then adopts what runs.

    `owned`: sandbox id → session, as the store has it, like `layers` (ids) and the images that accounts have `made`.
    `thaws`: see `Machinery`. `found`: by `records.all_in`, if they were read already. Raises BadSetting, NoPart and
    HostCommandFailed.
    """
    part = claim_part(config)
    if found is None:
        found = records.all_in(config.data_dir / "sandboxes")
    async with AsyncExitStack() as stack:
        machinery = _machinery(config, part, tasks, links, stack, thaws)
        rules, edge = _rules_by_slot(found, owned), listening(config)
        opening = asyncio.get_running_loop().run_in_executor(None, machinery.network.open, rules, edge)
        try:
            settings = _settings(config, part, image, parked_limits, machinery.volumes)
            runtime = _runtime(config)
            stack.callback(runtime.close)
            sandboxes = LocalSandboxes(settings, part, runtime, machinery)
            stack.push_async_callback(sandboxes.close)
            sandboxes.look(found, owned)  # beside nft, which is slow where there are thousands of links
        finally:
            await to_its_end(opening)
        _name_server(config, part).ensure()
        await asyncio.to_thread(machinery.huge.offer, image.path, part.first_uid(0))
        await stack.enter_async_context(resolver.answering(machinery.network, tasks))
        machinery.made.keep([each.id for each in made])  # a killed server may have left one that no store has
        for each in made:
            try:
                await sandboxes.know(each)
            except ValueError as wrong:
                log.error("image_not_usable", image=each.id, reason=str(wrong))
        await sandboxes.recover(owned, layers)
        yield sandboxes


def _settings(config: Config, part: Part, image: Image, parked_limits: Limits, volumes: Volumes) -> Settings:
    return Settings(
        data_dir=config.data_dir,
        images=config.images,
        image=image,
        resolv_conf=_resolv_conf(config, part),
        seccomp=seccomp.profile(seccomp.PROFILE.read_text()),
        parked_limits=parked_limits,
        pool_size=config.pool_size if config.pool_size >= 0 else default_pool_size(total_memory()),
        pool_prepared=config.pool_prepared if config.pool_prepared >= 0 else default_prepared(total_memory()),
        disk_reserve=config.reserve_gb * GB,
        memory_reserve=config.memory_reserve_mb * MB,
        cache=config.cache_gb * GB if config.cache_gb >= 0 else volumes.size() // 2,
        keeps_suspended=config.keep_suspended == 1,
    )


async def purge(config: Config, tasks: Tasks, links: Links) -> None:
    """Removes all sandboxes of this data directory, and everything on the host that was made for them."""
    if (part := _part_to_leave(config)) is not None:
        nothing = Limits(memory=0, cpu=0, timeout=0, disk=0)
        async with AsyncExitStack() as stack:
            machinery = _machinery(config, part, tasks, links, stack)
            machinery.network.open({})
            _name_server(config, part).ensure()
            settings = Settings(config.data_dir, config.images, Image("", Path()), Path(), {}, nothing, 0, 0, 0, 0, 0)
            sandboxes = LocalSandboxes(settings, part, _runtime(config), machinery)
            await sandboxes.recover({})
            await sandboxes.adopt()
        _name_server(config, part).stop()
        machinery.network.remove()
        release_part(part)
    _leave(config)


def _part_to_leave(config: Config) -> Part | None:
    """None: it has no addresses, and the host has none to spare. So it has no sandbox either."""
    try:
        return held_part(config) or claim_part(config)
    except NoPart:
        return None


def _leave(config: Config) -> None:
    find_cgroups(config.instance).remove_root()
    Volumes(config).unmount()
    Huge(config.data_dir / "huge").forget()
    for directory in (config.data_dir / "made", config.data_dir / "packed"):
        shutil.rmtree(directory, ignore_errors=True)
    for path in (config.api_socket, config.edge_socket, config.metrics_socket):
        path.unlink(missing_ok=True)


async def keep_names(config: Config) -> None:
    """For ever: starts the sessions' name server again whenever it ends."""
    name_server = _name_server(config, claim_part(config))
    while True:
        try:
            await asyncio.to_thread(name_server.ensure)
        except (HostCommandFailed, OSError) as failed:  # OSError: the data directory may have been emptied
            log.error("name_server_not_started", reason=str(failed))
        await asyncio.sleep(NAMES_SECONDS)


def _machinery(
    config: Config, part: Part, tasks: Tasks, links: Links, stack: AsyncExitStack, thaws: Callable[[], int] = lambda: 0
) -> Machinery:
    """With volumes that are mounted, and a network that is still to be opened."""
    volumes = Volumes(config)
    volumes.mount()
    network = Network(part)
    stack.callback(network.close)
    made, packed = MadeImages(config.data_dir / "made", config.images), Packed(config.data_dir / "packed")
    stack.callback(packed.close)
    huge = Huge(config.data_dir / "huge")
    cgroups = find_cgroups(part.instance)
    machinery = Machinery(cgroups, volumes, network, tasks, links, _run_env(), Runs(), made, packed, huge, thaws)
    stack.callback(machinery.pages.close)
    return machinery


def _name_server(config: Config, part: Part) -> NameServer:
    return NameServer(part, config.run_dir, config.resolv_conf)


def _rules_by_slot(found: Mapping[str, Record | None], owned: Mapping[str, Session]) -> dict[int, Rules]:
    """Rules of sandboxes that may still run. They must not lapse while the server starts."""
    kept = ((found.get(name), session) for name, session in owned.items())
    return {
        record.slot: rules_of(session.network)
        for record, session in kept
        if record is not None and record.slot != records.NO_SLOT
    }


def _resolv_conf(config: Config, part: Part) -> Path:
    path = config.data_dir / "resolv.conf"
    path.write_text(f"nameserver {part.gateway}\noptions timeout:2 attempts:2\n")
    path.chmod(0o644)
    return path


def _runtime(config: Config) -> Runtime:
    others = [directory / "volumes" for directory in other_data_dirs(config)]
    return Runtime(config.runtime, config.run_dir / "runtime", others)


def _run_env() -> dict[str, str]:
    """Variables of every run. Bun has its own certificate authorities and must be told of the operator's."""
    bundle = str(HOST_CAS)  # the same path in the image
    return dict.fromkeys(("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"), bundle) if extra_cas(HOST_CAS, DEBIAN_CAS) else {}
