"""Numbers that are read at each scrape. docs/metrics.md has the same names, and a test compares the two."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from buntime.fleet.hosts import Hosts, Standing
from buntime.fleet.numbers import ALONE, FleetNumbers
from buntime.lifecycle.saving import Saving
from buntime.ports import Budget, DeliveryNumbers, HostNumbers, KeptNumbers, Sandboxes, Store
from buntime.webhook import Off

WHY_OFF: Sequence[Off] = get_args(Off)

type Values = Mapping[tuple[str, ...], float]  # values of the labels → value
type Ready = Callable[[], Mapping[str, bool]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric, now. It is shown as `buntime_NAME`, and as `buntime_NAME_total` if it only grows."""

    name: str
    meaning: str
    values: Values
    labels: Sequence[str] = ()
    grows: bool = False


class Readings:
    """`ready`: part → whether it works, as at `/readyz`."""

    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        saving: Saving,
        ready: Ready,
        clock: Callable[[], float],
        hosts: Hosts,
        fleet: Callable[[], FleetNumbers] = lambda: ALONE,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._saving = saving
        self._ready = ready
        self._clock = clock
        self._hosts = hosts
        self._fleet = fleet

    async def now(self) -> Sequence[Reading]:
        states: Values = {(state.value,): float(count) for state, count in (await self._store.count_states()).items()}
        ready: Values = {(part,): float(works) for part, works in self._ready().items()}
        cached = self._sandboxes.volumes.cached()
        return [
            Reading("sessions", "Sessions in each state.", states, ["state"]),
            Reading("ready", "Whether the part works: 1 or 0, as in /readyz.", ready, ["part"]),
            *_of_host(self._sandboxes.numbers()),
            Reading("cached_volumes", "Volumes of sessions in deep sleep on this host.", _one(len(cached))),
            Reading("cached_bytes", "Bytes of these volumes.", _one(sum(cached.values()))),
            *_of_kept(await self._store.kept_numbers(int(self._clock()))),
            *_of_archive(self._saving, self._clock()),
            *_of_webhooks(await self._store.delivery_numbers()),
            *_of_fleet(await self._hosts.standings(), self._fleet()),
        ]


def _of_host(host: HostNumbers) -> Iterator[Reading]:
    yield Reading("sandboxes", "Sandboxes that serve a session.", _one(host.running))
    yield Reading("sandboxes_to_adopt", "Sandboxes that an earlier server left running.", _one(host.to_adopt))
    yield Reading("pool_parked", "Sandboxes that are started ahead and wait for a create or a wake.", _one(host.parked))
    yield Reading("pool_wanted", "Parked sandboxes when the pool is full.", _one(host.wanted))
    yield Reading("pool_prepared", "Parked sandboxes in which Bun has started.", _one(host.prepared))
    yield Reading("pool_claims", "Sandboxes that creates and wakes asked for.", _one(host.claims), grows=True)
    yield Reading("pool_misses", "Claims that found nothing parked.", _one(host.misses), grows=True)
    yield Reading("addresses", "Addresses for sandboxes of this server.", _one(host.addresses))
    yield Reading("addresses_used", "Addresses that sandboxes have now.", _one(host.addresses_used))
    yield from _budget("memory", "the host's memory", {(): host.memory}, [])
    disks: Mapping[tuple[str, ...], Budget] = {("host",): host.host_disk, ("volumes",): host.volumes_disk}
    yield from _budget("disk", "a file system", disks, ["file_system"])
    refused: Values = {(reason.value,): float(count) for reason, count in host.no_room.items()}
    yield Reading("no_room", "Starts and restores that the host had no room for.", refused, ["reason"], grows=True)


def _budget(name: str, what: str, budgets: Mapping[tuple[str, ...], Budget], labels: Sequence[str]) -> list[Reading]:
    total = {key: float(budget.total) for key, budget in budgets.items()}
    used = {key: float(budget.used) for key, budget in budgets.items()}
    reserved = {key: float(budget.reserved) for key, budget in budgets.items()}
    return [
        Reading(f"{name}_total_bytes", f"Bytes of {what}.", total, labels),
        Reading(f"{name}_used_bytes", f"Bytes of {what} that are in use.", used, labels),
        Reading(f"{name}_reserved_bytes", f"Bytes of {what} that must be free for a start.", reserved, labels),
    ]


