"""The hosts of the installation, for its operator."""

from buntime.fleet import hosts
from buntime.fleet.members import SessionCounts
from buntime.fleet.report import Report, Room
from buntime.scope import Scope
from buntime.web.operation import Call, Operation, operation
from buntime.web.wire import hosts as wire
from buntime.web.wire.shapes import NoQuery, iso, number


@operation("GET", "/hosts", Scope.OPERATOR, tag="Server", answer=wire.Hosts)
async def list_hosts(call: Call[NoQuery, None]) -> wire.Hosts:
    """List the hosts of this installation: their state, lease, load and sessions. Count the sessions of no host.

    They are about all accounts, so only the operator can read them. A server whose store is a file lists itself alone.
    """
    listing = await call.operations.hosts.list()
    return wire.Hosts(hosts=[_shown(host) for host in listing.hosts], nobody=_counts(listing.nobody))


OPERATIONS: tuple[Operation, ...] = (list_hosts,)


def _shown(host: hosts.Host) -> wire.Host:
    lease = host.lease
    return wire.Host(
        host_id=host.id,
        state=host.standing.value,
        draining=host.is_draining,
        drain_seconds_left=host.drain_left,
        address=host.address,
        version=host.version,
        joined_at=iso(host.joined_at),
        lease=None
        if lease is None
        else wire.HostLease(
            seconds_left=number(lease.seconds_left), incarnation=lease.incarnation, renewals=lease.renewals
        ),
        sessions=_counts(host.sessions),
        load=None if host.report is None else _load(host.report),
    )


def _counts(sessions: SessionCounts) -> wire.HostSessions:
    return wire.HostSessions(
        active=sessions.active, idle=sessions.idle, deep_sleep=sessions.asleep, unsaved=sessions.unsaved
    )


def _load(report: Report) -> wire.HostLoad:
    return wire.HostLoad(
        cores=report.cores,
        load=number(report.load),
        sandboxes=report.running,
        parked=report.parked,
        memory=_room(report.memory),
        disk=_room(report.disk),
        volumes=_room(report.volumes),
        addresses=_room(report.addresses),
    )


def _room(room: Room) -> wire.HostRoom:
    return wire.HostRoom(total=room.total, used=room.used, reserved=room.reserved)
