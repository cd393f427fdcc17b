"""Takes commands of upstream apps and answers what became of them; see `streams.syncs.book` for what it knows."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from connectors.ports import Clock, FieldError
from schemas import topics
from schemas.codec import encode
from schemas.commands import (
    Command,
    CommandAction,
    OwnerBody,
    PropertyBody,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
)
from schemas.integrations import IntegrationRole
from streams.backends.ports import NotDurable
from streams.directory.directory import Directory
from streams.directory.model import Conflict, Invalid, NotFound, Unavailable
from streams.runners.global_ import within
from streams.syncs.book import SyncBook

READ_BACK_WITHIN: Final = 5.0
"""Seconds until the own book has to have read what was written."""

_IDS: Final = uuid.UUID("0f4e9f5a-6c0f-4a4e-8f2f-0d7f2a1c9b57")
"""The namespace of ids that follow from an idempotency key."""

FAILED: Final = (SyncStatus.FAILED, SyncStatus.CONFLICT)


class KeyReused(Exception):  # noqa: N818 -- what the caller did
    """The idempotency key came with another body before."""


class Writer(Protocol):
    """Writes records to the partition of an org."""

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Return once it is durable. Raise `streams.backends.ports.NotDurable`."""
        ...


class Follower(Protocol):
    """Brings records to the book (`streams.runners.global_`)."""

    def expecting(self, topic: str, key: bytes, value: bytes | None) -> "AbstractContextManager[asyncio.Future[None]]":
        """Yield a future that is done once exactly this record was applied."""
        ...

    async def read_to_end(self) -> bool:
        """Return true once everything is applied that was written before the call; false if that is not possible."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """An accepted command."""

    entity: SyncEntity
    id: str
    operation: str


class Syncs:
    """The commands and states of all orgs."""

    def __init__(
        self,
        book: SyncBook,
        follower: Follower,
        writer: Writer,
        directory: Directory,
        clock: Clock,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._book = book
        self._follower = follower
        self._writer = writer
        self._directory = directory
        self._clock = clock
        self._new_id = new_id

    # ------------------------------------------------------------------------------------------------------- commands

    async def submit(
        self,
        org: str,
        by: str,
        body: PropertyBody | OwnerBody,
        *,
        own_id: str | None = None,
        key: str | None = None,
        connection: str | None = None,
    ) -> Receipt:
        """Accept a command, durably; ``own_id`` is that of an entity to change, null creates one.

        ``key`` is an idempotency key: the same one with the same content has the same answer. Raise `KeyReused` if the
        content differs, `NotFound` if there is no such entity, `Conflict` without a connection, `Invalid`, and
        `Unavailable`.
        """
        self._ready()
        entity = SyncEntity.PROPERTY if isinstance(body, PropertyBody) else SyncEntity.OWNER
        known = None if own_id is None else await self._known(org, entity, own_id)
        source = known.connection if known is not None else self._connection(org, connection)
        operation = self._new_id() if key is None else str(uuid.uuid5(_IDS, f"{org}\n{key}"))
        created = self._new_id() if key is None else str(uuid.uuid5(_IDS, f"{org}\n{key}\nentity"))
        command = Command(
            org=org,
            connection=source,
            action=CommandAction.CREATE if own_id is None else CommandAction.UPDATE,
            operation=operation,
            entity=entity,
            id=own_id or created,
            property=body if isinstance(body, PropertyBody) else None,
            owner=body if isinstance(body, OwnerBody) else None,
            digest=_digest(entity, own_id, body),
            by=by,
            at=self._clock.now(),
        )
        await self._check_references(org, body)
        receipt = Receipt(entity, command.id, operation)
        if self._is_repeated(command):
            return receipt
        await self._append_and_read(command, wait=key is not None)
        self._is_repeated(command)
        return receipt

    async def retry(self, org: str, by: str, entity: SyncEntity, own_id: str | None = None) -> Sequence[SyncOperation]:
        """Ask to try again what failed, of one kind or one entity; return the operations.

        Raise `NotFound` if there is no such entity, and `Unavailable`.
        """
        self._ready()
        if own_id is None:
            found = self._book.states(org, *FAILED, entity=entity)
        else:
            state = await self._known(org, entity, own_id)
            found = [state] if state.status in (*FAILED, SyncStatus.SYNCING) else []
        operations = []
        for state in found:
            if not state.operations:
                continue
            command = Command(
                org=org,
                connection=state.connection,
                action=CommandAction.RETRY,
                operation=state.operations[0].id,
                entity=state.entity,
                id=state.id,
                by=by,
                at=self._clock.now(),
            )
            await self._append_and_read(command, wait=False)
            operations.append(state.operations[0])
        return operations

    # -------------------------------------------------------------------------------------------------------- reading

    async def state(self, org: str, entity: SyncEntity, own_id: str) -> SyncState:
        """Return whether the PMS has an entity. Raise `NotFound` or `Unavailable`."""
        self._ready()
        return await self._known(org, entity, own_id)

    def failed(self, org: str) -> Sequence[SyncState]:
        """Return what failed in an org, newest first. Raise `Unavailable`."""
        self._ready()
        return self._book.states(org, *FAILED)

    async def _known(self, org: str, entity: SyncEntity, own_id: str) -> SyncState:
        if self._book.state(org, entity, own_id) is None:
            await self._read_to_end()
        found = self._book.state(org, entity, own_id)
        if found is None:
            raise NotFound(f"The org {org} has no {entity} {own_id!r}.")
        return found

    async def _read_to_end(self) -> None:
        """Read what another process may have accepted a moment ago. Raise `Unavailable`."""
        if not await self._follower.read_to_end():
            raise Unavailable("what was accepted by another process cannot be read at the moment")

    # ------------------------------------------------------------------------------------------------------- the parts

    def _ready(self) -> None:
        if not self._book.caught_up:
            raise Unavailable("the commands and their states are being read")

    def _connection(self, org: str, wanted: str | None) -> str:
        """Return the connection that a new entity goes to. Raise `Conflict` or `NotFound`."""
        names = sorted(one.name for one in self._directory.integrations(org) if one.role is IntegrationRole.SOURCE)
        if wanted is not None:
            if wanted not in names:
                raise NotFound(f"The org {org} has no connection {wanted!r}.")
            return wanted
        if not names:
            raise Conflict(f"The org {org} has no property management system: connect one with PUT /api/integrations.")
        if len(names) > 1:
            raise Conflict(f"The org {org} has several connections: name one with ?connection={'|'.join(names)}.")
        return names[0]

    async def _check_references(self, org: str, body: PropertyBody | OwnerBody) -> None:
        """Raise `Invalid` for each entity that a body names and that does not exist."""
        if isinstance(body, PropertyBody):
            entity, ids, member = SyncEntity.OWNER, body.owners, "/ownerIds"
        else:
            entity, ids, member = SyncEntity.PROPERTY, body.properties, "/propertyIds"

        def unknown() -> list[int]:
            return [
                at
                for at, one in enumerate(ids)
                if not (one.isascii() and one.isdigit()) and self._book.state(org, entity, one) is None
            ]

        if unknown():
            await self._read_to_end()
        errors = tuple(FieldError(f"{member}/{at}", f"the org has no {entity} of this id") for at in unknown())
        if errors:
            raise Invalid(errors)

    def _is_repeated(self, command: Command) -> bool:
        """Return whether the operation was accepted before. Raise `KeyReused` if it was another one."""
        first = self._book.operation(command.org, command.operation)
        if first is None:
            return False
        if first.digest != command.digest:
            raise KeyReused("The Idempotency-Key was used for another request before: send a new one.")
        return True

    async def _append_and_read(self, command: Command, *, wait: bool) -> None:
        """Write a command; ``wait``: until the own book has read it, which shows which one was the first."""
        topic, key, value = topics.COMMANDS.name, topics.COMMANDS.key_of(command), encode(command)
        with self._follower.expecting(topic, key, value) as applied:
            try:
                await self._writer.write(topic, key, command.org, value)
            except NotDurable as error:
                raise Unavailable(f"Kafka does not confirm the command: {error}; send it again") from None
            try:
                await within(self._clock, asyncio.shield(applied), READ_BACK_WITHIN)
            except TimeoutError:
                if wait:
                    raise Unavailable("the command is not read back in time; send it again with its key") from None


def _digest(entity: SyncEntity, own_id: str | None, body: PropertyBody | OwnerBody) -> bytes:
    """Return a digest of what a request asks for."""
    text = f"{entity}\n{own_id or ''}\n".encode() + msgspec.json.encode(body)
    return hashlib.blake2b(text, digest_size=16).digest()
