"""The hosts of the installation."""

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk.from_json import from_wire
from buntime_sdk.host_shapes import HostList


class AsyncHosts:
    """The hosts of the installation, for its operator. They need a key with the scope `operator`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(self) -> HostList:
        """Lists all hosts: their state, lease, load and sessions. Counts the sessions of no host.

        A server whose store is a file lists itself alone.
        """
        return from_wire(HostList, await self._calls.json(Call("GET", "/hosts")))
