"""The fold of commands and outcomes: one operation of an entity at a time, in the order in which they came.

An operation is pushed to the PMS once everything that it depends on is there. A status follows from what happened and
not from a process: a push whose outcome is lost is emitted again (`streams.flows.watch_syncs`), and one that was made
already is found in the PMS (`connectors.ports.PropertyGateway`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from schemas import topics
from schemas.codec import decode_as, encode
from schemas.commands import (
    BlockedRow,
    Command,
    CommandAction,
    FieldProblem,
    OperationRow,
    Push,
    PushOutcome,
    PushResult,
    SyncEntity,
    SyncOperation,
    SyncPhase,
    SyncRow,
    SyncState,
    SyncStatus,
    TakenRow,
    UnsyncedRow,
)
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.rows import Rows
from streams.core.sync.keys import (
    blocked_key,
    blocked_on,
    entity_key,
    entity_of,
    open_key,
    operation_key,
    operation_time_key,
    operations_by_time,
    taken_key,
)

HISTORY = 20
"""Operations of an entity that are remembered."""

MOST_WAITING = 20
"""Commands of an entity that wait for their turn."""

MOST_WAITING_BYTES = 1 << 20

REMEMBERED = timedelta(days=7)
"""How long an operation belongs to its entity: as long as an idempotency key is remembered (`streams.syncs.book`)."""

FORGOTTEN_AT_ONCE = 2
"""The most operations that one command makes forgotten."""

_UNDER_WAY = (SyncPhase.IN_FLIGHT, SyncPhase.WAITING)

CONFLICT = "conflict"
"""The code of what a person has to decide."""

REJECTED = "rejected"
"""The code of an operation that cannot succeed as it is."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The record that is folded, and the moment of the step."""

    id: str
    """``topic:offset``; with the partition, which all rows here share, it identifies the record permanently."""
    now: datetime


def apply(rows: Rows, record: Command | PushOutcome, cause: Cause) -> FoldResult:
    """Fold one record. Idempotent: a record that is consumed again emits the same push again, or nothing."""
    sync = _Sync(rows, record.org, record.entity, record.id, cause)
    verdict = sync.command(record) if isinstance(record, Command) else sync.outcome(record)
    return FoldResult(verdict, sync.emits)


@dataclass(slots=True)
class _Needs:
    """What an operation needs of other entities."""

    ids: tuple[int, ...] = ()
    """The PMS's ids of those that are there."""
    waits_for: tuple[str, ...] = ()
    problems: list[FieldProblem] = field(default_factory=list)


