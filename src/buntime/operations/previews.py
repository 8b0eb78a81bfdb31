"""Decides which visitor may see which port of a session. The edge asks for every request.

A permission has the session's address, and the edge may use it for PERMISSION_SECONDS without asking again. It asks
before they are over where the permission is in use, for many at once (`renew`). The session is lent for that long.
When a permission is withdrawn, `Visitors` ends connections once more after that time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.account import Account, AccountStatus
from buntime.errors import BuntimeError
from buntime.inside import ServiceStatus
from buntime.lifecycle.assembly import Lifecycle
from buntime.paths import ON_WAKE_LOG
from buntime.ports import AnotherHost, Owners, Sandbox, Store
from buntime.preview import (
    PERMISSION_SECONDS,
    PreviewAddress,
    address_of,
    hash_token,
    is_token,
    open_ports,
    without_token,
)
from buntime.service import Service
from buntime.session import Session, State

log = structlog.get_logger()

LENT_SECONDS = PERMISSION_SECONDS + 0.25  # includes the ways of the answer to the edge and of a request to the session
ON_WAKE_SECONDS = 20.0  # after a wake, a request waits this long for what `onWake` starts …
STARTING_SECONDS = 120.0  # … which counts as still starting for this long
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.02, 0.5  # between two looks whether a program listens
SERVICE_SECONDS = 20.0  # a request waits this long for the service that declares its port
SHARED_SECONDS = 0.1  # a look at a port serves all requests of this time
ASK_SECONDS = 1.0  # between two looks whether the service is still about to run
CONNECT_SECONDS = 1.0
MOST_WAITING = 256  # requests for one session that are being decided on


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """A visitor's request, as the edge describes it."""

    host: str
    method: str
    uri: str  # path and query, as sent
    token: str | None = None  # from the header
    cookie: str | None = None  # the value of our cookie
    wants_page: bool = False  # from a browser that shows the answer
    is_upgrade: bool = False

    @property
    def can_be_sent_on(self) -> bool:
        return self.wants_page and self.method in ("GET", "HEAD") and not self.is_upgrade


@dataclass(frozen=True, slots=True)
class Admitted:
    upstream: str  # address:port
    seconds: int  # for which the edge may remember it
    uri: str | None = None  # path and query for the session, if they differ from what was sent


class Reason(StrEnum):
    """Why a visitor gets a page of ours instead of the session's."""

    UNKNOWN = "unknown"  # no such session
    PRIVATE = "private"  # a valid token is missing
    SUSPENDED = "suspended"  # the account is suspended
    WAKING = "waking"  # the wake takes longer than a request waits
    NO_ROOM = "no-room"  # the host cannot wake the session now
    STARTING = "starting"  # onWake has not started the server yet
    RESTARTED = "restarted"  # the session or its server was just started
    NOTHING = "nothing"  # no program listens on the port
    ENDED = "ended"  # no program listens: deep sleep ended it
    NOT_STARTED = "not-started"  # no program listens, although onWake ran
    SERVICE_STARTING = "service-starting"  # the service that declares the port does not listen yet
    SERVICE_ENDED = "service-ended"  # it is not started again
    DAMAGED = "damaged"  # the session's files are lost
    TOO_MANY = "too-many"  # too many requests wait for the session
    FAILED = "failed"  # our fault
    SENT_ON = "sent-on"  # redirected to the same address without the token, which becomes a cookie


@dataclass(frozen=True, slots=True)
class PreviewRefused:
    reason: Reason
    error: BuntimeError
    address: PreviewAddress | None  # None when the host names no preview
    location: str = ""  # for SENT_ON
    cookie: str = ""  # for SENT_ON: the token


@dataclass(frozen=True, slots=True)
class Permission:
    """A request that may be sent to its session, once that is awake."""

    session: Session
    address: PreviewAddress
    uri: str | None  # see `Admitted`


