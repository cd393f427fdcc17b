"""Two fake systems, a property management system and a listing receiver."""

import json
import random as randomness
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import SecretStr

from connectors.ports import (
    DEFAULT_RULES,
    Accepted,
    Checked,
    Clock,
    Configuration,
    Connection,
    Failure,
    Fetched,
    Field,
    FieldError,
    Halfway,
    Invalid,
    LeasingRules,
    OpenedSource,
    PageOf,
    Priority,
    Pushed,
    Refused,
    Schedule,
    Undecided,
)
from connectors.settings import SettingsError
from schemas.base import EntityKind
from schemas.commands import Push
from schemas.delivery import Batch
from schemas.integrations import AccessLevel, CheckResult, CheckStatus, EntityAccess, IntegrationMode, IntegrationRole
from schemas.pms import FetchOrigin, FetchRequest


def plain(configuration: Configuration, name: str) -> list[str]:
    return [one.get_secret_value() for one in configuration.secrets.get(name, ())]


def configuration(
    settings: Mapping[str, str], mode: IntegrationMode = IntegrationMode.SANDBOX, **secrets: str
) -> Configuration:
    return Configuration(settings, {name: (SecretStr(value),) for name, value in secrets.items()}, mode)


@dataclass
class Client:
    """A client with its configuration, and the number of times that it was closed."""

    secret: str = field(repr=False)
    used_ratio: float = 0.0
    closed: int = 0

    taken: int = 0
    """How often its budget was taken over."""

    def taken_over(self) -> None:
        self.taken += 1

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class Source(Client):
    """A source without entities."""

    page_size: int = 10
    pushes: list[Push] = field(default_factory=list)
    answers: list[Pushed | Undecided | Invalid | Halfway | Failure] = field(default_factory=list)
    """Answers to the next pushes; then each one is made, under the number of pushes so far."""

    async def push(self, push: Push) -> Pushed | Undecided | Invalid | Halfway | Failure:
        self.pushes.append(push)
        return self.answers.pop(0) if self.answers else Pushed(push.pms_id or len(self.pushes))

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        return Fetched(())

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        return PageOf((), 0, 0)

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        return PageOf((), 0, 0)

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        return Fetched(())


@dataclass
class Sink(Client):
    """A receiver that accepts every batch."""

    name: str = "portal"

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        return Accepted(200)


@dataclass(frozen=True)
class Reader:
    """Verifies webhooks by a header that contains the secret."""

    org: str
    connection: str
    secrets: tuple[str, ...]
    enabled: bool

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        if dict(headers).get(b"secret", b"").decode() not in self.secrets:
            return Refused(401, "wrong secret")
        return FetchRequest(
            org=self.org,
            connection=self.connection,
            origin=FetchOrigin.WEBHOOK,
            event="Changed",
            kind=EntityKind.UNKNOWN,
            entity=None,
            occurred_at=None,
            received_at=now,
            ignored=None if self.enabled else "disabled",
            body=body,
        )


def _errors(fields: Sequence[Field], given: Configuration) -> tuple[FieldError, ...]:
    errors = []
    for kind, values in (("setting", dict(given.settings)), ("secret", dict(given.secrets))):
        known = {one.name: one for one in fields if one.kind == kind}
        errors += [FieldError(f"/{kind}s/{name}", f"no such {kind}") for name in values if name not in known]
        errors += [
            FieldError(f"/{kind}s/{name}", "it is required")
            for name, one in known.items()
            if one.required and name not in values
        ]
    return tuple(errors)


