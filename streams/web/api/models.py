"""The bodies of requests and answers; the OpenAPI document is generated from these classes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SecretStr,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic.alias_generators import to_camel

from schemas.integrations import AccessLevel, CheckReport, CheckStatus, EntityAccess, IntegrationMode
from streams.directory.model import IntegrationState, PutIntegration, SecretState

MAX_PROPERTY_ID = 2**63 - 1


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a point in time needs its zone")
    return value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_to_utc)]
"""A point in time with its zone, converted to UTC."""


class ApiModel(BaseModel):
    """A JSON object with members in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,
    )


class RequestModel(ApiModel):
    """A JSON object of a request: an unknown member is an error, because it may be misspelled."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False)


# ------------------------------------------------------------------------------------------------------------- requests


class Mode(StrEnum):
    """Which environment of the system the credentials belong to."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


def _form_of_secret(value: object) -> str:
    if value is None:
        return "(null)"
    return "(list)" if isinstance(value, list | tuple) else "(text)"


SecretText = Annotated[SecretStr, Field(min_length=1)]

SecretInput = Annotated[
    Annotated[SecretText, Tag("(text)")]
    | Annotated[Annotated[tuple[SecretText, ...], Field(min_length=1)], Tag("(list)")]
    | Annotated[None, Tag("(null)")],
    Discriminator(_form_of_secret),
]
"""One value, several (webhook secrets during a rotation), or null: remove it."""

PropertyId = Annotated[StrictInt, Field(ge=1, le=MAX_PROPERTY_ID)]


class PropertySwitchesInput(RequestModel):
    """Which properties take part; a member that is absent or null is left as it is."""

    default: StrictBool | None = Field(None, description="Whether a property that is not named takes part.")
    on: tuple[PropertyId, ...] | None = Field(None, description="Properties that take part although the default is off")
    off: tuple[PropertyId, ...] | None = Field(
        None, description="Properties that do not take part although the default is on"
    )


class IntegrationInput(RequestModel):
    """The wanted configuration of an integration."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "system": "buildium",
                    "mode": "sandbox",
                    "settings": {"baseUrl": "https://apisandbox.buildium.com/v1", "timezone": "America/Edmonton"},
                    "secrets": {"clientId": "<client id>", "clientSecret": "<client secret>"},
                    "properties": {"default": True, "off": [23]},
                }
            ]
        }
    )

    system: Annotated[StrictStr, Field(min_length=1, max_length=64)] = Field(
        description="Kind of system; it cannot be changed later.", examples=["buildium", "rentsync"]
    )
    mode: Mode = Mode.PRODUCTION
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="By name in camelCase. Replaced as a whole; an absent one has its default."
    )
    secrets: dict[str, SecretInput] = Field(
        default_factory=dict,
        description="By name in camelCase. One that is not named is kept, null removes it; `webhookSecret` may be a "
        "list, newest first.",
    )
    properties: PropertySwitchesInput | None = None

    def wanted(self, expected_version: int | None) -> PutIntegration:
        """Return the request as the store of integrations takes it."""
        switches = self.properties or PropertySwitchesInput()
        return PutIntegration(
            system=self.system,
            mode=IntegrationMode(self.mode.value),
            settings=self.settings,
            secrets=self.secrets,
            properties_default=switches.default,
            properties_on=switches.on,
            properties_off=switches.off,
            expected_version=expected_version,
        )


class WebhookSecretRotation(RequestModel):
    """A change of the webhook secrets: add ``secret``, remove one, or by default add a generated one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"secret": "<new secret>"}, {"remove": "2026-03-01T12:00:00Z"}, {}]}
    )

    secret: SecretText | None = Field(None, description="A new secret; those that are there stay valid.")
    remove: Instant | None = Field(None, description="The `since` of the secret that is no longer valid.")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.secret is not None and self.remove is not None:
            raise ValueError("either adds a secret or removes one: give secret or remove")
        return self


# -------------------------------------------------------------------------------------------------------------- answers


class SecretValue(ApiModel):
    """What may be shown of one value of a secret."""

    last4: str | None = Field(description="Null for a secret of fewer than 12 characters or one that is not readable.")
    since: datetime
    readable: bool = Field(description="False: its encryption key is missing; enter the secret again.")

    @classmethod
    def of(cls, state: SecretState) -> Self:
        """Return what is shown of a secret."""
        return cls(last4=state.last4, since=state.since, readable=state.readable)


class Secret(SecretValue):
    """What may be shown of a secret: that it is set, since when, and how it ends."""

    set: Literal[True] = True
    older: tuple[SecretValue, ...] = Field((), description="Further values that are still valid, newest first.")


class EntityPermissions(ApiModel):
    """What the credentials may do with one kind of entity."""

    read: AccessLevel
    create: AccessLevel
    update: AccessLevel


class PropertySwitches(ApiModel):
    """Which properties take part."""

    default: bool
    on: tuple[int, ...]
    off: tuple[int, ...]


