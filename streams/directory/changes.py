"""The change of an integration by a request: the record to write and the changed fields, or why it is refused."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import fields
from pydantic import JsonValue, SecretStr

from connectors.ports import Configuration, FieldError
from schemas.integrations import (
    ChangeAction,
    Integration,
    IntegrationChange,
    IntegrationRole,
    StoredSecret,
    StoredSetting,
)
from streams.core.policy import Switches
from streams.directory.entry import AnySystem, Entry, in_order
from streams.directory.model import Conflict, Invalid, NotFound, PutIntegration

ORG_NAMES: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
NAMES: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
LARGEST_ID: Final = 2**63 - 1

_TICK: Final = timedelta(microseconds=1)

Seal = Callable[[str, SecretStr, datetime], StoredSecret]
"""Encrypts a secret (its name, its value, since when) of the integration that is changed."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and when."""

    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A record to write, and what is noted of it in the history."""

    record: Integration
    action: ChangeAction
    fields: tuple[str, ...] = ()

    def history(self) -> IntegrationChange:
        """Return the entry of the audit trail."""
        one = self.record
        return IntegrationChange(
            org=one.org,
            name=one.name,
            system=one.system,
            version=one.version,
            action=self.action,
            at=one.changed_at,
            by=one.changed_by,
            fields=self.fields,
        )


# --------------------------------------------------------------------------------------------------------------- put


def put(
    current: Entry | None,
    key: tuple[str, str],
    system: AnySystem,
    body: PutIntegration,
    author: Author,
    seal: Seal,
    token: Callable[[], str],
) -> Change | None:
    """Return what a PUT changes, null if nothing. Raise `Conflict` or `Invalid`.

    What the environment describes is copied: its secrets that the body does not name become stored ones. A new record
    is disabled, such a copy too, so that no account is read before an operator has checked and enabled it.
    """
    _refuse(current, body)
    secrets = _Secrets(current, system, body)
    configuration = Configuration(body.settings, secrets.values, body.mode)
    switches, wrong_switches = _switches(current, body)
    errors = [*secrets.errors, *wrong_switches]
    wrong = {one.pointer for one in errors}
    errors += [one for one in system.errors(configuration) if one.pointer not in wrong]
    if errors:
        raise Invalid(tuple(errors))
    record = current.record if current else None
    changed = Integration(
        org=key[0],
        name=key[1],
        system=system.name,
        role=system.role,
        mode=body.mode,
        enabled=record.enabled if record else False,
        settings=_settings(body.settings),
        secrets=secrets.sealed(author.now, seal),
        webhook_token=record.webhook_token if record else token() if system.role is IntegrationRole.SOURCE else None,
        properties_default=switches.default,
        properties_on=tuple(sorted(switches.on)),
        properties_off=tuple(sorted(switches.off)),
        version=record.version + 1 if record else 1,
        created_at=record.created_at if record else author.now,
        changed_at=author.now,
        changed_by=author.by,
        enabled_at=record.enabled_at if record else None,
    )
    fields = tuple(sorted({*_changed_settings(record, changed), *secrets.changed}))
    if record is None:
        return Change(changed, ChangeAction.CREATED, fields)
    return Change(changed, ChangeAction.CHANGED, fields) if fields else None


def _refuse(current: Entry | None, body: PutIntegration) -> None:
    version = current.version if current else None
    if body.expected_version is not None and body.expected_version != version:
        there = "there is none" if version is None else f"it has version {version}"
        raise Conflict(f"version {body.expected_version} was expected, but {there}: read it again")
    if current and current.system != body.system:
        raise Conflict(
            f"{current.name} is an integration of {current.system}; one of {body.system} needs another name, "
            f"or {current.name} has to be deleted first"
        )


class _Secrets:
    """The secrets after a PUT: those in the request, and present ones that it does not name."""

    def __init__(self, current: Entry | None, system: AnySystem, body: PutIntegration) -> None:
        self._record = current.record if current else None
        self._several = {one.name for one in system.fields if one.several}
        before = current.configuration.secrets if current else {}
        requested = {name: _as_tuple(value) for name, value in body.secrets.items()}
        self.values: dict[str, tuple[SecretStr, ...]] = {
            name: value for name, value in {**before, **requested}.items() if value
        }
        unreadable = {one.name for one in current.secrets if not one.readable} if current else set()
        self.errors = [*self._wrong(requested), *_unreadable(unreadable - requested.keys())]
        self._kept = {
            name
            for name in {*before, *unreadable}
            if self._record is not None
            and (name not in requested or (name not in unreadable and requested[name] == before.get(name)))
        }
        copied = set() if self._record else before.keys() - requested.keys()
        named = {
            name for name in requested if name not in self._kept and (requested[name] or name in {*before, *unreadable})
        }
        self.changed = {pointer("secrets", name) for name in {*named, *copied}}

    def _wrong(self, requested: Mapping[str, tuple[SecretStr, ...]]) -> Iterable[FieldError]:
        for name, values in requested.items():
            if len(values) > 1 and name not in self._several:
                yield FieldError(pointer("secrets", name), "only one value is possible")
            if not all(is_text(one) for one in values):
                yield FieldError(pointer("secrets", name), "it contains invalid characters")

    def sealed(self, now: datetime, seal: Seal) -> tuple[StoredSecret, ...]:
        """Return the secrets to store: kept ones as they are, the others encrypted; those of one name newest first."""
        kept = tuple(one for one in self._record.secrets if one.name in self._kept) if self._record else ()
        new = [
            seal(name, one, now - number * _TICK)
            for name, values in self.values.items()
            if name not in self._kept
            for number, one in enumerate(values)
        ]
        return in_order((*kept, *new))


def _as_tuple(value: SecretStr | tuple[SecretStr, ...] | None) -> tuple[SecretStr, ...]:
    return () if value is None else (value,) if isinstance(value, SecretStr) else value


def _unreadable(names: Iterable[str]) -> Iterable[FieldError]:
    for name in sorted(names):
        detail = "the stored one cannot be decrypted: enter it again, or null to remove it"
        yield FieldError(pointer("secrets", name), detail)


def is_text(secret: SecretStr) -> bool:
    """Return whether a secret can be written as UTF-8 (JSON allows half of a character)."""
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        return False
    return True


def _switches(current: Entry | None, body: PutIntegration) -> tuple[Switches, list[FieldError]]:
    before = current.switches if current else Switches()
    on = before.on if body.properties_on is None else frozenset(body.properties_on)
    off = before.off if body.properties_off is None else frozenset(body.properties_off)
    errors = [
        FieldError(pointer("properties", name), "ids of properties are positive whole numbers")
        for name, ids in (("on", on), ("off", off))
        if not all(0 < one <= LARGEST_ID for one in ids)
    ]
    if on & off:
        both = ", ".join(str(one) for one in sorted(on & off))
        errors.append(FieldError(pointer("properties", "off"), f"also in /properties/on: {both}"))
    default = before.default if body.properties_default is None else body.properties_default
    return Switches(default, on, off), errors


def _settings(values: Mapping[str, JsonValue]) -> tuple[StoredSetting, ...]:
    return tuple(StoredSetting(name=name, value=json.dumps(values[name], sort_keys=True)) for name in sorted(values))


_DEFAULTS: Final = {field.name: field.default for field in fields(Integration)}


def _changed_settings(before: Integration | None, after: Integration) -> Iterable[str]:
    old = {one.name: one.value for one in before.settings} if before else {}
    new = {one.name: one.value for one in after.settings}
    yield from (pointer("settings", name) for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if before is None or before.mode != after.mode:
        yield "/mode"
    switches = ("properties_default", "properties_on", "properties_off")
    for name in switches:
        if getattr(before, name, _DEFAULTS[name]) != getattr(after, name):
            yield pointer("properties", name.removeprefix("properties_"))


def pointer(*parts: str) -> str:
    """Return an RFC 6901 pointer."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def wrong_key(org: str, name: str) -> tuple[FieldError, ...]:
    """Return what is wrong with the names of an org and an integration."""
    errors = []
    if not ORG_NAMES.fullmatch(org):
        errors.append(FieldError("", "the org is at most 64 letters, digits, dots, dashes and underscores"))
    if not NAMES.fullmatch(name):
        detail = "a name is at most 64 small letters, digits and dashes, a letter or digit at both ends"
        errors.append(FieldError("", detail))
    return tuple(errors)


