"""When a call must have ended."""

import math
import time
from dataclasses import dataclass
from typing import Self

from buntime_sdk.arguments import require_seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """`ends`: a time of the monotonic clock. `seconds`: the time that there was, for messages."""

    seconds: float
    ends: float

    @classmethod
    def after(cls, timeout: float | None, *, least: float | None = 0) -> Self:
        """`timeout`: seconds; None is no bound. `least`: None for more than 0. Raises InvalidRequest."""
        if timeout is None:
            return cls(math.inf, math.inf)
        require_seconds("timeout", timeout, least=least)
        return cls(timeout, time.monotonic() + timeout)

    @property
    def left(self) -> float:
        """Seconds from now; infinite without a bound."""
        return max(self.ends - time.monotonic(), 0.0)

    @property
    def is_bound(self) -> bool:
        return self.ends < math.inf

    @property
    def is_past(self) -> bool:
        return time.monotonic() >= self.ends


NEVER = Deadline(math.inf, math.inf)