class Integration(ApiModel):
    """An integration; never a secret."""

    name: str
    org: str
    system: str
    mode: IntegrationMode
    enabled: bool
    origin: Literal["stored", "environment"]
    settings: dict[str, JsonValue]
    secrets: dict[str, Secret]
    webhook_url: str | None = Field(description="Where the system sends its webhooks to; null for a receiver.")
    data_access: dict[str, EntityPermissions] = Field(description="As the last check found it.")
    sync_state: str
    sync_detail: str | None
    last_ran: datetime | None
    last_status: str | None
    hold: str | None = Field(description="Why nothing is read or sent, and what to do; null while all is well.")
    properties: PropertySwitches
    version: int

    @classmethod
    def members(cls, state: IntegrationState, base_url: str) -> dict[str, Any]:
        """Return the members of an integration as it is shown."""
        return {
            "name": state.name,
            "org": state.org,
            "system": state.system,
            "mode": state.mode,
            "enabled": state.enabled,
            "origin": state.origin,
            "settings": dict(state.settings),
            "secrets": _secrets(state.secrets),
            "webhook_url": None if state.webhook_path is None else base_url + state.webhook_path,
            "data_access": data_access(state.access),
            "sync_state": state.sync_state,
            "sync_detail": state.sync_detail,
            "last_ran": state.last_ran,
            "last_status": state.last_status,
            "hold": state.hold,
            "properties": PropertySwitches(
                default=state.properties_default, on=state.properties_on, off=state.properties_off
            ),
            "version": state.version,
        }

    @classmethod
    def of(cls, state: IntegrationState, base_url: str) -> Self:
        """Return an integration as it is shown."""
        return cls(**cls.members(state, base_url))


class RotatedIntegration(Integration):
    """An integration whose webhook secrets changed."""

    new_secret: str | None = Field(
        None,
        description="The generated secret, if the request contained none. It is shown only in this response.",
    )


def _secrets(states: tuple[SecretState, ...]) -> dict[str, Secret]:
    by_name: dict[str, list[SecretState]] = {}
    for state in sorted(states, key=lambda one: one.since, reverse=True):
        by_name.setdefault(state.name, []).append(state)
    return {
        name: Secret(
            last4=newest.last4,
            since=newest.since,
            readable=newest.readable,
            older=tuple(SecretValue.of(one) for one in older),
        )
        for name, (newest, *older) in by_name.items()
    }


def data_access(access: tuple[EntityAccess, ...]) -> dict[str, EntityPermissions]:
    """Return permissions by kind of entity."""
    return {one.entity: EntityPermissions(read=one.read, create=one.create, update=one.update) for one in access}


class Check(ApiModel):
    """One named check of a connection test."""

    name: str
    ok: bool
    status: CheckStatus
    required: bool = Field(description="Whether the synchronisation depends on it; else a failure is a warning.")
    seconds: float
    detail: str
    fix: str | None = Field(description="What to do, where it failed.")


class CheckOutcome(ApiModel):
    """The outcome of a connection test."""

    ok: bool = Field(description="Whether every check passed that the synchronisation depends on.")
    checks: tuple[Check, ...]
    data_access: dict[str, EntityPermissions]

    @classmethod
    def of(cls, report: CheckReport) -> Self:
        """Return a report as it is shown."""
        checks = tuple(
            Check(
                name=check.name,
                ok=check.status is CheckStatus.PASSED,
                status=check.status,
                required=check.required,
                seconds=check.milliseconds / 1000,
                detail=check.detail,
                fix=check.fix,
            )
            for check in report.checks
        )
        return cls(ok=report.passed, checks=checks, data_access=data_access(report.access))


class Health(ApiModel):
    """Requests can be answered."""

    ok: Literal[True] = True


class Index(ApiModel):
    """What this server is, and where to go on."""

    name: Literal["RentStream"] = "RentStream"
    version: str
    links: Mapping[str, str]


# ------------------------------------------------------------------------------------------------------------- webhooks


class WebhookEvent(BaseModel):
    """The event as the system sends it; its signature is verified over the bytes as they came."""

    model_config = ConfigDict(extra="allow")

    event_name: str = Field(alias="EventName", examples=["Rental.Updated"])
    event_date_time: datetime | None = Field(None, alias="EventDateTime")
    account_id: int | None = Field(None, alias="AccountId")


class Received(ApiModel):
    """The event is durable."""

    received: Literal[True] = True
    event: str = Field(examples=["Rental.Updated"])


# ------------------------------------------------------------------------------------------------------------- problems


class ProblemField(ApiModel):
    """What is wrong with one member of the request's body."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body.", examples=["/settings/baseUrl"])
    detail: str


class Problem(ApiModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str = Field(json_schema_extra={"format": "uri-reference"}, examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(ge=400, le=599, examples=[422])
    detail: str
    errors: tuple[ProblemField, ...] | None = Field(None, description="Every member that is wrong.")
