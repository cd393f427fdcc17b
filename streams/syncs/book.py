"""All commands and states of properties and owners in memory, kept up to date by records.

Of the commands with one operation the first in the log counts: so an idempotency key means the same to every process,
and to the fold, which reads the same partition.
"""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode_as
from schemas.commands import Command, CommandAction, SyncEntity, SyncOperation, SyncState, SyncStatus

log = logging.getLogger("streams.syncs")

KEPT: Final = timedelta(milliseconds=topics.COMMANDS.retention_ms or 0)
"""How long an idempotency key is remembered: as long as the command is on its topic."""

Key = tuple[str, SyncEntity, str]
"""Org, kind and our id of an entity."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that was accepted."""

    entity: SyncEntity
    id: str
    connection: str
    action: CommandAction
    operation: str
    digest: bytes
    name: str
    at: datetime


class SyncBook:
    """A `streams.runners.global_.Memory` of commands and states."""

    def __init__(self) -> None:
        self.caught_up = False
        self._operations: dict[tuple[str, str], Accepted] = {}
        self._order: deque[tuple[str, str]] = deque()
        """Keys of the operations, oldest first."""
        self._last: dict[Key, Accepted] = {}
        """The last command of each entity."""
        self._states: dict[str, dict[tuple[SyncEntity, str], SyncState]] = {}

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Apply one record; null deletes. One that cannot be decoded is skipped."""
        try:
            if topic == topics.COMMANDS.name:
                self._apply_command(decode_as(Command, value))
            elif value is not None:
                state = decode_as(SyncState, value)
                self._states.setdefault(state.org, {})[state.entity, state.id] = state
            else:
                self._forget(key)
        except (DecodeError, UnknownWriter) as error:
            log.warning("A record of %s is skipped: %s", topic, error)

    def _apply_command(self, command: Command) -> None:
        place = (command.org, command.operation)
        if command.action is CommandAction.RETRY or place in self._operations:
            return
        named = command.property or command.owner
        name = command.property.name if command.property else ""
        if command.owner is not None:
            name = command.owner.company_name or f"{command.owner.first_name or ''} {command.owner.last_name or ''}"
        accepted = Accepted(
            command.entity,
            command.id,
            command.connection,
            command.action,
            command.operation,
            command.digest,
            name.strip() if named else "",
            command.at,
        )
        self._operations[place] = accepted
        self._order.append(place)
        self._last[command.org, command.entity, command.id] = accepted
        while self._order and self._operations[self._order[0]].at < command.at - KEPT:
            old = self._operations.pop(self._order.popleft())
            if self._last.get((command.org, old.entity, old.id)) is old:
                del self._last[command.org, old.entity, old.id]

    def _forget(self, key: bytes | None) -> None:
        org, entity, own_id = (*(key or b"").decode(errors="replace").split("/"), "", "", "")[:3]
        found = self._states.get(org, {})
        for known in [one for one in found if (one[0].value, one[1]) == (entity, own_id)]:
            del found[known]

    # -------------------------------------------------------------------------------------------------------- reading

    def operation(self, org: str, operation: str) -> Accepted | None:
        """Return the command that has an operation; null if there is none, or none that is remembered."""
        return self._operations.get((org, operation))

    def state(self, org: str, entity: SyncEntity, own_id: str) -> SyncState | None:
        """Return whether the PMS has an entity, with a command that was accepted since; null if it is not known."""
        found = self._states.get(org, {}).get((entity, own_id))
        last = self._last.get((org, entity, own_id))
        if last is None or (found is not None and any(one.id == last.operation for one in found.operations)):
            return found
        new = SyncOperation(
            id=last.operation, action=last.action, status=SyncStatus.PENDING, digest=last.digest, at=last.at
        )
        if found is None:
            return SyncState(
                org=org,
                connection=last.connection,
                entity=entity,
                id=own_id,
                name=last.name,
                status=SyncStatus.PENDING,
                operations=(new,),
                updated_at=last.at,
            )
        update: Mapping[str, object] = {"status": SyncStatus.PENDING, "operations": (new, *found.operations)}
        return found.model_copy(update=update)

    def states(self, org: str, *statuses: SyncStatus, entity: SyncEntity | None = None) -> list[SyncState]:
        """Return the entities of an org with one of these statuses, those that changed last first."""
        found = [
            one for one in self._states.get(org, {}).values() if one.status in statuses and entity in (None, one.entity)
        ]
        return sorted(found, key=lambda one: (one.updated_at, one.id), reverse=True)
