"""The directory: every integration of every org in the memory of a process, kept up to date by records.

Stored integrations win over what the environment describes, one by one. Answers are immutable and cheap; records may
arrive between any two of them.
"""

import logging
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from connectors.ports import Configuration, Connection, WebhookReader
from schemas import topics
from schemas.base import Model
from schemas.codec import DecodeError, UnknownWriter, decode_as
from schemas.integrations import (
    STATUS_KINDS,
    CheckReport,
    HoldReport,
    Integration,
    IntegrationRole,
    SyncProgress,
    SyncResult,
)
from schemas.partitions import partition_for
from streams.core.policy import EPOCH, SinkPolicy, Switches, fingerprint, switches_of
from streams.directory.entry import AnySystem, Entry, HeldReader, as_source, described, stored
from streams.directory.keyring import KeyRing
from streams.directory.model import IntegrationState
from streams.directory.sync import sync_of

log = logging.getLogger("streams.directory")

R = TypeVar("R", bound=Model)

ORG: Final = "default"
"""The org of what the environment describes."""

TOPICS: Final = (topics.INTEGRATIONS.name, topics.INTEGRATION_STATUS.name)
"""The topics that a directory is built from."""

CHECK, PROGRESS, RESULT, HOLD = (STATUS_KINDS[one] for one in (CheckReport, SyncProgress, SyncResult, HoldReport))
"""Last parts of the keys of `topics.INTEGRATION_STATUS`."""

Key = tuple[str, str]
"""Org and name."""


def key_of(org: str, name: str) -> bytes:
    """Return the key of an integration's record."""
    return f"{org}/{name}".encode()


def status_key(org: str, name: str, kind: str) -> bytes:
    """Return the key of a record of an integration's status; ``kind`` is `CHECK`, `PROGRESS` or `RESULT`."""
    return f"{org}/{name}/{kind}".encode()


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that could not be decoded; the one before it still counts."""

    topic: str
    key: str
    detail: str


LAYOUT: Final = 2
"""Part of the revision of a receiver; another number makes a new release look at everything once."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The orgs of a partition, and their sources."""

    orgs: tuple[str, ...]
    connections: tuple[Connection, ...]


