"""`buntime hosts …`: the hosts of a fleet. These change the store itself, so they work while a host is lost, too."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerGroup
from buntime.admin.store import open_store
from buntime.config import from_environment
from buntime.fleet.hosts import Host, HostCommands, Removal, Standing
from buntime.fleet.members import DRAIN_SECONDS, HostState, SessionCounts
from buntime.fleet.report import Report, Room
from buntime.operations import guesses

LOOK_SECONDS = 1.0  # between two looks at a host that drains
HEAD = ("ID", "STATE", "ACTIVE", "IDLE", "ASLEEP", "UNSAVED", "MEMORY", "DISK", "LOAD", "LEASE", "VERSION", "ADDRESS")
hosts = typer.Typer(
    cls=ServerGroup,
    help="Hosts of a fleet: who is a member, and what it has.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
HERE = "here"
HostId = Annotated[
    str, typer.Argument(metavar="HOST", help="The host's id, hst_…; here: this machine's.", show_default=False)
]


@hosts.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List hosts: state, sessions, free memory and disk, load, lease. The last line counts sessions of nobody.

    Example: buntime hosts list --json
    """
    with _fleet() as fleet:
        found = fleet.list()
    if as_json:
        told = {"hosts": [_told(host) for host in found.hosts], "nobody": _told_counts(found.nobody)}
        typer.echo(json.dumps(told))
        return
    nobody = ("nobody", "-", *_counts(found.nobody), *"-" * 6)
    print_table(HEAD, [*(_row(host) for host in found.hosts), nobody])


