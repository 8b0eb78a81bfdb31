"""Why a store cannot be opened."""


class StoreUnusable(Exception):
    """The store cannot be opened. The message tells the operator why."""


class StoreTooNew(StoreUnusable):
    """A newer version of buntime has changed the store."""

    def __init__(self, where: object, version: int, known: int) -> None:
        super().__init__(
            f"The store {where} has version {version}, but this buntime knows only versions up to {known}. "
            "Start the newer buntime again, or restore a copy from before the update."
        )
