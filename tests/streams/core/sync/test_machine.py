"""Tests of the fold of commands and outcomes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.commands import (
    Command,
    CommandAction,
    FieldProblem,
    OwnerBody,
    PostalAddress,
    PropertyBody,
    Push,
    PushOutcome,
    PushResult,
    SyncEntity,
    SyncPhase,
    SyncRow,
    SyncState,
    SyncStatus,
)
from schemas.topics import TopicSpec
from streams.core import sync
from streams.core.flows import Disposition, FoldResult
from streams.core.rows import Rows
from streams.core.sync.keys import entity_key, open_of
from streams.core.sync.machine import MOST_WAITING, REMEMBERED
from tests.streams.core.views import MemoryView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOME = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")
PROPERTY, OWNER = SyncEntity.PROPERTY, SyncEntity.OWNER
CREATE, UPDATE, RETRY = CommandAction.CREATE, CommandAction.UPDATE, CommandAction.RETRY


def a_property(name: str = "Annex", *owners: str) -> PropertyBody:
    return PropertyBody(name=name, address=HOME, sub_type="Office", owners=owners)


def an_owner(*properties: str) -> OwnerBody:
    return OwnerBody(first_name="Ada", last_name="Lee", address=HOME, properties=properties)


def command(
    body: PropertyBody | OwnerBody | None = None,
    own_id: str = "p1",
    operation: str = "op1",
    action: CommandAction = CREATE,
    entity: SyncEntity = PROPERTY,
    **more: Any,
) -> Command:
    if isinstance(body, OwnerBody):
        entity = OWNER
    return Command(
        org="o",
        connection="c",
        action=action,
        operation=operation,
        entity=entity,
        id=own_id,
        property=body if isinstance(body, PropertyBody) else None,
        owner=body if isinstance(body, OwnerBody) else None,
        at=NOW,
        **more,
    )


class World:
    """A partition with its rows, and the PMS as the test plays it."""

    def __init__(self) -> None:
        self.view = MemoryView()
        self.offset = 0
        self.pushes: list[Push] = []
        self.states: dict[str, SyncState] = {}

    def fold(self, record: Command | PushOutcome, offset: int | None = None) -> FoldResult:
        if offset is None:
            self.offset += 1
            offset = self.offset
        rows = Rows(self.view)
        result = sync.apply(rows, record, sync.Cause(f"t:{offset}", NOW + timedelta(seconds=offset)))
        self.view.take(rows)
        for emit in result.emits:
            if isinstance(emit.record, Push):
                self.pushes.append(emit.record)
            else:
                assert isinstance(emit.record, SyncState)
                self.states[emit.record.id] = emit.record
        return result

    def answer(self, result: PushResult, push: Push | None = None, **more: Any) -> FoldResult:
        push = push or self.pushes[-1]
        return self.fold(
            PushOutcome(
                org="o",
                connection="c",
                entity=push.entity,
                id=push.id,
                operation=push.operation,
                version=push.version,
                attempt=push.attempt,
                result=result,
                at=NOW,
                **more,
            )
        )

    def row(self, own_id: str = "p1", entity: SyncEntity = PROPERTY) -> SyncRow:
        row = Rows(self.view).find(SyncRow, entity_key("o", entity, own_id))
        assert row is not None
        return row

    @property
    def open(self) -> int:
        return len(list(self.view.scan(open_of("o"))))

    def history(self, own_id: str = "p1") -> list[tuple[str, SyncStatus]]:
        return [(one.id, one.status) for one in self.states[own_id].operations]


@pytest.fixture
def world() -> World:
    return World()


def test_a_command_is_pushed_and_becomes_synced(world: World) -> None:
    result = world.fold(command(a_property()))
    assert result.verdict is Disposition.APPLIED
    (push,) = world.pushes
    assert (push.version, push.attempt, push.pms_id, push.property) == (1, 1, None, a_property())
    assert (world.states["p1"].status, world.open) == (SyncStatus.SYNCING, 1)

    world.answer(PushResult.DONE, pms_id=77)
    state = world.states["p1"]
    assert (state.status, state.pms_id, state.name, state.synced_at) == (SyncStatus.SYNCED, 77, "Annex", NOW)
    assert (world.history(), world.open) == ([("op1", SyncStatus.SYNCED)], 0)


def test_the_topics_are_those_of_the_flow(world: World) -> None:
    result = world.fold(command(a_property()))
    named: list[TopicSpec] = [one.topic for one in result.emits]
    assert named == [topics.PUSHES, topics.SYNC_STATES]


def test_a_command_that_is_consumed_again_emits_the_same_push(world: World) -> None:
    """A crash came between the write of the rows and the write of the push."""
    world.fold(command(a_property()), offset=5)
    again = world.fold(command(a_property()), offset=5)
    assert again.verdict is Disposition.DUPLICATE
    assert world.pushes[0] == world.pushes[1]


def test_a_repeated_operation_is_made_once(world: World) -> None:
    """The same idempotency key came through two web processes."""
    world.fold(command(a_property()))
    assert world.fold(command(a_property("Other"))).verdict is Disposition.DUPLICATE
    world.answer(PushResult.DONE, pms_id=1)
    world.fold(command(a_property()))
    assert len(world.pushes) == 1


def test_an_operation_belongs_to_the_first_entity_that_had_it(world: World) -> None:
    """Two web processes accepted one idempotency key for different entities at the same moment."""
    world.fold(command(a_property()))
    for late in (command(an_owner("7"), "o1"), command(a_property("Other"), "p2")):
        result = world.fold(late)
        assert (result.verdict, result.emits) == (Disposition.DUPLICATE, [])
    assert len(world.pushes) == 1
    assert world.states.keys() == {"p1"}


def test_operations_are_forgotten_with_their_idempotency_keys(world: World) -> None:
    assert REMEMBERED.total_seconds() * 1000 == topics.COMMANDS.retention_ms
    for number in range(30):
        one = command(a_property(), f"p{number}", f"op{number}")
        world.fold(one.model_copy(update={"at": NOW + timedelta(minutes=number)}))
    for number in range(30, 46):
        one = command(a_property(), f"p{number}", f"op{number}")
        world.fold(one.model_copy(update={"at": NOW + REMEMBERED + timedelta(hours=1)}))
    kept = [key for key, _ in world.view.scan(b"o/k/")]
    assert len(kept) == len(list(world.view.scan(b"o/d/"))) == 16
    assert world.fold(command(an_owner("7"), "o1", "op1")).verdict is Disposition.APPLIED
    assert world.fold(command(an_owner("7"), "o1", "op31")).verdict is Disposition.DUPLICATE


def test_operations_of_an_entity_keep_their_order(world: World) -> None:
    world.fold(command(a_property("A")))
    world.fold(command(a_property("B"), operation="op2", action=UPDATE))
    world.fold(command(a_property("C"), operation="op3", action=UPDATE))
    assert [one.property for one in world.pushes] == [a_property("A")]
    world.answer(PushResult.DONE, pms_id=7)
    assert (world.pushes[-1].property, world.pushes[-1].pms_id) == (a_property("B"), 7)
    world.answer(PushResult.DONE, pms_id=7)
    world.answer(PushResult.DONE)
    assert [one.operation for one in world.pushes] == ["op1", "op2", "op3"]
    assert world.states["p1"].pms_id == 7
    assert world.history() == [(f"op{number}", SyncStatus.SYNCED) for number in (3, 2, 1)]


def test_what_waits_is_bounded(world: World) -> None:
    """While the PMS is away an app may go on sending: the newest command has the whole entity."""
    for number in range(1 + MOST_WAITING + 1):
        world.fold(command(a_property(str(number)), operation=f"op{number}", action=UPDATE if number else CREATE))
    assert len(world.row().queue) == 1
    assert [status for _, status in world.history()][:3] == [SyncStatus.PENDING, SyncStatus.FAILED, SyncStatus.FAILED]
    world.answer(PushResult.DONE, pms_id=7)
    world.answer(PushResult.DONE)
    assert (world.pushes[-1].property, world.states["p1"].status) == (a_property("21"), SyncStatus.SYNCED)


def test_what_waits_is_bounded_in_bytes(world: World) -> None:
    large = a_property("x" * 600_000)
    for number in range(5):
        world.fold(command(large, operation=f"op{number}", action=UPDATE if number else CREATE))
    assert sum(map(len, world.row().queue)) < 2_000_000


def test_a_failed_operation_does_not_stop_the_next_one(world: World) -> None:
    world.fold(command(a_property("")))
    world.fold(command(a_property("B"), operation="op2", action=UPDATE))
    problem = FieldProblem(pointer="/name", detail="required")
    world.answer(PushResult.FAILED, code="rejected", detail="no name", fields=(problem,))
    assert world.pushes[-1].property == a_property("B")
    world.answer(PushResult.DONE, pms_id=7)
    state = world.states["p1"]
    assert (state.status, state.code, state.detail, state.fields) == (SyncStatus.SYNCED, None, None, ())
    assert world.history() == [("op2", SyncStatus.SYNCED), ("op1", SyncStatus.FAILED)]


def test_a_failure_has_its_words_and_fields(world: World) -> None:
    world.fold(command(a_property("")))
    problem = FieldProblem(pointer="/name", detail="required")
    world.answer(PushResult.FAILED, code="rejected", detail="no name", fields=(problem,))
    state = world.states["p1"]
    assert (state.status, state.code, state.detail, state.fields) == (
        SyncStatus.FAILED, "rejected", "no name", (problem,),
    )  # fmt: skip


def test_an_attempt_that_waits_is_made_again_by_the_ladder(world: World) -> None:
    world.fold(command(a_property()))
    due = NOW + timedelta(minutes=1)
    world.answer(PushResult.WAITING, code="unavailable", detail="503", due_at=due)
    state = world.states["p1"]
    assert (state.status, state.next_attempt_at, state.code, world.open) == (SyncStatus.SYNCING, due, "unavailable", 1)

    world.fold(command(action=RETRY, version=1, attempt=1))
    assert (world.pushes[-1].attempt, world.pushes[-1].version) == (2, 2)
    world.answer(PushResult.WAITING, code="circuit_open", detail="open")
    world.fold(command(action=RETRY, version=2, attempt=2, held=True))
    assert (world.pushes[-1].attempt, world.pushes[-1].version) == (2, 3)


def test_a_retry_of_a_former_push_changes_nothing(world: World) -> None:
    world.fold(command(a_property()))
    world.answer(PushResult.WAITING, code="unavailable")
    world.fold(command(action=RETRY, version=1, attempt=1))
    before = world.row()
    assert world.fold(command(action=RETRY, version=1, attempt=1)).verdict is Disposition.IGNORED
    assert world.row() == before
    assert world.fold(command(own_id="unknown", action=RETRY)).verdict is Disposition.IGNORED


def test_a_push_that_is_lost_is_emitted_again(world: World) -> None:
    world.fold(command(a_property()))
    world.fold(command(action=RETRY, version=1, attempt=1, held=True))
    assert world.pushes[0] == world.pushes[1]


def test_the_second_outcome_of_a_push_changes_nothing(world: World) -> None:
    world.fold(command(a_property()))
    first = world.pushes[0]
    world.answer(PushResult.DONE, first, pms_id=7)
    assert world.answer(PushResult.FAILED, first, code="x").verdict is Disposition.DUPLICATE
    assert world.states["p1"].status is SyncStatus.SYNCED


def test_what_is_in_the_pms_halfway_is_remembered(world: World) -> None:
    world.fold(command(a_property()))
    world.answer(PushResult.WAITING, code="unavailable", pms_id=9)
    world.fold(command(action=RETRY, version=1, attempt=1))
    assert world.pushes[-1].pms_id == 9


def test_a_person_may_have_a_failure_tried_again(world: World) -> None:
    world.fold(command(a_property()))
    world.answer(PushResult.FAILED, code="exhausted", detail="503")
    world.fold(command(action=RETRY))
    assert (world.pushes[-1].attempt, world.pushes[-1].operation) == (1, "op1")
    world.answer(PushResult.DONE, pms_id=1)
    assert world.fold(command(action=RETRY)).verdict is Disposition.IGNORED


def test_a_person_need_not_wait_for_the_ladder(world: World) -> None:
    world.fold(command(a_property()))
    world.answer(PushResult.WAITING, code="unavailable")
    world.fold(command(action=RETRY))
    assert (world.row().phase, len(world.pushes)) == (SyncPhase.IN_FLIGHT, 2)


def test_an_owner_waits_for_its_property(world: World) -> None:
    world.fold(command(a_property()))
    world.fold(command(an_owner("p1", "5"), own_id="w1", operation="op2"))
    assert [one.id for one in world.pushes] == ["p1"]
    state = world.states["w1"]
    assert (state.status, "waits for property p1" in (state.detail or "")) == (SyncStatus.PENDING, True)
    world.answer(PushResult.DONE, pms_id=77)
    assert (world.pushes[-1].id, world.pushes[-1].property_ids) == ("w1", (77, 5))
    assert world.states["w1"].status is SyncStatus.SYNCING
    world.answer(PushResult.DONE, pms_id=501)
    assert world.states["w1"].pms_id == 501


def test_an_owner_waits_for_all_of_its_properties(world: World) -> None:
    world.fold(command(a_property(), own_id="p1", operation="1"))
    world.fold(command(a_property("B"), own_id="p2", operation="2"))
    world.fold(command(an_owner("p1", "p2"), own_id="w1", operation="3"))
    first, second = world.pushes
    world.answer(PushResult.DONE, first, pms_id=1)
    assert world.row("w1", OWNER).phase is SyncPhase.BLOCKED
    world.answer(PushResult.DONE, second, pms_id=2)
    assert world.pushes[-1].property_ids == (1, 2)


def test_a_failed_property_keeps_its_owner_waiting_until_it_is_corrected(world: World) -> None:
    world.fold(command(a_property("")))
    world.fold(command(an_owner("p1"), own_id="w1", operation="op2"))
    world.answer(PushResult.FAILED, code="rejected")
    assert world.states["w1"].status is SyncStatus.PENDING
    world.fold(command(a_property("A"), operation="op3", action=UPDATE))
    world.answer(PushResult.DONE, pms_id=77)
    assert world.pushes[-1].id == "w1"


def test_a_blocked_owner_can_be_corrected(world: World) -> None:
    world.fold(command(a_property("")))
    world.fold(command(an_owner("p1"), own_id="w1", operation="op2"))
    world.fold(command(an_owner("5"), own_id="w1", operation="op3", action=UPDATE))
    assert (world.pushes[-1].id, world.pushes[-1].property_ids) == ("w1", (5,))
    assert world.history("w1")[1] == ("op2", SyncStatus.FAILED)
    world.answer(PushResult.DONE, world.pushes[0], pms_id=1)  # what the owner no longer waits for
    assert [one.id for one in world.pushes] == ["p1", "w1"]


def test_an_owner_of_a_property_that_does_not_exist_fails(world: World) -> None:
    world.fold(command(an_owner("nowhere"), own_id="w1"))
    state = world.states["w1"]
    assert (state.status, [one.pointer for one in state.fields]) == (SyncStatus.FAILED, ["/propertyIds/0"])
    assert world.pushes == []


def test_a_property_never_waits_for_an_owner(world: World) -> None:
    """Otherwise both could wait for each other: Buildium's owners need a property first."""
    world.fold(command(an_owner("p1"), own_id="w1", operation="0"))
    world.fold(command(a_property("A", "w1")))
    state = world.states["p1"]
    assert state.status is SyncStatus.FAILED
    assert "propertyIds" in state.fields[0].detail


