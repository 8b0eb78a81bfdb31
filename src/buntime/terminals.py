"""One method per API operation on the terminals of a session."""

from buntime.entrance import Entrance


class Terminals:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
