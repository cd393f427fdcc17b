"""Tests of the memory of commands and states."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.codec import encode
from schemas.commands import (
    Command,
    CommandAction,
    OwnerBody,
    PostalAddress,
    PropertyBody,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
)
from streams.syncs.book import KEPT, SyncBook

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOME = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")
PROPERTY, OWNER = SyncEntity.PROPERTY, SyncEntity.OWNER


def command(own_id: str = "p", operation: str = "op", **more: Any) -> Command:
    body = PropertyBody(name="Annex", address=HOME, sub_type="Office")
    given: dict[str, Any] = {
        "org": "o",
        "connection": "c",
        "action": CommandAction.CREATE,
        "entity": PROPERTY,
        "at": NOW,
    }
    return Command(**{**given, "id": own_id, "operation": operation, "property": body, "digest": b"1"} | more)


def state(own_id: str = "p", status: SyncStatus = SyncStatus.SYNCED, *operations: str, **more: Any) -> SyncState:
    shown = tuple(
        SyncOperation(id=one, action=CommandAction.CREATE, status=status, at=NOW) for one in operations or ("op",)
    )
    given: dict[str, Any] = {
        "org": "o",
        "connection": "c",
        "entity": PROPERTY,
        "id": own_id,
        "status": status,
        "updated_at": NOW,
    }
    return SyncState(**{**given, "operations": shown} | more)


class Log:
    """A book, and the log that it reads."""

    def __init__(self) -> None:
        self.book = SyncBook()

    def put(self, *records: Command | SyncState) -> None:
        for one in records:
            topic = topics.COMMANDS if isinstance(one, Command) else topics.SYNC_STATES
            self.book.apply(topic.name, topic.key_of(one), encode(one))

    def status(self, own_id: str = "p", org: str = "o") -> SyncStatus | None:
        found = self.book.state(org, PROPERTY, own_id)
        return None if found is None else found.status


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_command_is_pending_until_its_state_is_known(log: Log) -> None:
    assert log.status() is None
    log.put(command())
    pending = log.book.state("o", PROPERTY, "p")
    assert pending is not None
    assert (pending.status, pending.name, pending.operations[0].id) == (SyncStatus.PENDING, "Annex", "op")
    log.put(state())
    assert log.status() is SyncStatus.SYNCED


def test_a_later_command_is_pending_over_an_older_state(log: Log) -> None:
    log.put(command(), state(pms_id=7), command(operation="op2", action=CommandAction.UPDATE))
    found = log.book.state("o", PROPERTY, "p")
    assert found is not None
    assert (found.status, found.pms_id) == (SyncStatus.PENDING, 7)
    assert [one.id for one in found.operations] == ["op2", "op"]
    log.put(state("p", SyncStatus.SYNCING, "op2", "op"))
    assert log.status() is SyncStatus.SYNCING


def test_the_first_command_of_an_operation_counts(log: Log) -> None:
    log.put(command(), command(digest=b"2"))
    first = log.book.operation("o", "op")
    assert first is not None
    assert first.digest == b"1"


def test_a_retry_is_no_operation(log: Log) -> None:
    log.put(command(action=CommandAction.RETRY))
    assert (log.status(), log.book.operation("o", "op")) == (None, None)


def test_orgs_do_not_meet(log: Log) -> None:
    log.put(command(), state(status=SyncStatus.FAILED))
    assert log.status(org="other") is None
    assert log.book.operation("other", "op") is None
    assert log.book.states("other", SyncStatus.FAILED) == []


def test_states_are_listed_newest_first(log: Log) -> None:
    for number in range(3):
        log.put(state(f"p{number}", SyncStatus.FAILED, updated_at=NOW + timedelta(minutes=number)))
    log.put(state("w", SyncStatus.CONFLICT, entity=OWNER), state("fine"))
    assert [one.id for one in log.book.states("o", SyncStatus.FAILED, SyncStatus.CONFLICT)] == ["p2", "p1", "w", "p0"]
    assert [one.id for one in log.book.states("o", SyncStatus.CONFLICT, entity=PROPERTY)] == []


def test_a_key_is_remembered_as_long_as_its_command_is_on_the_topic(log: Log) -> None:
    log.put(command())
    log.put(command("q", "op2", at=NOW + KEPT - timedelta(seconds=1)))
    assert log.book.operation("o", "op") is not None
    log.put(command("r", "op3", at=NOW + KEPT + timedelta(seconds=1)))
    assert log.book.operation("o", "op") is None
    assert log.status() is None
    assert log.book.operation("o", "op2") is not None


def test_an_owner_is_named(log: Log) -> None:
    owner = OwnerBody(first_name="Ada", last_name="Lee", address=HOME)
    log.put(command("w", "op2", entity=OWNER, property=None, owner=owner))
    found = log.book.state("o", OWNER, "w")
    assert found is not None
    assert found.name == "Ada Lee"


@pytest.mark.parametrize("topic", [topics.COMMANDS.name, topics.SYNC_STATES.name])
def test_what_cannot_be_read_is_skipped(log: Log, topic: str) -> None:
    log.book.apply(topic, b"o", b"nonsense")
    log.put(command())
    assert log.status() is SyncStatus.PENDING


def test_a_deleted_state_is_forgotten(log: Log) -> None:
    log.put(state())
    log.book.apply(topics.SYNC_STATES.name, b"o/property/p", None)
    log.book.apply(topics.SYNC_STATES.name, None, None)
    assert log.status() is None
