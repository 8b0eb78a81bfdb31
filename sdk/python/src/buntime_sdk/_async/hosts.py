"""The hosts of the installation."""

from collections.abc import Sequence

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk.from_json import from_wire
from buntime_sdk.host_shapes import Host


class AsyncHosts:
    """The hosts of the installation, for its operator. They need a key with the scope `operator`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(self) -> Sequence[Host]:
        """Lists all hosts, by id: their state, lease, load and sessions.

        A server whose store is a file lists itself alone.
        """
        told = await self._calls.json(Call("GET", "/hosts"))
        return tuple(from_wire(Host, one) for one in told["hosts"])
