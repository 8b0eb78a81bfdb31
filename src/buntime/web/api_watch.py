"""Watching files."""

from buntime.web.operation import Operation

OPERATIONS: tuple[Operation, ...] = ()
