"""A host that may not act answers nothing but its own failures: another host may have its sessions already. One that
has lapsed since a request began has nothing to say about it either."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.types import Message, Send

from buntime.errors import BuntimeError, MayNotAct
from buntime.web.failures import BY_CODE


def only_if(stands: Callable[[], bool], send: Send) -> Send:
    """`send` for one answer. It raises MayNotAct in place of sending what this host may not say.

    `stands`: see `ports.Owners.standing`.
    """
    is_failure = False

    async def sent(message: Message) -> None:
        nonlocal is_failure
        if message["type"].endswith("response.start"):
            is_failure = _says_nothing(message["status"])
        if not is_failure and not stands():
            raise MayNotAct
        await send(message)

    return sent


@contextmanager
def tells_only_if(stands: Callable[[], bool]) -> Iterator[None]:
    """The same for failures of the block, which become answers elsewhere."""
    try:
        yield
    except BuntimeError as failure:
        if not _says_nothing(BY_CODE.get(failure.code, 500)) and not stands():
            raise MayNotAct from failure
        raise


def _says_nothing(status: int) -> bool:
    """Whether the status acknowledges nothing. A run that reached a limit of its session (507) did happen."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.INSUFFICIENT_STORAGE