class _Sync:
    """One record on its way into the row of one entity."""

    def __init__(
        self, rows: Rows, org: str, entity: SyncEntity, own_id: str, cause: Cause, emits: list[Emit] | None = None
    ) -> None:
        self.rows = rows
        self.org = org
        self.entity = entity
        self.id = own_id
        self.cause = cause
        self.emits: list[Emit] = [] if emits is None else emits
        self.key = entity_key(org, entity, own_id)
        self.row = rows.find(SyncRow, self.key)

    # ------------------------------------------------------------------------------------------------------- commands

    def command(self, command: Command) -> Disposition:
        """Fold a command."""
        if command.action is CommandAction.RETRY:
            return self._retry(command)
        if self._belongs_to_another(command):
            return Disposition.DUPLICATE
        row = self.row or SyncRow(connection=command.connection, changed_at=self.cause.now)
        if any(one.id == command.operation for one in _operations(row)):
            self._repeat(row)
            return Disposition.DUPLICATE
        operation = SyncOperation(
            id=command.operation,
            action=command.action,
            status=SyncStatus.PENDING,
            digest=command.digest,
            at=command.at,
        )
        self._put(row, operations=(encode(operation), *row.operations[: HISTORY - 1]))
        match row.phase:
            case SyncPhase.IDLE:
                self._start(command)
            case SyncPhase.BLOCKED:  # what it waits for may be wrong, and the newer command corrects it
                self._unblock()
                self._end_operation(SyncStatus.FAILED, _superseded(command))
                self._start(command)
            case _:
                self._enqueue(command)
        self._show()
        return Disposition.APPLIED

    def _belongs_to_another(self, command: Command) -> bool:
        """Return whether another command had the operation before, for another entity; note it otherwise.

        An operation is an idempotency key. Two processes may accept it at the same moment; the first one in the log
        counts, as it does for those that answer.
        """
        key = operation_key(self.org, command.operation)
        known = self.rows.find(OperationRow, key)
        if known is not None:
            return (known.entity, known.id) != (self.entity, self.id)
        row = OperationRow(entity=self.entity, id=self.id, at=command.at)
        self.rows.put(key, row)
        self.rows.put(operation_time_key(self.org, command.at, command.operation), row)
        self._forget(command.at - REMEMBERED)
        return False

    def _forget(self, before: datetime) -> None:
        """Forget the oldest operations whose keys count no more; more than are added, so that none stay."""
        prefix = operations_by_time(self.org)
        for key, read in list(islice(self.rows.scan(OperationRow, prefix), FORGOTTEN_AT_ONCE)):
            if read().at >= before:
                return
            self.rows.remove(key)
            self.rows.remove(operation_key(self.org, key.decode().rpartition("/")[2]))

    def _enqueue(self, command: Command) -> None:
        """Let a command wait for its turn.

        A row is a record of the changelog, whose size is limited. So if too much waits, the newest command, which has
        the whole entity, replaces what waits.
        """
        assert self.row is not None
        waiting = self.row.queue
        if len(waiting) >= MOST_WAITING or sum(map(len, waiting)) > MOST_WAITING_BYTES:
            for one in waiting:
                self._end_operation(SyncStatus.FAILED, _superseded(command), decode_as(Command, one).operation)
            waiting = ()
        self._put(self.row, queue=(*waiting, encode(command)))

    def _retry(self, command: Command) -> Disposition:
        row = self.row
        if row is None or not row.current:
            return Disposition.IGNORED
        if command.version:
            if command.version != row.version or row.phase not in _UNDER_WAY:
                self._repeat(row)
                return Disposition.IGNORED
            if row.phase is SyncPhase.IN_FLIGHT:  # the push, or its outcome, may be lost
                self._emit_push(row)
                return Disposition.DUPLICATE
            self._push(row, command.attempt if command.held else command.attempt + 1)
        elif row.phase is SyncPhase.WAITING:
            self._push(row, 1)
        elif row.phase is SyncPhase.IDLE and row.status in (SyncStatus.FAILED, SyncStatus.CONFLICT):
            self._start(decode_as(Command, row.current))
        else:
            self._repeat(row)
            return Disposition.IGNORED
        self._show()
        return Disposition.APPLIED

    def _repeat(self, row: SyncRow) -> None:
        """Emit again what this very record emitted: a crash may have come before that was durable."""
        if row.cause == self.cause.id and row.phase is SyncPhase.IN_FLIGHT:
            self._emit_push(row)
        self.row = row
        self._show()

    def _start(self, command: Command) -> None:
        """Begin an operation: push it, or wait for what it depends on."""
        assert self.row is not None
        row = self._put(self.row, current=encode(command), name=_name(command), code=None, detail=None, fields=())
        needs = self._needs(command)
        if needs.problems:
            fields = tuple(encode(one) for one in needs.problems)
            detail = "; ".join(f"{one.pointer}: {one.detail}" for one in needs.problems)
            row = self._put(row, phase=SyncPhase.IDLE, status=SyncStatus.FAILED, code=REJECTED, detail=detail)
            self._put(row, fields=fields, changed_at=self.cause.now)
            self._end_operation(SyncStatus.FAILED, detail)
            self._next()
        elif needs.waits_for:
            detail = f"waits for property {', '.join(needs.waits_for)}, which the PMS does not have yet"
            self._put(
                row,
                phase=SyncPhase.BLOCKED,
                status=SyncStatus.PENDING,
                waits_for=needs.waits_for,
                detail=detail,
                attempt=0,
                changed_at=self.cause.now,
            )
            for one in needs.waits_for:
                self.rows.put(blocked_key(self.org, one, self.entity, self.id), BlockedRow(id=self.id))
        else:
            self._push(row, 1)

    def _needs(self, command: Command) -> _Needs:
        """Return what the entities that a command names are in the PMS."""
        if command.owner is not None:
            return self._named(SyncEntity.PROPERTY, command.owner.properties, "/propertyIds")
        named = command.property.owners if command.property is not None else ()
        found = self._named(SyncEntity.OWNER, named, "/ownerIds")
        # An owner needs a property in the PMS first, so a property never waits for one.
        for one in found.waits_for:
            detail = f"owner {one} is not in the PMS yet; name this property among its propertyIds instead"
            found.problems.append(FieldProblem(pointer=f"/ownerIds/{named.index(one)}", detail=detail))
        return found

    def _named(self, entity: SyncEntity, ids: Sequence[str], pointer: str) -> _Needs:
        found, waits, needs = [], [], _Needs()
        for at, one in enumerate(ids):
            if one.isascii() and one.isdigit():
                found.append(int(one))
                continue
            row = self.rows.find(SyncRow, entity_key(self.org, entity, one))
            if row is None:
                needs.problems.append(FieldProblem(pointer=f"{pointer}/{at}", detail=f"there is no {entity} {one}"))
            elif row.pms_id is None:
                waits.append(one)
            else:
                found.append(row.pms_id)
        needs.ids, needs.waits_for = tuple(found), tuple(waits)
        return needs

    # ---------------------------------------------------------------------------------------------------------- pushes

    def _push(self, row: SyncRow, attempt: int) -> None:
        row = self._put(
            row,
            phase=SyncPhase.IN_FLIGHT,
            status=SyncStatus.SYNCING,
            version=row.version + 1,
            attempt=attempt,
            cause=self.cause.id,
            waits_for=(),
            next_attempt_at=None,
            changed_at=self.cause.now,
        )
        self._change_operation(status=SyncStatus.SYNCING, attempts=attempt)
        self._emit_push(row)

    def _emit_push(self, row: SyncRow) -> None:
        command = decode_as(Command, row.current)
        ids = self._needs(command).ids
        self.emits.append(
            Emit(
                topics.PUSHES,
                self.org,
                Push(
                    org=self.org,
                    connection=row.connection,
                    operation=command.operation,
                    entity=self.entity,
                    id=self.id,
                    version=row.version,
                    attempt=row.attempt,
                    since=_begun(row) or command.at,
                    pms_id=row.pms_id,
                    property=command.property,
                    owner=command.owner,
                    owner_ids=ids if self.entity is SyncEntity.PROPERTY else (),
                    property_ids=ids if self.entity is SyncEntity.OWNER else (),
                ),
            )
        )

    # -------------------------------------------------------------------------------------------------------- outcomes

    def outcome(self, outcome: PushOutcome) -> Disposition:
        """Fold the outcome of a push."""
        row = self.row
        if row is None:
            return Disposition.IGNORED
        if outcome.version != row.version or row.phase is not SyncPhase.IN_FLIGHT:
            self._repeat(row)
            return Disposition.DUPLICATE
        pms_id = row.pms_id or outcome.pms_id  # never overwritten by nothing
        row = self._put(row, pms_id=pms_id, code=outcome.code, detail=outcome.detail)
        row = self._put(row, changed_at=self.cause.now, cause=self.cause.id)
        row = self._put(row, fields=tuple(encode(one) for one in outcome.fields))
        match outcome.result:
            case PushResult.DONE:
                self._done(row, outcome)
            case PushResult.WAITING:
                self._put(row, phase=SyncPhase.WAITING, next_attempt_at=outcome.due_at)
                self._change_operation(detail=outcome.detail)
            case PushResult.CONFLICT:
                self._fail(row, SyncStatus.CONFLICT, outcome.detail)
            case _:
                self._fail(row, SyncStatus.FAILED, outcome.detail)
        self._show()
        return Disposition.APPLIED

    def _done(self, row: SyncRow, outcome: PushOutcome) -> None:
        pms_id = row.pms_id
        if pms_id is not None:
            key = taken_key(self.org, row.connection, self.entity, pms_id)
            taken = self.rows.find(TakenRow, key)
            if taken is not None and taken.id != self.id:
                detail = f"the PMS has it as {pms_id}, which belongs to {self.entity} {taken.id}"
                self._fail(self._put(row, pms_id=None, code=CONFLICT, detail=detail), SyncStatus.CONFLICT, detail)
                return
            self.rows.put(key, TakenRow(id=self.id))
        self._put(
            row,
            phase=SyncPhase.IDLE,
            status=SyncStatus.SYNCED,
            synced_at=outcome.at,
            next_attempt_at=None,
        )
        self._end_operation(SyncStatus.SYNCED, None)
        self._next()
        if self.entity is SyncEntity.PROPERTY:
            self._wake()

    def _fail(self, row: SyncRow, status: SyncStatus, detail: str | None) -> None:
        self._put(row, phase=SyncPhase.IDLE, status=status, next_attempt_at=None)
        self._end_operation(status, detail)
        self._next()

    def _next(self) -> None:
        """Begin the oldest operation that waits for its turn."""
        row = self.row
        if row is not None and row.queue:
            self._put(row, queue=row.queue[1:])
            self._start(decode_as(Command, row.queue[0]))

    def _wake(self) -> None:
        """Begin what has waited for this property."""
        for key in [key for key, _ in self.rows.scan(BlockedRow, blocked_on(self.org, self.id))]:
            entity, own_id = entity_of(key)
            self.rows.remove(key)
            other = _Sync(self.rows, self.org, entity, own_id, self.cause, self.emits)
            if other.row is not None and other.row.phase is SyncPhase.BLOCKED:
                other._unblock()
                other._start(decode_as(Command, other.row.current))
                other._show()

    def _unblock(self) -> None:
        assert self.row is not None
        for one in self.row.waits_for:
            self.rows.remove(blocked_key(self.org, one, self.entity, self.id))
        self._put(self.row, phase=SyncPhase.IDLE, waits_for=())

    # ------------------------------------------------------------------------------------------------------------ rows

    def _put(self, row: SyncRow, **update: object) -> SyncRow:
        was_open = self.row is not None and self.row.phase in _UNDER_WAY
        self.row = row.model_copy(update=update)
        self.rows.put(self.key, self.row)
        if (self.row.phase in _UNDER_WAY) is not was_open:
            key = open_key(self.org, self.entity, self.id)
            if was_open:
                self.rows.remove(key)
            else:
                self.rows.put(key, UnsyncedRow(version=self.row.version))
        return self.row

    def _change_operation(self, operation: str | None = None, **update: object) -> None:
        """Change what is shown of an operation, by default the current one."""
        row = self.row
        assert row is not None
        changing = operation or decode_as(Command, row.current).operation
        changed = tuple(
            encode(one.model_copy(update=update)) if one.id == changing else raw
            for raw, one in zip(row.operations, _operations(row), strict=True)
        )
        self._put(row, operations=changed)

    def _end_operation(self, status: SyncStatus, detail: str | None, operation: str | None = None) -> None:
        self._change_operation(operation, status=status, detail=detail, ended_at=self.cause.now)

    def _show(self) -> None:
        """Emit the state for showing; of several in one batch the last one is written."""
        if self.row is not None:
            state = state_of(self.org, self.entity, self.id, self.row)
            self.emits.append(
                Emit(topics.SYNC_STATES, self.org, state, once=("state", self.entity, self.id), merge=_last)
            )


