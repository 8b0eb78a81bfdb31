"""The parts of the lifecycle, built on one another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from buntime.daemon.moments import moments_of
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.account_plans import AccountPlans
from buntime.lifecycle.archiving import Archiving
from buntime.lifecycle.changes import Changes
from buntime.lifecycle.checkpoints import Checkpoints
from buntime.lifecycle.draining import Draining, Releases
from buntime.lifecycle.endings import Endings
from buntime.lifecycle.holds import Holds
from buntime.lifecycle.layers import Layers
from buntime.lifecycle.leases import Leases
from buntime.lifecycle.measuring import Measuring
from buntime.lifecycle.metering import Metering
from buntime.lifecycle.monitor import Monitor, Unwatched
from buntime.lifecycle.observations import Observations
from buntime.lifecycle.recovering import Recovering
from buntime.lifecycle.relief import Relief
from buntime.lifecycle.restoring import Restoring
from buntime.lifecycle.restricting import Restricting
from buntime.lifecycle.saved_images import DefaultImages
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.services import Services
from buntime.lifecycle.transitions import Transitions
from buntime.lifecycle.working import Working
from buntime.plan import Plan
from buntime.ports import History, Owners, Sandboxes, Store
from buntime.usage import Moment


@dataclass(frozen=True, slots=True)
class Lifecycle:
    changes: Changes
    holds: Holds
    observations: Observations
    archiving: Archiving
    checkpoints: Checkpoints
    layers: Layers
    transitions: Transitions
    restoring: Restoring
    recovering: Recovering
    relief: Relief
    leases: Leases
    endings: Endings
    services: Services
    monitor: Monitor
    metering: Metering
    measuring: Measuring
    working: Working
    restricting: Restricting
    plans: AccountPlans
    draining: Draining | None = None  # None: there is no other host


def assemble_lifecycle(
    store: Store,
    sandboxes: Sandboxes,
    saving: Saving,
    owners: Owners,
    history: History,
    plans: Mapping[str, Plan],
    tasks: Tasks,
    clock: Callable[[], float],
    monitor: Monitor | None = None,
    moment: Callable[[], Moment] | None = None,
    releases: Releases | None = None,
    defaults: DefaultImages | None = None,
) -> Lifecycle:
    """`plans`: by name. `monitor` is told what happens to sessions. `moment`: by default, what `clock` says.
    `releases`, `defaults`: None where there is no other host."""
    monitor = monitor or Unwatched()
    moment, own_plans = moment or moments_of(clock), AccountPlans(store, plans)
    metering = Metering(store, sandboxes, tasks, moment)
    measuring = Measuring(history, sandboxes, tasks, moment)
    working = Working(store, sandboxes, tasks, clock, moment)
    changes, holds, observations = Changes(store, metering, owners, clock), Holds(), Observations(sandboxes, clock)
    archiving = Archiving(store, sandboxes, saving, changes, holds, owners, tasks)
    saves = (store, sandboxes, saving, changes, holds, archiving)
    checkpoints = Checkpoints(*saves, own_plans, tasks, clock, monitor)
    layers = Layers(store, sandboxes, saving, changes, holds, owners, tasks, clock, monitor, defaults)
    services = Services(store, sandboxes, plans, tasks, clock)
    restricting = Restricting(store, sandboxes, changes, owners, tasks)
    parts = (store, sandboxes, saving, changes, holds, observations, archiving, layers, services, tasks)
    transitions = Transitions(*parts, monitor, metering, owners, restricting)
    files = (store, sandboxes, saving, archiving, layers)
    restoring = Restoring(*files, transitions, changes, holds, tasks, clock, monitor, metering)
    recovering = Recovering(store, sandboxes, saving, changes, holds, tasks)
    relief = Relief(store, sandboxes, transitions, archiving, layers)
    leases = Leases(store, sandboxes, changes, holds, transitions, layers, relief, services, clock)
    forgetting = (holds, observations, archiving, checkpoints, transitions, metering, services, working)
    endings = Endings(store, sandboxes, saving, layers, changes, holds, forgetting, tasks, metering, measuring)
    draining = None
    if releases is not None:
        shared = (store, releases, sandboxes, changes, holds, archiving, checkpoints, transitions, layers)
        draining = Draining(*shared, forgetting, tasks, clock)
    return Lifecycle(
        changes,
        holds,
        observations,
        archiving,
        checkpoints,
        layers,
        transitions,
        restoring,
        recovering,
        relief,
        leases,
        endings,
        services,
        monitor,
        metering,
        measuring,
        working,
        restricting,
        own_plans,
        draining,
    )
