"""Services: the programs that a session declares."""

from buntime import errors
from buntime.operations.services import ServiceView
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.operation import Call, operation
from buntime.web.wire import services as wire
from buntime.web.wire.shapes import NoQuery, iso

REFUSED = (errors.SessionNotFound, errors.ServiceNotFound, errors.InvalidState)
STOP_SECONDS = 30.0  # a program may take 5 s to end, after the wake


def _shown(view: ServiceView) -> wire.Service:
    declared, status = view.service, view.status
    if status is None:
        return wire.Service(
            name=declared.name,
            state="starting",
            pid=None,
            port=declared.port,
            restarts=0,
            started_at=None,
            last_exit=None,
            process_id=None,
        )
    last = None
    if status.exit_code is not None and status.exited_at is not None:
        last = wire.LastExit(exit_code=status.exit_code, ended_at=iso(status.exited_at // 1000))
    return wire.Service(
        name=declared.name,
        state="restarting" if status.state == "lost" else status.state,
        pid=status.pid,
        port=declared.port,
        restarts=status.restarts,
        started_at=iso(status.started_at // 1000),
        last_exit=last,
        process_id=status.process,
    )


@operation(
    "GET",
    "/sessions/{sessionId}/services",
    Scope.SESSIONS_WRITE,
    tag="Services",
    answer=wire.ServiceList,
    errors=(errors.SessionNotFound, errors.InvalidState),
)
async def list_services(call: Call[NoQuery, None]) -> wire.ServiceList:
    """Show how a session's services are.

    This wakes the session, as a look at its processes does. `GET /sessions/{sessionId}` shows what it declares without
    waking it.
    """
    views = await call.operations.services.list(call.caller, session_id(call.path["sessionId"]))
    return wire.ServiceList(services=[_shown(view) for view in views])


@operation(
    "POST",
    "/sessions/{sessionId}/services/{serviceName}/start",
    Scope.SESSIONS_WRITE,
    tag="Services",
    answer=wire.Service,
    errors=(*REFUSED, errors.ResourceLimitExceeded, errors.DiskFull),
)
async def start_service(call: Call[NoQuery, None]) -> wire.Service:
    """Start a service that has exited or was stopped.

    A service that runs, or is about to be restarted, stays as it is.
    """
    wanted = session_id(call.path["sessionId"])
    return _shown(await call.operations.services.start(call.caller, wanted, call.path["serviceName"]))


@operation(
    "POST",
    "/sessions/{sessionId}/services/{serviceName}/stop",
    Scope.SESSIONS_WRITE,
    tag="Services",
    answer=wire.Service,
    errors=REFUSED,
    seconds=STOP_SECONDS,
)
async def stop_service(call: Call[NoQuery, None]) -> wire.Service:
    """Stop a service.

    Its program gets SIGTERM, and SIGKILL 5 seconds later. The service stays `stopped` until you start it, or until the
    session wakes from deep sleep.
    """
    wanted = session_id(call.path["sessionId"])
    return _shown(await call.operations.services.stop(call.caller, wanted, call.path["serviceName"]))


@operation(
    "POST",
    "/sessions/{sessionId}/services/{serviceName}/restart",
    Scope.SESSIONS_WRITE,
    tag="Services",
    answer=wire.Service,
    errors=(*REFUSED, errors.ResourceLimitExceeded, errors.DiskFull),
    seconds=STOP_SECONDS,
)
async def restart_service(call: Call[NoQuery, None]) -> wire.Service:
    """Stop a service and start it again.

    It gets the session's variables as they are now, and its restarts count from 0.
    """
    wanted = session_id(call.path["sessionId"])
    return _shown(await call.operations.services.restart(call.caller, wanted, call.path["serviceName"]))


OPERATIONS = (list_services, start_service, stop_service, restart_service)
