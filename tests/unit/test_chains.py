"""When a chain of archived objects goes on, and which part of a damaged one is used."""

import pytest

from buntime.lifecycle.chains import LARGEST_PART, LINK_BYTES, MOST_LINKS, is_long, longest_whole, may_grow
from buntime.session import SavedVolume
from buntime.stores.rows.sessions import saved_from_text, saved_to_text

NAMES = [f"ses_a/{time:010d}-{time:012x}" for time in range(1, 30)]


def chain(*sizes: int) -> SavedVolume:
    *below, name = NAMES[: len(sizes)]
    return SavedVolume(name, sizes[-1], len(sizes), tuple(below), sizes[:-1])


LARGE = MOST_LINKS * LINK_BYTES


def test_a_full_object_may_have_an_increment_if_it_is_worth_one() -> None:
    assert may_grow(chain(LINK_BYTES))
    assert not may_grow(chain(LINK_BYTES - 1))
    assert not may_grow(chain(0))


def test_a_full_object_is_not_folded() -> None:
    assert not is_long(chain(0))
    assert not is_long(chain(LARGE))


def test_links_cost_at_most_as_much_as_the_full_object() -> None:
    assert not is_long(chain(3 * LINK_BYTES, 1, 1))
    assert is_long(chain(3 * LINK_BYTES, 1, 1, 1))


def test_a_chain_is_folded_when_it_is_long_or_large_against_the_full_object() -> None:
    assert not is_long(chain(10 * LARGE, *[1] * (MOST_LINKS - 2)))
    assert is_long(chain(10 * LARGE, *[1] * (MOST_LINKS - 1)))
    half = int(LARGE * LARGEST_PART)
    assert not is_long(chain(LARGE, 1, half - 1))
    assert is_long(chain(LARGE, 1, half))


def test_a_session_that_changes_most_of_its_files_is_not_saved_twice_each_time() -> None:
    assert not is_long(chain(LARGE, LARGE))
    assert not may_grow(chain(LARGE, LARGE, 1))


def test_a_chain_that_is_not_folded_ends_at_twice_the_length_and_size() -> None:
    assert may_grow(chain(10 * LARGE, *[1] * (2 * MOST_LINKS - 3)))
    assert not may_grow(chain(10 * LARGE, *[1] * (2 * MOST_LINKS - 2)))
    assert may_grow(chain(LARGE, 1, LARGE - 1))
    assert not may_grow(chain(LARGE, 1, LARGE))


def test_each_part_of_a_chain_is_an_earlier_state() -> None:
    saved = chain(10, 2, 3)
    assert saved.up_to(3) == saved
    assert saved.up_to(2) == chain(10, 2)
    assert saved.up_to(1) == SavedVolume(NAMES[0], 10, 1)
    assert saved.up_to(0) is None


def test_a_mark_is_what_tells_an_object_from_the_others_of_its_session() -> None:
    assert chain(1, 2).mark == NAMES[1].removeprefix("ses_a/")


OTHER = SavedVolume("ses_a/0000000099-00", 5, 99)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ([], chain(1, 2, 3)),
        ([2], chain(1, 2)),
        ([1], chain(1)),
        ([1, 2], chain(1)),
        ([0], OTHER),
        ([0, 2], OTHER),
    ],
)
def test_the_longest_part_without_a_broken_object_is_used(broken: list[int], found: SavedVolume) -> None:
    assert longest_whole((chain(1, 2, 3), OTHER), {NAMES[at] for at in broken}) == found


def test_there_may_be_none() -> None:
    assert longest_whole((chain(1, 2), None), {NAMES[0]}) is None
    assert longest_whole((None, OTHER), {OTHER.name}) is None
    assert longest_whole((None, None), set()) is None


def test_the_store_keeps_chains_and_reads_what_earlier_versions_stored() -> None:
    for saved in (chain(1, 2, 3), OTHER, None):
        assert saved_from_text(saved_to_text(saved)) == saved
    assert saved_from_text('{"name": "ses_a/1", "size": 7, "taken_at": 3}') == SavedVolume("ses_a/1", 7, 3)