class Directory:
    """All integrations, as far as the records go that were applied."""

    def __init__(
        self,
        systems: Mapping[str, AnySystem],
        environment: Mapping[str, Configuration],
        environment_enabled: bool,
        keyring: KeyRing,
        *,
        started_at: datetime = EPOCH,
    ) -> None:
        """Begin with what the environment describes, by the name of its system.

        ``environment_enabled`` is about its sources; a receiver of the environment is always enabled. ``started_at`` is
        shown as the moment since which the environment's secrets are known.
        """
        self._caught_up = False
        self.systems = systems
        self._webhook_systems = frozenset(
            name for name, system in systems.items() if system.role is IntegrationRole.SOURCE
        )
        self._keyring = keyring
        self._revision = 0
        self._configured = 0
        self._environment = {
            (ORG, name): described(
                ORG,
                systems[name],
                configuration,
                enabled=environment_enabled or systems[name].role is not IntegrationRole.SOURCE,
                since=started_at,
            )
            for name, configuration in environment.items()
        }
        self._entries: dict[Key, Entry] = {}
        self._by_org: dict[str, dict[str, Entry]] = {}
        self._by_system: dict[str, dict[Key, Entry]] = {}
        self._by_token: dict[tuple[str, str], Key] = {}
        self._checks: dict[Key, CheckReport] = {}
        self._progress: dict[Key, SyncProgress] = {}
        self._results: dict[Key, SyncResult] = {}
        self._holds: dict[Key, HoldReport] = {}
        self._unreadable: dict[tuple[str, bytes | None], UnreadableRecord] = {}
        self._connections: tuple[Connection, ...] | None = None
        self._on_partitions: dict[tuple[int, int], Accounts] = {}
        self._sinks: dict[str, tuple[SinkPolicy, ...]] = {}
        self._policies: dict[Key, tuple[SinkPolicy, ...]] = {}
        for key, entry in self._environment.items():
            self._replace(key, entry)

    # ------------------------------------------------------------------------------------------------------- records

    @property
    def caught_up(self) -> bool:
        """Return whether all records were applied that were there at the start; the follower sets it."""
        return self._caught_up

    @caught_up.setter
    def caught_up(self, value: bool) -> None:
        self._caught_up = value
        if value:
            for entry in self._entries.values():
                _warn(entry)

    @property
    def revision(self) -> int:
        """Return a number that grows with every record."""
        return self._revision

    @property
    def configured(self) -> int:
        """Return a number that grows with every change of a configuration."""
        return self._configured

    @property
    def unreadable(self) -> tuple[UnreadableRecord, ...]:
        """Return the records that could not be decoded and that no later record has replaced."""
        return tuple(self._unreadable.values())

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Apply one record; null deletes. One that cannot be decoded is noted and skipped."""
        self._revision += 1
        try:
            if topic == topics.INTEGRATIONS.name:
                self._apply_integration(key, value)
            elif topic == topics.INTEGRATION_STATUS.name:
                self._apply_status(key, value)
        except (DecodeError, UnknownWriter) as error:
            self._note(topic, key, str(error))
        except Exception as error:  # its text may quote what was read
            self._note(topic, key, f"a record that this release cannot apply ({type(error).__name__})")
        else:
            self._unreadable.pop((topic, key), None)

    def _note(self, topic: str, key: bytes | None, detail: str) -> None:
        shown = "no key" if key is None else key.decode(errors="replace")
        noted = UnreadableRecord(topic, shown, detail)
        if self._unreadable.get((topic, key)) != noted:
            self._unreadable[topic, key] = noted
            log.warning("Record %s of %s is skipped: %s", shown, topic, detail)

    def _apply_integration(self, key: bytes | None, value: bytes | None) -> None:
        org, name = _parts(key, 2)
        if value is None:
            self._replace((org, name), self._environment.get((org, name)))
            return
        record = _decoded(Integration, value, org, name)
        entry = stored(record, self.systems.get(record.system), self._keyring)
        if self._caught_up:  # what a later record has replaced already is nothing to warn about
            _warn(entry)
        self._replace((org, name), entry)

    def _apply_status(self, key: bytes | None, value: bytes | None) -> None:
        org, name, kind = _parts(key, 3)
        if kind == CHECK:
            _keep(self._checks, CheckReport, org, name, value)
        elif kind == PROGRESS:
            _keep(self._progress, SyncProgress, org, name, value)
        elif kind == RESULT:
            _keep(self._results, SyncResult, org, name, value)
        elif kind == HOLD:
            _keep(self._holds, HoldReport, org, name, value)
        else:
            raise DecodeError(f"no kind of status is called {kind}")

    def _replace(self, key: Key, entry: Entry | None) -> None:
        """Put an entry into every index, in place of the one before."""
        self._configured += 1
        self._connections = None
        self._on_partitions.clear()
        self._sinks.pop(key[0], None)
        self._policies.clear()
        before = self._entries.pop(key, None)
        if before is not None:
            del self._by_org[key[0]][key[1]]
            del self._by_system[before.system][key]
            if before.webhook_token:
                self._by_token.pop((before.system, before.webhook_token), None)
        if entry is not None:
            self._entries[key] = entry
            self._by_org.setdefault(key[0], {})[key[1]] = entry
            self._by_system.setdefault(entry.system, {})[key] = entry
            if entry.webhook_token:
                self._by_token[entry.system, entry.webhook_token] = key

    # ------------------------------------------------------------------------------------------------- configurations

    def get(self, org: str, name: str) -> Entry | None:
        return self._entries.get((org, name))

    def integrations(self, org: str | None = None) -> tuple[Entry, ...]:
        """Return the integrations of an org, or all, by org and name."""
        found = self._entries if org is None else {(org, name): one for name, one in self._by_org.get(org, {}).items()}
        return tuple(found[key] for key in sorted(found))

    def orgs(self) -> tuple[str, ...]:
        """Return the orgs that have integrations."""
        return tuple(sorted(self._by_org))

    def environment(self, org: str, name: str) -> Entry | None:
        """Return what the environment describes under this name, whether it counts or not."""
        return self._environment.get((org, name))

    def connections(self, org: str | None = None) -> tuple[Connection, ...]:
        """Return the sources of an org, or of all; those that cannot be used are not enabled."""
        if self._connections is None:
            self._connections = tuple(one.connection for one in self.integrations() if one.connection)
        return self._connections if org is None else tuple(one for one in self._connections if one.org == org)

    def on_partition(self, partition: int, partitions: int) -> "Accounts":
        """Return what is on one of so many partitions."""
        found = self._on_partitions.get((partition, partitions))
        if found is None:
            orgs = tuple(one for one in self.orgs() if partition_for(one, partitions) == partition)
            connections = tuple(one for one in self.connections() if one.org in set(orgs))
            found = self._on_partitions[partition, partitions] = Accounts(orgs, connections)
        return found

    def connection(self, org: str, name: str) -> Connection | None:
        entry = self._entries.get((org, name))
        return entry.connection if entry else None

    def sinks(self, org: str) -> tuple[SinkPolicy, ...]:
        """Return the enabled receivers of an org, also those that cannot be reached at the moment."""
        found = self._sinks.get(org)
        if found is None:
            found = tuple(one.policy for one in self.integrations(org) if one.policy)
            self._sinks[org] = found
        return found

    def policies(self, org: str, connection: str) -> tuple[SinkPolicy, ...]:
        """Return the same receivers with the revision that they and a connection have together."""
        found = self._policies.get((org, connection))
        if found is None:
            source = self._entries.get((org, connection))
            facts: list[object] = []
            if source and source.connection:
                rules = astuple(source.connection.rules)
                facts = [LAYOUT, source.connection.timezone, *rules, *switches_of(source.switches)]
            found = tuple(
                replace(
                    one,
                    revision=fingerprint(
                        one.identity, str(one.enabled_at), *switches_of(one.switches), *facts, *_form(one)
                    ),
                )
                for one in self.sinks(org)
            )
            self._policies[org, connection] = found
        return found

    @property
    def sink_systems(self) -> tuple[str, ...]:
        """Return the names of the systems that receive, by name."""
        return tuple(sorted(name for name, system in self.systems.items() if system.role is IntegrationRole.SINK))

    def system_of(self, org: str, name: str) -> str:
        """Return the name of an integration's system; ``other`` for one that is not there."""
        entry = self._entries.get((org, name))
        return entry.system if entry else "other"

    def switches(self, org: str, name: str) -> Switches:
        """Return the per-property switches of an integration; for one that is not there everything is on."""
        entry = self._entries.get((org, name))
        return entry.switches if entry else Switches()

    # ------------------------------------------------------------------------------------------------------- webhooks

    @property
    def webhook_systems(self) -> frozenset[str]:
        """Return the names of the systems that send webhooks."""
        return self._webhook_systems

    def readers(self, system: str, token: str | None, body: bytes) -> tuple[WebhookReader, ...]:
        """Return the readers to try in this order: the first that verifies a webhook has it. Empty: no such address.

        ``token`` is the last part of the path. In the org of the environment the name of an integration is taken too.
        """
        if token is not None:
            entry = self._entries.get(self._by_token.get((system, token), (ORG, token)))
            return (entry.reader,) if entry and entry.system == system and entry.reader else ()
        found = self._by_system.get(system, {})
        account = self._account(system, body) if len(found) > 1 else None

        def last(key: Key) -> tuple[bool, bool, bool]:
            report = self._checks.get(key)
            strange = account is None or report is None or report.account != account
            return isinstance(found[key].reader, HeldReader), strange, not found[key].enabled

        return tuple(reader for key in sorted(found, key=last) if (reader := found[key].reader))

    def _account(self, system: str, body: bytes) -> int | None:
        source = as_source(self.systems.get(system))
        try:
            return source.account_of(body) if source else None
        except Exception as error:  # the body is not verified, so it may be anything
            log.warning("The account of a webhook of %s cannot be read (%s)", system, type(error).__name__)
            return None

    # --------------------------------------------------------------------------------------------------------- status

    def report(self, org: str, name: str) -> CheckReport | None:
        """Return the last connection test of the integration that now has this name."""
        found = self._checks.get((org, name))
        return found if found and found.at >= self._created(org, name) else None

    def sync_failed_at(self, org: str, name: str) -> datetime | None:
        """Return when the last full sync of a source ended without a result; null if it did not."""
        progress = self._progress.get((org, name))
        return progress.at if progress and progress.failed is not None else None

    def hold_report(self, org: str, name: str) -> HoldReport | None:
        """Return the last report about holds of an integration; one that has ended has no ``until``."""
        return self._holds.get((org, name))

    def hold(self, org: str, name: str) -> HoldReport | None:
        """Return why an enabled integration is not called at the moment; null if it is."""
        entry, report = self._entries.get((org, name)), self._holds.get((org, name))
        if entry is None or not entry.enabled or report is None or report.until is None:
            return None
        return report if report.version == entry.version and report.since >= self._created(org, name) else None

    def held_systems(self) -> frozenset[str]:
        """Return the systems of which an integration is on hold; may be called in any thread."""
        return frozenset(self.system_of(*key) for key in list(self._holds) if self.hold(*key))

    def status_keys(self, org: str, name: str) -> tuple[bytes, ...]:
        """Return the keys of the records of status that there are."""
        kinds: tuple[tuple[str, Mapping[Key, Model]], ...] = (
            (CHECK, self._checks),
            (PROGRESS, self._progress),
            (RESULT, self._results),
            (HOLD, self._holds),
        )
        return tuple(status_key(org, name, kind) for kind, records in kinds if (org, name) in records)

    def state(self, org: str, name: str) -> IntegrationState | None:
        """Return the state of an integration; null if there is none with this name."""
        entry = self._entries.get((org, name))
        if entry is None:
            return None
        created = self._created(org, name)
        progress, result = self._progress.get((org, name)), self._results.get((org, name))
        sync = sync_of(
            entry.role,
            progress if progress and progress.started_at >= created else None,
            result if result and result.started_at >= created else None,
            enabled_at=entry.record.enabled_at if entry.record else None,
            enabled=entry.enabled,
            held=entry.problem is not None,
        )
        report = self.report(org, name)
        return IntegrationState(
            org=org,
            name=name,
            system=entry.system,
            role=entry.role,
            mode=entry.mode,
            enabled=entry.enabled,
            origin=entry.origin,
            settings=entry.configuration.settings,
            secrets=entry.secrets,
            webhook_path=entry.webhook_path,
            access=report.access if report else (),
            checks=report,
            sync_state=sync.state,
            sync_detail=sync.detail,
            last_ran=sync.last_ran,
            last_status=sync.last_status,
            last_sweep=sync.last_sweep,
            held_removals=sync.held_removals,
            hold=entry.problem.detail if entry.problem else _shown(self.hold(org, name)),
            properties_default=entry.switches.default,
            properties_on=tuple(sorted(entry.switches.on)),
            properties_off=tuple(sorted(entry.switches.off)),
            version=entry.version,
        )

    def _created(self, org: str, name: str) -> datetime:
        """Return since when records of status concern the integration of this name, and not one before it."""
        entry = self._entries.get((org, name))
        return entry.record.created_at if entry and entry.record else EPOCH


