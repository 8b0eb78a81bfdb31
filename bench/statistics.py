"""Summarises many measurements of one thing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """`n` measurements, summarised in their unit."""

    n: int
    p50: float
    p95: float
    p99: float
    least: float
    most: float


def summarise(values: Sequence[float]) -> Summary:
    """Returns percentiles by nearest rank: each is a value that was measured. Raises ValueError if there are none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)

    def percentile(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Summary(len(ordered), percentile(0.5), percentile(0.95), percentile(0.99), ordered[0], ordered[-1])
