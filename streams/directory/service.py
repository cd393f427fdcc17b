"""Changes integrations: validated, written to the log, and answered once the own directory has applied the record."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from weakref import WeakValueDictionary

from pydantic import SecretStr

from connectors.ports import Checked, Clock, Configuration, FieldError
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.integrations import CheckReport, CheckResult, CheckStatus, Integration, IntegrationRole, StoredSecret
from schemas.pms import STAGES, FetchOrigin, FetchRequest, SweepStep
from schemas.topics import TopicSpec
from streams.backends.ports import NotDurable
from streams.core.sweep import asked_sweep_id
from streams.directory import changes
from streams.directory.changes import Author, Change, Seal
from streams.directory.directory import CHECK, Directory, key_of, status_key
from streams.directory.entry import AnySystem, Entry
from streams.directory.keyring import NONCE_BYTES, KeyRing
from streams.directory.model import (
    Conflict,
    IntegrationState,
    Invalid,
    NotFound,
    PutIntegration,
    Unavailable,
)
from streams.runners.global_ import within

log = logging.getLogger("streams.directory")

READ_BACK_WITHIN: Final = 5.0
"""Seconds until the own directory has to have applied what was written."""

CHECK_WITHIN: Final = 15.0
"""Seconds after which a connection test is ended that does not end by itself (it has ten)."""


class Writer(Protocol):
    """Writes records to the partition of an org."""

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Return once it is durable. Raise `streams.backends.ports.NotDurable`."""
        ...


class Follower(Protocol):
    """Brings records to the directory (`streams.runners.global_`)."""

    def expecting(self, topic: str, key: bytes, value: bytes | None) -> "AbstractContextManager[asyncio.Future[None]]":
        """Yield a future that is done once exactly this record was applied."""
        ...


class Ids(Protocol):
    """Makes random values that cannot be guessed."""

    def token(self) -> str:
        """Return the last part of a webhook's address."""
        ...

    def nonce(self) -> bytes:
        """Return twelve random bytes."""
        ...

    def secret(self) -> SecretStr:
        """Return a new webhook secret."""
        ...


@dataclass(frozen=True, slots=True)
class RandomIds:
    """From the operating system's randomness."""

    def token(self) -> str:
        return secrets.token_urlsafe(24)

    def nonce(self) -> bytes:
        return secrets.token_bytes(NONCE_BYTES)

    def secret(self) -> SecretStr:
        return SecretStr(secrets.token_urlsafe(32))


