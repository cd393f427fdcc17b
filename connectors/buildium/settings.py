"""The settings of one Buildium account: its URL, its API key and its webhook secrets."""

import re
from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from connectors.addresses import check_url
from connectors.http import Patience
from connectors.settings import ConnectionSettings, OfferedUnits, Several, Stored, Zone
from schemas.integrations import IntegrationMode

HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
"""Characters allowed in an HTTP header: printable ASCII without spaces."""

HOSTS: Final = {
    "apisandbox.buildium.com": IntegrationMode.SANDBOX,
    "api.buildium.com": IntegrationMode.PRODUCTION,
}
"""Hosts whose mode is known; any other (a gateway, a stand-in) may serve either mode."""


def mode_of(base_url: str) -> IntegrationMode | None:
    """Return the mode that a base URL belongs to; null if it is not known."""
    return HOSTS.get((urlsplit(base_url).hostname or "").rstrip("."))


def stripped(secrets: Sequence[SecretStr]) -> tuple[SecretStr, ...]:
    """Return the secrets without surrounding white space, and without blank ones."""
    texts = (secret.get_secret_value().strip() for secret in secrets)
    return tuple(SecretStr(text) for text in texts if text)


class BuildiumSettings(ConnectionSettings):
    """Settings of the connection ``default/buildium`` of the environment, or of a stored one of an org.

    Credentials are optional in the class, because the environment may set only webhook secrets or tuning values.
    """

    client_id: Annotated[SecretStr | None, Stored("clientId", "secret", required=True)] = Field(
        default=None,
        validation_alias="BUILDIUM_CLIENT_ID",
        description="the client id of a Buildium API key (Settings > Developer Tools > API Keys)",
    )
    client_secret: Annotated[SecretStr | None, Stored("clientSecret", "secret", required=True)] = Field(
        default=None,
        validation_alias="BUILDIUM_CLIENT_SECRET",
        description="the secret of that API key, which Buildium shows once when the key is created",
    )
    base_url: Annotated[str, Stored("baseUrl")] = Field(
        default="https://apisandbox.buildium.com/v1",
        validation_alias="BUILDIUM_BASE_URL",
        description="a URL that ends with the version, such as https://api.buildium.com/v1",
    )
    timezone: Annotated[Zone | None, Stored("timezone")] = Field(
        default=None,
        validation_alias="BUILDIUM_TIMEZONE",
        description="an IANA name such as America/Edmonton; the default is RENTSTREAM_TIMEZONE",
    )
    make_ready_days: Annotated[int, Stored("makeReadyDays")] = Field(
        default=0,
        ge=0,
        le=365,
        validation_alias="BUILDIUM_MAKE_READY_DAYS",
        description="make-ready days of a unit between a move-out and the next move-in, 0-365",
    )
    offer: Annotated[OfferedUnits | None, Stored("offer")] = Field(
        default=None,
        validation_alias="BUILDIUM_OFFER",
        description="vacant or listed; the default is RENTSTREAM_OFFER",
    )
    operating_bank_account_id: Annotated[int | None, Stored("operatingBankAccountId")] = Field(
        default=None,
        ge=1,
        validation_alias="BUILDIUM_OPERATING_BANK_ACCOUNT_ID",
        description="Buildium's id of the bank account of properties that are created without one",
    )
    sync_enabled: bool = Field(
        default=True, validation_alias="BUILDIUM_SYNC_ENABLED", description="true or false: whether Buildium is synced"
    )
    retry_attempts: Annotated[int, Stored("retryAttempts", tuning=True)] = Field(
        default=3,
        ge=1,
        le=20,
        validation_alias="BUILDIUM_RETRY_ATTEMPTS",
        description="the most attempts of one call, 1-20",
    )
    retry_delay: Annotated[int, Stored("retryDelay", tuning=True)] = Field(
        default=1000,
        ge=0,
        le=60_000,
        validation_alias="BUILDIUM_RETRY_DELAY",
        description="milliseconds before the first retry, 0-60000",
    )
    request_timeout: Annotated[int, Stored("timeout", tuning=True)] = Field(
        default=30_000,
        ge=100,
        le=600_000,
        validation_alias="BUILDIUM_TIMEOUT",
        description="milliseconds that one call may take, 100-600000",
    )
    webhook_secrets: Annotated[tuple[SecretStr, ...], Several, Stored("webhookSecret", "secret", several=True)] = Field(
        default=(),
        validation_alias="BUILDIUM_WEBHOOK_SECRET",
        description="the webhook's secret as Buildium shows it; several, separated by commas, while it is rotated",
    )
    webhook_url: str | None = Field(
        default=None,
        validation_alias="BUILDIUM_WEBHOOK_URL",
        description="the URL to which Buildium sends webhooks, https://<host>/api/webhooks/buildium",
    )

    @field_validator("client_id", "client_secret")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if not HEADER_SAFE.fullmatch(key):
            raise ValueError("it contains characters that cannot be sent in a header")
        return SecretStr(key)

    @field_validator("webhook_secrets")
    @classmethod
    def _no_secret_is_empty(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Raise `ValueError` for an empty secret, with which anyone could sign."""
        secrets = stripped(value)
        if not secrets or len(secrets) < len(value):
            raise ValueError("it contains no secret")
        return secrets

    @field_validator("base_url")
    @classmethod
    def _can_be_called(cls, value: str, info: ValidationInfo) -> str:
        url = value.strip().rstrip("/")
        error = check_url(url, allow_private=bool(info.data.get("allow_private")))
        if error:
            raise ValueError(error)
        if not re.search(r"/v\d+$", url):
            raise ValueError("the version at its end is missing")
        return url

    @property
    def patience(self) -> Patience:
        return Patience(self.retry_attempts, self.retry_delay / 1000, self.request_timeout / 1000)
