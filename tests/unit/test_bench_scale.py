import pytest

from bench.scale import FULL, QUICK, Scale
from bench.server import for_sessions
from buntime.config import Config, from_environment
from buntime.sandboxes.kernel.host import BLOCKS, blocks_for


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_a_count_of_sessions_is_for_the_figures_that_measure_many(scale: Scale) -> None:
    asked = scale.with_sessions(5000)
    counts = (asked.live_sessions, asked.many_live, asked.many_creates, asked.asleep_servers, asked.memory_sessions)
    assert set(counts) == {5000}
    assert asked.frozen_sessions == scale.frozen_sessions
    assert asked.figure_seconds > scale.figure_seconds


def test_a_shorter_comparison_of_usage_has_as_many_sleeps_a_second() -> None:
    asked = FULL.with_seconds(60)
    assert (asked.metered_seconds, asked.metered_sleeps, asked.metered_kills) == (60, 5, 1)
    assert asked.metered_sessions == FULL.metered_sessions


def test_few_sessions_have_two_samples() -> None:
    assert FULL.with_sessions(10).live_sample == 5


@pytest.mark.parametrize("count", [10, 4000, 5000])
def test_the_server_has_addresses_for_the_sessions_and_its_pool(count: int) -> None:
    config = from_environment(for_sessions(count))
    assert config.sandbox_addresses >= max(Config().sandbox_addresses, count + 200)
    assert blocks_for(config.sandbox_addresses) <= BLOCKS
    assert (config.idle_after, config.deep_sleep_after) == (0, 0)
