"""Tests of the flow that orders commands; what it decides is tested with `streams.core.sync`."""

from datetime import UTC, datetime

from schemas import topics
from schemas.commands import Command, CommandAction, PostalAddress, PropertyBody, SyncEntity, SyncRow
from schemas.delivery import ReceiverRow
from streams.core.flows import Disposition
from streams.core.rows import Rows
from streams.core.sync import entity_key
from streams.flows import track_syncs
from tests.streams.core.views import MemoryView
from tests.streams.flows.parts import NOW, consumed

HOME = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")
COMMAND = Command(
    org="default",
    connection="buildium",
    action=CommandAction.CREATE,
    operation="op",
    entity=SyncEntity.PROPERTY,
    id="p",
    property=PropertyBody(name="Annex", address=HOME, sub_type="Office"),
    at=datetime(2026, 3, 1, tzinfo=UTC),
)


def test_a_command_is_folded_with_its_record_as_the_cause() -> None:
    rows = Rows(MemoryView())
    record = consumed(topics.COMMANDS.name, COMMAND, offset=7)
    result = track_syncs.step(rows, {}, COMMAND, record, NOW)
    assert result.verdict is Disposition.APPLIED
    row = rows.find(SyncRow, entity_key("default", SyncEntity.PROPERTY, "p"))
    assert row is not None
    assert row.cause == "pms.commands:7"


def test_any_other_record_is_ignored() -> None:
    other = ReceiverRow()
    result = track_syncs.step(Rows(MemoryView()), {}, other, consumed(topics.COMMANDS.name, COMMAND), NOW)
    assert result.verdict is Disposition.IGNORED
