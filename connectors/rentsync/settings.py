"""The settings of the RentSync connector and their allowed values; documented but unavailable values are rejected."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from connectors.addresses import check_url
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import SHAPES
from connectors.settings import USER_AGENT, USER_AGENT_PATTERN, ConnectionSettings, Cron, Stored, Zone

CHOICES: Final[Mapping[str, Mapping[str, object]]] = {
    "auth": AUTHS,
    "shape": SHAPES,
    "batch": {"per-property": True, "single": None},
    "updates": {"both": True, "snapshot": None, "delta": None},
    "fields": {"core": True, "all": None},
    "removed": {"mark": True, "omit": None},
}
"""The documented values of each setting; null if a value is not available yet."""


def _available(choice: str) -> str:
    return " or ".join(name for name, available in CHOICES[choice].items() if available)


class RentSyncSettings(ConnectionSettings):
    """Settings of one RentSync receiver: its URL, its credentials and the form of batches."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            *("send", "token", "tokenHeader", "hmacSecret"),
            *("oauthTokenUrl", "oauthClientId", "oauthClientSecret", "oauthScope"),
        }
    )

    url: Annotated[str, Stored("url")] = Field(
        validation_alias="RENTSYNC_URL", description="the full URL that receives the POST of a batch"
    )
    auth: Annotated[str, Stored("auth")] = Field(
        "api-key", validation_alias="RENTSYNC_AUTH", description=_available("auth")
    )
    api_key: Annotated[SecretStr, Stored("apiKey", "secret")] = Field(
        SecretStr(""),
        validate_default=True,  # whether it is required depends on `auth`
        validation_alias="RENTSYNC_API_KEY",
        description="the key that auth api-key sends as X-API-Key",
    )
    shape: Annotated[str, Stored("shape")] = Field(
        "property", validation_alias="RENTSYNC_SHAPE", description=_available("shape")
    )
    batch: Annotated[str, Stored("batch")] = Field(
        "per-property", validation_alias="RENTSYNC_BATCH", description=_available("batch")
    )
    updates: Annotated[str, Stored("updates")] = Field(
        "both", validation_alias="RENTSYNC_UPDATES", description=_available("updates")
    )
    fields_: Annotated[str, Stored("fields")] = Field(
        "core", validation_alias="RENTSYNC_FIELDS", description=_available("fields")
    )
    removed: Annotated[str, Stored("removed")] = Field(
        "mark", validation_alias="RENTSYNC_REMOVED", description=_available("removed")
    )
    schedule: Annotated[Cron, Stored("schedule")] = Field(
        "0 2 * * *",
        validation_alias="RENTSYNC_SCHEDULE",
        description="when a snapshot of everything is sent: five fields of cron, such as 0 2 * * *",
    )
    timezone: Annotated[Zone | None, Stored("timezone")] = Field(
        None,
        validation_alias="RENTSYNC_TIMEZONE",
        description="an IANA name such as America/Edmonton; the default is RENTSTREAM_TIMEZONE",
    )
    source: Annotated[str, Stored("source")] = Field(
        "rentstream",
        validation_alias="RENTSYNC_SOURCE",
        description="a name of up to 200 letters",
        max_length=200,
        pattern=r"\S",
    )
    user_agent: Annotated[str, Stored("userAgent", tuning=True)] = Field(
        USER_AGENT,
        validation_alias="RENTSYNC_USER_AGENT",
        description="a product and version such as RentStream/1.0, in plain ASCII",
        pattern=USER_AGENT_PATTERN,
    )
    timeout: float = 30.0
    """Timeout of one call in seconds."""

    @field_validator("auth", "shape", "batch", "updates", "fields_", "removed")
    @classmethod
    def _is_available(cls, value: Any, info: ValidationInfo) -> Any:
        choices = CHOICES[(info.field_name or "").rstrip("_")]
        if value not in choices:
            raise ValueError("no such choice")
        if choices[value] is None:
            raise ValueError(f"{value} is not available yet")
        return value

    @field_validator("url")
    @classmethod
    def _may_be_called(cls, value: str, info: ValidationInfo) -> str:
        error = check_url(value, allow_private=bool(info.data.get("allow_private")))
        if error:
            raise ValueError(error)
        return value

    @field_validator("api_key")
    @classmethod
    def _is_set(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key and info.data.get("auth") == "api-key":
            raise PydanticCustomError("missing", "it is required")
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("a key has no spaces, line breaks or letters outside ASCII")
        return SecretStr(key)
