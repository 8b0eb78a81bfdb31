"""How much is measured: enough for percentiles that mean something, or just enough to see that it works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts; where one is per round, rounds take turns with their baseline."""

    pool_size: int | None  # None: the shipped default
    baseline_runs: int  # of `bun -e`, a commit or a round trip, each time one is taken
    runtime_runs: int  # of `crun run`
    rounds: int
    pool_share: float  # of the pool that a round of creates takes
    warm_sessions: int
    runs_per_session: int
    bursts: tuple[int, ...]  # sessions at once
    cold_creates: int
    memory_sessions: int
    live_sessions: int
    live_sample: int  # sessions that are timed at either end of it
    file_mb: int
    file_sessions: int
    docker_runs: int
    figure_seconds: float  # before a figure is given up


FULL = Scale(
    pool_size=None,
    baseline_runs=60,
    runtime_runs=20,
    rounds=3,
    pool_share=1.0,
    warm_sessions=40,
    runs_per_session=15,
    bursts=(20, 100),
    cold_creates=60,
    memory_sessions=200,
    live_sessions=1000,
    live_sample=100,
    file_mb=10,
    file_sessions=12,
    docker_runs=15,
    figure_seconds=420.0,
)
QUICK = Scale(
    pool_size=6,
    baseline_runs=8,
    runtime_runs=3,
    rounds=1,
    pool_share=1.0,
    warm_sessions=3,
    runs_per_session=3,
    bursts=(2, 4),
    cold_creates=3,
    memory_sessions=6,
    live_sessions=10,
    live_sample=4,
    file_mb=2,
    file_sessions=2,
    docker_runs=2,
    figure_seconds=30.0,
)
