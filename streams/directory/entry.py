"""An entry of the directory: a decrypted and validated integration, with the values that the flows need.

Whatever is wrong with an integration becomes its `Problem`, never an exception: it stops itself and nothing else.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar, cast

from pydantic import JsonValue, SecretStr

from connectors.ports import (
    Configuration,
    Connection,
    Refused,
    Schedule,
    SinkSystem,
    SourceSystem,
    WebhookReader,
)
from connectors.settings import SettingsError
from schemas.integrations import Integration, IntegrationMode, IntegrationRole, StoredSecret
from schemas.pms import FetchRequest
from streams.core.policy import EPOCH, SinkPolicy, Switches, fingerprint, identity
from streams.directory.keyring import KeyRing, Unreadable
from streams.directory.model import Origin, SecretState

log = logging.getLogger("streams.directory")

T = TypeVar("T")

AnySystem = SourceSystem | SinkSystem

LAST4_FROM: Final = 12
"""Characters from which on the last four of a secret are shown."""


class ProblemKind(StrEnum):
    """Why an integration cannot be used."""

    UNKNOWN = "unknown"
    """The org has no integration of this name."""
    DISABLED = "disabled"
    WRONG_ROLE = "wrong_role"
    UNKNOWN_SYSTEM = "unknown_system"
    """This release has no connector of this name."""
    UNREADABLE_SECRET = "unreadable_secret"  # noqa: S105 -- a name, not a secret
    INVALID = "invalid"
    """The connector refuses the configuration."""
    CLOSED = "closed"
    """The process ends."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an integration cannot be used, and one sentence with what to do."""

    kind: ProblemKind
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Entry:
    """One integration of an org."""

    org: str
    name: str
    system: str
    role: IntegrationRole
    mode: IntegrationMode
    enabled: bool
    origin: Origin
    configuration: Configuration
    """With the secrets that could be decrypted."""
    secrets: tuple[SecretState, ...]
    switches: Switches
    version: int
    """0 for one that the environment describes."""
    problem: Problem | None
    connection: Connection | None
    """What the flows have to know of a source; one that has a problem is not enabled."""
    reader: WebhookReader | None
    policy: SinkPolicy | None
    """Of an enabled receiver."""
    record: Integration | None = field(default=None, repr=False)
    """Null for one that the environment describes."""

    @property
    def webhook_token(self) -> str | None:
        return self.record.webhook_token if self.record else None

    @property
    def webhook_path(self) -> str | None:
        """Return the path that the system sends webhooks to; null for a receiver."""
        if self.role is not IntegrationRole.SOURCE:
            return None
        token = self.webhook_token
        return f"/api/webhooks/{self.system}/{token}" if token else f"/api/webhooks/{self.system}"


@dataclass(frozen=True, slots=True)
class HeldReader:
    """Stands in for a webhook reader that lacks its secrets: the sender shall try again later."""

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        del headers, body, now
        return Refused(503, "Webhooks of this integration cannot be verified at the moment; send them again later.")


def stored(record: Integration, system: AnySystem | None, keyring: KeyRing) -> Entry:
    """Return the entry of a record. ``system`` is null where this release does not know it."""
    opened = [(one, _open(keyring, record, one)) for one in in_order(record.secrets)]
    secrets: dict[str, tuple[SecretStr, ...]] = {}
    for one, found in opened:
        if isinstance(found, SecretStr):
            secrets[one.name] = (*secrets.get(one.name, ()), found)
    problem = None
    if system is None:
        detail = f"this release has no system {record.system!r}: upgrade RentStream, or delete the integration"
        problem = Problem(ProblemKind.UNKNOWN_SYSTEM, detail)
    elif unreadable := next((found for _, found in opened if isinstance(found, Unreadable)), None):
        problem = Problem(ProblemKind.UNREADABLE_SECRET, str(unreadable))
    try:
        settings: dict[str, JsonValue] = {one.name: json.loads(one.value) for one in record.settings}
    except ValueError:
        settings = {}
        problem = problem or Problem(ProblemKind.INVALID, f"the settings of {record.name} are damaged: put them again")
    return _entry(
        record.org,
        record.name,
        system,
        Configuration(settings, secrets, record.mode),
        record=record,
        enabled=record.enabled,
        secrets=tuple(_state(one, found) for one, found in opened),
        problem=problem,
    )


def described(org: str, system: AnySystem, configuration: Configuration, *, enabled: bool, since: datetime) -> Entry:
    """Return the entry of what the environment describes; its name is that of the system."""
    secrets = tuple(
        SecretState(name, since, last4(one), readable=True)
        for name, several in sorted(configuration.secrets.items())
        for one in several
    )
    return _entry(org, system.name, system, configuration, record=None, enabled=enabled, secrets=secrets, problem=None)


def in_order(secrets: Iterable[StoredSecret]) -> tuple[StoredSecret, ...]:
    """Return secrets by name, those of one name newest first."""
    newest_first = sorted(secrets, key=lambda one: one.added_at, reverse=True)
    return tuple(sorted(newest_first, key=lambda one: one.name))