def _form(policy: SinkPolicy) -> list[str]:
    """Return the form of batches as a fact of the revision; none for the usual one, as former releases had it."""
    return [policy.form] if policy.form else []


def _shown(report: HoldReport | None) -> str | None:
    """Return a hold in words, with its beginning and the next trial."""
    if report is None or report.until is None:
        return None
    since, until = f"{report.since:%Y-%m-%dT%H:%M:%SZ}", f"{report.until:%Y-%m-%dT%H:%M:%SZ}"
    what = "correct the configuration; " if report.refused else ""
    return f"{report.detail} ({what}on hold since {since}, the next call is tried at {until})"


def _warn(entry: Entry) -> None:
    if entry.problem:
        log.warning("Integration %s/%s is held: %s", entry.org, entry.name, entry.problem)


def _parts(key: bytes | None, count: int) -> tuple[str, ...]:
    parts = (key or b"").decode(errors="replace").split("/")
    if len(parts) != count or not all(parts):
        raise DecodeError(f"its key has to have {count} parts, separated by slashes")
    return tuple(parts)


def _decoded(record: type[R], value: bytes, org: str, name: str) -> R:
    """Decode a value that has to be about the integration that its key names."""
    found = decode_as(record, value)
    if (getattr(found, "org", None), getattr(found, "name", None)) != (org, name):
        raise DecodeError("it is about another integration than its key names")
    return found


def _keep(records: dict[Key, R], record: type[R], org: str, name: str, value: bytes | None) -> None:
    if value is None:
        records.pop((org, name), None)
    else:
        records[org, name] = _decoded(record, value, org, name)