# -------------------------------------------------------------------------------------------------- the other requests


def stored_one(entry: Entry | None, org: str, name: str) -> tuple[Entry, Integration]:
    """Return an entry that is a record. Raise `NotFound`, or `Conflict` for one that the environment describes."""
    if entry is None:
        raise NotFound(f"{org} has no integration {name}")
    if entry.record is None:
        raise Conflict(
            f"{name} is described by the environment: change the settings of the processes there "
            f"(BUILDIUM_SYNC_ENABLED turns the reading of Buildium on and off), or store it with PUT first"
        )
    return entry, entry.record


def enabled(entry: Entry, record: Integration, author: Author) -> Change | None:
    """Return the enabling, null if it is enabled. Raise `Conflict` if it has a problem."""
    if entry.problem:
        raise Conflict(f"{record.name} cannot be enabled: {entry.problem}")
    if record.enabled:
        return None
    return Change(_next(record, author, enabled=True, enabled_at=author.now), ChangeAction.ENABLED)


def disabled(record: Integration, author: Author) -> Change | None:
    """Return the disabling, null if it is disabled."""
    return (
        Change(_next(record, author, enabled=False, enabled_at=None), ChangeAction.DISABLED) if record.enabled else None
    )


def deleted(record: Integration, author: Author) -> Change:
    """Return the deletion: of its record only the history is written."""
    return Change(_next(record, author), ChangeAction.DELETED)