@hosts.command("drain")
def drain_host(
    host_id: HostId,
    within: Annotated[
        int,
        typer.Option(min=0, metavar="SECONDS", help="Then sessions that are still awake go to deep sleep."),
    ] = int(DRAIN_SECONDS),
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the host has no session left, and gets no request for one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move all sessions away from a host. No request fails meanwhile.

    It takes no new sessions. Those in deep sleep go at once, the others as they fall asleep. `resume` undoes it.

    Example: buntime hosts drain hst_… --within 60 --wait
    """
    with _fleet() as fleet:
        host_id = _named(host_id)
        if not fleet.mark(host_id, HostState.DRAINING, within):
            raise _unknown(host_id)
        left = _one(fleet, host_id).sessions
    if wait:
        left = wait_until_drained(lambda: _seen(host_id), time.monotonic, time.sleep)
    told = {"id": host_id, "draining": True, "sessions": left.every}
    say(f"{host_id} drains. {_count(left.every)} left. Undo it with: buntime hosts resume {host_id}", told, as_json)


@hosts.command("resume")
def resume_host(host_id: HostId, as_json: AsJson = False) -> None:
    """Let a host that drains take sessions again.

    Example: buntime hosts resume hst_…
    """
    with _fleet() as fleet:
        host_id = _named(host_id)
        if not fleet.mark(host_id, HostState.ACTIVE, 0):
            raise _unknown(host_id)
    say(f"{host_id} takes sessions.", {"id": host_id, "draining": False}, as_json)


@hosts.command("remove")
def remove_host(
    host_id: HostId,
    give_up: Annotated[
        bool,
        typer.Option("--give-up-sessions", help="Even if it has sessions whose newest files are on it alone."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a host that has stopped or is lost.

    Other hosts wake its sleeping sessions. A session that was awake on it answers 503 until its account recovers it
    from its last checkpoint. A host that comes back joins again, and keeps aside what it has lost.

    Example: buntime hosts remove hst_… --give-up-sessions
    """
    with _fleet() as fleet:
        sessions = next((host.sessions for host in fleet.list().hosts if host.id == host_id), SessionCounts())
        removal = fleet.remove(host_id, gives_up=give_up)
    match removal:
        case Removal.UNKNOWN:
            raise _unknown(host_id)
        case Removal.RUNS:
            raise CommandRefused(f"{host_id} runs. Move its sessions away and stop it first: buntime hosts drain.")
        case Removal.HAS_SESSIONS:
            raise CommandRefused(_bound(host_id, sessions))
    freed = sessions.every - sessions.bound
    said = f"{host_id} is removed. {_count(freed)} can wake on any host."
    if sessions.bound:
        said += f" {_count(sessions.bound)} of it answer 503 with host_lost until their accounts recover them."
    say(said, {"id": host_id, "removed": True, "freed": freed, "givenUp": sessions.bound}, as_json)


def _named(host_id: str) -> str:
    """Raises CommandRefused where no host of a fleet is here."""
    config = from_environment(os.environ)
    try:
        return config.host_id_file.read_text().strip() if host_id == HERE else host_id
    except OSError as failure:
        raise CommandRefused(
            f"This machine's id cannot be read from {config.host_id_file}: {failure.strerror}."
        ) from None


@contextmanager
def _fleet() -> Iterator[HostCommands]:
    """Raises CommandRefused where the store has one host."""
    with open_store(from_environment(os.environ)) as store:
        if store.hosts is None:
            raise CommandRefused(
                "The store is a file, so this installation has one host: this machine. Several hosts need "
                "BUNTIME_STORE=postgresql://…"
            )
        yield store.hosts


def wait_until_drained(
    look: Callable[[], Host], clock: Callable[[], float], sleep: Callable[[float], None]
) -> SessionCounts:
    """Waits until the host has no session, and no other host sends it requests for those that it had. Raises
    CommandRefused where that cannot be."""
    empty_since: float | None = None  # the end of the first look that saw no session
    while True:
        host = look()
        now, left = clock(), host.sessions.every
        if left and not host.is_draining:
            raise CommandRefused(f"{host.id} was resumed, with {_count(left)} left.")
        if left and host.standing is not Standing.DRAINING:
            raise CommandRefused(f"{host.id} is {host.standing.value}, with {_count(left)} left.")
        if left:
            empty_since = None
        elif empty_since is None:
            empty_since = now  # the last session may have gone just before, and another host have seen it here
        elif now - empty_since > guesses.SECONDS:
            return host.sessions
        sleep(LOOK_SECONDS)


def _seen(host_id: str) -> Host:
    with _fleet() as fleet:
        return _one(fleet, host_id)


def _one(fleet: HostCommands, host_id: str) -> Host:
    """Raises CommandRefused."""
    for host in fleet.list().hosts:
        if host.id == host_id:
            return host
    raise _unknown(host_id)


def _unknown(host_id: str) -> CommandRefused:
    return CommandRefused(f"There is no host {host_id}. List hosts with: buntime hosts list")


def _bound(host_id: str, sessions: SessionCounts) -> str:
    return (
        f"{host_id} has {_count(sessions.bound)} whose newest files are on it alone ({sessions.active} active, "
        f"{sessions.idle} idle, {sessions.unsaved} not archived). Start the host again and drain it. Or give them up, "
        f"so that their accounts can recover the last checkpoint: buntime hosts remove {host_id} --give-up-sessions"
    )


def _count(number: int) -> str:
    return f"{number} session{'' if number == 1 else 's'}"


def _row(host: Host) -> Sequence[str]:
    state = host.standing.value
    if host.is_draining and host.standing is not Standing.DRAINING:
        state += ",draining"  # when it comes back
    report, lease = host.report, host.lease
    free = ("?", "?", "?") if report is None else _free(report)
    left = "-" if lease is None else f"{lease.seconds_left:g}s"
    return (host.id, state, *_counts(host.sessions), *free, left, host.version, host.address)


def _counts(sessions: SessionCounts) -> Sequence[str]:
    return [str(each) for each in (sessions.active, sessions.idle, sessions.asleep, sessions.unsaved)]


def _free(report: Report) -> tuple[str, str, str]:
    disk = min(report.disk.share, report.volumes.share)
    return f"{report.memory.share:.0%}", f"{disk:.0%}", f"{report.load:g}/{report.cores}"


def _told(host: Host) -> dict[str, object]:
    """As `GET /hosts` has it."""
    lease, report = host.lease, host.report
    return {
        **{"hostId": host.id, "state": host.standing.value, "draining": host.is_draining},
        **{"drainSecondsLeft": host.drain_left, "address": host.address, "version": host.version},
        "joinedAt": shown_time(host.joined_at),
        "lease": lease
        and {"secondsLeft": lease.seconds_left, "incarnation": lease.incarnation, "renewals": lease.renewals},
        "sessions": _told_counts(host.sessions),
        "load": report and _told_load(report),
    }


def _told_counts(sessions: SessionCounts) -> dict[str, int]:
    return {
        **{"active": sessions.active, "idle": sessions.idle},
        **{"deepSleep": sessions.asleep, "unsaved": sessions.unsaved},
    }


def _told_load(report: Report) -> dict[str, object]:
    return {
        **{"cores": report.cores, "load": report.load, "sandboxes": report.running, "parked": report.parked},
        **{"memory": _told_room(report.memory), "disk": _told_room(report.disk)},
        **{"volumes": _told_room(report.volumes), "addresses": _told_room(report.addresses)},
    }


def _told_room(room: Room) -> dict[str, int]:
    return {"total": room.total, "used": room.used, "reserved": room.reserved}
