"""The OpenAPI 3.1 document, made from the operations and the shapes of `wire`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from buntime import errors
from buntime.errors import BuntimeError
from buntime.web.examples import (
    ANSWERS,
    BODIES,
    DELIVERY,
    IMAGE,
    KEY,
    NOT_READY,
    QUERIES,
    SENT,
    SERVICE,
    SESSION,
    SNAPSHOT,
    WEBHOOK,
)
from buntime.web.failures import RETRY_AFTER, STATUS
from buntime.web.operation import Operation, Page, Streamed
from buntime.web.samples import samples_of, samples_of_page
from buntime.web.wire.errors import FailureAnswer
from buntime.web.wire.fields import DELIVERY_ID, KEY_ID, SESSION_ID, SNAPSHOT_ID, WEBHOOK_ID
from buntime.web.wire.webhooks import SentEvent

HTML = "text/html; charset=utf-8"
REF = "#/components/schemas/{name}"
BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
ALWAYS: tuple[type[BuntimeError], ...] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.ExecutionTimeout,
    errors.RateLimitExceeded,
    errors.Unavailable,
    errors.BuntimeError,
)
WITH_BODY = (errors.PayloadTooLarge,)
WITH_KEY = (errors.IdempotencyInProgress, errors.IdempotencyKeyReused)
TAGS = {  # name → what it is about
    "Sessions": "A session is an isolated sandbox with its own files, processes and network.",
    "Snapshots": "A snapshot keeps the files of a session as they were at one moment. It outlives the session.",
    "Images": "An image is what a session stands on: its programs and libraries.",
    "Account": "An account has a plan, and keys. A key does what its scopes allow.",
    "Events": "An event says what happened in an account, and who caused it.",
    "Usage": "What the sessions of an account used, by the kernel's counters.",
    "Metrics": "What sessions use over time, and what they use now.",
    "Webhooks": "A webhook is a URL to which the events of an account are sent, signed.",
    "Previews": "A preview is the URL of a port of a session. A token opens a private one.",
    "Execution": "Run code and wait for its result, or open a terminal.",
    "Services": "Programs that a session declares: they run whenever it is awake, and are started again when they end.",
    "Processes": "Start programs in the background of a session, and read their output later.",
    "Contexts": "A context keeps variables from one run of code to the next.",
    "Files": "Read, write, search and watch the files of a session.",
    "Server": "The server's health, description and clients need no key. Its metrics need a key of the operator.",
}
RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Id": (
        "Names the request in the server's log. The client's own id if that is 1 to 128 visible ASCII characters.",
        {"type": "string", "pattern": "^[!-~]{1,128}$"},
    ),
    "X-RateLimit-Limit": ("Requests per minute for this key.", {"type": "integer"}),
    "X-RateLimit-Remaining": ("Requests that this key has left in this minute.", {"type": "integer"}),
    "X-RateLimit-Reset": ("When the count resets, in Unix seconds.", {"type": "integer"}),
    "Retry-After": ("Seconds to wait before you retry.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("The authentication scheme.", {"type": "string", "const": "Bearer"}),
    "Allow": ("The methods that this path accepts.", {"type": "string"}),
    "Idempotent-Replayed": (
        "Present if the response is a replay of the first one.",
        {"type": "string", "const": "true"},
    ),
    "Session-Existing": (
        "Present if the session had the name before this request.",
        {"type": "string", "const": "true"},
    ),
    "Cache-Control": ("Responses must not be cached.", {"type": "string"}),
    "Accept-Ranges": ("Ranges of bytes can be requested.", {"type": "string", "const": "bytes"}),
    "Content-Range": ("Which bytes these are, and how many there are.", {"type": "string"}),
    "ETag": ("Names this content of the file.", {"type": "string"}),
    "Last-Modified": ("When the file was changed.", {"type": "string"}),
}
PARTIAL = {  # headers of a request → what they mean
    "Range": "The bytes wanted, one range: `bytes=0-99`, `bytes=100-` or `bytes=-100`.",
    "If-Range": "An `ETag`: if the file has another one now, the whole file is sent.",
    "If-None-Match": "An `ETag`: if the file still has it, the response is 304.",
    "If-Modified-Since": "If the file was not changed since then, the response is 304.",
}
OF_FILE = ("Accept-Ranges", "ETag", "Last-Modified")
KEPT = "for at least 24 hours the same key with the same request returns the first final response"
INTRODUCTION = (
    "Isolated Bun sessions for AI agents. Send `Authorization: Bearer btk_…` with every request. The samples read the "
    "server's URL from `BUNTIME_URL` and your key from `BUNTIME_API_KEY`: set both first.\n\n"
    "Bodies are JSON objects. Unknown fields and unknown or repeated query parameters are rejected. A wrong method "
    "gets 405 `method_not_allowed` with `Allow`, an unknown path 404 `not_found`.\n\n"
    "An error is an object `error` with `code`, `message`, `details` and `retryable`. The code is stable, and each "
    "call lists its own. If an error is retryable, the same request can succeed later. Every response has "
    "`X-Request-Id`, which is also in the server's log.\n\n"
    "A key has scopes, and each call names the one that it needs. Without it, the response is 403 `forbidden` with "
    "that scope in `details.scope`.\n\n"
    f"Some calls take an `Idempotency-Key`, so that you can repeat them: {KEPT}.\n\n"
    "A key has a number of requests per minute, which is in `X-RateLimit-Limit`. All keys of an account together have "
    "five times as many. Beyond either, the response is 429 `rate_limit_exceeded` with `Retry-After`.\n\n"
    "This server has more: its [start page](/) and [its SDKs and command line](/clients/)."
)


def document(operations: Sequence[Operation], pages: Sequence[Page]) -> dict[str, Any]:
    """The whole document as plain JSON values."""
    shapes = _shapes(operations, pages)
    _, schemas = msgspec.json.schema_components(shapes, ref_template=REF)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(operation)
    for page in pages:
        paths[page.path]["get"] = _page(page)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "buntime",
            "version": version("buntime"),
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": dict(paths),
        "webhooks": {"event": {"post": _sent()}},
        "components": {
            "schemas": schemas,
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "btk_ and 38 letters and digits"}
            },
        },
    }


def _shapes(operations: Sequence[Operation], pages: Sequence[Page]) -> list[type[Struct]]:
    shapes: list[type[Struct]] = [FailureAnswer, SentEvent]
    shapes += [operation.answer for operation in operations if operation.answer is not None]
    shapes += [shape for operation in operations if operation.streamed for shape in operation.streamed.events.values()]
    shapes += [operation.body for operation in operations if operation.body]
    shapes += [page.answer for page in pages if page.answer]
    return list(dict.fromkeys(shapes))


def _sent() -> dict[str, Any]:
    """What a webhook gets."""
    signed = (
        "An HMAC-SHA256 by Standard Webhooks: `v1,` and base64. Two or more, separated by spaces, after a rotation."
    )
    headers = {
        "Webhook-Id": "The event's id. Each attempt has the same.",
        "Webhook-Timestamp": "When it was sent, in Unix seconds. Refuse what is older than 5 minutes.",
        "Webhook-Signature": signed,
    }
    return {
        "operationId": "sendEvent",
        "tags": ["Webhooks"],
        "summary": "An event, sent to the URL of a webhook",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF.format(name="SentEvent")}, "example": SENT}},
        },
        "responses": {
            "2XX": {"description": "The receiver has it."},
            "410": {"description": "The receiver wants nothing any more: the webhook is turned off."},
            "default": {"description": "A failure: it is sent again later."},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": _heading(operation.summary),
        "description": _words(operation),
        "security": [{"key": [operation.scope.value]}],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": {**_successes(operation), **_failures(operation)},
    }
    if operation.body:
        media: dict[str, Any] = {"schema": {"$ref": REF.format(name=operation.body.__name__)}}
        if operation.name in BODIES:
            media["example"] = BODIES[operation.name]
        described["requestBody"] = {"required": not operation.body_optional, "content": {"application/json": media}}
    if operation.raw:
        content = {"application/octet-stream": {"schema": BYTES}}
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    described["x-codeSamples"] = samples_of(operation)
    return {name: value for name, value in described.items() if value not in ("", [])}


def _words(operation: Operation) -> str:
    """Viewers do not show the scope of a bearer key, so the words name it too."""
    needed = f"Needs the scope `{operation.scope}`."
    return f"{operation.description}\n\n{needed}" if operation.description else needed


def _heading(sentence: str) -> str:
    return sentence.removesuffix(".")


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    known = {
        "sessionId": (SESSION_ID, SESSION),
        "snapshotId": (SNAPSHOT_ID, SNAPSHOT),
        "name": ("The image's name.", IMAGE),
        "keyId": (KEY_ID, KEY),
        "serviceName": ("The service's name.", SERVICE),
        "webhookId": (WEBHOOK_ID, WEBHOOK),
        "deliveryId": (DELIVERY_ID, DELIVERY),
    }
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": description,
            "schema": {"type": "string"},
            "example": example,
        }
        for name, (description, example) in known.items()
        if f"{{{name}}}" in operation.path
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = msgspec.json.schema_components([operation.query], ref_template=REF)[1][operation.query.__name__]
    parameters = []
    for name, shape in schema["properties"].items():
        description = shape.pop("description", "")
        required = name in schema.get("required", ())
        described = {"name": name, "in": "query", "required": required, "description": description, "schema": shape}
        if required and name in QUERIES.get(operation.name, {}):
            described["example"] = QUERIES[operation.name][name]
        parameters.append(described)
    return parameters


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    request_id = {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Your own id for this request, 1 to 128 visible ASCII characters. Anything else is replaced.",
        "schema": {"type": "string"},
    }
    parameters: list[dict[str, Any]] = [request_id]
    if operation.idempotent:
        key = {
            "name": "Idempotency-Key",
            "in": "header",
            "description": f"Makes the request safe to retry: {KEPT}.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }
        parameters.append(key)
    if operation.streamed and operation.streamed.resumes:
        parameters.append(
            _header("Last-Event-ID", "The id of the last event that arrived: the stream goes on after it.")
        )
    if operation.streamed and operation.streamed.partial:
        parameters += [_header(*known) for known in PARTIAL.items()]
    return parameters


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _successes(operation: Operation) -> dict[str, Any]:
    whole = _success(operation)
    found = {str(operation.succeeds): whole}
    if operation.streamed and operation.streamed.partial:
        whole["headers"] |= _headers(OF_FILE)
        part = {"description": "A part of the file.", "headers": whole["headers"] | _headers(["Content-Range"])}
        found["206"] = {**whole, **part}
        found["304"] = {"description": "The client has this content.", "headers": whole["headers"], "content": {}}
    return found


def _success(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": {"$ref": REF.format(name=operation.answer.__name__)}}
        if operation.name in ANSWERS:
            content["application/json"]["example"] = ANSWERS[operation.name]
    if operation.streamed is not None:
        content[operation.streamed.media] = {"schema": _streamed(operation.streamed)}
    headers = ["X-Request-Id", "Cache-Control", *RATE_HEADERS]
    if operation.idempotent:
        headers.append("Idempotent-Replayed")
    headers += operation.headers
    return {"description": _done(operation), "headers": _headers(headers), "content": content}


def _done(operation: Operation) -> str:
    """Viewers do not know `x-events`, so the words name the events and their fields too."""
    streamed = operation.streamed
    if streamed is None or not streamed.events:
        return operation.done
    fields = {
        name: ", ".join(f"`{field.encode_name}`" for field in msgspec.structs.fields(shape))
        for name, shape in streamed.events.items()
    }
    events = [f"`{name}` with {known}" if known else f"`{name}`" for name, known in fields.items()]
    return f"{operation.done} The events of a stream: {'; '.join(events)}."


def _streamed(streamed: Streamed) -> dict[str, Any]:
    """OpenAPI 3.1 cannot describe events, so an extension has their names and shapes."""
    if not streamed.events:
        return BYTES
    shapes = {name: {"$ref": REF.format(name=shape.__name__)} for name, shape in streamed.events.items()}
    return {"type": "string", "description": "Server-Sent Events. `data` is JSON.", "x-events": shapes}


def _failures(operation: Operation) -> dict[str, Any]:
    """One response for each status, with the error codes that it can have."""
    kinds: list[type[BuntimeError]] = [*ALWAYS, *operation.errors]
    kinds += WITH_BODY if operation.body else ()
    kinds += WITH_KEY if operation.idempotent else ()
    if operation.path.endswith("}"):  # an id such as `create` or `a/b` makes it another path
        kinds += [errors.NotFound, errors.MethodNotAllowed]
    by_status: dict[int, dict[str, type[BuntimeError]]] = defaultdict(dict)
    for kind in kinds:
        by_status[STATUS[kind].value][kind.code] = kind
    return {
        str(status): _failure(status, by_status[status], replayed=operation.idempotent) for status in sorted(by_status)
    }


def _meaning(kind: type[BuntimeError]) -> str:
    if kind is BuntimeError:
        return "A failure of the server. Its log has the details under the request's id."
    return (kind.__doc__ or "").partition("\n")[0]


def _failure(status: int, kinds: Mapping[str, type[BuntimeError]], *, replayed: bool) -> dict[str, Any]:
    codes = list(kinds)
    meanings = [f"`{code}`: {_meaning(kind)}" for code, kind in kinds.items()]
    headers = ["X-Request-Id", "Cache-Control", *(() if status == 401 else RATE_HEADERS)]
    headers += ["WWW-Authenticate"] if status == 401 else []
    headers += ["Allow"] if status == 405 else []
    headers += ["Retry-After"] if any(code in RETRY_AFTER for code in codes) else []
    headers += ["Idempotent-Replayed"] if replayed and status in (404, 409, 413, 507) else []
    narrowed = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    return {
        "description": " ".join(meanings),
        "headers": _headers(headers),
        "content": {"application/json": {"schema": {"allOf": [{"$ref": REF.format(name="FailureAnswer")}, narrowed]}}},
    }


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _page(page: Page) -> dict[str, Any]:
    name = page.name or "get" + (page.path.strip("/") or "front").replace(".", "_").title().replace("_", "")
    others = {str(status): _page_answer(page, "Not ready.", NOT_READY) for status in page.also}
    others |= {str(STATUS[kind].value): _page_failure(kind) for kind in page.errors}
    return {
        "operationId": name,
        "tags": ["Server"],
        "summary": _heading(page.summary),
        "security": [],
        "responses": {"200": _page_answer(page, "Done.", ANSWERS.get(name)), **others},
        "x-codeSamples": samples_of_page(page),
    }


def _page_answer(page: Page, text: str, example: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"} if page.media == "application/json" else {"type": "string"}
    if page.answer:
        schema = {"$ref": REF.format(name=page.answer.__name__)}
    content = {page.media: {"schema": schema} | ({"example": example} if example else {})}
    if page.html:
        content[HTML] = {"schema": {"type": "string"}}
    return {"description": text, "headers": _headers(["X-Request-Id"]), "content": content}


def _page_failure(kind: type[BuntimeError]) -> dict[str, Any]:
    shape = {"$ref": REF.format(name="FailureAnswer")}
    return {
        "description": f"`{kind.code}`: {_meaning(kind)}",
        "headers": _headers(["X-Request-Id"]),
        "content": {"application/json": {"schema": shape}},
    }
