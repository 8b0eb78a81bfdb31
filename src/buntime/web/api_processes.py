"""Processes: what goes on in the background, and its logs."""

from buntime.web.operation import Operation

OPERATIONS: tuple[Operation, ...] = ()
