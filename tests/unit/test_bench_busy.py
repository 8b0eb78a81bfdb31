import os
import time

from bench import busy


def test_a_program_that_works_is_the_busiest_one_and_one_that_began_later_counts_whole() -> None:
    second = busy.TICKS
    before = busy.Look(10.0, {("7", "1"): 5 * second, ("8", "1"): 0}, {("7", "1"): "old", ("8", "1"): "kworker/0:1-a"})
    after = busy.Look(
        20.0,
        {("7", "1"): 6 * second, ("8", "1"): 2 * second, ("7", "9"): 5 * second},
        {("7", "1"): "old", ("8", "1"): "kworker/0:1-b", ("7", "9"): "new"},
    )
    assert busy.describe(before, after) == "new 50 %, kworker 20 %, old 10 %"


def test_it_sees_the_work_of_this_process() -> None:
    before, deadline = busy.look(), time.process_time() + 0.3
    while time.process_time() < deadline:
        pass
    after = busy.look()
    mine = [who for who in after.ticks if who[0] == str(os.getpid())]
    assert after.ticks[mine[0]] - before.ticks[mine[0]] >= 0.2 * busy.TICKS
