"""The seconds that hosts wait for each other. Every safety argument of the fleet stands on these numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds. A host is silent `slack` seconds before another may take over from it. Raises ValueError without slack.

    The slack is for what no number here bounds: clocks whose seconds differ, and a kernel that is late.
    """

    renew: float = 1.0  # between two renewals
    lease: float = 8.0  # from the moment at which the database has a renewal
    fence: float = 4.0  # from the moment at which the newest renewal was sent, until the host fences itself
    edge: float = 1.0  # that the edge remembers a permission
    freeze: float = 1.0  # until what is not frozen is killed

    def __post_init__(self) -> None:
        if self.slack <= 0 or not 0 < self.renew < self.fence:
            raise ValueError(f"{self} leaves no time between the silence of a host and its loss")

    @property
    def slack(self) -> float:
        return self.lease - self.fence - self.edge - self.freeze


BUDGET = Budget()