def test_owners_that_are_there_are_named(world: World) -> None:
    world.fold(command(an_owner("5"), own_id="w1", operation="0"))
    world.answer(PushResult.DONE, pms_id=501)
    world.fold(command(a_property("A", "w1", "502")))
    assert world.pushes[-1].owner_ids == (501, 502)


def test_one_entity_of_the_pms_belongs_to_one_of_ours(world: World) -> None:
    """Two commands with the same name and address: the second found what the first had created."""
    world.fold(command(a_property(), own_id="p1", operation="1"))
    world.answer(PushResult.DONE, pms_id=7)
    world.fold(command(a_property(), own_id="p2", operation="2"))
    world.answer(PushResult.DONE, pms_id=7)
    state = world.states["p2"]
    assert (state.status, state.code, state.pms_id) == (SyncStatus.CONFLICT, sync.CONFLICT, None)
    assert "belongs to property p1" in (state.detail or "")


def test_a_conflict_waits_for_a_person(world: World) -> None:
    world.fold(command(a_property()))
    world.answer(PushResult.CONFLICT, code=sync.CONFLICT, detail="two of them")
    assert (world.states["p1"].status, world.open) == (SyncStatus.CONFLICT, 0)
    world.fold(command(action=RETRY))
    assert len(world.pushes) == 2