def _of_kept(kept: KeptNumbers) -> Iterator[Reading]:
    yield Reading("snapshots", "Snapshots that accounts have taken.", _one(kept.snapshots))
    yield Reading("layers", "Layers: files that snapshots and images keep.", _one(kept.layers))
    yield Reading("layers_bytes", "Bytes of the layers, as if they shared nothing.", _one(kept.layer_bytes))
    yield Reading("layers_unsaved", "Layers that the archive does not have yet.", _one(kept.unsaved_layers))


def _of_archive(saving: Saving, now: float) -> Iterator[Reading]:
    done = saving.numbers
    yield Reading("archive_transfers", "Volumes on their way to or from the archive.", _one(saving.under_way))
    restores = saving.restores.all()
    yield Reading("archive_restores", "Restores from the archive that are under way.", _one(restores.restores))
    yield Reading("archive_restores_done_bytes", "Bytes that these have read, as stored.", _one(restores.done))
    yield Reading("archive_restores_total_bytes", "Bytes that these read in all.", _one(restores.total))
    late = max((now - due for due in saving.late.values()), default=0.0)
    yield Reading("checkpoint_late_seconds", "How long the oldest checkpoint is overdue.", _one(max(0.0, late)))
    objects: Values = {("full",): float(done.full), ("increment",): float(done.increments)}
    stored: Values = {("full",): float(done.full_bytes), ("increment",): float(done.increment_bytes)}
    yield Reading("archive_objects", "Objects that were put into the archive.", objects, ["kind"], grows=True)
    yield Reading("archive_objects_bytes", "Bytes of these objects, as stored.", stored, ["kind"], grows=True)
    for name, meaning, count in (
        ("saved", "Volumes that were saved in the archive.", done.saved),
        ("saved_bytes", "Bytes of these volumes, before compression.", done.saved_bytes),
        ("saves_failed", "Saves that failed or gave way to a wake.", done.saves_failed),
        ("restored", "Volumes that were restored from the archive.", done.restored),
        ("restored_bytes", "Bytes of these volumes, after decompression.", done.restored_bytes),
        ("damaged", "Objects that could not be used.", done.damaged),
    ):
        yield Reading(f"archive_{name}", meaning, _one(count), grows=True)


def _of_webhooks(numbers: DeliveryNumbers) -> Iterator[Reading]:
    pending = "Events that wait for their delivery to a webhook that is on, at most 100,000."
    yield Reading("webhook_deliveries_pending", pending, _one(numbers.pending))
    off: Values = {(why,): float(numbers.off.get(why, 0)) for why in WHY_OFF}
    yield Reading("webhooks_off", "Webhooks that are off.", off, ["reason"])


def _of_fleet(standings: Mapping[Standing, int], numbers: FleetNumbers) -> Iterator[Reading]:
    hosts: Values = {(standing.value,): float(count) for standing, count in standings.items()}
    yield Reading("hosts", "Hosts of the installation in each state.", hosts, ["state"])
    left = "Seconds until this host fences itself, unless it renews its lease."
    yield Reading("lease_seconds", left, _one(numbers.lease_seconds))
    for name, meaning, count in (
        ("lease_renewals", "Renewals of this host's lease.", numbers.renewals),
        ("fences", "How often this host was silenced because it had no lease.", numbers.fences),
        ("sessions_given_up", "Sessions that this host gave up, so that others may claim them.", numbers.released),
        ("sessions_claimed", "Sessions that this host claimed.", numbers.claimed),
        ("rate_shares", "Questions to the database for shares of rate limits.", numbers.shares),
        ("rate_questions", "Questions to other hosts that count the requests of small keys.", numbers.counts),
    ):
        yield Reading(name, meaning, _one(count), grows=True)


def _one(value: float) -> Values:
    return {(): float(value)}
