"""Where the other hosts are, and which of them are silent."""

from buntime.fleet.choices import Choices
from buntime.fleet.members import Description, HostState, Member
from buntime.fleet.neighbours import Endpoint, Neighbours, endpoint, neighbours
from buntime.testing.members import FakeMembers


def member(name: str, address: str, lease_left: float = 5, *, taken_over: bool = False) -> Member:
    return Member(name, 1, 1, lease_left, taken_over, HostState.ACTIVE, Description(address, "1"))


def at(*addresses: str) -> frozenset[Endpoint]:
    return frozenset(found for each in addresses if (found := endpoint(each)))


def test_a_host_is_silent_when_its_lease_is_over_or_it_was_taken_over() -> None:
    members = [
        member("a", "192.0.2.1:8443"), member("b", "192.0.2.2:8443"), member("c", "192.0.2.3:8443", 0),
        member("d", "[2001:db8::4]:8443", 5, taken_over=True),
    ]  # fmt: skip
    others, silent = at("192.0.2.2:8443", "192.0.2.3:8443", "[2001:db8::4]:8443"), ["192.0.2.3:8443"]
    assert neighbours(members, "a") == Neighbours(others, at(*silent, "[2001:db8::4]:8443"))


def test_an_address_at_which_a_host_runs_is_not_silent() -> None:
    """A host whose data directory was lost comes back with another id."""
    before = [member("x", "192.0.2.1:8443", -99), member("y", "192.0.2.2:8443", -99)]
    now = [member("a", "192.0.2.1:8443"), member("b", "192.0.2.2:8443")]
    assert neighbours([*before, *now], "a") == Neighbours(at("192.0.2.2:8443"), frozenset())


def test_an_address_that_cannot_be_read_is_left_out() -> None:
    assert neighbours([member("b", "somewhere"), member("c", ""), member("d", "a:b:8443")], "a") == Neighbours()


async def test_the_list_of_hosts_tells() -> None:
    now = 0.0
    members = FakeMembers(lambda: now)
    await members.join("a", Description("192.0.2.1:8443", "1"))
    await members.join("b", Description("192.0.2.2:8443", "1"))
    choices = Choices("a", members)
    await choices.look()
    assert choices.neighbours == Neighbours(at("192.0.2.2:8443"), frozenset())
    now = 100.0
    await choices.look()
    assert choices.neighbours.silent == at("192.0.2.2:8443")
