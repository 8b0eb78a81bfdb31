"""The API's operations, built on the lifecycle and on one another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from buntime.daemon.tasks import Tasks
from buntime.fleet.hosts import Hosts
from buntime.fleet.listing import SoleHost
from buntime.lifecycle.assembly import Lifecycle
from buntime.lifecycle.decisions import Waits
from buntime.lifecycle.sealing import Vault
from buntime.operations.contexts import Contexts
from buntime.operations.entrance import Entrance
from buntime.operations.events import Events
from buntime.operations.executions import Executions
from buntime.operations.files import Files
from buntime.operations.forks import Forks
from buntime.operations.idempotency import Idempotency
from buntime.operations.identity import Identity
from buntime.operations.images import Images
from buntime.operations.kept import Kept
from buntime.operations.keys import Keys
from buntime.operations.measurements import Measurements
from buntime.operations.names import Names
from buntime.operations.own_account import OwnAccount
from buntime.operations.placing import Placing
from buntime.operations.preview_tokens import PreviewTokens
from buntime.operations.processes import Processes
from buntime.operations.services import Services
from buntime.operations.sessions import Sessions
from buntime.operations.signing import Signing
from buntime.operations.snapshots import Snapshots
from buntime.operations.telling import Telling
from buntime.operations.terminals import Terminals
from buntime.operations.usage import Usage
from buntime.operations.visitors import Visitors
from buntime.operations.webhooks import Webhooks
from buntime.places import Places
from buntime.plan import Plan
from buntime.ports import History, Owners, Peer, Sandboxes, Store
from buntime.webhook import Network


@dataclass(frozen=True, slots=True)
class Operations:
    """What the web layer calls."""

    owners: Owners
    identity: Identity
    idempotency: Idempotency
    entrance: Entrance
    names: Names
    sessions: Sessions
    snapshots: Snapshots
    forks: Forks
    images: Images
    keys: Keys
    own_account: OwnAccount
    events: Events
    webhooks: Webhooks
    usage: Usage
    measurements: Measurements
    preview_tokens: PreviewTokens
    executions: Executions
    processes: Processes
    services: Services
    contexts: Contexts
    terminals: Terminals
    files: Files
    hosts: Hosts


def assemble_operations(
    store: Store,
    sandboxes: Sandboxes,
    lifecycle: Lifecycle,
    owners: Owners,
    history: History,
    vault: Vault,
    plans: Mapping[str, Plan],
    tasks: Tasks,
    clock: Callable[[], float],
    usual: Waits | None = None,
    networks: Sequence[Network] = (),
    me: Peer | None = None,
    hosts: Hosts | None = None,
    places: Places | None = None,
) -> Operations:
    """`usual`: how long sessions are quiet before they sleep that do not say it themselves. `networks`: where receivers
    of webhooks may be, beside public addresses. `me`: this host as the others of its fleet reach it. `hosts`: by
    default, this one alone. `places`: where other hosts have some of an account's sessions."""
    entrance = Entrance(store, sandboxes, lifecycle.leases, owners, clock, places)
    kept, visitors = Kept(store, lifecycle.layers, clock), Visitors(store, sandboxes, tasks)
    telling = Telling(store, clock)
    placing = Placing(owners, me)
    names = Names(store, lifecycle.endings, clock)
    images = Images(store, sandboxes, lifecycle.layers, kept, entrance, tasks, clock)
    sessions = Sessions(
        store, sandboxes, lifecycle, entrance, images, kept, names, placing, visitors, tasks, clock, usual or Waits()
    )
    return Operations(
        owners,
        Identity(store, plans, clock),
        Idempotency(store, vault, tasks, clock),
        entrance,
        names,
        sessions,
        Snapshots(store, lifecycle, entrance, kept, sessions, tasks, clock),
        Forks(store, lifecycle, entrance, sessions, tasks),
        images,
        Keys(store, clock),
        OwnAccount(store, clock),
        Events(store, entrance),
        Webhooks(store, Signing(vault), networks, tasks, clock),
        Usage(store, clock),
        Measurements(store, entrance, lifecycle.measuring, history, clock),
        PreviewTokens(store, entrance, visitors, tasks, clock),
        Executions(entrance, telling, lifecycle.metering.ran),
        Processes(entrance, tasks, clock),
        Services(entrance, lifecycle.services),
        Contexts(entrance, telling, tasks),
        Terminals(entrance),
        Files(entrance),
        hosts or SoleHost("", store, sandboxes, clock),
    )
