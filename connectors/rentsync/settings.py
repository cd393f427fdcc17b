"""The settings of the RentSync connector, and what each may say. What is allowed but not built yet is refused here."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from connectors.addresses import check_url
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import SHAPES
from connectors.settings import USER_AGENT, USER_AGENT_PATTERN, ConnectionSettings, Stored, Zone

CHOICES: Final[Mapping[str, Mapping[str, object]]] = {
    "auth": AUTHS,
    "shape": SHAPES,
    "batch": {"per-property": True, "single": None},
    "updates": {"both": True, "snapshot": None, "delta": None},
    "fields": {"core": True, "all": None},
    "removed": {"mark": True, "omit": None},
}
"""What every choice may say; null: it is not built yet."""


def _built(choice: str) -> str:
    return " or ".join(name for name, built in CHOICES[choice].items() if built)


class RentSyncSettings(ConnectionSettings):
    """How RentSync is reached, and in which form it wants its batches."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            *("schedule", "send", "token", "tokenHeader", "hmacSecret"),
            *("oauthTokenUrl", "oauthClientId", "oauthClientSecret", "oauthScope"),
        }
    )

    url: Annotated[str, Stored("url")] = Field(
        validation_alias="RENTSYNC_URL", description="the full address that batches are POSTed to"
    )
    auth: Annotated[str, Stored("auth")] = Field(
        "api-key", validation_alias="RENTSYNC_AUTH", description=_built("auth")
    )
    api_key: Annotated[SecretStr, Stored("apiKey", "secret")] = Field(
        SecretStr(""),
        validate_default=True,  # whether it is required depends on `auth`
        validation_alias="RENTSYNC_API_KEY",
        description="the key that the way api-key sends as X-API-Key",
    )
    shape: Annotated[str, Stored("shape")] = Field(
        "property", validation_alias="RENTSYNC_SHAPE", description=_built("shape")
    )
    batch: Annotated[str, Stored("batch")] = Field(
        "per-property", validation_alias="RENTSYNC_BATCH", description=_built("batch")
    )
    updates: Annotated[str, Stored("updates")] = Field(
        "both", validation_alias="RENTSYNC_UPDATES", description=_built("updates")
    )
    fields_: Annotated[str, Stored("fields")] = Field(
        "core", validation_alias="RENTSYNC_FIELDS", description=_built("fields")
    )
    removed: Annotated[str, Stored("removed")] = Field(
        "mark", validation_alias="RENTSYNC_REMOVED", description=_built("removed")
    )
    timezone: Annotated[Zone | None, Stored("timezone")] = Field(
        None,
        validation_alias="RENTSYNC_TIMEZONE",
        description="an IANA name such as America/Edmonton; not given: RENTSTREAM_TIMEZONE",
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
    """Seconds until an answer has to be there."""

    @field_validator("auth", "shape", "batch", "updates", "fields_", "removed")
    @classmethod
    def _is_built(cls, given: Any, info: ValidationInfo) -> Any:
        choices = CHOICES[(info.field_name or "").rstrip("_")]
        if given not in choices:
            raise ValueError("no such choice")
        if choices[given] is None:
            raise ValueError(f"{given} is not built yet")
        return given

    @field_validator("url")
    @classmethod
    def _may_be_called(cls, given: str, info: ValidationInfo) -> str:
        wrong = check_url(given, allow_private=bool(info.data.get("allow_private")))
        if wrong:
            raise ValueError(wrong)
        return given

    @field_validator("api_key")
    @classmethod
    def _is_given(cls, given: SecretStr, info: ValidationInfo) -> SecretStr:
        key = given.get_secret_value().strip()
        if not key and info.data.get("auth") == "api-key":
            raise PydanticCustomError("missing", "it is required")
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("a key has no spaces, line breaks or letters outside ASCII")
        return SecretStr(key)
