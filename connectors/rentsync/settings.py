"""The settings of the RentSync connector and their allowed values; documented but unavailable values are rejected."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from connectors.addresses import check_url
from connectors.rentsync.auth import AUTHS, NEEDED, TOKEN_HEADER, signing_key
from connectors.rentsync.payload import FIELDS, SHAPES
from connectors.settings import USER_AGENT, USER_AGENT_PATTERN, ConnectionSettings, Cron, Several, Stored, Zone

CHOICES: Final[Mapping[str, Mapping[str, object]]] = {
    "auth": AUTHS,
    "shape": SHAPES,
    "batch": {"per-property": True, "single": None},
    "updates": {"both": True, "delta": True, "snapshot": None},
    "fields": dict.fromkeys(FIELDS, True),
    "removed": {"mark": True, "omit": None},
}
"""The documented values of each setting; null if a value is not available yet."""


def _available(choice: str) -> str:
    return " or ".join(name for name, available in CHOICES[choice].items() if available)


class RentSyncSettings(ConnectionSettings):
    """Settings of one RentSync receiver: its URL, its credentials and the form of batches."""

    LATER: ClassVar[frozenset[str]] = frozenset({"send"})

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
    token: Annotated[SecretStr, Stored("token", "secret")] = Field(
        SecretStr(""),
        validate_default=True,
        validation_alias="RENTSYNC_TOKEN",
        description="the token that auth bearer and static-token send; bearer takes the API key without it",
    )
    token_header: Annotated[str, Stored("tokenHeader", tuning=True)] = Field(
        TOKEN_HEADER,
        validation_alias="RENTSYNC_TOKEN_HEADER",
        description="the header of auth static-token, such as X-Auth-Token",
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$",
    )
    hmac_secrets: Annotated[tuple[SecretStr, ...], Several, Stored("hmacSecret", "secret", several=True)] = Field(
        (),
        validate_default=True,
        validation_alias="RENTSYNC_HMAC_SECRET",
        description="the secret of auth hmac, whsec_ and base64 or any text; two, separated by a comma, in a rotation",
    )
    oauth_token_url: Annotated[str, Stored("oauthTokenUrl")] = Field(
        "",
        validate_default=True,
        validation_alias="RENTSYNC_OAUTH_TOKEN_URL",
        description="the URL at which auth oauth2 gets its tokens",
    )
    oauth_client_id: Annotated[str, Stored("oauthClientId")] = Field(
        "",
        validate_default=True,
        validation_alias="RENTSYNC_OAUTH_CLIENT_ID",
        description="the client id of auth oauth2",
    )
    oauth_client_secret: Annotated[SecretStr, Stored("oauthClientSecret", "secret")] = Field(
        SecretStr(""),
        validate_default=True,
        validation_alias="RENTSYNC_OAUTH_CLIENT_SECRET",
        description="the client secret of auth oauth2",
    )
    oauth_scope: Annotated[str, Stored("oauthScope")] = Field(
        "",
        validation_alias="RENTSYNC_OAUTH_SCOPE",
        description="the scope that auth oauth2 asks for; none by default",
        max_length=1000,
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

    @field_validator("url", "oauth_token_url")
    @classmethod
    def _may_be_called(cls, value: str, info: ValidationInfo) -> str:
        _check_needed(info, value)
        error = check_url(value, allow_private=bool(info.data.get("allow_private"))) if value else None
        if error:
            raise ValueError(error)
        return value

    @field_validator("api_key", "token", "oauth_client_secret")
    @classmethod
    def _is_set(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value().strip()
        _check_needed(info, key)
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("a key has no spaces, line breaks or letters outside ASCII")
        return SecretStr(key)

    @field_validator("oauth_client_id")
    @classmethod
    def _is_a_client(cls, value: str, info: ValidationInfo) -> str:
        _check_needed(info, value.strip())
        return value.strip()

    @field_validator("hmac_secrets")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        _check_needed(info, value)
        if len(value) > 2:
            raise ValueError("there are more than two secrets")
        for one in value:
            signing_key(one.get_secret_value())
        return value


def _check_needed(info: ValidationInfo, value: object) -> None:
    """Raise if a setting is empty that the configured scheme needs."""
    auth, data = info.data.get("auth"), info.data
    if value or info.field_name not in NEEDED.get(str(auth), ()):
        return
    if auth == "bearer" and data.get("api_key") and data["api_key"].get_secret_value():
        return
    raise PydanticCustomError("missing", "it is required")
