"""What this host reports of itself, from what it measures anyway."""

import os
from collections.abc import Mapping

from buntime.fleet.report import Report, Room, told
from buntime.ports import Budget, Sandboxes


def report_of(sandboxes: Sandboxes) -> Report:
    """Reads memory and a few numbers of the kernel. The cost does not grow with the number of sessions."""
    numbers = sandboxes.numbers()
    return Report(
        running=numbers.running,
        parked=numbers.parked,
        cores=os.process_cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        memory=_room(numbers.memory),
        disk=_room(numbers.host_disk),
        volumes=_room(numbers.volumes_disk),
        # a parked sandbox gives its address to a session
        addresses=Room(numbers.addresses, max(0, numbers.addresses_used - numbers.parked)),
        images=frozenset(sandboxes.images()),
    )


def capacity_of(sandboxes: Sandboxes) -> Mapping[str, object]:
    """The same as JSON, for `Members.renew`."""
    return told(report_of(sandboxes))


def _room(budget: Budget) -> Room:
    return Room(budget.total, budget.used, budget.reserved)
