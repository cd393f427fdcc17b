"""The view's rows follow from the records, whatever their order, and a batch is written once or not at all."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from schemas import topics
from schemas.commands import (
    Command,
    CommandAction,
    PostalAddress,
    PropertyBody,
    PushOutcome,
    PushResult,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
)
from schemas.delivery import DeliveryOutcome, DeliveryPhase, DeliveryResult
from schemas.integrations import HoldReport
from schemas.pms import FetchOrigin, FetchRequest
from streams.backends.ports import Partition
from streams.core.flows import Record
from streams.view import tables
from streams.view.database import Database
from streams.view.roll import Terms
from streams.view.writer import Moved
from tests.streams.view.parts import (
    NOON,
    ROLL,
    TODAY,
    View,
    account,
    building,
    delivery,
    fetched,
    known,
    lease,
    record,
    unit,
)

OPERATION = "0d9b6f8e-5a54-4b57-9d0c-4f5f5c6f7a01"


def command(operation: str = OPERATION, action: CommandAction = CommandAction.CREATE) -> Record:
    address = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")
    body = PropertyBody(name="A house", sub_type="Office", address=address)
    given = Command(
        org="default",
        connection="buildium",
        action=action,
        operation=operation,
        entity=SyncEntity.PROPERTY,
        id="p-1",
        property=body,
        at=NOON,
    )
    return record(topics.COMMANDS.name, given)


def outcome(result: PushResult, minutes: int, attempt: int = 1, operation: str = OPERATION) -> Record:
    given = PushOutcome(
        org="default",
        connection="buildium",
        entity=SyncEntity.PROPERTY,
        id="p-1",
        operation=operation,
        version=1,
        attempt=attempt,
        result=result,
        at=NOON + timedelta(minutes=minutes),
        pms_id=23 if result is PushResult.DONE else None,
        code=None if result is PushResult.DONE else "unavailable",
        detail=None if result is PushResult.DONE else "Buildium answered 503",
    )
    return record(topics.SYNC_EVENTS.name, given)


def state(status: SyncStatus, minutes: int, attempts: int = 1) -> Record:
    synced = status is SyncStatus.SYNCED
    given = SyncState(
        org="default",
        connection="buildium",
        entity=SyncEntity.PROPERTY,
        id="p-1",
        status=status,
        pms_id=23 if synced else None,
        attempts=attempts,
        code=None if synced else "unavailable",
        detail=None if synced else "Buildium answered 503",
        operations=(
            SyncOperation(id=OPERATION, action=CommandAction.CREATE, status=status, at=NOON, attempts=attempts),
        ),
        updated_at=NOON + timedelta(minutes=minutes),
    )
    return record(topics.SYNC_STATES.name, given, b"default/property/p-1")


# ------------------------------------------------------------------------------------------------------------ rent roll


def test_a_unit_is_shown_as_receivers_get_it(database: Database) -> None:
    view = View(database)
    view.write(building(), unit(11), unit(12, leases=[lease(9, 12)]), account())
    first, second = view.rows(tables.UNITS)
    assert (first["state"], first["is_available"], first["rent"], first["offered"]) == (
        "available",
        True,
        Decimal("1500.00"),
        True,
    )
    assert (second["state"], second["is_available"], second["status"]) == ("rented", False, "occupied")


def test_a_unit_waits_for_its_property_its_account_and_its_leases(database: Database) -> None:
    view = View(database)
    view.write(unit(11), unit(12, awaits=1, awaited_sweep="20260301T120000Z"))
    assert [(row["status"], row["offered"]) for row in view.rows(tables.UNITS)] == [("unknown", False)] * 2
    view.write(building())
    assert [(row["state"], row["offered"]) for row in view.rows(tables.UNITS)] == [("available", False)] * 2
    view.write(account())
    assert [row["offered"] for row in view.rows(tables.UNITS)] == [True, False]
    view.write(account(whole_sweep="20260301T120000Z"))
    assert [row["offered"] for row in view.rows(tables.UNITS)] == [True, True]


def test_a_change_of_a_property_is_one_of_its_units(database: Database) -> None:
    view = View(database)
    view.write(building(), building(2), unit(11), unit(21, of=2), account())
    before = view.digest(11)
    view.write(building(name="Another name"))
    assert view.digest(11) != before
    assert "another name" in view.rows(tables.UNITS, "search")[0]["search"]
    view.write(building(is_active=False))
    assert [row["state"] for row in view.rows(tables.UNITS)] == ["unavailable", "available"]


def test_a_unit_that_is_gone_is_removed_and_one_without_a_row_is_dropped(database: Database) -> None:
    view = View(database)
    view.write(building(), unit(11), unit(12), account())
    view.write(unit(11, gone=True), record(ROLL, None, unit(12).key or b""))
    assert [(row["unit_id"], row["state"]) for row in view.rows(tables.UNITS)] == [(11, "removed")]
    view.write(record(ROLL, None, building().key or b""), record(ROLL, None, account().key or b""))
    assert view.rows(tables.PROPERTIES) == view.rows(tables.ACCOUNTS) == []
    assert [row["status"] for row in view.rows(tables.UNITS)] == ["unknown"]


def test_a_date_that_passes_is_derived_again(database: Database) -> None:
    view = View(database)
    soon = TODAY + timedelta(days=3)
    view.write(building(), unit(11, leases=[lease(9, 11, starts=soon)]), unit(12), account())
    assert [row["changes_on"] for row in view.rows(tables.UNITS)] == [soon, None]
    place = ("default", "buildium")
    assert view.writer.derive_due({place: TODAY}) == 0
    view.terms = Terms(soon)
    before = view.rows(tables.UNITS, "status")[0]
    assert view.writer.derive_due({place: soon}) == 1
    assert view.rows(tables.UNITS, "status")[0] != before
    assert view.writer.derive_due({place: soon}) == 0


def test_other_terms_are_applied_to_every_unit(database: Database) -> None:
    view = View(database)
    view.write(building(), *(unit(number) for number in range(1200)), account())
    view.terms = Terms(TODAY, excluded=True)
    assert list(view.writer.derive_all("default", "buildium")) == [500, 500, 200]
    assert {row["state"] for row in view.rows(tables.UNITS, "state")} == {"unavailable"}
    assert list(view.writer.derive_all("default", "another")) == [0]


# ------------------------------------------------------------------------------------------- operations and deliveries


def test_a_hold_is_a_row_as_long_as_it_lasts(database: Database) -> None:
    """It goes on for longer, ends, or its integration is deleted."""
    view, topic = View(database), topics.INTEGRATION_STATUS
    begun = HoldReport(
        org="default", name="rentsync", version=3, reason="unauthorized", detail="RentSync answered 401", since=NOON,
        until=NOON + timedelta(minutes=1), refused=True,
    )  # fmt: skip
    longer = begun.model_copy(update={"until": NOON + timedelta(minutes=2)})
    ended = begun.model_copy(update={"until": None})
    view.write(record(topic.name, begun, topic.key_of(begun)), record(topic.name, longer, topic.key_of(longer)))
    (row,) = view.rows(tables.HOLDS)
    assert (row["integration"], row["reason"], row["refused"], row["version"]) == ("rentsync", "unauthorized", True, 3)
    assert (row["since"], row["until"]) == (begun.since, longer.until)
    view.write(record(topic.name, ended, topic.key_of(ended)))
    assert view.rows(tables.HOLDS) == []
    view.write(record(topic.name, begun, topic.key_of(begun)), record(topic.name, None, topic.key_of(begun)))
    assert view.rows(tables.HOLDS) == []


def test_an_operation_has_what_was_asked_for_and_what_became_of_it(database: Database) -> None:
    view = View(database)
    view.write(command())
    (row,) = view.rows(tables.OPERATIONS)
    assert (row["type"], row["status"], row["local_id"], row["data"]["name"]) == ("CREATE", "PENDING", "p-1", "A house")
    view.write(outcome(PushResult.WAITING, 1), state(SyncStatus.SYNCING, 2))
    (row,) = view.rows(tables.OPERATIONS)
    assert (row["status"], row["error"], row["attempts"]) == ("IN_PROGRESS", "Buildium answered 503", 1)
    view.write(state(SyncStatus.SYNCED, 4, 2), outcome(PushResult.DONE, 3, 2))
    (row,) = view.rows(tables.OPERATIONS)
    assert (row["status"], row["error"], row["attempts"], row["buildium_id"]) == ("COMPLETED", None, 2, 23)
    assert row["last_attempt"] == NOON + timedelta(minutes=3)


def test_the_first_command_of_an_operation_counts(database: Database) -> None:
    view = View(database)
    view.write(command())
    view.write(command(action=CommandAction.UPDATE), command(action=CommandAction.RETRY))
    assert [row["type"] for row in view.rows(tables.OPERATIONS)] == ["CREATE"]


def test_a_delivery_shows_since_when_it_is_owed_and_why(database: Database) -> None:
    view = View(database)
    view.write(delivery(), known(11, b"12345678"))
    (row,) = view.rows(tables.DELIVERIES)
    assert (row["phase"], row["owed_since"], row["acknowledged_at"]) == ("idle", None, NOON)
    owed = NOON - timedelta(hours=1)
    view.write(delivery(phase=DeliveryPhase.OWED, seen_at=owed, last_error="RentSync answered 503"))
    (row,) = view.rows(tables.DELIVERIES)
    assert (row["phase"], row["owed_since"], row["error"]) == ("owed", owed, "RentSync answered 503")
    view.write(record(known(11, b"").topic, None, known(11, b"").key or b""))
    assert view.rows(tables.KNOWN) == []


# -------------------------------------------------------------------------------------------------- order and positions


def all_records() -> list[Record]:
    webhook = FetchRequest(
        org="default", connection="buildium", origin=FetchOrigin.WEBHOOK, event="Rental.Updated", received_at=NOON
    )
    answer = DeliveryOutcome(
        org="default",
        connection="buildium",
        sink="rentsync",
        property_id=1,
        version=1,
        result=DeliveryResult.ACKNOWLEDGED,
        attempt=1,
        at=NOON,
    )
    return [
        building(),
        unit(11),
        unit(12, leases=[lease(9, 12)]),
        unit(21, of=2, awaits=1, awaited_sweep="20260301T105959Z"),
        building(2, name="Two"),
        account(),
        command(),
        outcome(PushResult.WAITING, 1),
        outcome(PushResult.DONE, 3, 2),
        state(SyncStatus.SYNCING, 2),
        state(SyncStatus.SYNCED, 4, 2),
        delivery(),
        known(11, b"12345678"),
        fetched(11, offset=5),
        record(topics.WEBHOOKS.name, webhook, offset=7),
        record(topics.OUTCOMES.name, answer),
        record(topics.DEAD_LETTERS.name, b"?", b"default", 3, (("rent-origin", b"pms.webhooks"),)),
    ]


def test_records_of_different_topics_may_come_in_any_order(database: Database) -> None:
    """Also with those that came before, after a crash: the rows are the same."""
    expected = None
    for seed in range(12):
        order = random.Random(seed)
        records = all_records()
        # Only the order within a topic is that of its records.
        queues: dict[str, list[Record]] = {}
        for one in records:
            queues.setdefault(one.topic, []).append(one)
        view = View(database)
        database.drop()
        database.migrate()
        while any(queues.values()):
            topic = order.choice([name for name, queue in queues.items() if queue])
            size = order.randint(1, 3)
            batch, queues[topic] = queues[topic][:size], queues[topic][size:]
            view.write(*batch)
            if order.random() < 0.3:
                view.write(*batch)
        found = view.everything()
        expected = expected or found
        assert found == expected
    assert expected is not None
    assert all(expected[name] for name in ("rent_roll", "sync_operations", "deliveries", "fetches", "dead_letters"))


def test_a_batch_that_another_process_wrote_is_refused_as_a_whole(database: Database) -> None:
    view = View(database)
    place = Partition(topics.COMMANDS.name, 3)
    view.writer.apply([], {}, {place: 5})
    for before, after in (({}, 6), ({place: 4}, 6), ({place: 6}, 7)):
        with pytest.raises(Moved):
            view.writer.apply([], before, {Partition("other", 0): 1, place: after})
    assert view.writer.positions() == {place: 5}
    view.writer.apply([], {place: 5}, {place: 9})
    assert view.writer.positions() == {place: 9}


def test_history_is_kept_as_long_as_declared(database: Database) -> None:
    view = View(database)
    kept = tables.KEPT[tables.FETCHES]
    view.write(fetched(1, NOON - kept - timedelta(seconds=1), 1), fetched(2, NOON - kept, 2), fetched(3, NOON, 3))
    assert view.writer.prune(NOON) == 1
    assert [row["entity"] for row in view.rows(tables.FETCHES)] == [2, 3]
