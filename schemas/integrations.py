"""Integrations as records: which systems an org is connected to, with which settings and (encrypted) secrets.

`Integration` is the configuration, one record per org and name on a compacted topic. What is learned about an
integration while it runs (`CheckReport`, `SyncProgress`, `SyncResult`) is written elsewhere, so that a change of the
configuration and a finding never overwrite each other.
"""

from collections.abc import Mapping
from enum import StrEnum

from schemas.base import EntityKind, Instant, Model


class IntegrationRole(StrEnum):
    """Whether a system is read from or written to."""

    UNKNOWN = "unknown"
    SOURCE = "source"
    """A property management system."""
    SINK = "sink"
    """A listing receiver."""


class IntegrationMode(StrEnum):
    """Which environment of the system the credentials belong to."""

    UNKNOWN = "unknown"
    SANDBOX = "sandbox"
    PRODUCTION = "production"


class StoredSetting(Model, frozen=True, kw_only=True):
    """One setting of an integration."""

    name: str
    """In camelCase, as the API has it (``baseUrl``)."""
    value: str
    """JSON text of the value."""


class StoredSecret(Model, frozen=True, kw_only=True):
    """One secret of an integration, encrypted with AES-256-GCM.

    Associated data: ``org/integration/secret``, so that a ciphertext cannot be moved to another integration.
    """

    name: str
    """In camelCase, as the API has it (``clientSecret``). A webhook secret may be there several times."""
    key_id: str
    """Which of `RENTSTREAM_ENCRYPTION_KEYS` encrypted it."""
    nonce: bytes
    """Twelve random bytes, never used twice with a key."""
    ciphertext: bytes
    """With the sixteen bytes of the tag at its end."""
    added_at: Instant


class Integration(Model, frozen=True, kw_only=True):
    """The configuration of one integration of an org. Written to ``integrations``, key ``org/name``; null deletes."""

    org: str
    name: str
    system: str
    """A row of `connectors.registry` (``buildium``, ``rentsync``)."""
    role: IntegrationRole
    mode: IntegrationMode = IntegrationMode.PRODUCTION
    enabled: bool = False
    settings: tuple[StoredSetting, ...] = ()
    """Only those that were given, by name."""
    secrets: tuple[StoredSecret, ...] = ()
    webhook_token: str | None = None
    """Last part of the address that the system sends webhooks to: unguessable, but not a secret."""
    properties_default: bool = True
    """Whether a property that is not named below takes part."""
    properties_on: tuple[int, ...] = ()
    """Properties (the PMS's ids) that take part although the default is off."""
    properties_off: tuple[int, ...] = ()
    """Properties that do not take part although the default is on."""
    version: int = 1
    """Counts the changes since the integration was created."""
    created_at: Instant
    changed_at: Instant
    changed_by: str
    """Subject of the token, or the user of the command line."""
    enabled_at: Instant | None = None
    """When it was enabled last; null while it is disabled."""


class ChangeAction(StrEnum):
    """What was done to an integration."""

    UNKNOWN = "unknown"
    CREATED = "created"
    CHANGED = "changed"
    ENABLED = "enabled"
    DISABLED = "disabled"
    ROTATED = "rotated"
    """A webhook secret was added, or an older one removed."""
    REENCRYPTED = "reencrypted"
    DELETED = "deleted"


class IntegrationChange(Model, frozen=True, kw_only=True):
    """One change of an integration, for the audit trail. Written to ``integrations.history``; holds no secret."""

    org: str
    name: str
    system: str
    version: int
    action: ChangeAction
    at: Instant
    by: str
    fields: tuple[str, ...] = ()
    """JSON pointers of the settings and secrets that changed (``/settings/baseUrl``), without their values."""


class CheckStatus(StrEnum):
    """How one check ended."""

    UNKNOWN = "unknown"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It depends on a check that failed."""


class CheckResult(Model, frozen=True, kw_only=True):
    """One named check of a connection test."""

    name: str
    """Stable, in snake_case (``permission_leases``)."""
    status: CheckStatus
    milliseconds: int
    detail: str
    """What was found, one sentence without secrets."""
    fix: str | None = None
    """What to do, where it failed."""
    required: bool = True
    """Whether the connection test fails without it; false: its failure is a warning."""


class AccessLevel(StrEnum):
    """Whether an operation on a kind of entity is permitted."""

    UNKNOWN = "unknown"
    OK = "ok"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    """The system has no such operation, or RentStream does not use it."""
    UNTESTED = "untested"


class EntityAccess(Model, frozen=True, kw_only=True):
    """What the credentials may do with one kind of entity."""

    entity: str
    """Plural, as the system names it (``properties``, ``listings``)."""
    read: AccessLevel = AccessLevel.UNTESTED
    create: AccessLevel = AccessLevel.UNTESTED
    update: AccessLevel = AccessLevel.UNTESTED


class CheckReport(Model, frozen=True, kw_only=True):
    """The last connection test of an integration. Written to ``integrations.status``."""

    org: str
    name: str
    version: int
    """Version of the integration that was tested; 0 for one that the environment describes."""
    at: Instant
    passed: bool
    checks: tuple[CheckResult, ...]
    access: tuple[EntityAccess, ...] = ()
    account: int | None = None
    """The account's id in the PMS, as webhooks name it (``AccountId``)."""


class SyncProgress(Model, frozen=True, kw_only=True):
    """How far the running full sync of a source is, or why it stopped. Written to ``integrations.status``."""

    org: str
    name: str
    sweep: str
    started_at: Instant
    at: Instant
    stage: EntityKind
    number: int
    """Which stage this is, from 1."""
    stages: int
    read: int = 0
    """Entities of this stage read so far."""
    total: int | None = None
    """How many the stage has, once the PMS reported it."""
    failed: str | None = None
    """Why the sync ended without a result, one sentence."""
    denied: tuple[EntityKind, ...] = ()
    """Kinds that the credentials may not read, and that the sync left out."""


class SyncResult(Model, frozen=True, kw_only=True):
    """The last full sync of a source that was read to its end. Written to ``integrations.status``."""

    org: str
    name: str
    sweep: str
    started_at: Instant
    ended_at: Instant
    entities: int
    first_sweep: str
    """The first complete one."""
    denied: tuple[EntityKind, ...] = ()
    held_removals: int = 0
    """Entities whose removal waits for the confirmation of a person."""


class HoldReport(Model, frozen=True, kw_only=True):
    """An integration that is not called for a while, or its release. Written to ``integrations.status``."""

    org: str
    name: str
    version: int
    """Version of the integration that it is about: another one is not held by it."""
    reason: str
    """One word of a closed set (`streams.core.retry.Reason`)."""
    detail: str
    """Why, one sentence without secrets."""
    since: Instant
    """When it began; names the hold."""
    until: Instant | None = None
    """When the next call is tried; null: the hold has ended."""
    refused: bool = False
    """Whether the configuration was refused: a person has to correct it."""
    pause_seconds: int = 0
    """The pause before the next trial, which doubles if that fails."""


STATUS_KINDS: Mapping[type[Model], str] = {
    CheckReport: "check",
    SyncProgress: "progress",
    SyncResult: "sync",
    HoldReport: "hold",
}
"""The records of ``integrations.status``, and how their keys end."""
