"""Which programs use the processors. Programs of one name count together; one that has ended meanwhile is not seen."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # in a second
MOST_NAMES = 6
TIMES, START = slice(11, 13), 19  # fields of /proc/PID/stat behind the name: utime and stime, starttime


@dataclass(frozen=True, slots=True)
class Look:
    at: float  # seconds
    ticks: Mapping[tuple[str, str], int]  # of each process, by its pid and start
    names: Mapping[tuple[str, str], str]


def look() -> Look:
    """Takes half a second of a processor with 10,000 processes."""
    ticks, names = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = file.read_text().partition(" (")
            name, _, text = rest.rpartition(") ")
            fields = text.split()
            who = pid, fields[START]
            ticks[who], names[who] = sum(int(spent) for spent in fields[TIMES]), name
    return Look(time.monotonic(), ticks, names)


def describe(before: Look, after: Look) -> str:
    """The busiest programs between the two, in percent of one core."""
    spent: Counter[str] = Counter()
    for who, name in after.names.items():
        # a thread of the kernel adds what it does at the moment: kworker/1:2-mm_percpu_wq
        spent[name.partition("/")[0]] += after.ticks[who] - before.ticks.get(who, 0)
    share = 100 / TICKS / (after.at - before.at)
    return ", ".join(f"{name} {share * ticks:.0f} %" for name, ticks in spent.most_common(MOST_NAMES) if ticks)
