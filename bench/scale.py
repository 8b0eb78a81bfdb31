"""How much is measured: enough for meaningful percentiles, or just enough to check that everything works."""

from dataclasses import dataclass, replace

SECONDS_PER_SESSION = 1.0  # for the time limit of a figure with very many


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts. Those per round: rounds take turns with their baseline."""

    pool_size: int | None  # None: the shipped default
    baseline_runs: int  # of `bun -e`, a commit or a round trip, per measurement
    runtime_runs: int  # of `crun run`
    rounds: int
    pool_share: float  # part of the pool that a round of creates uses
    warm_sessions: int
    runs_per_session: int
    bursts: tuple[int, ...]  # sessions at once
    cold_creates: int
    memory_sessions: int
    live_sessions: int
    live_sample: int  # sessions timed at the start and at the end
    many_live: int  # sessions of which a fifth is active at a time
    many_creates: int
    measured_sessions: int  # active ones on each of two servers
    measured_turns: int
    create_burst: int  # of those, creates at once
    refilling_creates: int  # creates in a round while the pool refills, and as many before
    asleep_servers: int  # suspended sessions with a web server
    active_servers: int
    waits_for_page_out: bool  # by the server, a minute after each suspension
    restarted_sessions: int
    webhook_events: int
    lost_events: int  # to a receiver that fails half of the time …
    lost_kills: int  # … while the server is killed so often
    file_mb: int
    file_sessions: int
    docker_runs: int
    idle_sessions: int  # sessions that are suspended in turn
    idle_rounds: int
    frozen_sessions: int  # sessions that the keeper suspends at about the same time
    tree_sessions: int  # sessions with a tree each that go to deep sleep
    tree_rounds: int
    tree_files: int
    woken_sessions: int
    thread_counts: tuple[int, ...]  # sleeping threads on the host
    asleep_sessions: int  # sessions whose memory is measured
    swapped_sessions: int
    swapped_mb: int  # MB that each holds
    paged_sessions: int  # half of them paged out in turn
    many_asleep: int  # rows in the store, compared with 10
    many_calls: int  # calls of each operation
    preview_rounds: int  # ways take turns
    preview_seconds: int  # load on one way in a round
    preview_trips: int  # sequential requests on one way in a round
    preview_mb: int  # MB of one download or upload
    preview_sleepers: int  # sessions that a request wakes in each round
    preview_sessions: int  # sessions with a preview each, compared with 10
    execution_sessions: int  # sessions that take turns, with a pause before each request
    execution_turns: int
    prepared_sessions: int  # sessions whose memory is measured
    stream_rounds: int
    stream_mb: int  # MB of one run's output
    terminal_keys: int
    content_rounds: int
    content_mb: int  # MB of one file
    client_calls: int  # calls of each kind with each client
    client_starts: int
    before_turns: int  # of this server and an earlier one
    image_files: int  # files in a made image
    image_creates: int
    fork_mb: int  # MB of the session that is forked
    fork_singles: int
    fork_many: int  # forks at once
    fork_rounds: int
    snapshot_mb: int  # MB of the session whose snapshots are taken
    snapshot_writers: int  # other sessions that write meanwhile
    snapshots: int
    restored_mb: int  # MB of the session that is restored in place
    restores: int
    image_sessions: int  # sessions that run a program of one image
    image_mb: int  # MB of the image that it reads
    archived_files: int  # in the session that sleeps with a small change, or wakes from the archive
    archived_sleeps: int
    wakes_of_few: int  # of a session with `tree_files` files
    wakes_of_many: int  # of one with `archived_files`
    checkpoint_turns: int
    checkpoint_seconds: float  # of one turn
    database_mb: int
    database_sleeps: int
    metered_sessions: int  # sessions with mixed load whose usage is compared with their cgroups
    metered_seconds: int
    metered_sleeps: int
    metered_kills: int  # of the server
    fleet_pool: int  # parked sandboxes of each host of a fleet
    fleet_rounds: int  # of as many creates as one pool has
    fleet_sessions: int  # that take turns, at most those of one pool
    fleet_turns: int
    lost_hosts: int  # one after the other
    lost_sleepers: int  # on each of them
    drained: tuple[int, int, int]  # sleeping, idle and active sessions
    simulated_hosts: int
    simulated_rows: int  # sessions in the store
    simulated_turns: int  # of those and of a few hosts
    simulated_seconds: float  # of each of the three parts of a turn
    figure_seconds: float  # time limit for one figure

    def with_seconds(self, seconds: int) -> "Scale":
        """Returns the scale with a shorter or longer comparison of usage, and as many sleeps and kills a second."""

        def share(count: int) -> int:
            return max(1, round(count * seconds / self.metered_seconds))

        return replace(
            self,
            metered_seconds=seconds,
            metered_sleeps=share(self.metered_sleeps),
            metered_kills=share(self.metered_kills),
            figure_seconds=max(self.figure_seconds, 2.0 * seconds),
        )

    def with_sessions(self, count: int) -> "Scale":
        """Returns the scale with `count` sessions in each figure that takes a count of its own accord."""
        return replace(
            self,
            live_sessions=count,
            live_sample=min(self.live_sample, max(1, count // 2)),
            many_live=count,
            many_creates=count,
            asleep_servers=count,
            memory_sessions=count,
            asleep_sessions=count,
            restarted_sessions=count,
            preview_sessions=count,
            metered_sessions=count,
            figure_seconds=max(self.figure_seconds, count * SECONDS_PER_SESSION),
        )


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
    many_live=1000,
    measured_sessions=100,
    measured_turns=3,
    many_creates=1000,
    create_burst=100,
    refilling_creates=40,
    asleep_servers=200,
    active_servers=20,
    waits_for_page_out=True,
    restarted_sessions=1000,
    webhook_events=4000,
    lost_events=10_000,
    lost_kills=20,
    file_mb=10,
    file_sessions=12,
    docker_runs=15,
    idle_sessions=40,
    idle_rounds=6,
    frozen_sessions=500,
    tree_sessions=8,
    tree_rounds=2,
    tree_files=2000,
    woken_sessions=30,
    thread_counts=(0, 25_000, 60_000),
    asleep_sessions=200,
    swapped_sessions=5,
    swapped_mb=200,
    paged_sessions=40,
    many_asleep=10_000,
    many_calls=300,
    preview_rounds=5,
    preview_seconds=4,
    preview_trips=1000,
    preview_mb=100,
    preview_sleepers=12,
    preview_sessions=1000,
    execution_sessions=20,
    execution_turns=10,
    prepared_sessions=60,
    stream_rounds=5,
    stream_mb=100,
    terminal_keys=600,
    content_rounds=8,
    content_mb=50,
    client_calls=300,
    client_starts=15,
    before_turns=12,
    image_files=40_000,
    image_creates=60,
    fork_mb=200,
    fork_singles=60,
    fork_many=100,
    fork_rounds=5,
    snapshot_mb=1000,
    snapshot_writers=500,
    snapshots=60,
    restored_mb=1000,
    restores=50,
    image_sessions=200,
    image_mb=20,
    archived_files=50_000,
    archived_sleeps=20,
    wakes_of_few=10,
    wakes_of_many=5,
    checkpoint_turns=5,
    checkpoint_seconds=30.0,
    database_mb=500,
    database_sleeps=10,
    metered_sessions=200,
    metered_seconds=600,
    metered_sleeps=50,
    metered_kills=10,
    fleet_pool=16,
    fleet_rounds=10,
    fleet_sessions=12,
    fleet_turns=10,
    lost_hosts=4,
    lost_sleepers=4,
    drained=(100, 20, 5),
    simulated_hosts=50,
    simulated_rows=100_000,
    simulated_turns=2,
    simulated_seconds=8.0,
    figure_seconds=900.0,
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
    many_live=10,
    measured_sessions=5,
    measured_turns=1,
    many_creates=12,
    create_burst=6,
    refilling_creates=2,
    asleep_servers=6,
    active_servers=2,
    waits_for_page_out=False,
    restarted_sessions=20,
    webhook_events=200,
    lost_events=200,
    lost_kills=3,
    file_mb=2,
    file_sessions=2,
    docker_runs=2,
    idle_sessions=4,
    idle_rounds=1,
    frozen_sessions=30,
    tree_sessions=2,
    tree_rounds=1,
    tree_files=100,
    woken_sessions=2,
    thread_counts=(0, 500),
    asleep_sessions=6,
    swapped_sessions=1,
    swapped_mb=50,
    paged_sessions=4,
    many_asleep=100,
    many_calls=10,
    preview_rounds=1,
    preview_seconds=1,
    preview_trips=20,
    preview_mb=4,
    preview_sleepers=2,
    preview_sessions=12,
    execution_sessions=3,
    execution_turns=2,
    prepared_sessions=4,
    stream_rounds=1,
    stream_mb=10,
    terminal_keys=20,
    content_rounds=1,
    content_mb=5,
    client_calls=10,
    client_starts=2,
    before_turns=2,
    image_files=200,
    image_creates=2,
    fork_mb=5,
    fork_singles=2,
    fork_many=4,
    fork_rounds=1,
    snapshot_mb=20,
    snapshot_writers=4,
    snapshots=2,
    restored_mb=20,
    restores=2,
    image_sessions=4,
    image_mb=2,
    archived_files=500,
    archived_sleeps=3,
    wakes_of_few=1,
    wakes_of_many=2,
    checkpoint_turns=1,
    checkpoint_seconds=6.0,
    database_mb=20,
    database_sleeps=2,
    metered_sessions=6,
    metered_seconds=15,
    metered_sleeps=4,
    metered_kills=1,
    fleet_pool=3,
    fleet_rounds=1,
    fleet_sessions=2,
    fleet_turns=1,
    lost_hosts=2,
    lost_sleepers=2,
    drained=(4, 2, 1),
    simulated_hosts=5,
    simulated_rows=2000,
    simulated_turns=1,
    simulated_seconds=2.0,
    figure_seconds=300.0,
)