def last4(secret: SecretStr) -> str | None:
    """Return the end of a secret that is long enough to show it."""
    plain = secret.get_secret_value()
    return plain[-4:] if len(plain) >= LAST4_FROM else None


def as_source(system: AnySystem | None) -> SourceSystem | None:
    """Return the system if it is read from."""
    return cast("SourceSystem", system) if system is not None and system.role is IntegrationRole.SOURCE else None


def as_sink(system: AnySystem | None) -> SinkSystem | None:
    """Return the system if it is written to."""
    return cast("SinkSystem", system) if system is not None and system.role is IntegrationRole.SINK else None


def _entry(
    org: str,
    name: str,
    system: AnySystem | None,
    configuration: Configuration,
    *,
    record: Integration | None,
    enabled: bool,
    secrets: tuple[SecretState, ...],
    problem: Problem | None,
) -> Entry:
    if problem is None and system is not None:
        problem = _invalid(name, system, configuration)
    role = system.role if system is not None else record.role if record else IntegrationRole.UNKNOWN
    switches = Switches()
    if record:
        on, off = frozenset(record.properties_on), frozenset(record.properties_off)
        switches = Switches(record.properties_default, on, off)
    system_name = record.system if record else name
    policy = None
    if role is IntegrationRole.SINK and enabled:
        created = record.created_at.isoformat() if record else ""
        url = configuration.settings.get("url")
        receiver = identity(system_name, created, url)
        policy = SinkPolicy(
            org,
            name,
            system_name,
            receiver,
            switches,
            address=fingerprint(system_name, url),
            changed_at=record.changed_at if record else EPOCH,
            enabled_at=record.enabled_at or EPOCH if record else EPOCH,
            schedule=_schedule(as_sink(system), configuration),
            form=_form(as_sink(system), configuration),
        )
    connection, reader = None, None
    if role is IntegrationRole.SOURCE:
        connection = _connection(org, name, system_name, as_source(system), configuration, enabled and not problem)
        reader = _reader(org, name, as_source(system), configuration, enabled=enabled, held=problem is not None)
    return Entry(
        org=org,
        name=name,
        system=system_name,
        role=role,
        mode=configuration.mode,
        enabled=enabled,
        origin="stored" if record else "environment",
        configuration=configuration,
        secrets=secrets,
        switches=switches,
        version=record.version if record else 0,
        problem=problem,
        connection=connection,
        reader=reader,
        policy=policy,
        record=record,
    )


def _open(keyring: KeyRing, record: Integration, secret: StoredSecret) -> SecretStr | Unreadable:
    try:
        return keyring.open(secret, org=record.org, integration=record.name)
    except Unreadable as error:
        return error


def _state(secret: StoredSecret, found: SecretStr | Unreadable) -> SecretState:
    readable = isinstance(found, SecretStr)
    return SecretState(secret.name, secret.added_at, last4(found) if isinstance(found, SecretStr) else None, readable)


def _invalid(name: str, system: AnySystem, configuration: Configuration) -> Problem | None:
    errors = _ask(lambda: system.errors(configuration), None)
    if errors is None:
        return Problem(ProblemKind.INVALID, f"the configuration of {name} cannot be read: put it again, or upgrade")
    if not errors:
        return None
    wrong = "; ".join(f"{one.pointer}: {one.detail}" for one in errors)
    return Problem(ProblemKind.INVALID, f"the configuration of {name} is not valid ({wrong}): correct and put it again")


def _connection(
    org: str, name: str, system_name: str, system: SourceSystem | None, configuration: Configuration, enabled: bool
) -> Connection:
    """Return the connection; of one with a problem as much as its settings show, since its rent roll is still there."""
    plain = Connection(org, name, system_name, enabled=False, timezone="UTC")
    if system is None:
        return plain
    return _ask(lambda: system.connection(org, name, configuration, enabled=enabled), plain)


def _schedule(system: SinkSystem | None, configuration: Configuration) -> Schedule | None:
    return None if system is None else _ask(lambda: system.schedule(configuration), None)


def _form(system: SinkSystem | None, configuration: Configuration) -> str:
    return "" if system is None else _ask(lambda: system.form(configuration), "")


def _reader(
    org: str, name: str, system: SourceSystem | None, configuration: Configuration, *, enabled: bool, held: bool
) -> WebhookReader:
    if system is None or held:
        return HeldReader()
    otherwise: WebhookReader = HeldReader()
    return _ask(lambda: system.reader(org, name, configuration, enabled=enabled), otherwise)


def _ask(question: Callable[[], T], otherwise: T) -> T:
    """Ask a connector; its mistake concerns one integration only. The error's text may hold a secret: not logged."""
    try:
        return question()
    except SettingsError:  # reported as the problem of the integration
        return otherwise
    except Exception as error:
        log.warning("A connector failed to read a configuration (%s)", type(error).__name__)
        return otherwise