def test_a_push_looks_back_to_the_first_command(world: World) -> None:
    """A creation whose answer was lost may have been made by an earlier operation."""
    world.fold(command(a_property("A")))
    world.answer(PushResult.FAILED, code="exhausted")
    later = command(a_property("B"), operation="op2", action=UPDATE).model_copy(update={"at": NOW + timedelta(days=1)})
    world.fold(later)
    assert world.pushes[-1].since == NOW


def test_an_outcome_of_an_unknown_entity_is_ignored(world: World) -> None:
    push = Push(org="o", connection="c", operation="x", entity=PROPERTY, id="x", version=1, attempt=1, since=NOW)
    assert world.answer(PushResult.DONE, push, pms_id=1).verdict is Disposition.IGNORED


def test_only_the_last_operations_are_remembered(world: World) -> None:
    for number in range(30):
        world.fold(command(a_property(str(number)), operation=f"op{number}", action=UPDATE if number else CREATE))
        world.answer(PushResult.DONE, pms_id=1)
    assert [one for one, _ in world.history()] == [f"op{number}" for number in range(29, 9, -1)]


# ----------------------------------------------------------------------------------------------------- any order at all

RESULTS = st.sampled_from([PushResult.DONE, PushResult.WAITING, PushResult.FAILED, PushResult.CONFLICT])


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("command"), st.integers(0, 2)),
            st.tuples(st.just("answer"), RESULTS),
            st.tuples(st.just("again"), st.integers(0, 3)),
            st.tuples(st.just("retry"), st.booleans()),
        ),
        max_size=25,
    )
)
def test_every_entity_comes_to_an_end_with_its_last_command(steps: list[tuple[str, Any]]) -> None:
    """Whatever happens, and whatever is consumed again: afterwards each operation was ended, in its order."""
    world = World()
    folded: list[tuple[Command | PushOutcome, int]] = []
    last: dict[str, str] = {}

    def fold(record: Command | PushOutcome) -> None:
        world.fold(record)
        folded.append((record, world.offset))

    for number, (what, which) in enumerate(steps):
        match what:
            case "command":
                own_id = f"p{which}"
                last[own_id] = f"name {number}"
                fold(command(a_property(last[own_id]), own_id=own_id, operation=f"op{number}"))
            case "answer" if world.pushes:
                world.answer(
                    which,
                    world.pushes[number % len(world.pushes)],
                    pms_id=100 + int(world.pushes[number % len(world.pushes)].id[1:]),
                )
            case "again" if folded:
                record, offset = folded[-1 - which % len(folded)]
                world.fold(record, offset)
            case "retry":
                for own_id in last:
                    row = world.row(own_id)
                    fold(command(own_id=own_id, action=RETRY, version=row.version if which else 0, attempt=row.attempt))
    for _ in range(40):
        for own_id in last:
            row = world.row(own_id)
            if row.phase is SyncPhase.IN_FLIGHT:
                push = next(one for one in reversed(world.pushes) if one.id == own_id)
                assert push.version == row.version
                world.answer(PushResult.DONE, push, pms_id=100 + int(own_id[1:]))
            else:
                world.fold(
                    command(own_id=own_id, action=RETRY, version=row.version if row.phase is SyncPhase.WAITING else 0)
                )
    for own_id, name in last.items():
        assert (world.states[own_id].status, world.states[own_id].name) == (SyncStatus.SYNCED, name)
    assert world.open == 0