def rotated(record: Integration, field: str, secret: SecretStr, author: Author, seal: Seal) -> Change:
    """Return the change that adds a secret beside those that are there, as the newest."""
    at = max([author.now, *(one.added_at + _TICK for one in record.secrets if one.name == field)])
    secrets = in_order((*record.secrets, seal(field, secret, at)))
    return Change(_next(record, author, secrets=secrets), ChangeAction.ROTATED, (pointer("secrets", field),))


def without_secret(record: Integration, field: str, since: datetime, author: Author) -> Change:
    """Return the change that removes the secret that was set at a time. Raise `NotFound` if there is none."""
    left = tuple(one for one in record.secrets if (one.name, one.added_at) != (field, since))
    if len(left) == len(record.secrets):
        raise NotFound(f"{record.name} has no {field} since {since.isoformat()}: read the integration again")
    return Change(_next(record, author, secrets=left), ChangeAction.ROTATED, (pointer("secrets", field),))


def reencrypted(entry: Entry, record: Integration, first: str, author: Author, seal: Seal) -> Change | None:
    """Return the same secrets encrypted with the first key, null if they are; unreadable ones stay as they are."""
    values: dict[str, list[SecretStr]] = {name: list(several) for name, several in entry.configuration.secrets.items()}
    secrets, names = [], []
    for stored, state in zip(in_order(record.secrets), entry.secrets, strict=True):
        plain = values[stored.name].pop(0) if state.readable else None
        if plain is None or stored.key_id == first:
            secrets.append(stored)
        else:
            secrets.append(seal(stored.name, plain, stored.added_at))
            names.append(pointer("secrets", stored.name))
    if not names:
        return None
    return Change(_next(record, author, secrets=tuple(secrets)), ChangeAction.REENCRYPTED, tuple(dict.fromkeys(names)))


def _next(record: Integration, author: Author, **changes: object) -> Integration:
    common = {"version": record.version + 1, "changed_at": author.now, "changed_by": author.by}
    return record.model_copy(update={**common, **changes})
