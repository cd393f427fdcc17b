"""What Buildium needs to be reached: one account's address, key and webhook secrets."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from connectors.addresses import check_url
from connectors.http import Patience
from connectors.settings import ConnectionSettings, Stored, Zone
from schemas.integrations import IntegrationMode

HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
"""What may stand in an HTTP header: printable, no space."""

HOSTS: Final = {
    "apisandbox.buildium.com": IntegrationMode.SANDBOX,
    "api.buildium.com": IntegrationMode.PRODUCTION,
}
"""The addresses whose mode is known; any other (a gateway, a stand-in) may serve either."""


def mode_of(base_url: str) -> IntegrationMode | None:
    """Return the mode that an address belongs to; null where it is not known."""
    return HOSTS.get((urlsplit(base_url).hostname or "").rstrip("."))


def stripped(secrets: Sequence[SecretStr]) -> tuple[SecretStr, ...]:
    """Return the secrets without what a copied line brings along, and none that is blank."""
    texts = (secret.get_secret_value().strip() for secret in secrets)
    return tuple(SecretStr(text) for text in texts if text)


def _split(given: Any) -> Any:
    """Split the text of the environment; secrets of a stored configuration come one by one already."""
    if isinstance(given, SecretStr):
        given = given.get_secret_value()
    return tuple(part for part in re.split(r"[,\s]+", given) if part) if isinstance(given, str) else given


class BuildiumSettings(ConnectionSettings):
    """The connection ``default/buildium`` of the environment, or a stored one of an org.

    Credentials are optional here, because a process that only receives webhooks needs none: see `missing`.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"offer"})

    client_id: Annotated[SecretStr | None, Stored("clientId", "secret", required=True)] = Field(
        default=None,
        validation_alias="BUILDIUM_CLIENT_ID",
        description="the client id of a Buildium API key (Settings > Developer Tools > API Keys)",
    )
    client_secret: Annotated[SecretStr | None, Stored("clientSecret", "secret", required=True)] = Field(
        default=None,
        validation_alias="BUILDIUM_CLIENT_SECRET",
        description="the secret of that API key, shown once when it is made",
    )
    base_url: Annotated[str, Stored("baseUrl")] = Field(
        default="https://apisandbox.buildium.com/v1",
        validation_alias="BUILDIUM_BASE_URL",
        description="an address that ends with the version, such as https://api.buildium.com/v1",
    )
    timezone: Annotated[Zone | None, Stored("timezone")] = Field(
        default=None,
        validation_alias="BUILDIUM_TIMEZONE",
        description="an IANA name such as America/Edmonton; not given: RENTSTREAM_TIMEZONE",
    )
    make_ready_days: Annotated[int, Stored("makeReadyDays")] = Field(
        default=0,
        ge=0,
        le=365,
        validation_alias="BUILDIUM_MAKE_READY_DAYS",
        description="days that a unit needs between a move-out and the next move-in, 0-365",
    )
    sync_enabled: bool = Field(
        default=True, validation_alias="BUILDIUM_SYNC_ENABLED", description="true or false: whether Buildium is read"
    )
    retry_attempts: Annotated[int, Stored("retryAttempts", tuning=True)] = Field(
        default=3,
        ge=1,
        le=20,
        validation_alias="BUILDIUM_RETRY_ATTEMPTS",
        description="how often one call is made, 1-20",
    )
    retry_delay: Annotated[int, Stored("retryDelay", tuning=True)] = Field(
        default=1000,
        ge=0,
        le=60_000,
        validation_alias="BUILDIUM_RETRY_DELAY",
        description="milliseconds before the first repetition, 0-60000",
    )
    request_timeout: Annotated[int, Stored("timeout", tuning=True)] = Field(
        default=30_000,
        ge=100,
        le=600_000,
        validation_alias="BUILDIUM_TIMEOUT",
        description="milliseconds that one call may take, 100-600000",
    )
    webhook_secrets: Annotated[
        tuple[SecretStr, ...], BeforeValidator(_split), Stored("webhookSecret", "secret", several=True)
    ] = Field(
        default=(),
        validation_alias="BUILDIUM_WEBHOOK_SECRET",
        description="the webhook's secret as Buildium shows it; several, separated by commas, while it is rotated",
    )
    webhook_url: str | None = Field(
        default=None,
        validation_alias="BUILDIUM_WEBHOOK_URL",
        description="where Buildium sends webhooks to, https://<host>/api/webhooks/buildium",
    )

    @field_validator("client_id", "client_secret")
    @classmethod
    def _fits_a_header(cls, given: SecretStr | None) -> SecretStr | None:
        if given is None:
            return None
        bare = given.get_secret_value().strip()
        if not HEADER_SAFE.fullmatch(bare):
            raise ValueError("it holds characters that cannot be sent in a header")
        return SecretStr(bare)

    @field_validator("webhook_secrets")
    @classmethod
    def _no_secret_is_empty(cls, given: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Refuse what holds no secret: the empty key is no secret."""
        bare = stripped(given)
        if not bare or len(bare) < len(given):
            raise ValueError("it holds no secret")
        return bare

    @field_validator("base_url")
    @classmethod
    def _can_be_called(cls, given: str, info: ValidationInfo) -> str:
        bare = given.strip().rstrip("/")
        wrong = check_url(bare, allow_private=bool(info.data.get("allow_private")))
        if wrong:
            raise ValueError(wrong)
        if not re.search(r"/v\d+$", bare):
            raise ValueError("the version at its end is missing")
        return bare

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the settings without which Buildium cannot be called."""
        needed = {"BUILDIUM_CLIENT_ID": self.client_id, "BUILDIUM_CLIENT_SECRET": self.client_secret}
        return tuple(name for name, value in needed.items() if value is None)

    @property
    def patience(self) -> Patience:
        return Patience(self.retry_attempts, self.retry_delay / 1000, self.request_timeout / 1000)
