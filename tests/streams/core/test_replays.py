"""What a replay writes for each record, which records a plan has, and which orders are possible."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.codec import encode
from schemas.commands import Command, CommandAction, Push, PushOutcome, PushResult, SyncEntity
from schemas.delivery import (
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryResult,
    DueReason,
    OfferedProperty,
)
from schemas.pms import FetchOrigin, FetchRequest, PulseStep, SweepStep
from schemas.rent_roll import Page
from schemas.replay import ReplayOrder, ReplayPart, ReplayPlan, ReplayProgress, ReplayStep, ReplayWish
from schemas.retry import SEQ, History, is_replayed
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Emit, Record
from streams.core.replays import (
    MOST_REPLAYS,
    POSSIBLE,
    Candidate,
    Chains,
    Left,
    ReplayState,
    advanced,
    again,
    next_places,
    parts,
    sort,
    state_of,
    step_size,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE: dict[str, Any] = {"org": "o", "connection": "c"}
ENTITY: dict[str, Any] = {**PLACE, "entity": SyncEntity.OWNER, "id": "7", "operation": "op"}

FETCH = FetchRequest(**PLACE, origin=FetchOrigin.WEBHOOK, event="E", kind=EntityKind.UNIT, entity=7, received_at=NOW)
PAGE = Page(**PLACE, kind=EntityKind.UNIT, seq=3, fetched_at=NOW, seen_at=NOW)
OUTCOME = DeliveryOutcome(**PLACE, sink="s", property_id=1, version=2, result=DeliveryResult.DEAD, attempt=5, at=NOW)
COMMAND = Command(**ENTITY, action=CommandAction.CREATE, at=NOW)
PUSH = Push(**ENTITY, version=3, attempt=2, since=NOW)
PUSHED = PushOutcome(**ENTITY, version=3, attempt=1, result=PushResult.DONE, at=NOW)
DUE = DeliveryDue(
    **PLACE, property_id=4, reason=DueReason.RETRY, seen_at=NOW, sink="s", version=9, attempt=3, held=True
)
BATCH = Batch(
    **PLACE,
    sink="s",
    batch_id="b",
    sync_id="s",
    cut_at=NOW,
    seen_at=NOW,
    version=2,
    mode=BatchMode.DELTA,
    property=OfferedProperty(id=4, name="House", address="1 Main St", is_active=True),
    units=(),
)
STEP = SweepStep(**PLACE, sweep="s", started_at=NOW, stage=EntityKind.UNIT)
PULSE = PulseStep(**PLACE, since=NOW, started_at=NOW)


def record(value: Model | bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> Record:
    body = encode(value) if isinstance(value, Model) else value
    return ConsumedRecord(topics.DEAD_LETTERS.name, 0, 5, 0, b"o", body, tuple(headers))


# ------------------------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize(
    ("value", "topic"),
    [
        (FETCH, topics.WEBHOOKS),
        (PAGE, topics.CHANGES),
        (OUTCOME, topics.OUTCOMES),
        (COMMAND, topics.COMMANDS),
        (PUSHED, topics.SYNC_EVENTS),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_fact_or_a_request_is_written_as_it_is(value: Model, topic: topics.TopicSpec) -> None:
    found = again(record(value), "o", "r1")
    assert isinstance(found, Emit)
    assert (found.topic, found.org, found.record) == (topic, "o", value)


@pytest.mark.parametrize("value", [BATCH, DUE], ids=["batch", "due"])
def test_a_delivery_is_cut_again(value: Model) -> None:
    """Not as a retry of the ladder, which a newer delivery would supersede."""
    found = again(record(value), "o", "r1")
    assert isinstance(found, Emit)
    due = DeliveryDue(**PLACE, property_id=4, reason=DueReason.ASKED, seen_at=NOW, sink="s")
    assert (found.topic, found.record) == (topics.DUE, due)


def test_a_push_is_a_retry_of_its_operation_as_of_a_person() -> None:
    found = again(record(PUSH), "o", "r1")
    assert isinstance(found, Emit)
    command = found.record
    assert isinstance(command, Command)
    assert (found.topic, command.action, command.operation) == (topics.COMMANDS, CommandAction.RETRY, "op")
    assert (command.version, command.attempt, command.by) == (0, 0, "replay r1")


@pytest.mark.parametrize("value", [STEP, PULSE], ids=["sweep", "pulse"])
def test_what_a_schedule_repeats_is_not_written(value: Model) -> None:
    assert again(record(value), "o", "r1") is Left.REFUSED


def test_what_cannot_be_written_is_named() -> None:
    assert again(None, "o", "r1") is Left.GONE
    assert again(record(b"\x00poison"), "o", "r1") is Left.UNREADABLE
    assert again(record(None), "o", "r1") is Left.UNREADABLE
    assert again(record(encode(FETCH)[:2] + b"\0" * 30), "o", "r1") is Left.UNREADABLE, "of a newer release"
    assert again(record(FETCH), "another", "r1") is Left.REFUSED


def test_the_history_begins_again_and_remembers_the_replay() -> None:
    """The ladder has all of its attempts again; other headers stay."""
    before = History(attempt=5, origin="t", reason="exhausted", first_failed_at=7, replays=1, replay="r0")
    found = again(record(FETCH, (*before.headers(), (SEQ, b"12"), ("trace", b"t"))), "o", "r1")
    assert isinstance(found, Emit)
    assert History.read(found.headers) == History(replays=2, replay="r1")
    assert is_replayed(found.headers)
    assert [name for name, _ in found.headers][:2] == [SEQ, "trace"]


# --------------------------------------------------------------------------------------------------- what is planned


def candidate(offset: int, makes_up: str | None = None, **more: Any) -> Candidate:
    return Candidate(0, offset, makes_up, None, None if makes_up is None else (makes_up,), **more)


def test_the_last_record_of_an_entity_makes_up_for_the_others() -> None:
    found = sort([candidate(3, "a"), candidate(1, "a"), candidate(2, "b"), candidate(4), candidate(5)])
    assert [one.offset for one in found.replayed] == [2, 3, 4, 5]
    assert (found.matched, found.superseded) == (5, 1)


def test_what_is_closed_or_unsuitable_makes_up_for_nothing() -> None:
    found = sort([candidate(1, "a"), candidate(2, "a", is_closed=True), candidate(3, "a", is_suitable=False)])
    assert [one.offset for one in found.replayed] == [1]
    assert (found.superseded, found.unsuitable) == (1, 1)


def test_a_record_is_replayed_three_times_at_most_unless_it_is_named() -> None:
    """An older record of the same entity does not take its place."""
    some = [candidate(1, "a"), candidate(2, "a", replays=MOST_REPLAYS), candidate(3, replays=MOST_REPLAYS - 1)]
    found = sort(some)
    assert [one.offset for one in found.replayed] == [3]
    assert (found.superseded, found.exhausted) == (1, 1)
    assert len(sort(some, named=True).replayed) == 2


@given(
    st.lists(
        st.builds(
            Candidate,
            partition=st.integers(0, 2),
            offset=st.integers(0, 50),
            entity=st.none(),
            integration=st.none(),
            makes_up=st.none() | st.tuples(st.sampled_from("abc")),
            is_closed=st.booleans(),
            replays=st.integers(0, 5),
            is_suitable=st.booleans(),
        ),
        unique_by=lambda one: (one.partition, one.offset),
    ),
    st.booleans(),
)
def test_every_record_is_counted_once(some: list[Candidate], named: bool) -> None:
    found = sort(some, named=named)
    assert found.matched == len(some)
    places = [(part.partition, offset) for part in parts(found.replayed) for offset in part.offsets]
    assert places == sorted((one.partition, one.offset) for one in found.replayed)


# ------------------------------------------------------------------------------------------------------- how it runs


def planned(*offsets: tuple[int, ...], rate: int = 20) -> ReplayPlan:
    return ReplayPlan(
        org="o",
        id="r1",
        at=NOW,
        by="ann",
        source="t",
        rate=rate,
        matched=0,
        replayed=sum(map(len, offsets)),
        superseded=0,
        exhausted=0,
        unsuitable=0,
        parts=tuple(ReplayPart(partition=number, offsets=part) for number, part in enumerate(offsets)),
    )


def progress(position: int = 0, **more: Any) -> ReplayProgress:
    return ReplayProgress(org="o", id="r1", at=NOW, began_at=NOW, position=position, **more)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 1000))
def test_the_steps_of_a_plan_are_exactly_its_records(sizes: list[int], rate: int) -> None:
    plan = planned(*(tuple(range(0, 3 * size, 3)) for size in sizes), rate=rate)
    position, made = 0, []
    while (places := next_places(plan, position)) is not None:
        partition, offsets = places
        assert 0 < len(offsets) <= step_size(rate)
        made += [(partition, offset) for offset in offsets]
        position += len(offsets)
    assert made == [(part.partition, offset) for part in plan.parts for offset in part.offsets]
    assert position == plan.replayed


def test_the_results_of_a_step_add_up() -> None:
    emit = again(record(FETCH), "o", "r1")
    found = advanced(progress(10, replayed=10), [emit, Left.GONE, emit, Left.UNREADABLE, Left.REFUSED], NOW)
    assert (found.position, found.replayed) == (15, 12)
    assert (found.gone, found.unreadable, found.refused) == (1, 1, 1)


def order(wish: ReplayWish) -> ReplayOrder:
    return ReplayOrder(org="o", id="r1", wish=wish, at=NOW, by="ann")


def test_the_state_follows_from_the_last_order_and_the_progress() -> None:
    ended = progress(3, ended_at=NOW + timedelta(seconds=1))
    assert state_of(None, None) is ReplayState.PLANNED
    assert state_of(order(ReplayWish.RUN), None) is ReplayState.RUNNING
    assert state_of(order(ReplayWish.PAUSE), progress(2)) is ReplayState.PAUSED
    assert state_of(order(ReplayWish.CANCEL), progress(2)) is ReplayState.CANCELLED
    assert state_of(order(ReplayWish.UNKNOWN), progress(2)) is ReplayState.PAUSED, "of a newer release"
    for wish in ReplayWish:
        assert state_of(order(wish), ended) is ReplayState.DONE


def test_every_state_takes_the_orders_of_the_table() -> None:
    assert set(POSSIBLE) == set(ReplayState)
    final = {ReplayState.CANCELLED: {ReplayWish.CANCEL}, ReplayState.DONE: set()}
    for state, wishes in POSSIBLE.items():
        assert wishes == final.get(state, wishes)
        assert (ReplayWish.CANCEL in wishes) is (state is not ReplayState.DONE)


def test_of_two_chains_of_steps_one_ends() -> None:
    chains = Chains()
    first, second = (ReplayStep(org="o", id="r1", progress=progress(number)) for number in (0, 10))
    assert chains.admits(first)
    chains.made(progress(10))
    assert not chains.admits(first)
    assert chains.admits(second)
    chains.forget(lambda org: org != "o")
    assert not chains.admits(first)
    chains.forget(lambda org: org == "o")
    assert chains.admits(first), "another worker may have made nothing of it"
