"""What requests are told when the files of a session go away while they are copied."""

from typing import Any, cast

import pytest

from buntime.errors import Unavailable
from buntime.ports import VolumeLost
from buntime.sandboxes.local_volumes import LocalVolumes


class Vanishing:
    """Volumes of which one is removed in the middle of a copy, or which the kernel cannot copy."""

    def __init__(self, *, there: bool) -> None:
        self._there = there

    def exists(self, _: str) -> bool:
        return self._there

    def capture(self, volume_id: str, _: str) -> int:
        raise FileNotFoundError(volume_id)

    def copy(self, layer_id: str, _: str, __: int) -> None:
        raise FileNotFoundError(layer_id)


class Room:
    def require_disk(self) -> None:
        return None


def volumes(*, there: bool) -> LocalVolumes:
    unused = cast(Any, None)
    return LocalVolumes(cast(Any, Vanishing(there=there)), unused, unused, cast(Any, Room()), lambda _: False)


@pytest.mark.parametrize(("there", "told"), [(False, VolumeLost), (True, Unavailable)])
async def test_a_volume_that_is_removed_in_the_middle_of_a_copy_is_lost(there: bool, told: type[Exception]) -> None:
    with pytest.raises(told):
        await volumes(there=there).capture("volume", "layer")
    with pytest.raises(told):
        await volumes(there=there).copy("layer", "volume", 1)