@dataclass
class FakePms:
    """The property management system ``pms``."""

    opened: list[Source] = field(default_factory=list)
    make: Callable[[str], Source] = field(default=Source)
    """Makes the client that belongs to a client secret."""
    rules: LeasingRules = DEFAULT_RULES
    """What the process decides for every connection; only the make-ready days are its own."""
    broken: bool = False
    name: str = "pms"
    title: str = "A PMS"
    role: IntegrationRole = IntegrationRole.SOURCE
    fields: tuple[Field, ...] = (
        Field("baseUrl", "PMS_BASE_URL", "setting", "an address", required=True),
        Field("timezone", "PMS_TIMEZONE", "setting", "a time zone"),
        Field("makeReadyDays", "PMS_MAKE_READY_DAYS", "setting", "a number of days"),
        Field("clientId", "PMS_CLIENT_ID", "secret", "an id", required=True),
        Field("clientSecret", "PMS_CLIENT_SECRET", "secret", "a secret", required=True),
        Field("webhookSecret", "PMS_WEBHOOK_SECRET", "secret", "a secret", several=True),
    )

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        if self.broken:
            raise RuntimeError(f"broken by {plain(configuration, 'clientSecret')}")
        return _errors(self.fields, configuration)

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        return None

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        secret = plain(configuration, "clientSecret")[0]
        if secret == "broken":
            raise RuntimeError(secret)
        if secret == "endless":
            await clock.sleep(3600)
        status = CheckStatus.FAILED if secret == "wrong" else CheckStatus.PASSED
        result = CheckResult(name="credentials", status=status, milliseconds=3, detail="as they are")
        account = int(str(configuration.settings["baseUrl"]).rpartition("/")[2])
        return Checked((result,), (EntityAccess(entity="units", read=AccessLevel.OK),), account)

    def open(self, configuration: Configuration, clock: Clock, random: randomness.Random) -> OpenedSource:
        secret = plain(configuration, "clientSecret")[0]
        if secret == "unusable":
            raise SettingsError(["PMS_CLIENT_SECRET = a secret, not shown: not usable"])
        if secret == "explosive":
            raise RuntimeError(secret)
        self.opened.append(self.make(secret))
        return OpenedSource(self.opened[-1], self.opened[-1], self.opened[-1])

    def reader(self, org: str, connection: str, configuration: Configuration, *, enabled: bool) -> Reader:
        return Reader(org, connection, tuple(plain(configuration, "webhookSecret")), enabled)

    def connection(self, org: str, name: str, configuration: Configuration, *, enabled: bool) -> Connection:
        days = int(str(configuration.settings.get("makeReadyDays", 0)))
        zone = configuration.settings.get("timezone")
        rules = replace(self.rules, make_ready_days=days)
        is_default = zone is None
        return Connection(org, name, self.name, enabled, str(zone or "UTC"), rules, timezone_is_default=is_default)

    def account_of(self, body: bytes) -> int | None:
        return int(json.loads(body)["AccountId"])


def sink_of(secret: str, name: str) -> Sink:
    return Sink(secret, name=name)


@dataclass
class FakePortal:
    """The listing receiver ``portal``."""

    opened: list[Sink] = field(default_factory=list)
    make: Callable[[str, str], Sink] = field(default=sink_of)
    """Makes the client that belongs to an API key, for a name."""
    name: str = "portal"
    title: str = "A portal"
    role: IntegrationRole = IntegrationRole.SINK
    fields: tuple[Field, ...] = (
        Field("url", "PORTAL_URL", "setting", "an address", required=True),
        Field("source", "PORTAL_SOURCE", "setting", "a name"),
        Field("schedule", "PORTAL_SCHEDULE", "setting", "five fields of cron"),
        Field("form", "PORTAL_FORM", "setting", "a word"),
        Field("apiKey", "PORTAL_API_KEY", "secret", "a key", required=True),
    )

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        return _errors(self.fields, configuration)

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        return None

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        return Checked(())

    def schedule(self, configuration: Configuration) -> Schedule | None:
        cron = configuration.settings.get("schedule")
        return Schedule(str(cron), "America/Edmonton") if cron else None

    def form(self, configuration: Configuration) -> str:
        return str(configuration.settings.get("form", ""))

    def open(self, name: str, configuration: Configuration, clock: Clock) -> Sink:
        self.opened.append(self.make(plain(configuration, "apiKey")[0], name))
        return self.opened[-1]
