"""Secrets of the program itself: given in the settings, or made once and kept in the data folder.

Several processes of one machine start at the same time and have to agree. So a secret is written to a file of its own
first, and then linked to its name: the first link counts, and all read what it led to.
"""

import base64
import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr

from connectors.settings import SettingsError
from streams.settings import (
    KEY_BYTES,
    EncryptionKey,
    RentStreamSettings,
    check_console_password,
    check_jwt_secret,
    parse_keys,
)

JWT_SECRET: Final = "jwt-secret"  # noqa: S105 -- the name of a file
ENCRYPTION_KEYS: Final = "encryption-keys"
CONSOLE_PASSWORD: Final = "console-password"  # noqa: S105

RandomBytes = Callable[[int], bytes]

Read = TypeVar("Read")


def jwt_secret(settings: RentStreamSettings, random_bytes: RandomBytes = secrets.token_bytes) -> SecretStr:
    """Return the secret of HS256 tokens: the given one, else the kept one, made if needed. Raise `SettingsError`."""
    if settings.jwt_secret is not None:
        return settings.jwt_secret

    def make() -> str:
        return base64.urlsafe_b64encode(random_bytes(KEY_BYTES)).decode().rstrip("=")

    return _kept(settings.data / JWT_SECRET, "RENTSTREAM_JWT_SECRET", make, check_jwt_secret)


def encryption_keys(
    settings: RentStreamSettings, random_bytes: RandomBytes = secrets.token_bytes
) -> tuple[EncryptionKey, ...]:
    """Return the keys of stored credentials: the given ones, else a kept one, made if needed. Raise `SettingsError`.

    The first one encrypts, all of them decrypt.
    """
    if settings.encryption_keys is not None:
        return parse_keys(settings.encryption_keys)

    def make() -> str:
        # An id of its own, so that what another machine's key encrypted is not taken for damaged.
        return f"{random_bytes(4).hex()}:{base64.b64encode(random_bytes(KEY_BYTES)).decode()}"

    return _kept(settings.data / ENCRYPTION_KEYS, "RENTSTREAM_ENCRYPTION_KEYS", make, parse_keys)


def console_password(settings: RentStreamSettings, random_bytes: RandomBytes = secrets.token_bytes) -> SecretStr:
    """Return the password of the console: the given one, else the kept one, made if needed. Raise `SettingsError`."""
    if settings.console_password is not None:
        return settings.console_password

    def make() -> str:
        return base64.urlsafe_b64encode(random_bytes(15)).decode()

    return _kept(settings.data / CONSOLE_PASSWORD, "RENTSTREAM_CONSOLE_PASSWORD", make, check_console_password)


def _kept(path: Path, setting: str, make: Callable[[], str], read: Callable[[SecretStr], Read]) -> Read:
    try:
        if not path.exists():
            _publish(path, make())
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            [f"{setting} is not set, and {path} cannot be used ({why}): set it, or RENTSTREAM_DATA to another folder"]
        ) from None
    try:
        return read(SecretStr(text))
    except ValueError as error:
        # Never replaced: what it encrypted could not be read any more.
        raise SettingsError(
            [f"{setting} is not set, and {path} is damaged ({error}): bring the file back from a backup, or set it"]
        ) from None


def _publish(path: Path, text: str) -> None:
    """Write a file that only its owner can read, unless another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name has to survive a power failure as well
    finally:
        os.close(folder)
