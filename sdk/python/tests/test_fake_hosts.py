"""The fake's one host, as users' tests see it."""

from datetime import UTC, datetime

from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime

NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)


def test_the_fake_is_one_host_with_its_sessions() -> None:
    fake = FakeBuntime(clock=lambda: NOW)
    fake.sessions.create()
    fake.sessions.create().sleep("deep-sleep")
    listed = fake.hosts.list()
    (host,) = listed.hosts
    assert (host.host_id, host.state, host.lease, host.joined_at) == ("local", "active", None, NOW)
    assert (host.sessions.active, host.sessions.idle, host.sessions.deep_sleep) == (1, 0, 1)
    assert (listed.nobody.active, listed.nobody.deep_sleep) == (0, 0)
    assert host.load is not None
    assert host.load.sandboxes == 1
    assert host.load.memory.used < host.load.memory.total


async def test_the_async_fake_lists_it_too() -> None:
    async with AsyncFakeBuntime() as fake:
        (host,) = (await fake.hosts.list()).hosts
        assert host.sessions.active == 0
