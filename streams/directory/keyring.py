"""Encrypts the secrets of integrations before they reach a topic, and decrypts them afterwards.

AES-256-GCM. The associated data names the org, the integration and the secret, so a ciphertext that is copied to
another place does not open there.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NoReturn
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from schemas.integrations import StoredSecret
from streams.settings import KEY_BYTES, EncryptionKey

NONCE_BYTES: Final = 12


class Unreadable(Exception):  # noqa: N818 -- the word for a secret that does not open
    """A stored secret cannot be decrypted; the text states what to do and contains no secret."""


class UnknownKey(Unreadable):
    """The key that encrypted the secret is not in the ring."""


class Undecryptable(Unreadable):
    """The key of this id does not open the ciphertext: it is another key, or the record was altered."""


class KeyRing:
    """Several keys: the first encrypts, all decrypt. Its repr and its errors show no key; it cannot be pickled."""

    __slots__ = ("_ciphers", "first")

    def __init__(self, keys: Iterable[EncryptionKey]) -> None:
        """Take the keys, the one that encrypts first. Raise `ValueError` if they cannot be used."""
        self._ciphers: dict[str, AESGCM] = {}
        for one in keys:
            if len(one.key.get_secret_value()) != KEY_BYTES:
                raise ValueError(f"encryption key {one.id} has to be {KEY_BYTES} bytes long")
            if one.id in self._ciphers:
                raise ValueError(f"two encryption keys have the id {one.id}")
            self._ciphers[one.id] = AESGCM(one.key.get_secret_value())
        if not self._ciphers:
            raise ValueError("at least one encryption key is needed (RENTSTREAM_ENCRYPTION_KEYS)")
        self.first: Final = next(iter(self._ciphers))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._ciphers)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring cannot be pickled: it holds keys")

    def seal(
        self, secret: SecretStr, *, org: str, integration: str, name: str, added_at: datetime, nonce: bytes
    ) -> StoredSecret:
        """Encrypt a secret with the first key; ``nonce`` is twelve random bytes that were never used before."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        plain = secret.get_secret_value().encode()
        sealed = self._ciphers[self.first].encrypt(nonce, plain, _associated(org, integration, name))
        return StoredSecret(name=name, key_id=self.first, nonce=nonce, ciphertext=sealed, added_at=added_at)

    def open(self, stored: StoredSecret, *, org: str, integration: str) -> SecretStr:
        """Decrypt a stored secret. Raise `UnknownKey` or `Undecryptable` if that is impossible."""
        cipher = self._ciphers.get(stored.key_id)
        what = f"{stored.name} of {org}/{integration}"
        if cipher is None:
            raise UnknownKey(
                f"{what} was encrypted with key {stored.key_id}, which RENTSTREAM_ENCRYPTION_KEYS does not have: "
                f"put the key with the id {stored.key_id} back, or enter the secret again"
            )
        try:
            plain = cipher.decrypt(stored.nonce, stored.ciphertext, _associated(org, integration, stored.name))
            return SecretStr(plain.decode())
        except (InvalidTag, ValueError):
            raise Undecryptable(
                f"{what} does not open with key {stored.key_id}: another key has this id now, or the record was "
                f"altered. Put the right key with the id {stored.key_id} back into RENTSTREAM_ENCRYPTION_KEYS, "
                "or enter the secret again"
            ) from None


def _associated(org: str, integration: str, name: str) -> bytes:
    """Return ``org/integration/secret``; a slash inside of a part is escaped, so that no two places are the same."""
    return "/".join(quote(part, safe="") for part in (org, integration, name)).encode()
