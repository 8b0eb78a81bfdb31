"""What is told of many measurements of one thing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Of `n` measurements, in the unit that they were made in."""

    n: int
    p50: float
    p95: float
    p99: float
    least: float
    most: float


def summarise(values: Sequence[float]) -> Summary:
    """Percentiles by nearest rank: each is a value that was really measured. Raises ValueError for none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)

    def percentile(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Summary(len(ordered), percentile(0.5), percentile(0.95), percentile(0.99), ordered[0], ordered[-1])
