"""Random texts: their characters, and how likely each is."""

from collections import Counter

import pytest

from buntime.ids import ALPHABET, BASE62, new_id, random_text


@pytest.mark.parametrize("alphabet", [ALPHABET, BASE62, "01"])
@pytest.mark.parametrize("length", [0, 1, 18, 300])
def test_a_text_has_its_length_and_the_characters_of_its_alphabet(alphabet: str, length: int) -> None:
    text = random_text(alphabet, length)
    assert len(text) == length
    assert set(text) <= set(alphabet)


@pytest.mark.parametrize("alphabet", [ALPHABET, BASE62])
def test_each_character_is_equally_likely(alphabet: str) -> None:
    expected = 4000
    counts = Counter(random_text(alphabet, expected * len(alphabet)))
    spread = sum((counts[character] - expected) ** 2 / expected for character in alphabet)  # chi squared
    assert spread < 3 * len(alphabet)


def test_ids_differ() -> None:
    assert len({new_id("evt_") for _ in range(10_000)}) == 10_000
