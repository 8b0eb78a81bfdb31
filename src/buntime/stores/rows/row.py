"""What all databases give: a row whose values have the names of columns."""

from typing import Any, Protocol


class Row(Protocol):
    def __getitem__(self, column: str, /) -> Any: ...


type Values = dict[str, object]  # of a row that is stored, by column
