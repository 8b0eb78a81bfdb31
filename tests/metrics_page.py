"""The table of docs/metrics.md."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs/metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Documented:
    name: str
    type: str
    labels: Sequence[str]  # sorted

    @property
    def series(self) -> Sequence[str]:
        """The names that a query can use."""
        if self.type != "histogram":
            return [self.name]
        return [f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum")]


METRICS = tuple(Documented(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in ROW.findall(PAGE))
