"""Tests of the encryption of secrets: keys, rotation, and binding to one secret of one integration."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from schemas.integrations import StoredSecret
from streams.directory.keyring import KeyRing, Undecryptable, UnknownKey
from streams.settings import EncryptionKey
from tests.streams.directory.stage import ring

AT = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = st.text("abc/%-", max_size=6)
PLACES = st.tuples(NAMES, NAMES, NAMES)
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NONCES = st.binary(min_size=12, max_size=12)


def sealed(
    plain: str, place: tuple[str, str, str], nonce: bytes = b"n" * 12, keys: KeyRing | None = None
) -> StoredSecret:
    org, integration, name = place
    return (keys or ring("k1")).seal(
        SecretStr(plain), org=org, integration=integration, name=name, added_at=AT, nonce=nonce
    )


@given(PLAIN, PLACES, NONCES)
def test_an_encrypted_secret_can_be_decrypted(plain: str, place: tuple[str, str, str], nonce: bytes) -> None:
    stored = sealed(plain, place, nonce)

    assert ring("k1").open(stored, org=place[0], integration=place[1]).get_secret_value() == plain
    assert (stored.name, stored.key_id, stored.added_at) == (place[2], "k1", AT)


@given(PLAIN, PLACES, PLACES)
def test_a_ciphertext_cannot_be_decrypted_for_another_secret(
    plain: str, place: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(place != other)
    moved = sealed(plain, place).model_copy(update={"name": other[2]})

    with pytest.raises(Undecryptable):
        ring("k1").open(moved, org=other[0], integration=other[1])


@given(PLAIN, st.data())
def test_a_changed_ciphertext_cannot_be_decrypted(plain: str, data: st.DataObject) -> None:
    stored = sealed(plain, ("o", "i", "s"))
    field = data.draw(st.sampled_from(["nonce", "ciphertext"]))
    value = bytearray(getattr(stored, field))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8

    with pytest.raises(Undecryptable, match="or enter the secret again"):
        ring("k1").open(stored.model_copy(update={field: bytes(value)}), org="o", integration="i")


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old = sealed("plain", ("o", "i", "s"), keys=ring("k1"))
    both = ring("k2", "k1")

    assert both.open(old, org="o", integration="i").get_secret_value() == "plain"
    assert sealed("plain", ("o", "i", "s"), keys=both).key_id == "k2"


def test_a_missing_key_is_reported_with_a_fix() -> None:
    stored = sealed("plain", ("acme", "buildium", "clientSecret"))

    with pytest.raises(UnknownKey) as raised:
        ring("k2").open(stored, org="acme", integration="buildium")

    assert str(raised.value) == (
        "clientSecret of acme/buildium was encrypted with key k1, which RENTSTREAM_ENCRYPTION_KEYS does not have: "
        "put the key with the id k1 back, or enter the secret again"
    )


def test_another_key_with_the_same_id_is_detected() -> None:
    other = KeyRing([EncryptionKey("k1", SecretBytes(b"x" * 32))])

    with pytest.raises(Undecryptable, match="another key has this id now"):
        other.open(sealed("plain", ("o", "i", "s")), org="o", integration="i")


def test_an_invalid_nonce_is_an_error() -> None:
    stored = sealed("plain", ("o", "i", "s")).model_copy(update={"nonce": b""})

    with pytest.raises(Undecryptable):
        ring("k1").open(stored, org="o", integration="i")


def test_a_key_ring_shows_no_key_and_cannot_be_pickled() -> None:
    keys = KeyRing([EncryptionKey("k1", SecretBytes(b"canary-canary-canary-canary-cana"))])

    assert "canary" not in repr(keys) + str(keys) + repr(EncryptionKey("k1", SecretBytes(b"canary")))
    for shown in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            shown(keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "at least one encryption key"),
        ([EncryptionKey("k1", SecretBytes(b"short"))], "k1 has to be 32 bytes"),
        ([EncryptionKey("k1", SecretBytes(b"a" * 32)), EncryptionKey("k1", SecretBytes(b"b" * 32))], "id k1"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(keys: list[EncryptionKey], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KeyRing(keys)


def test_a_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        sealed("plain", ("o", "i", "s"), b"short")
