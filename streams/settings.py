"""The settings of RentStream; each connector has its own settings module (`.env.example` lists all of them)."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretBytes, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from connectors.addresses import check_url
from connectors.settings import ALLOW_PRIVATE_DESCRIPTION, Duration, Settings, SettingsError, Zone
from streams.core.retry import Rung, ladder

LARGEST_PORT = 65_535

KEY_BYTES = 32
"""The size of an AES-256 key, and the smallest size of an HS256 secret."""

PASSWORD_LENGTH = 12
"""The fewest characters of the console's password."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > LARGEST_PORT:
        raise ValueError("it is not an address")
    return text


def _rungs(text: str) -> str:
    ladder(text)
    return text


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A key that encrypts stored credentials (AES-256-GCM)."""

    id: str
    """Stored with each encrypted secret, so that it can be decrypted with the right key."""
    key: SecretBytes
    """32 bytes."""


def parse_keys(text: SecretStr) -> tuple[EncryptionKey, ...]:
    """Parse keys in the form ``id:base64key[,older…]``. Raise `ValueError`, whose message contains no key."""
    keys = tuple(
        _parse_key(number, part.strip()) for number, part in enumerate(text.get_secret_value().split(","), start=1)
    )
    if len({one.id for one in keys}) < len(keys):
        raise ValueError("two keys have the same id")
    return keys


def _parse_key(number: int, text: str) -> EncryptionKey:
    name, colon, encoded = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
        raise ValueError(f"key {number} does not begin with an id (1 to 32 letters, digits, _ or -) and a colon")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"key {number} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {number} has {len(key)} bytes instead of {KEY_BYTES}")
    return EncryptionKey(name, SecretBytes(key))


def check_jwt_secret(secret: SecretStr) -> SecretStr:
    """Return a secret that is long enough for HS256 (RFC 7518, 3.2). Raise `ValueError` if it is too short."""
    if len(secret.get_secret_value().encode()) < KEY_BYTES:
        raise ValueError("it is too short")
    return secret


def check_console_password(password: SecretStr) -> SecretStr:
    """Return a password that cannot be guessed over the network. Raise `ValueError` if it is too short."""
    if len(password.get_secret_value().strip()) < PASSWORD_LENGTH:
        raise ValueError("it is too short")
    return password


def _keys(text: SecretStr) -> SecretStr:
    parse_keys(text)
    return text


Address = Annotated[str, AfterValidator(_address)]


class RentStreamSettings(Settings):
    """Settings that every role uses."""

    http: Address = Field("0.0.0.0:3000", validation_alias="RENTSTREAM_HTTP", description="host:port")
    admin: Address | None = Field(None, validation_alias="RENTSTREAM_ADMIN", description="host:port")
    """Use `web_admin` or `worker_admin`, which have the defaults."""
    data: Path = Field(Path(".rentstream"), validation_alias="RENTSTREAM_DATA", description="a folder")
    partitions: int = Field(12, validation_alias="RENTSTREAM_PARTITIONS", ge=1, le=512, description="1 to 512")
    prefix: str = Field(
        "rentstream.",
        validation_alias="RENTSTREAM_TOPIC_PREFIX",
        pattern=r"^[A-Za-z0-9._-]{0,80}$",
        description="letters, digits, dot, dash and underscore",
    )
    retry_ladder: Annotated[str, AfterValidator(_rungs)] = Field(
        "1m,2m,5m,10m",
        validation_alias="RENTSTREAM_RETRY_LADDER",
        description="increasing delays such as 1m,2m,5m,10m",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="such as sqlite:///path/to/file.db or postgresql://user:password@host:5432/database",
    )
    """Use `streams.view.database.url_of`, which has the default."""
    sweep_every: Duration = Field(900.0, validation_alias="RENTSTREAM_SWEEP_EVERY", gt=0, description="such as 15m")
    pulse_every: Annotated[Duration, BeforeValidator(lambda value: 0.0 if value == "0" else value)] = Field(
        60.0, validation_alias="RENTSTREAM_PULSE_EVERY", ge=0, description="such as 60s; 0 for none"
    )
    timezone: Zone = Field("UTC", validation_alias="RENTSTREAM_TIMEZONE", description="an IANA name: America/Edmonton")
    linger: Duration = Field(0.5, validation_alias="RENTSTREAM_LINGER", ge=0, le=60, description="such as 500ms")
    allow_private: bool = Field(
        False, validation_alias="RENTSTREAM_ALLOW_PRIVATE", description=ALLOW_PRIVATE_DESCRIPTION
    )
    jwt_secret: Annotated[SecretStr, AfterValidator(check_jwt_secret)] | None = Field(
        None,
        validation_alias="RENTSTREAM_JWT_SECRET",
        description="at least 32 bytes, such as `openssl rand -base64 48` prints",
    )
    """Use `streams.local.kept_secrets.jwt_secret`, which creates and stores a secret if none is set."""
    jwt_jwks: str | None = Field(
        None, validation_alias="RENTSTREAM_JWT_JWKS", description="an https URL or a path of a JWKS document"
    )
    encryption_keys: Annotated[SecretStr, AfterValidator(_keys)] | None = Field(
        None,
        validation_alias="RENTSTREAM_ENCRYPTION_KEYS",
        description="id:base64key[,older…], each key 32 bytes such as `openssl rand -base64 32` prints",
    )
    """Use `streams.local.kept_secrets.encryption_keys`, which creates and stores a key if none is set."""
    console_password: Annotated[SecretStr, AfterValidator(check_console_password)] | None = Field(
        None,
        validation_alias="RENTSTREAM_CONSOLE_PASSWORD",
        description="at least 12 characters, such as `openssl rand -base64 18` prints",
    )
    """Use `streams.local.kept_secrets.console_password`, which creates and stores one if none is set."""
    session_timeout: Duration = Field(
        10.0, validation_alias="RENTSTREAM_SESSION_TIMEOUT", ge=2, le=300, description="such as 10s"
    )
    """Seconds without a heartbeat after which the partitions of a worker are reassigned."""
    store: Literal["rocksdb", "memory"] = Field(
        "rocksdb", validation_alias="RENTSTREAM_STORE", description="rocksdb or memory"
    )

    @field_validator("jwt_jwks")
    @classmethod
    def _can_be_fetched(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and "://" in value:
            error = check_url(value, allow_private=bool(info.data.get("allow_private")))
            if error:
                raise ValueError(error)
        return value

    @property
    def web_admin(self) -> str:
        """Return the address of `/metrics` and the probes of the web role."""
        return self.admin or "127.0.0.1:9464"

    @property
    def worker_admin(self) -> str:
        """Return the address of `/metrics` and the probes of a worker that does not run under ``rentstream up``."""
        return self.admin or "127.0.0.1:9465"

    def worker_admins(self, workers: int) -> tuple[str, ...]:
        """Return the addresses of workers under ``rentstream up``: the ports after the web role's.

        Raise `SettingsError` if there are not enough ports.
        """
        host, port = self.web_admin.rsplit(":", 1)
        if int(port) + workers > LARGEST_PORT:
            raise SettingsError(
                [f"RENTSTREAM_ADMIN = {self.admin!r}: {workers} workers need the ports after it, up to {LARGEST_PORT}"]
            )
        return tuple(f"{host}:{int(port) + number}" for number in range(1, workers + 1))

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return ladder(self.retry_ladder)

    @property
    def delays(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.retry_ladder.split(","))


class KafkaSettings(Settings):
    """Settings of the Kafka cluster. Without ``bootstrap_servers`` ``rentstream up`` starts an embedded Kafka."""

    bootstrap_servers: str | None = Field(
        None, validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="host:port[,host:port…]"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", validation_alias="KAFKA_SASL_MECHANISM", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    sasl_username: str | None = Field(
        None,
        validate_default=True,
        validation_alias="KAFKA_SASL_USERNAME",
        description="the user name that SASL_PLAINTEXT and SASL_SSL need",
    )
    sasl_password: SecretStr | None = Field(
        None,
        validate_default=True,
        validation_alias="KAFKA_SASL_PASSWORD",
        description="the password that SASL_PLAINTEXT and SASL_SSL need",
    )
    ssl_cafile: Path | None = Field(None, validation_alias="KAFKA_SSL_CAFILE", description="a PEM file")
    replication_factor: int = Field(
        1, validation_alias="KAFKA_REPLICATION_FACTOR", ge=1, le=9, description="1 to 9 (3 in production)"
    )

    @field_validator("sasl_username", "sasl_password")
    @classmethod
    def _is_set_for_sasl(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        if value is None and "SASL" in str(info.data.get("security_protocol", "")):
            raise PydanticCustomError("missing", "it is required")
        return value


def environment(folder: Path | None = None) -> Mapping[str, str]:
    """Return the variables of the environment, and those of the file ``.env`` in the working directory.

    The environment has precedence. Raise `SettingsError` if the file exists and cannot be read.
    """
    return _from_file((folder or Path.cwd()) / ".env") | dict(os.environ)  # noqa: TID251 -- the one place that reads it


def _from_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        # The file may begin with a byte order mark. A $ in a password must not be interpolated.
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path} is not UTF-8 text (from byte {error.start} on): save it as UTF-8"]) from None
    except OSError as error:
        raise SettingsError([f"{path} cannot be read ({error.strerror}): change its permissions"]) from None
    return {name: value for name, value in values.items() if value is not None}
