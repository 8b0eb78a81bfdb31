"""A host that may not act answers nothing but its own failures: another host may have its sessions already. One that
has lapsed since a request began has nothing to say about it either."""

from collections.abc import Callable

from starlette.types import Message, Send

from buntime.errors import MayNotAct

SERVER_FAILS = 500  # the first status that acknowledges nothing


def only_if(stands: Callable[[], bool], send: Send) -> Send:
    """`send` for one answer. It raises MayNotAct in place of sending what this host may not say.

    `stands`: see `ports.Owners.standing`.
    """
    is_failure = False

    async def sent(message: Message) -> None:
        nonlocal is_failure
        if message["type"].endswith("response.start"):
            is_failure = message["status"] >= SERVER_FAILS
        if not is_failure and not stands():
            raise MayNotAct
        await send(message)

    return sent
