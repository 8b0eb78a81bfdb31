"""Master key, session keys and sealed objects."""

import binascii
import secrets
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buntime.lifecycle.master_key import BadMasterKey, load_master_key
from buntime.lifecycle.sealing import PIECE, TAG_BYTES, Damaged, Vault, seal, unseal

KEY, LABEL = bytes(range(32)), b"ses_one sessions/one/first"
HEADER_BYTES = 12
SEALED_PIECE = PIECE + TAG_BYTES
SIZES = [0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 77]

# sealed objects


def sealed(content: bytes, key: bytes = KEY, label: bytes = LABEL) -> bytes:
    return b"".join(seal(key, label, [content]))


def opened(content: bytes, key: bytes = KEY, label: bytes = LABEL) -> bytes:
    return b"".join(unseal(key, label, [content]))


def given_out_before_damage(content: bytes) -> bytes:
    pieces: list[bytes] = []
    with pytest.raises(Damaged):
        pieces.extend(unseal(KEY, LABEL, [content]))
    return b"".join(pieces)


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield content[start : start + size]
        start += size
    yield content[start:]


@pytest.mark.parametrize("size", SIZES)
def test_sealed_content_comes_back(size: int) -> None:
    content = secrets.token_bytes(size)
    assert opened(sealed(content)) == content


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_the_sizes_of_chunks_do_not_matter(content: bytes, before: list[int], after: list[int]) -> None:
    whole = b"".join(seal(KEY, LABEL, cut(content, before)))
    assert b"".join(unseal(KEY, LABEL, cut(whole, after))) == content


@pytest.mark.parametrize("size", [1, 65536, PIECE, 3 * PIECE])
def test_large_content_in_chunks_comes_back(size: int) -> None:
    content = secrets.token_bytes(3 * PIECE + 5)
    chunks = cut(content, [size] * (len(content) // size))
    if size == 1:
        chunks = cut(content, [1] * 1000)
    whole = b"".join(seal(KEY, LABEL, chunks))
    assert b"".join(unseal(KEY, LABEL, cut(whole, [size] * 1000))) == content


def test_an_object_reveals_nothing_and_differs_each_time() -> None:
    assert b"secret" not in sealed(b"secret" * 100)
    assert sealed(b"the same") != sealed(b"the same")


def test_another_key_or_label_does_not_open_it() -> None:
    whole = sealed(b"content")
    with pytest.raises(Damaged):
        opened(whole, key=bytes(32))
    with pytest.raises(Damaged):
        opened(whole, label=b"ses_one sessions/one/second")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.data())
def test_a_changed_bit_is_found_before_any_content_is_returned(content: bytes, data: st.DataObject) -> None:
    whole = bytearray(sealed(content))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    assert given_out_before_damage(bytes(whole)) == b""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.data())
def test_a_missing_end_or_trailing_bytes_are_found(content: bytes, data: st.DataObject) -> None:
    whole = sealed(content)
    given_out_before_damage(whole[: data.draw(st.integers(0, len(whole) - 1))])
    given_out_before_damage(whole + data.draw(st.binary(min_size=1, max_size=40)))


@pytest.mark.parametrize("size", SIZES)
def test_pieces_left_out_at_the_end_are_found(size: int) -> None:
    content = secrets.token_bytes(size)
    whole = sealed(content)
    for length in range(HEADER_BYTES, len(whole), SEALED_PIECE):
        assert content.startswith(given_out_before_damage(whole[:length]))


@pytest.mark.parametrize("size", [PIECE - 5, PIECE, 2 * PIECE])
@pytest.mark.parametrize("more", [b"\0", bytes(TAG_BYTES), bytes(SEALED_PIECE)])
def test_bytes_after_the_last_piece_are_found(size: int, more: bytes) -> None:
    given_out_before_damage(sealed(bytes(size)) + more)


def test_an_object_added_to_another_is_found() -> None:
    given_out_before_damage(sealed(bytes(PIECE)) + sealed(b"more"))
    given_out_before_damage(sealed(bytes(PIECE)) + sealed(b"more")[HEADER_BYTES:])


def test_pieces_moved_repeated_left_out_or_taken_from_another_object_are_found() -> None:
    content = secrets.token_bytes(3 * PIECE)
    whole, other = sealed(content), sealed(content)
    header = whole[:HEADER_BYTES]
    first, second, third = (whole[HEADER_BYTES + at * SEALED_PIECE :][:SEALED_PIECE] for at in range(3))
    assert given_out_before_damage(header + second + first + third) == b""
    assert given_out_before_damage(header + second + third) == b""
    assert given_out_before_damage(header + first + third) == content[:PIECE]
    assert given_out_before_damage(header + first + first + second + third) == content[:PIECE]
    assert given_out_before_damage(header + third) == b""
    foreign = other[HEADER_BYTES + SEALED_PIECE :][:SEALED_PIECE]
    assert given_out_before_damage(header + first + foreign + third) == content[:PIECE]


@pytest.mark.parametrize("content", [b"", b"bunt", b"\x28\xb5\x2f\xfd" + bytes(100), bytes(1000)])
def test_content_that_was_never_sealed_is_damaged(content: bytes) -> None:
    assert given_out_before_damage(content) == b""