class Integrations:
    """The integrations of all orgs, for the API and the command line."""

    def __init__(
        self,
        directory: Directory,
        follower: Follower,
        producer: Writer,
        keyring: KeyRing,
        systems: Mapping[str, AnySystem],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._directory = directory
        self._follower = follower
        self._producer = producer
        self._keyring = keyring
        self._systems = systems
        self._clock = clock
        self._ids = ids
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # -------------------------------------------------------------------------------------------------------- reading

    async def list(self, org: str) -> Sequence[IntegrationState]:
        """Return the integrations of an org by name. Raise `Unavailable` as long as not all is read."""
        self._ready()
        return tuple(self._state(org, one.name) for one in self._directory.integrations(org))

    async def orgs(self, *, stored: bool = False) -> Sequence[str]:
        """Return the orgs that have integrations (with ``stored``: records of them), by name. Raise `Unavailable`."""
        self._ready()
        if not stored:
            return self._directory.orgs()
        return sorted({one.org for one in self._directory.integrations() if one.record})

    async def get(self, org: str, name: str) -> IntegrationState:
        """Return one integration. Raise `NotFound` or `Unavailable`."""
        self._ready()
        return self._state(org, name)

    # -------------------------------------------------------------------------------------------------------- writing

    async def put(self, org: str, name: str, body: PutIntegration, by: str) -> tuple[IntegrationState, bool]:
        """Store an integration; return its state and whether it is a new record.

        Raise `Invalid`, `Conflict` or `Unavailable`.
        """
        self._ready()
        if wrong := changes.wrong_key(org, name):
            raise Invalid(wrong)
        system = self._systems.get(body.system)
        if system is None:
            known = ", ".join(sorted(self._systems))
            raise Invalid((FieldError("/system", f"no such system; there are: {known}"),))
        async with self._lock(org, name):
            current = self._directory.get(org, name)
            change = changes.put(
                current, (org, name), system, body, self._author(by), self._seal(org, name), self._ids.token
            )
            if change:
                await self._write(change)
            return self._state(org, name), current is None or current.record is None

    async def enable(self, org: str, name: str, by: str) -> IntegrationState:
        """Let an integration work, and end its hold. Raise `NotFound`, `Conflict` with the reason, or `Unavailable`."""
        state = await self._change(org, name, by, changes.enabled)
        await self._release(org, name)
        return self._state(org, name) if state.hold else state

    async def disable(self, org: str, name: str, by: str) -> IntegrationState:
        """Stop an integration; its settings and secrets stay. Raise `NotFound`, `Conflict` or `Unavailable`."""
        return await self._change(org, name, by, lambda _entry, record, author: changes.disabled(record, author))

    async def delete(self, org: str, name: str, by: str) -> None:
        """Delete an integration with its secrets. Raise `NotFound`, `Conflict` or `Unavailable`."""
        self._ready()
        async with self._lock(org, name):
            _, record = changes.stored_one(self._directory.get(org, name), org, name)
            change = changes.deleted(record, self._author(by))
            await self._append(topics.INTEGRATION_HISTORY.name, org, name, encode(change.history()))
            await self._append_and_read(topics.INTEGRATIONS.name, key_of(org, name), org, None)
            await self._forget_status(org, name)

    async def rotate_webhook_secret(
        self, org: str, name: str, secret: SecretStr | None, by: str
    ) -> tuple[IntegrationState, SecretStr | None]:
        """Add a webhook secret and keep the old ones; return the state, and the secret if it was generated.

        Raise `NotFound`, `Conflict`, `Invalid` or `Unavailable`.
        """
        added = self._ids.secret() if secret is None else secret
        if not added.get_secret_value().strip() or not changes.is_text(added):
            raise Invalid((FieldError("/secret", "a webhook secret is text that is not blank"),))

        def rotate(entry: Entry, record: Integration, author: Author) -> Change:
            field = self._webhook_field(entry)
            if not entry.problem and (wrong := self._wrong_secret(entry, field, added)):
                raise Invalid(tuple(FieldError("/secret", one.detail) for one in wrong))
            return changes.rotated(record, field, added, author, self._seal(org, name))

        return await self._change(org, name, by, rotate), added if secret is None else None

    async def remove_webhook_secret(self, org: str, name: str, since: datetime, by: str) -> IntegrationState:
        """Remove the webhook secret that was added at a moment. Raise `NotFound`, `Conflict` or `Unavailable`."""
        return await self._change(
            org,
            name,
            by,
            lambda entry, record, author: changes.without_secret(record, self._webhook_field(entry), since, author),
        )

    async def reencrypt(self, by: str) -> int:
        """Encrypt with the first key what an older one encrypted; return how many integrations that concerned."""
        self._ready()
        count = 0
        for one in self._directory.integrations():
            async with self._lock(one.org, one.name):
                entry = self._directory.get(one.org, one.name)
                if entry is None or entry.record is None:
                    continue
                seal = self._seal(one.org, one.name)
                change = changes.reencrypted(entry, entry.record, self._keyring.first, self._author(by), seal)
                if change:
                    await self._write(change)
                    count += 1
        return count

    async def check(self, org: str, name: str) -> CheckReport:
        """Test the connection with the stored configuration, enabled or not. Raise `NotFound` or `Unavailable`."""
        self._ready()
        entry = self._directory.get(org, name)
        if entry is None:
            raise NotFound(f"{org} has no integration {name}")
        checked = await self._checked(entry)
        report = CheckReport(
            org=org,
            name=name,
            version=entry.version,
            at=self._clock.now(),
            passed=checked.passed,
            checks=checked.checks,
            access=checked.access,
            account=checked.account,
        )
        try:
            key = status_key(org, name, CHECK)
            await self._append_and_read(topics.INTEGRATION_STATUS.name, key, org, encode(report))
        except Unavailable as error:  # the result is useful for the caller even if it cannot be stored
            log.warning("The connection test of %s/%s is not stored: %s", org, name, error)
        return report

    async def sweep(self, org: str, name: str, *, confirm_removals: bool = False) -> str:
        """Ask for a full read of an account now; return its id, which names it in the status.

        ``confirm_removals``: what many answers call gone is removed. Raise `NotFound`, `Conflict` or `Unavailable`.
        """
        self._source(org, name)
        now = self._clock.now()
        step = SweepStep(
            org=org,
            connection=name,
            sweep=asked_sweep_id(now),
            started_at=now,
            stage=STAGES[0],
            asked=True,
            confirms_removals=confirm_removals,
        )
        await self._release(org)
        await self._ask(topics.SWEEPS, step)
        return step.sweep

    async def refresh_property(self, org: str, name: str, property_id: int) -> None:
        """Ask for a property now, with its units, leases and listings, and for its delivery.

        Raise `NotFound`, `Conflict` or `Unavailable`.
        """
        self._source(org, name)
        now = self._clock.now()
        request = FetchRequest(
            org=org,
            connection=name,
            origin=FetchOrigin.ASKED,
            event="asked for by a person",
            kind=EntityKind.PROPERTY,
            entity=property_id,
            received_at=now,
            also=STAGES[1:],
        )
        due = DeliveryDue(org=org, connection=name, property_id=property_id, reason=DueReason.ASKED, seen_at=now)
        await self._release(org)
        await self._ask(topics.WEBHOOKS, request)
        await self._ask(topics.DUE, due)

    async def resend(self, org: str, receiver: str, connection: str, property_id: int, at: datetime) -> None:
        """Ask for a snapshot of a property to a receiver, whatever it knows; ``at`` names the request.

        The receiver gets one snapshot for each moment at most. Raise `NotFound`, `Conflict` or `Unavailable`.
        """
        self._usable(org, receiver, IntegrationRole.SINK, "is no receiver")
        due = DeliveryDue(
            org=org,
            connection=connection,
            property_id=property_id,
            reason=DueReason.ASKED,
            seen_at=at,
            sink=receiver,
            snapshot_at=at,
        )
        await self._release(org, receiver)
        await self._ask(topics.DUE, due)

    # ------------------------------------------------------------------------------------------------------- the parts

    def _source(self, org: str, name: str) -> None:
        """Raise `NotFound`, `Conflict` or `Unavailable` unless an account can be read."""
        self._usable(org, name, IntegrationRole.SOURCE, "is a receiver; only a property management system can be read")

    def _usable(self, org: str, name: str, role: IntegrationRole, otherwise: str) -> None:
        """Raise `NotFound`, `Conflict` or `Unavailable` unless an integration has a role and works."""
        self._ready()
        entry = self._directory.get(org, name)
        if entry is None:
            raise NotFound(f"{org} has no integration {name}")
        if entry.role is not role:
            raise Conflict(f"{name} {otherwise}")
        if entry.problem:
            raise Conflict(f"{name} cannot be used: {entry.problem.detail}")
        if not entry.enabled:
            raise Conflict(f"{name} is disabled: enable it first")

    async def _release(self, org: str, name: str | None = None) -> None:
        """End the hold of an integration, or of all of an org: the next call is tried at once."""
        for entry in self._directory.integrations(org):
            hold = self._directory.hold(org, entry.name)
            if hold is not None and name in (None, entry.name):
                released = hold.model_copy(update={"until": None})
                key = topics.INTEGRATION_STATUS.key_of(released)
                await self._append_and_read(topics.INTEGRATION_STATUS.name, key, org, encode(released))

    async def _ask(self, topic: TopicSpec, record: SweepStep | FetchRequest | DeliveryDue) -> None:
        await _confirmed(self._producer.write(topic.name, topic.key_of(record), record.org, encode(record)))

    def _ready(self) -> None:
        if not self._directory.caught_up:
            raise Unavailable("the stored integrations are not all read from Kafka yet: try again in a moment")

    def _state(self, org: str, name: str) -> IntegrationState:
        state = self._directory.state(org, name)
        if state is None:
            raise NotFound(f"{org} has no integration {name}")
        return state

    def _lock(self, org: str, name: str) -> asyncio.Lock:
        lock = self._locks.get((org, name))
        if lock is None:
            lock = self._locks[org, name] = asyncio.Lock()
        return lock

    def _author(self, by: str) -> Author:
        return Author(by.encode(errors="replace").decode(), self._clock.now())

    def _seal(self, org: str, name: str) -> Seal:
        def seal(secret: str, value: SecretStr, added_at: datetime) -> StoredSecret:
            return self._keyring.seal(
                value, org=org, integration=name, name=secret, added_at=added_at, nonce=self._ids.nonce()
            )

        return seal

    def _webhook_field(self, entry: Entry) -> str:
        system = self._systems.get(entry.system)
        for one in system.fields if system else ():
            if one.kind == "secret" and one.several:
                return one.name
        raise Conflict(f"{entry.name} takes no webhooks: {entry.system} has no webhook secret")

    def _wrong_secret(self, entry: Entry, field: str, secret: SecretStr) -> tuple[FieldError, ...]:
        before = entry.configuration
        several = {**before.secrets, field: (secret, *before.secrets.get(field, ()))}
        return self._systems[entry.system].errors(Configuration(before.settings, several, before.mode))

    async def _change(
        self, org: str, name: str, by: str, decide: Callable[[Entry, Integration, Author], Change | None]
    ) -> IntegrationState:
        """Change a stored integration as decided, and return its state."""
        self._ready()
        async with self._lock(org, name):
            entry, record = changes.stored_one(self._directory.get(org, name), org, name)
            if change := decide(entry, record, self._author(by)):
                await self._write(change)
            return self._state(org, name)

    async def _checked(self, entry: Entry) -> Checked:
        system = self._systems.get(entry.system)
        if entry.problem or system is None:
            detail = (
                entry.problem.detail
                if entry.problem
                else f"this release has no system {entry.system}: upgrade RentStream"
            )
            return _failed("configuration", detail, "Correct what the detail names and check again.")
        began = self._clock.monotonic()
        try:
            return await within(self._clock, system.check(entry.configuration, self._clock), CHECK_WITHIN)
        except TimeoutError:
            fix = "Look whether the address is the right one, and check again."
            return _failed("finished", f"The test did not end within {CHECK_WITHIN:g} s.", fix, self._since(began))
        except Exception as error:  # its text may hold a secret
            log.warning("The connection test of %s failed by itself (%s)", entry.system, type(error).__name__)
            detail = f"The test failed by itself ({type(error).__name__})."
            return _failed("finished", detail, "Report this; it is a mistake of RentStream.", self._since(began))

    def _since(self, began: float) -> int:
        return round((self._clock.monotonic() - began) * 1000)

    async def _write(self, change: Change) -> None:
        """Write the history first: a change without a trace is worse than a trace of a change that failed."""
        one = change.record
        await self._append(topics.INTEGRATION_HISTORY.name, one.org, one.name, encode(change.history()))
        await self._append_and_read(topics.INTEGRATIONS.name, key_of(one.org, one.name), one.org, encode(one))

    async def _forget_status(self, org: str, name: str) -> None:
        """Delete the results of a deleted integration; a new one with the same name would not show them either."""
        try:
            for key in self._directory.status_keys(org, name):
                await self._append_and_read(topics.INTEGRATION_STATUS.name, key, org, None)
        except Unavailable as error:
            log.warning("The status of %s/%s is not deleted: %s", org, name, error)

    async def _append(self, topic: str, org: str, name: str, value: bytes) -> None:
        await _confirmed(self._producer.write(topic, key_of(org, name), org, value))

    async def _append_and_read(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Write a record, and return once the own directory has applied it. Raise `Unavailable`."""
        with self._follower.expecting(topic, key, value) as applied:
            await _confirmed(self._producer.write(topic, key, org, value))
            try:
                await within(self._clock, applied, READ_BACK_WITHIN)
            except TimeoutError:
                raise Unavailable(
                    f"the change is written, but it was not read back within {READ_BACK_WITHIN:g} s: "
                    "read the integration in a moment"
                ) from None


async def _confirmed(writing: Awaitable[None]) -> None:
    try:
        await writing
    except NotDurable as error:
        raise Unavailable(
            f"Kafka does not confirm the change ({error}): read the integration again before another attempt"
        ) from error


def _failed(name: str, detail: str, fix: str, milliseconds: int = 0) -> Checked:
    failed = CheckResult(name=name, status=CheckStatus.FAILED, milliseconds=milliseconds, detail=detail, fix=fix)
    return Checked((failed,))
