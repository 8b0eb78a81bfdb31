"""The in-memory server. It is plain and synchronous, and serves both halves of the SDK."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from threading import RLock
from typing import Any
from urllib.parse import unquote

from buntime_sdk._fake.answers import Answer, error_object, failed, refuse, whole
from buntime_sdk._fake.events import Events, Webhooks
from buntime_sdk._fake.file_routes import FILE_ROUTES, page_of
from buntime_sdk._fake.hosts import hosts
from buntime_sdk._fake.kept import Images, Snapshots, require_fit
from buntime_sdk._fake.keys import Keys
from buntime_sdk._fake.metrics import measured_sessions, metrics_of
from buntime_sdk._fake.previews import Servers, address_of
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.run_routes import RUN_ROUTES, Tools
from buntime_sdk._fake.scripts import Scripts
from buntime_sdk._fake.session import DEFAULT_IMAGE, Clock, FakeSession, Origin, stamp
from buntime_sdk._fake.terminal import FakeTerminal
from buntime_sdk._fake.usage import Usage
from buntime_sdk.errors import BuntimeError, ConnectionFailed, RequestTimeout
from buntime_sdk.previews import ERROR_HEADER

NAME, NAMED = re.compile(r"[a-z0-9][a-z0-9-]{0,62}"), "name:"
ONE_SESSION = re.compile(r"/sessions/([^/]+)(/[a-z-]+)?")
ONE_SERVICE = re.compile(r"POST /sessions/([^/]+)/services/([^/]+)/(start|stop|restart)")
ONE_WEBHOOK = re.compile(r"(\w+) /webhooks/([^/]+)(/rotate|/test|/deliveries)?(?:/([^/]+)/redeliver)?")
ONE_SNAPSHOT = re.compile(r"(GET|DELETE) /snapshots/([^/]+)")
LEFT_ASLEEP = frozenset(
    {
        *("GET /sessions/{id}", "PATCH /sessions/{id}", "DELETE /sessions/{id}", "POST /sessions/{id}/sleep"),
        "GET /sessions/{id}/metrics",
        *("POST /sessions/{id}/snapshots", "POST /sessions/{id}/fork", "POST /sessions/{id}/restore"),
        "POST /sessions/{id}/recover",
    }
)
ACCOUNT_ROUTES = (
    *("POST /sessions/create", "GET /sessions", "POST /images/create", "GET /images", "DELETE /images/{name}"),
    *("GET /snapshots", "GET /snapshots/{id}", "DELETE /snapshots/{id}"),
    "GET /metrics/sessions",
    *("GET /account", "POST /keys/create", "GET /keys", "DELETE /keys/{id}", "GET /events"),
    *("GET /usage", "GET /usage/windows", "GET /hosts"),
    *("POST /webhooks/create", "GET /webhooks", "GET /webhooks/{id}", "PATCH /webhooks/{id}", "DELETE /webhooks/{id}"),
    *("POST /webhooks/{id}/rotate", "POST /webhooks/{id}/test", "GET /webhooks/{id}/deliveries"),
    "POST /webhooks/{id}/deliveries/{deliveryId}/redeliver",
)
SESSION_ROUTES = (
    *sorted(LEFT_ASLEEP),
    "POST /sessions/{id}/wake",
    "POST /sessions/{id}/preview-token",
    "DELETE /sessions/{id}/preview-token",
    "GET /sessions/{id}/terminal",
    "GET /sessions/{id}/services",
    *(f"POST /sessions/{{id}}/services/{{name}}/{what}" for what in ("start", "stop", "restart")),
)
OPERATIONS = (*ACCOUNT_ROUTES, *SESSION_ROUTES, *RUN_ROUTES, *FILE_ROUTES)
NEAREST = 3
MOST_FORKS = 100
DEFAULT_PORT, TOKEN_SECONDS = 8080, 3600
EXISTING = "session-existing"  # a header


@dataclass(slots=True)
class Trouble:
    """A failure in place of a response. `after_work`: do the work and lose only the response."""

    method: str
    path: re.Pattern[str]
    failure: BuntimeError
    times: int
    after_work: bool


class FakeServer:
    """Raises ConnectionFailed and RequestTimeout for scripted network failures. Refusals are responses."""

    def __init__(self, clock: Clock) -> None:
        self.lock = RLock()
        self.requests: list[FakeRequest] = []
        self.scripts = Scripts()
        self.servers = Servers()
        self.sessions: dict[str, FakeSession] = {}
        self.images = Images(clock)
        self.most_sessions: int | None = None
        self.troubles: list[Trouble] = []
        self._clock = clock
        self._since = clock()
        self._answered: dict[str, tuple[tuple[object, ...], Answer]] = {}
        self._ids = 0
        self._tools = Tools(self.scripts, clock, self._new_id)
        self._snapshots = Snapshots(clock, self._new_id)
        self._keys = Keys(clock, self._new_id)
        self._usage = Usage(clock)
        self._webhooks = Webhooks(clock, self._new_id)
        self.events = Events(clock, self._new_id, self._webhooks)

    def answer(self, request: FakeRequest) -> Answer:
        with self.lock:
            self.requests.append(request)
            if address_of(request) is not None:
                return self._preview(request)
            trouble = self._trouble(request)
            self._usage.look(self.sessions)  # what has expired since the last request
            try:
                if trouble is not None and not trouble.after_work:
                    raise trouble.failure
                answer = self._once(request)
                if trouble is not None:
                    raise trouble.failure
                return answer
            except (ConnectionFailed, RequestTimeout):
                raise
            except BuntimeError as failure:
                return failed(failure)
            finally:
                self._usage.look(self.sessions)

    def terminal(self, request: FakeRequest) -> FakeTerminal:
        """Opens a terminal. Raises a refusal."""
        with self.lock:
            self.requests.append(request)
            trouble = self._trouble(request)
            if trouble is not None:
                raise trouble.failure
            found = ONE_SESSION.fullmatch(request.path)
            session = self.session(found[1] if found else "")
            terminal_id = request.query.get("terminalId")
            if terminal_id is not None and terminal_id not in session.terminals:
                refuse("terminal_not_found", "This session has no terminal with this id.", terminalId=terminal_id)
            session.wake()
            is_resumed = terminal_id is not None
            return FakeTerminal(session, self.scripts, terminal_id or self._new_id("term"), resumed=is_resumed)

    def session(self, session_id: str) -> FakeSession:
        """By its id, or `name:` and its name, as paths have them. Raises SessionNotFound."""
        session_id = unquote(session_id)
        if session_id.startswith(NAMED):
            session = self._named(session_id.removeprefix(NAMED))
        else:
            session = self.sessions.get(session_id)
        if session is None or session.is_expired:
            message = "No session with this id. It may have expired or been deleted."
            refuse("session_not_found", message, sessionId=session_id)
        return session

    def _named(self, name: str | None) -> FakeSession | None:
        """The living session of this name."""
        living = (one for one in self.sessions.values() if name is not None and not one.is_expired)
        return next((one for one in living if one.name == name), None)

    def _require_free(self, name: str | None, count: int = 1, for_session: str | None = None) -> None:
        """Raises InvalidRequest, NameTaken."""
        if name is not None and (count > 1 or not NAME.fullmatch(name)):
            message = "name must have 1 to 63 characters of a-z, 0-9 and -, and start with a letter or digit."
            refuse("invalid_request", "name is for one session." if count > 1 else message, field="name")
        holder = self._named(name)
        if holder is not None and holder.id != for_session:
            refuse("name_taken", f"The session {holder.id} has the name {name!r}.", name=name, sessionId=holder.id)

    def _preview(self, request: FakeRequest) -> Answer:
        """Returns what a session's server answers, or the refusal, which has a header that no server can send."""
        address = address_of(request)
        assert address is not None
        try:
            answer = self.servers.visit(self.session(address.session_id), address.port, request)
            return replace(answer, headers=_without(answer.headers, ERROR_HEADER))
        except (ConnectionFailed, RequestTimeout):
            raise
        except BuntimeError as failure:
            answer = failed(failure)
            return replace(answer, headers={**answer.headers, ERROR_HEADER: failure.code})

    def _trouble(self, request: FakeRequest) -> Trouble | None:
        """Returns the scripted failure for this request, if any, and counts it as used."""
        for trouble in self.troubles:
            if trouble.times > 0 and trouble.method == request.method and trouble.path.fullmatch(request.path):
                trouble.times -= 1
                return trouble
        return None

    def _once(self, request: FakeRequest) -> Answer:
        """Returns the first response again for a repeated key."""
        key = request.headers.get("idempotency-key")
        shown = (request.method, request.path, request.query, request.body)
        if key is not None and key in self._answered:
            before, answer = self._answered[key]
            if before != shown:
                refuse("idempotency_key_reused", "This key belongs to another request.")
            return Answer(answer.status, answer.parts, {**answer.headers, "idempotent-replayed": "true"})
        told = self._route(request)
        if isinstance(told, Answer) and EXISTING not in told.headers:
            return told
        answer = told if isinstance(told, Answer) else whole(200, told)
        if key is not None:
            self._answered[key] = (shown, answer)
        return answer

    def _route(self, request: FakeRequest) -> dict[str, Any] | Answer:
        called = f"{request.method} {request.path}"
        if called == "POST /sessions/create":
            return self._create(request.fields)
        if called == "GET /sessions":
            return self._list(request.query)
        if called == "GET /metrics/sessions":
            return measured_sessions(self._wanted(request.query), request.query)
        if called == "POST /images/create":
            return self._make_image(request.fields)
        if called == "GET /images":
            return self.images.list(request.query)
        if request.method == "DELETE" and request.path.startswith("/images/"):
            return self.images.delete(unquote(request.path.removeprefix("/images/")))
        if (told := self._of_account(called, request)) is not None:
            return told
        if called == "GET /snapshots":
            return self._snapshots.list(self._with_id(request.query))
        if (one := ONE_SNAPSHOT.fullmatch(called)) is not None:
            return self._snapshots.find(one[2]).told if one[1] == "GET" else self._snapshots.delete(one[2])
        if (one := ONE_SERVICE.fullmatch(called)) is not None:
            session = self.session(one[1])
            session.wake()
            return session.services.act(unquote(one[2]), one[3])
        found = ONE_SESSION.fullmatch(request.path)
        if found is not None:
            called = f"{request.method} /sessions/{{id}}{found[2] or ''}"
            return self._of_session(called, found[1], request.query if request.method == "GET" else request.fields)
        run, file = RUN_ROUTES.get(called), FILE_ROUTES.get(called)
        if run is None and file is None:
            refuse("not_found", f"There is no {called}.")
        named = request.fields if request.method == "POST" else request.query
        session = self.session(named.get("sessionId", ""))
        session.wake()
        if run is not None:
            return run(session, request, self._tools)
        assert file is not None
        return file(session.files, request)

    def _of_account(self, called: str, request: FakeRequest) -> dict[str, Any] | Answer | None:
        if called == "GET /account":
            living = sum(not session.is_expired for session in self.sessions.values())
            return self._keys.account(sessions=living, snapshots=self._snapshots.count(), images=self.images.made)
        if called == "GET /events":
            return self.events.list(self._with_id(request.query))
        if "/webhooks" in called:
            return self._of_webhooks(called, request)
        if called == "POST /keys/create":
            made = self._keys.create(request.fields)
            self.events.add("key.created", **{name: made[name] for name in ("keyId", "name", "hint", "scopes")})
            return made
        if called == "GET /keys":
            return self._keys.list(request.query)
        if called.startswith("DELETE /keys/"):
            gone = self._keys.delete(unquote(called.removeprefix("DELETE /keys/")))
            self.events.add("key.revoked", **{name: gone[name] for name in ("keyId", "name", "hint")})
            return {"deleted": True, "keyId": gone["keyId"]}
        if called == "GET /usage":
            return self._usage.get(self._with_id(request.query))
        if called == "GET /usage/windows":
            return self._usage.windows(request.query)
        if called == "GET /hosts":
            return hosts(self.sessions.values(), self._since)
        return None

    def _of_webhooks(self, called: str, request: FakeRequest) -> dict[str, Any]:
        webhooks = self._webhooks
        if called == "POST /webhooks/create":
            made = webhooks.create(request.fields)
            self.events.add("webhook.created", webhookId=made["webhookId"])
            return made
        if called == "GET /webhooks":
            return webhooks.list(request.query)
        found = ONE_WEBHOOK.fullmatch(called)
        method, name, rest, delivery = found.groups() if found else ("", "", None, None)
        match (method, rest):
            case ("GET", None):
                return webhooks.find(name)
            case ("GET", "/deliveries"):
                return webhooks.deliveries(name, request.query)
            case ("POST", "/deliveries") if delivery is not None:
                return webhooks.redeliver(name, delivery)
            case ("POST", "/test"):
                webhooks.require_on(name)
                return {"eventId": self.events.add("webhook.test", webhookId=name)["eventId"]}
            case ("PATCH", None) | ("POST", "/rotate"):
                changed = webhooks.rotate(name, request.fields) if rest else webhooks.update(name, request.fields)
                self.events.add("webhook.changed", webhookId=name)
                return changed
            case ("DELETE", None):
                gone = webhooks.delete(name)
                self.events.add("webhook.deleted", webhookId=name)
                return gone
        return refuse("not_found", f"There is no {called}.")

    def _with_id(self, query: Mapping[str, str]) -> Mapping[str, str]:
        """The same, with the session's id in place of its name."""
        wanted = query.get("sessionId", "")
        return {**query, "sessionId": self.session(wanted).id} if wanted.startswith(NAMED) else query

    def _create(self, fields: Mapping[str, Any]) -> dict[str, Any] | Answer:
        if fields.get("onConflict", "error") == "return":
            if fields.get("name") is None:
                refuse("invalid_request", "onConflict return needs a name.", field="onConflict")
            if (existing := self._named(fields["name"])) is not None:
                return whole(200, existing.made, {EXISTING: "true"})
        image, snapshot_id = fields.get("image"), fields.get("snapshotId")
        if snapshot_id is None:
            return self._begin(fields, self.images.find(image or DEFAULT_IMAGE))
        if image is not None:
            message = "Give image or snapshotId, not both: a snapshot has its image."
            refuse("invalid_request", message, field="snapshotId")
        return self._begin(fields, self._snapshots.find(snapshot_id).origin)

    def _begin(self, fields: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
        """Begins a session. Returns the response to its creation."""
        self._require_free(fields.get("name"))
        name = self._new_id("ses")
        session = FakeSession(name, fields, origin, self._clock, partial(self.events.add_exit, name))
        require_fit(origin.size, session.told["resourceLimits"]["disk"])
        living = sum(not other.is_expired for other in self.sessions.values())
        if self.most_sessions is not None and living >= self.most_sessions:
            message = f"The fake plan allows {self.most_sessions} concurrent sessions and {living} are in use."
            refuse("session_limit_exceeded", message, plan="fake", limit=self.most_sessions, active=living)
        self.sessions[session.id] = session
        names = {name: session.told[name] for name in ("name", "image", "snapshotId")}
        self.events.add("session.created", session.id, **names)
        return session.made

    def _fork(self, source: FakeSession, asked: Mapping[str, Any]) -> dict[str, Any]:
        count = asked.get("count", 1)
        if not 1 <= count <= MOST_FORKS:
            refuse("invalid_request", f"count must be 1 to {MOST_FORKS}, not {count}.", field="count", limit=MOST_FORKS)
        self._require_free(asked.get("name"), count)
        inherited = source.settings()
        limits = {**inherited["resourceLimits"], **asked.get("resourceLimits", {})}
        require_fit((origin := source.origin()).size, limits["disk"])
        made: list[dict[str, Any]] = []
        failures: list[BuntimeError] = []
        for _ in range(count):
            try:
                made.append({"session": self._begin({**inherited, **asked, "resourceLimits": limits}, origin)})
            except BuntimeError as failure:
                failures.append(failure)
                made.append({"error": error_object(failure)})
        if len(failures) == count:
            raise failures[0]
        return {"sessions": made}

    def _make_image(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        session_id, snapshot_id = fields.get("sessionId"), fields.get("snapshotId")
        if (session_id is None) == (snapshot_id is None):
            refuse("invalid_request", "Give exactly one of sessionId and snapshotId.", field="sessionId")
        base = self._snapshots.find(snapshot_id).origin if snapshot_id else self.session(str(session_id)).origin()
        return self.images.make(fields.get("name"), base, fields.get("env") or {})

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        every = [session.told for session in self._wanted(query)]
        return {"sessions": page_of(every, query), "total": len(every)}

    def _wanted(self, query: Mapping[str, str]) -> list[FakeSession]:
        """The living sessions that a query selects, newest first."""
        wanted = {name.removeprefix("metadata."): value for name, value in query.items() if "." in name}
        return [
            session
            for session in reversed(self.sessions.values())
            if not session.is_expired
            and query.get("state", session.state) == session.state
            and query.get("name", session.name) == session.name
            and all(_said(session.told["metadata"].get(name)) == value for name, value in wanted.items())
        ]

    def _of_session(self, called: str, session_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        session = self.session(session_id)
        before = session.state
        if called not in LEFT_ASLEEP:
            session.wake()
        match called:
            case "GET /sessions/{id}":
                return session.told
            case "GET /sessions/{id}/metrics":
                return metrics_of(session, fields, self._clock())
            case "PATCH /sessions/{id}":
                self._require_free(fields.get("name"), for_session=session.id)
                session.update(fields)
                return session.told
            case "DELETE /sessions/{id}":
                del self.sessions[session.id]
                session.end()
                self.events.add("session.deleted", session.id, name=session.told["name"], stateBefore=before)
                return {"deleted": True, "sessionId": session.id}
            case "POST /sessions/{id}/snapshots":
                return self._snapshots.take(session, fields)
            case "POST /sessions/{id}/fork":
                return self._fork(session, fields)
            case "POST /sessions/{id}/restore":
                self._snapshots.restore(session, fields["snapshotId"])
                return session.told
            case "POST /sessions/{id}/recover":
                message = "The session's files are not lost: there is nothing to recover."
                refuse("invalid_state", message, reason="not_lost")
            case "POST /sessions/{id}/sleep":
                session.require_unused()
                session.sleep(fields.get("depth", "idle"))
                return session.told
            case "POST /sessions/{id}/wake":
                return {**session.told, "wokeFrom": before, "wakeTimeMs": 0 if before == "active" else 1}
            case "GET /sessions/{id}/services":
                return {"services": session.services.list()}
            case "POST /sessions/{id}/preview-token":
                return self._token(session, fields)
            case "DELETE /sessions/{id}/preview-token":
                revoked = session.tokens & {fields["token"]} if "token" in fields else set(session.tokens)
                session.tokens -= revoked
                return {"revoked": len(revoked)}
        return refuse("not_found", f"There is no {called}.")

    def _token(self, session: FakeSession, fields: Mapping[str, Any]) -> dict[str, Any]:
        token, port = self._new_id("bpt"), fields.get("port") or DEFAULT_PORT
        session.tokens.add(token)
        name, dot, domain = str(session.told["previewUrl"]).partition(".")
        host = f"{name}{dot}{domain}" if port == DEFAULT_PORT else f"{name}-{port}{dot}{domain}"
        expires = self._clock() + timedelta(seconds=fields.get("ttl") or TOKEN_SECONDS)
        return {"url": f"{host}/?buntime_token={token}", "token": token, "expiresAt": stamp(expires)}

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._ids:018}"


def require_operation(method: str, path: str) -> None:
    """Raises ValueError, with the nearest operations, if the SDK makes no such call."""
    for operation in OPERATIONS:
        known, template = operation.split(" ")
        is_met = path_pattern(path).fullmatch(template) or path_pattern(template).fullmatch(path)
        if known == method and is_met:
            return
    nearest = get_close_matches(f"{method} {path}", OPERATIONS, NEAREST, cutoff=0)
    raise ValueError(f"There is no {method} {path}. The nearest are {', '.join(nearest)}.")


def path_pattern(path: str) -> re.Pattern[str]:
    """A name in braces, such as `{id}`, matches one part of the path."""
    return re.compile("".join("[^/]+" if part[:1] == "{" else re.escape(part) for part in re.split(r"(\{\w+\})", path)))


def _without(headers: Mapping[str, str], left_out: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != left_out.lower()}


def _said(value: object) -> str:
    """Formats a metadata value as a query does."""
    return value if isinstance(value, str) else json.dumps(value)
