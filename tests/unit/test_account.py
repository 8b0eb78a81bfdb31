import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.account import hash_key, is_well_formed, new_key_secret
from buntime.ids import BASE62


def test_a_new_key_is_well_formed() -> None:
    for _ in range(200):
        secret = new_key_secret()
        assert secret.startswith("btk_")
        assert len(secret) == 42
        assert set(secret[4:]) <= set(BASE62)
        assert is_well_formed(secret)


def test_new_keys_are_all_different() -> None:
    assert len({new_key_secret() for _ in range(1000)}) == 1000


@given(st.integers(4, 41), st.sampled_from(BASE62))
def test_a_key_with_one_wrong_character_is_not_well_formed(place: int, letter: str) -> None:
    secret = new_key_secret()
    mistyped = secret[:place] + letter + secret[place + 1 :]
    assert is_well_formed(mistyped) is (mistyped == secret)


@pytest.mark.parametrize("change", [str.upper, str.strip, lambda key: key[:-1], lambda key: key + "0"])
@pytest.mark.parametrize("secret", ["", "btk_", "btk_" + "0" * 38, "key_" + "0" * 38, "btk_" + "é" * 38])
def test_text_that_is_no_key_is_not_well_formed(secret: str, change: object) -> None:
    assert callable(change)
    assert not is_well_formed(change(secret))


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed("btk_" + text)


def test_a_key_is_stored_as_its_sha256() -> None:
    assert hash_key("btk_abc") == "4be6d8fe42bebb4cc530092ae34d1fa8bd1d002dd94138ec5b23aa66a9bb9e87"
