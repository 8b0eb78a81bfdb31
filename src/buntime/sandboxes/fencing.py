"""`fleet.fence.Fence` on Linux: one nftables table, one cgroup above all sandboxes. Blocking."""

from contextlib import suppress

from buntime.daemon.listening import Listening
from buntime.fleet.budget import BUDGET
from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.freezing import Freezer, find_freezer, freeze_or_kill
from buntime.sandboxes.network.disconnecting import end_connections_of_edge
from buntime.sandboxes.network.fence_rules import fence_rules, fence_table, opened_for
from buntime.sandboxes.network.nfnetlink import Connection
from buntime.sandboxes.network.put import put_elements

ANY = opened_for(BUDGET.lease)  # an element is named by its key alone


class HostFence:
    """For the network namespace in which it is first used, and one server's sandboxes in it. One thread uses it at a
    time. `freezer`: of those sandboxes; None: the host's."""

    def __init__(self, instance: str, edge: Listening, freezer: Freezer | None = None) -> None:
        self._table = fence_table(instance)
        self._rules, self._edge = fence_rules(instance, edge), edge
        self._freezer = freezer or find_freezer(instance)
        self._tables = Connection()
        self.thaws = 0  # so far

    def prepare(self) -> None:
        call(["nft", "-f", "-"], self._rules)
        freeze_or_kill(self._freezer, BUDGET.freeze)

    def close(self) -> None:
        try:
            self._cut()
        finally:
            freeze_or_kill(self._freezer, BUDGET.freeze)
        with suppress(HostCommandFailed):  # the host is silent without it, and a kernel may not know how
            end_connections_of_edge(self._edge)  # whoever waits for an answer must not wait for ever

    def _cut(self) -> None:
        try:
            put_elements(self._tables, self._table, ANY, {})
        except FileNotFoundError:  # somebody has flushed all tables
            call(["nft", "-f", "-"], self._rules)

    def extend(self, seconds: float) -> None:
        try:
            put_elements(self._tables, self._table, ANY, opened_for(seconds))
        except FileNotFoundError:
            call(["nft", "-f", "-"], self._rules)
            put_elements(self._tables, self._table, {}, opened_for(seconds))

    def thaw(self) -> None:
        self.thaws += 1  # first: whoever then sees a sandbox that is not frozen knows that it was
        self._freezer.thaw()

    def remove(self) -> None:
        self._freezer.thaw()
        call(["nft", "-f", "-"], f"table inet {self._table}\ndelete table inet {self._table}\n")
        self._tables.close()
