"""Contexts: code that keeps its variables."""

from buntime.web.operation import Operation

OPERATIONS: tuple[Operation, ...] = ()
