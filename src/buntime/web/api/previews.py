"""Tokens that open previews."""

from msgspec import UNSET

from buntime import errors
from buntime.config import Config
from buntime.operations.preview_tokens import MadeToken
from buntime.preview import DEFAULT_PORT, preview_url, with_token
from buntime.requests import NewToken
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.operation import Call, operation
from buntime.web.wire import previews as wire
from buntime.web.wire.shapes import NoQuery, encode, iso


@operation(
    "POST",
    "/sessions/{sessionId}/preview-token",
    Scope.SESSIONS_WRITE,
    tag="Previews",
    body=wire.CreatePreviewToken,
    body_optional=True,
    answer=wire.PreviewTokenMade,
    errors=(errors.SessionNotFound, errors.InvalidState),
    idempotent=True,
    secret=True,
)
async def create_preview_token(call: Call[NoQuery, wire.CreatePreviewToken]) -> wire.PreviewTokenMade:
    """Create a token that opens a session's previews.

    Ports that are not public require a token. Send it once in the query as `buntime_token`, after which a browser keeps
    it as a cookie, or in the `X-Preview-Token` header. A session has at most 100 valid tokens.
    """
    body, answer = call.body, call.answer
    new = NewToken(
        port=None if body.port is UNSET else body.port,
        ttl=None if body.ttl is UNSET else body.ttl,
    )
    made = await call.operations.preview_tokens.create(
        call.caller,
        session_id(call.path["sessionId"]),
        new,
        answer and (lambda made: answer(encode(_shown(made, call.config)))),
    )
    return _shown(made, call.config)


@operation(
    "DELETE",
    "/sessions/{sessionId}/preview-token",
    Scope.SESSIONS_WRITE,
    tag="Previews",
    body=wire.RevokePreviewToken,
    body_optional=True,
    answer=wire.PreviewTokensRevoked,
    errors=(errors.SessionNotFound,),
)
async def revoke_preview_token(call: Call[NoQuery, wire.RevokePreviewToken]) -> wire.PreviewTokensRevoked:
    """Revoke one preview token, or all of a session.

    All open connections to the session's previews end within two seconds, even those opened without this token. An
    unknown token is not an error.
    """
    secret = None if call.body.token is UNSET else call.body.token
    revoked = await call.operations.preview_tokens.revoke(call.caller, session_id(call.path["sessionId"]), secret)
    return wire.PreviewTokensRevoked(revoked=revoked)


OPERATIONS = (create_preview_token, revoke_preview_token)


def _shown(made: MadeToken, config: Config) -> wire.PreviewTokenMade:
    url = preview_url(made.token.session, config, made.token.port or DEFAULT_PORT)
    return wire.PreviewTokenMade(
        url=with_token(url, made.secret), token=made.secret, expires_at=iso(made.token.expires_at)
    )
