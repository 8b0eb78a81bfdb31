"""`name:NAME` in place of a session's id, in the path, the query or the body."""

from dataclasses import replace
from typing import Any

import msgspec

from buntime.operations.names import PREFIX
from buntime.web.exchange import Exchange
from buntime.web.operation import Call


async def with_ids(call: Call[Any, Any], exchange: Exchange) -> Call[Any, Any]:
    """The call with an id wherever it had a name. Raises SessionNotFound."""
    if _is_name(call.path.get("sessionId")):
        call = replace(call, path={**call.path, "sessionId": await _id(call, call.path["sessionId"], exchange)})
    if _is_name(getattr(call.query, "session_id", None)):
        call = replace(call, query=await _of_struct(call, call.query, exchange))
    if _is_name(getattr(call.body, "session_id", None)):
        call = replace(call, body=await _of_struct(call, call.body, exchange))
    return call


def _is_name(text: object) -> bool:
    return isinstance(text, str) and text.startswith(PREFIX)


async def _of_struct(call: Call[Any, Any], struct: Any, exchange: Exchange) -> Any:
    return msgspec.structs.replace(struct, session_id=await _id(call, struct.session_id, exchange))


async def _id(call: Call[Any, Any], text: str, exchange: Exchange) -> str:
    session_id = await call.operations.names.id_of(call.caller.account.id, text)
    exchange.note_session(session_id)
    return session_id