def state_of(org: str, entity: SyncEntity, own_id: str, row: SyncRow) -> SyncState:
    """Return a row in the form that is shown."""
    return SyncState(
        org=org,
        connection=row.connection,
        entity=entity,
        id=own_id,
        name=row.name,
        pms_id=row.pms_id,
        status=row.status,
        synced_at=row.synced_at,
        attempts=row.attempt,
        next_attempt_at=row.next_attempt_at,
        code=row.code,
        detail=row.detail,
        fields=tuple(decode_as(FieldProblem, raw) for raw in row.fields),
        operations=tuple(_operations(row)),
        updated_at=row.changed_at,
    )


def _last(_first: SyncState, second: SyncState) -> SyncState:
    return second


def _operations(row: SyncRow) -> list[SyncOperation]:
    return [decode_as(SyncOperation, raw) for raw in row.operations]


def _begun(row: SyncRow) -> datetime | None:
    """Return when the oldest operation came that is remembered: what the PMS created of the entity is not older."""
    return min((one.at for one in _operations(row)), default=None)


def _superseded(command: Command) -> str:
    return f"superseded by operation {command.operation}"


def _name(command: Command) -> str:
    if command.property is not None:
        return command.property.name
    owner = command.owner
    if owner is None:
        return ""
    return owner.company_name or " ".join(part for part in (owner.first_name, owner.last_name) if part)