def test_an_object_of_another_version_is_damaged() -> None:
    assert given_out_before_damage(b"bunt\x02" + sealed(b"content")[5:]) == b""


def test_a_failure_of_the_source_is_raised() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"some"
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(seal(KEY, LABEL, chunks()))
    with pytest.raises(TimeoutError):
        list(unseal(KEY, LABEL, chunks()))


def test_memory_does_not_grow_with_the_content() -> None:
    tracemalloc.start()
    try:
        for _ in unseal(KEY, LABEL, seal(KEY, LABEL, (bytes(100_000) for _ in range(640)))):
            pass
        assert tracemalloc.get_traced_memory()[1] < 16 * PIECE
    finally:
        tracemalloc.stop()


# keys of sessions


def test_a_session_s_key_is_unwrapped_by_its_vault() -> None:
    vault = Vault(bytes(32))
    wrapped = vault.new_key("ses_one")
    assert len(vault.unwrap("ses_one", wrapped)) == 32
    assert Vault(bytes(32)).unwrap("ses_one", wrapped) == vault.unwrap("ses_one", wrapped)


def test_every_new_key_differs() -> None:
    vault = Vault(bytes(32))
    wrapped = {vault.new_key("ses_one") for _ in range(100)}
    assert len({vault.unwrap("ses_one", key) for key in wrapped}) == 100


def test_a_key_does_not_open_for_another_session_or_with_another_master_key() -> None:
    wrapped = Vault(bytes(32)).new_key("ses_one")
    with pytest.raises(Damaged):
        Vault(bytes(32)).unwrap("ses_two", wrapped)
    with pytest.raises(Damaged):
        Vault(KEY).unwrap("ses_one", wrapped)


@pytest.mark.parametrize("change", [lambda w: "", lambda w: w[:-4], lambda w: w + "AAAA", lambda w: "A" + w[1:] + "="])
def test_a_changed_key_is_damaged(change: object) -> None:
    vault = Vault(bytes([1]) * 32)
    with pytest.raises(Damaged):
        vault.unwrap("ses_one", change(vault.new_key("ses_one")))  # type: ignore[operator]


@pytest.mark.parametrize("wrapped", ["not base64!", "ä", "="])
def test_text_that_is_no_key_is_damaged(wrapped: str) -> None:
    with pytest.raises(Damaged):
        Vault(KEY).unwrap("ses_one", wrapped)


def test_a_fingerprint_tells_master_keys_apart_and_reveals_nothing_else() -> None:
    assert Vault(KEY).fingerprint == Vault(KEY).fingerprint != Vault(bytes(32)).fingerprint
    assert len(Vault(KEY).fingerprint) == 8
    assert Vault(KEY).fingerprint not in KEY.hex()


# the master key's file


def test_a_master_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    made = load_master_key(path, may_create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert binascii.unhexlify(path.read_text().strip()) == made
    assert load_master_key(path, may_create=False) == load_master_key(path, may_create=True) == made
    assert list(path.parent.iterdir()) == [path]


def test_a_master_key_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.with_name("master.key.part").write_text("abc")
    assert len(load_master_key(path, may_create=True)) == 32
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_master_key_is_not_made_when_something_is_sealed_with_it(tmp_path: Path) -> None:
    with pytest.raises(BadMasterKey, match="missing"):
        load_master_key(tmp_path / "master.key", may_create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "0" * 63, "ä" * 32])
@pytest.mark.parametrize("may_create", [True, False])
def test_a_file_that_is_no_master_key_is_refused_and_kept(tmp_path: Path, text: str, may_create: bool) -> None:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadMasterKey, match="hexadecimal"):
        load_master_key(path, may_create)
    assert path.read_text() == text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    load_master_key(path, may_create=True)
    path.chmod(mode)
    with pytest.raises(BadMasterKey, match="chmod 600"):
        load_master_key(path, may_create=True)


def test_a_master_key_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "master.key").mkdir(mode=0o700)
    with pytest.raises(BadMasterKey, match="cannot be used"):
        load_master_key(tmp_path / "master.key", may_create=True)


# small things


def test_sealed_bytes_come_back_and_reveal_nothing() -> None:
    vault = Vault(KEY)
    one, again = vault.seal_bytes(b"label", b"secret"), vault.seal_bytes(b"label", b"secret")
    assert vault.open_bytes(b"label", one) == vault.open_bytes(b"label", again) == b"secret"
    assert b"secret" not in one
    assert one != again


def test_sealed_bytes_open_only_with_their_label_and_master_key() -> None:
    vault = Vault(KEY)
    whole = vault.seal_bytes(b"label", b"secret")
    changed = [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole))]
    for wrong in (b"", whole[:5], whole[:-1], whole + b"x", *changed):
        with pytest.raises(Damaged):
            vault.open_bytes(b"label", wrong)
    with pytest.raises(Damaged):
        vault.open_bytes(b"other", whole)
    with pytest.raises(Damaged):
        Vault(bytes(32)).open_bytes(b"label", whole)
