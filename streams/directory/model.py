"""What the API and the command line see of integrations: states, the body of a change, and how a request may fail."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue, SecretStr

from connectors.ports import FieldError
from schemas.integrations import CheckReport, EntityAccess, IntegrationMode, IntegrationRole

Origin = Literal["stored", "environment"]
"""Whether an integration is a record, or described by the settings of the process."""


@dataclass(frozen=True, slots=True)
class SecretState:
    """What is shown of one secret."""

    name: str
    since: datetime
    last4: str | None
    """Null for a secret of fewer than twelve characters, and for one that cannot be decrypted."""
    readable: bool


@dataclass(frozen=True, slots=True)
class IntegrationState:
    """One integration of an org, for showing."""

    org: str
    name: str
    system: str
    role: IntegrationRole
    mode: IntegrationMode
    enabled: bool
    origin: Origin
    settings: Mapping[str, JsonValue]
    secrets: tuple[SecretState, ...]
    webhook_path: str | None
    access: tuple[EntityAccess, ...]
    checks: CheckReport | None
    sync_state: str
    sync_detail: str | None
    last_ran: datetime | None
    last_status: str | None
    last_sweep: str | None
    """The id of the full read that these two are about."""
    held_removals: int
    """Entities that no longer exist according to the system; their removal waits until a person confirms it."""
    hold: str | None
    """Why nothing can be done with it, and what to do about that."""
    properties_default: bool
    properties_on: tuple[int, ...]
    properties_off: tuple[int, ...]
    version: int


@dataclass(frozen=True, slots=True)
class PutIntegration:
    """What an integration shall be. Null leaves switches as they are; a secret that is not named is kept."""

    system: str
    mode: IntegrationMode
    settings: Mapping[str, JsonValue]
    """Replaces all settings."""
    secrets: Mapping[str, SecretStr | tuple[SecretStr, ...] | None]
    """Null removes a secret; several values are ordered newest first."""
    properties_default: bool | None = None
    properties_on: tuple[int, ...] | None = None
    properties_off: tuple[int, ...] | None = None
    expected_version: int | None = None


class IntegrationError(Exception):
    """A request that cannot be fulfilled; the text is shown to the caller."""


class NotFound(IntegrationError):  # noqa: N818 -- named like the answers of HTTP
    """The org has no integration of this name."""


class Conflict(IntegrationError):  # noqa: N818
    """The request contradicts the state of the integration."""


class Unavailable(IntegrationError):  # noqa: N818
    """Kafka does not confirm, or this process has not read everything yet; worth another attempt."""


class Invalid(IntegrationError):  # noqa: N818
    """Fields of the request are wrong: all of them, each with its pointer."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{one.pointer}: {one.detail}" for one in errors))