class _Refusal(Exception):
    def __init__(self, reason: Reason, error: BuntimeError, location: str = "", cookie: str = "") -> None:
        self.reason, self.error, self.location, self.cookie = reason, error, location, cookie


class Previews:
    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        owners: Owners,
        clock: Callable[[], float],
        *,
        domain: str,
        secure: bool = False,
    ) -> None:
        """`domain`: the configured one, or "" for localhost. `secure`: visitors use HTTPS."""
        self._store = store
        self._owners = owners
        self._leases = lifecycle.leases
        self._transitions = lifecycle.transitions
        self._services = lifecycle.services
        self._clock = clock
        self._domain = domain
        self._scheme = "https" if secure else "http"
        self._deciding: Counter[str] = Counter()  # session → requests
        self._looking: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()  # sandbox, port
        self._looks: dict[tuple[str, int], tuple[float, bool]] = {}  # when it began, and whether a program listened
        self._seen_up: dict[PreviewAddress, float] = {}  # when a program was seen to listen, on the loop's clock

    async def admit(self, request: PreviewRequest) -> Admitted | PreviewRefused:
        """Wakes the session and waits for it, for a limited time. Counts as activity. Raises AnotherHost alone."""
        return await self._answered(request, self._admit(request))

    async def renew(self, request: PreviewRequest) -> str:
        """The address:port for a visitor who was admitted within the last LENT_SECONDS, for PERMISSION_SECONDS from
        before the call; "" where the edge must ask again. Wakes nothing and waits for no session. Counts as activity.

        Where a service declares the port, each question may have to wait for it, so that is never renewed.
        """
        try:
            permission = await self._permission(request)
            session, port = permission.session, permission.address.port
            if not self._owners.is_mine(session) or any(service.port == port for service in session.services):
                return ""
            sandbox = await self._leases.lend_again(session.id, LENT_SECONDS)
            return f"{sandbox.address}:{port}" if sandbox is not None and self._owners.may_act() else ""
        except (_Refusal, BuntimeError):
            return ""
        except Exception:  # one visitor's failure must not end the permissions of others
            log.exception("preview_failed")
            return ""

    async def nothing(self, request: PreviewRequest) -> PreviewRefused:
        """The refusal for a visitor when the edge could not connect to the session. Raises AnotherHost alone."""
        return await self._answered(request, self._explained(request))

    # --- inside ---

    async def _answered[T](self, request: PreviewRequest, work: Awaitable[T]) -> T | PreviewRefused:
        address = address_of(request.host, self._domain)
        try:
            return await work
        except _Refusal as refusal:
            return PreviewRefused(refusal.reason, refusal.error, address, refusal.location, refusal.cookie)
        except BuntimeError as failed:
            return PreviewRefused(*_judged(failed), address)
        except AnotherHost:
            raise
        except Exception:  # the boundary of a request: a visitor always gets a page
            log.exception("preview_failed")
            return PreviewRefused(Reason.FAILED, BuntimeError("Something went wrong on our side."), address)

    async def _explained(self, request: PreviewRequest) -> PreviewRefused:
        permission = await self._permission(request)
        async with self._awake(permission) as sandbox:
            await self._until_served(permission, sandbox, has_failed=True)  # it has just ended
            listens = await _listens(sandbox.address, permission.address.port)
        raise self._told(permission, listens=listens)

    async def _admit(self, request: PreviewRequest) -> Admitted:
        permission = await self._permission(request)
        session, port = permission.session, permission.address.port
        async with self._awake(permission) as sandbox:
            if not await self._until_served(permission, sandbox):
                await self._until_it_listens(permission, sandbox.address)
            await self._permission(request)  # again: it may have been withdrawn during the wait
            if not self._owners.may_act():
                raise errors.MayNotAct
            self._leases.lend(session, LENT_SECONDS)
            return Admitted(f"{sandbox.address}:{port}", PERMISSION_SECONDS, permission.uri)

    async def _permission(self, request: PreviewRequest) -> Permission:
        """Raises _Refusal."""
        address = address_of(request.host, self._domain)
        session = await self._store.get_session(address.session) if address else None
        account = await self._store.get_account(session.account) if session else None
        if address is None or session is None or account is None or self._is_gone(session, account):
            raise _Refusal(Reason.UNKNOWN, errors.SessionNotFound(address.session if address else ""))
        if account.status is AccountStatus.SUSPENDED:
            suspended = errors.Forbidden("The account that this session belongs to is suspended.")
            raise _Refusal(Reason.SUSPENDED, suspended)
        uri, given = without_token(request.uri)
        permission = Permission(session, address, None if given is None else uri)
        if address.port in open_ports(session.preview):
            return permission
        if given is not None and await self._opens(given, address):
            if request.can_be_sent_on:
                raise self._sent_on(request, uri, given)
            return permission
        for token in (request.token, request.cookie):
            if token is not None and await self._opens(token, address):
                return permission
        raise _Refusal(Reason.PRIVATE, errors.Unauthorized("This preview needs a valid token."))

    def _is_gone(self, session: Session, account: Account) -> bool:
        deleted = session.state is State.DELETING or account.status is AccountStatus.DELETED
        return deleted or session.has_expired(self._clock())

    def _sent_on(self, request: PreviewRequest, uri: str, token: str) -> _Refusal:
        """To the same address without the token. The location names the host: a path that begins with two slashes
        would name another one."""
        location = f"{self._scheme}://{request.host}{uri}"
        return _Refusal(Reason.SENT_ON, errors.Unauthorized("Go on without the token."), location, token)

    async def _opens(self, secret: str, address: PreviewAddress) -> bool:
        token = await self._store.find_preview_token(hash_token(secret)) if is_token(secret) else None
        return (
            token is not None
            and token.session == address.session
            and token.port in (None, address.port)
            and token.expires_at > self._clock()
        )

    @asynccontextmanager
    async def _awake(self, permission: Permission) -> AsyncIterator[Sandbox]:
        """Raises _Refusal, and what `Owners.here` and `Leases.use` raise."""
        session, session_id = permission.session, permission.session.id
        if self._deciding[session_id] >= MOST_WAITING:
            busy = errors.RateLimitExceeded("Too many requests wait for this session.", retryAfter=1)
            raise _Refusal(Reason.TOO_MANY, busy)
        self._deciding[session_id] += 1
        try:
            if not self._owners.is_mine(session):
                session = await self._owners.here(session)
            async with self._leases.use(session) as sandbox:
                yield sandbox
        finally:
            self._deciding[session_id] -= 1
            if not self._deciding[session_id]:
                del self._deciding[session_id]

    async def _until_served(self, permission: Permission, sandbox: Sandbox, *, has_failed: bool = False) -> bool:
        """Waits until something listens on a port that a service declares. False when none does. Raises _Refusal when
        SERVICE_SECONDS are over, or the service is not started again.

        The kernel says what listens: a connection would reach the program. `has_failed`: the edge could not connect, so
        what was seen before this call does not count.
        """
        session, port = permission.session, permission.address.port
        service = next((service for service in session.services if service.port == port), None)
        if service is None:
            return False
        now = asyncio.get_running_loop().time
        asks, pause, since = 0.0, FIRST_LOOK_SECONDS, now() if has_failed else 0.0
        try:
            async with asyncio.timeout(SERVICE_SECONDS):
                while not await self._hears(sandbox, port, since):
                    if now() >= asks:
                        there = await self._services.shared_list(session.id, sandbox)
                        _require_live(service, there.get(service.name))
                        asks = now() + ASK_SECONDS
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LAST_LOOK_SECONDS)
        except TimeoutError:
            told = f"The service {service.name} does not listen on port {port} yet."
            raise _Refusal(Reason.SERVICE_STARTING, errors.Unavailable(told, 1)) from None
        return True

    async def _hears(self, sandbox: Sandbox, port: int, since: float) -> bool:
        """Whether a program listens. All who ask within SHARED_SECONDS share one look, unless it began before `since`
        (on the loop's clock): a session may have very many sockets to look through."""
        now, one = asyncio.get_running_loop().time, (sandbox.id, port)
        async with self._looking.setdefault(one, asyncio.Lock()):
            recent = now() - SHARED_SECONDS
            looked_at, hears = self._looks.get(one, (-1.0, False))
            if looked_at < max(since, recent):
                looked_at, hears = now(), bool(await sandbox.processes.listeners(port))
                self._looks = {key: look for key, look in self._looks.items() if look[0] > recent}
                self._looks[one] = looked_at, hears
            return hears

    async def _until_it_listens(self, permission: Permission, host: str) -> None:
        """After a deep sleep, waits for what `onWake` starts. Raises _Refusal when ON_WAKE_SECONDS are over."""
        session, address = permission.session, permission.address
        awake = self._transitions.awake_since_deep_sleep(session.id)
        if session.on_wake is None or awake is None or awake >= ON_WAKE_SECONDS:
            return
        now = asyncio.get_running_loop().time
        risen, pause = now() - awake, FIRST_LOOK_SECONDS
        if self._seen_up.get(address, 0.0) >= risen:
            return
        while not await _listens(host, address.port):
            if now() + pause >= risen + ON_WAKE_SECONDS:
                raise self._told(permission, listens=False)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)
        recent = now() - ON_WAKE_SECONDS  # older looks have no effect any more
        self._seen_up = {address: at for address, at in self._seen_up.items() if at > recent} | {address: now()}

    def _told(self, permission: Permission, *, listens: bool) -> _Refusal:
        port, has_on_wake = permission.address.port, permission.session.on_wake is not None
        awake = self._transitions.awake_since_deep_sleep(permission.session.id)
        if listens:
            return _Refusal(Reason.RESTARTED, errors.Unavailable("The server has just been started.", 1))
        if has_on_wake and awake is not None and awake < STARTING_SECONDS:
            return _Refusal(Reason.STARTING, errors.Unavailable(f"Nothing listens on port {port} yet.", 1))
        told = f"No program in this session accepts connections on port {port}."
        if awake is None:
            return _Refusal(Reason.NOTHING, errors.Unavailable(told, 1))
        if has_on_wake:
            told += f" It woke from deep sleep; what its onWake printed is in {ON_WAKE_LOG} in the session."
            return _Refusal(Reason.NOT_STARTED, errors.Unavailable(told, 1))
        told += " Deep sleep has ended its processes: start the server again, or set onWake."
        return _Refusal(Reason.ENDED, errors.Unavailable(told, 1))


def _require_live(service: Service, status: ServiceStatus | None) -> None:
    """Raises _Refusal for a service that is not started again."""
    if status is None or status.state not in ("exited", "stopped"):
        return
    why = "was stopped" if status.state == "stopped" else f"has ended with exit code {status.exit_code}"
    told = f"The service {service.name}, which declares port {service.port}, {why}."
    raise _Refusal(Reason.SERVICE_ENDED, errors.Unavailable(f"{told} Its output is that of {status.process}.", 1))


def _judged(failed: BuntimeError) -> tuple[Reason, BuntimeError]:
    match failed:
        case errors.SessionNotFound():
            return Reason.UNKNOWN, failed
        case errors.StillWaking():
            return Reason.WAKING, failed
        case errors.Unavailable():
            return Reason.NO_ROOM, failed
        case errors.SessionDamaged():
            return Reason.DAMAGED, failed
        case errors.InvalidState():
            return Reason.RESTARTED, errors.Unavailable("The session was restarted.", 1)
    log.error("preview_failed", code=failed.code, reason=failed.message)
    return Reason.FAILED, failed


async def _listens(host: str, port: int) -> bool:
    """Whether a program accepts connections."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False
