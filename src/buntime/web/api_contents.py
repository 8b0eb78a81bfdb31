"""Files of any size: content, folders, archives, search."""

from buntime.web.operation import Operation

OPERATIONS: tuple[Operation, ...] = ()
