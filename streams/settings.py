"""The settings of RentStream itself; each connector keeps its own beside it (`docs/settings.md` has them all)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiokafka.helpers import create_ssl_context
from pydantic import AfterValidator, Field, SecretStr

from connectors.settings import Duration, Settings
from streams.core.retry import Rung, ladder


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone") from None
    return name


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("not an address")
    return text


def _rungs(text: str) -> str:
    ladder(text)
    return text


Zone = Annotated[str, AfterValidator(_zone)]
Address = Annotated[str, AfterValidator(_address)]


class RentStreamSettings(Settings):
    """What every role needs to know."""

    http: Address = Field("0.0.0.0:3000", validation_alias="RENTSTREAM_HTTP", description="host:port")
    admin: Address | None = Field(None, validation_alias="RENTSTREAM_ADMIN", description="host:port")
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
        description="growing delays such as 1m,2m,5m,10m",
    )
    sweep_every: Duration = Field(900.0, validation_alias="RENTSTREAM_SWEEP_EVERY", gt=0, description="such as 15m")
    timezone: Zone = Field("UTC", validation_alias="RENTSTREAM_TIMEZONE", description="an IANA name: America/Edmonton")
    linger: Duration = Field(0.5, validation_alias="RENTSTREAM_LINGER", ge=0, le=60, description="such as 500ms")
    allow_private: bool = Field(False, validation_alias="RENTSTREAM_ALLOW_PRIVATE", description="1 or 0")
    session_timeout: Duration = Field(
        10.0, validation_alias="RENTSTREAM_SESSION_TIMEOUT", ge=2, le=300, description="such as 10s"
    )
    """How long a worker may be silent before its partitions go to another one."""
    store: Literal["rocksdb", "memory"] = Field(
        "rocksdb", validation_alias="RENTSTREAM_STORE", description="rocksdb or memory"
    )

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return ladder(self.retry_ladder)

    @property
    def delays(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.retry_ladder.split(","))


class KafkaSettings(Settings):
    """Which Kafka, and how it is spoken to. Without ``bootstrap_servers`` `rentstream up` starts an embedded one."""

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
    sasl_username: str | None = Field(None, validation_alias="KAFKA_SASL_USERNAME", description="a name")
    sasl_password: SecretStr | None = Field(None, validation_alias="KAFKA_SASL_PASSWORD", description="a password")
    ssl_cafile: Path | None = Field(None, validation_alias="KAFKA_SSL_CAFILE", description="a PEM file")
    replication_factor: int = Field(
        1, validation_alias="KAFKA_REPLICATION_FACTOR", ge=1, le=9, description="1 to 9 (3 in production)"
    )

    def security(self) -> dict[str, Any]:
        """Give what aiokafka's clients need beside the servers; secrets in it are not for printing."""
        given: dict[str, Any] = {"security_protocol": self.security_protocol}
        if "SSL" in self.security_protocol:
            given["ssl_context"] = create_ssl_context(cafile=str(self.ssl_cafile) if self.ssl_cafile else None)
        if "SASL" in self.security_protocol:
            given |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            }
        return given if self.security_protocol != "PLAINTEXT" else {}


def environment(folder: Path | None = None) -> Mapping[str, str]:
    """Read the environment, over the ``.env`` file of the folder where the program was started."""
    path = (folder or Path.cwd()) / ".env"
    from_file: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                from_file[name.removeprefix("export ").strip()] = value.strip().strip("\"'")
    return from_file | dict(os.environ)  # noqa: TID251 -- the one place that reads it
