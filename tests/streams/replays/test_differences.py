"""What receivers will learn: compared with the last content that they acknowledged, as far as it is still there."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from schemas import topics
from schemas.codec import encode
from schemas.delivery import (
    Batch,
    BatchMode,
    DeliveryOutcome,
    DeliveryResult,
    OfferedProperty,
    OfferedUnit,
    UnitState,
)
from schemas.replay import PlannedDifference
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.core.flows import ProducerRecord
from streams.replays.differences import COMPARED, Delivery, differences
from streams.view import tables
from streams.view.database import Database
from streams.view.queries import Queries
from tests.streams.view.parts import NOON, View, account, building, delivery, known, record, unit

HERE = Delivery("rentsync", "buildium", 1)


class Setup:
    """A property with two units at a receiver, and the batches that it was sent."""

    def __init__(self) -> None:
        database = Database(sa.make_url("sqlite+pysqlite:///:memory:"))
        database.migrate()
        self.view = View(database)
        self.broker = MemoryBroker(MovableClock(), 1)
        self.view.write(account(), building(), unit(10), unit(11), delivery())

    def knows(self, number: int, *, digest: bytes | None = None) -> None:
        """Let the receiver know a unit as it is now, or something else of it."""
        self.view.write(known(number, digest or self.view.digest(number)))

    def sent(self, version: int, *units: OfferedUnit, acknowledged: bool = True, **more: Any) -> None:
        """Send a batch."""
        facts: dict[str, Any] = {"name": "House 1", "address": "1 Main St, Calgary, AB"}
        house = OfferedProperty(id=1, is_active=True, **facts | more)
        batch = Batch(
            org="default", connection="buildium", sink="rentsync", batch_id=f"b{version}", sync_id="s", cut_at=NOON,
            seen_at=NOON, version=version, mode=BatchMode.DELTA, property=house, units=units,
        )  # fmt: skip
        self.broker.append(ProducerRecord(topics.BATCHES.name, b"default", encode(batch)))
        outcome = DeliveryOutcome(
            org="default", connection="buildium", sink="rentsync", property_id=1, version=version, attempt=1, at=NOON,
            result=DeliveryResult.ACKNOWLEDGED if acknowledged else DeliveryResult.DEAD,
        )  # fmt: skip
        self.view.write(self.broker.read(topics.BATCHES.name)[-1], record(topics.OUTCOMES.name, outcome))

    async def found(self, *deliveries: Delivery) -> tuple[int, Sequence[PlannedDifference]]:
        return await differences(
            Queries(self.view.database), MemoryBackend(self.broker), "default", deliveries or (HERE,)
        )

    async def fields(self) -> list[tuple[int, str, str | None, str | None]]:
        return [(one.unit_id, one.field, one.known, one.now) for one in (await self.found())[1]]


def offered(number: int, rent: str = "1500", **more: Any) -> OfferedUnit:
    facts: dict[str, Any] = {"id": number, "code": str(number), "state": UnitState.AVAILABLE, "status": "x"}
    facts |= {"is_available": True, "when_available": "Immediate", "base_rent": Decimal(rent)}
    return OfferedUnit(**facts | more)


@pytest.fixture
def here() -> Setup:
    return Setup()


async def test_what_a_receiver_knows_is_no_difference(here: Setup) -> None:
    here.knows(10)
    here.knows(11)
    assert await here.found() == (1, ())


async def test_a_unit_that_it_never_acknowledged_is_new_to_it(here: Setup) -> None:
    here.knows(10)
    here.sent(1, offered(11), acknowledged=False)
    assert await here.fields() == [(11, "unit", None, "11")]


async def test_the_last_acknowledged_content_counts_field_by_field(here: Setup) -> None:
    """A delta has only some of the units, so each is looked for in the batches before."""
    here.knows(10, digest=b"another1")
    here.knows(11, digest=b"another2")
    now = {row["unit_id"]: row for row in here.view.rows(tables.UNITS)}
    state = now[10]["state"]
    here.sent(1, offered(10, "1300"), offered(11, "1200.50", size=700))
    here.sent(2, offered(10, "1400"))
    here.sent(3, offered(10, "1450"), acknowledged=False)
    found = {(unit, field): (before, after) for unit, field, before, after in await here.fields()}
    assert found[10, "rent"] == ("1400", "1500")
    assert found[11, "rent"] == ("1200.5", "1500")
    assert found[11, "size"] == ("700", None)
    assert (10, "size") not in found
    assert state in {"available", "unavailable"}


async def test_a_change_that_is_not_shown_in_the_roll_is_named_other(here: Setup) -> None:
    here.knows(11)
    here.knows(10, digest=b"another1")
    row = next(one for one in here.view.rows(tables.UNITS) if one["unit_id"] == 10)
    same = offered(
        10, state=UnitState(row["state"]), is_available=row["is_available"], available_on=row["available_on"],
        when_available=row["when_available"], has_garage=True,
    )  # fmt: skip
    here.sent(1, same)
    assert await here.fields() == [(10, "other", None, None)]


async def test_another_name_or_address_of_the_property_shows(here: Setup) -> None:
    here.knows(11)
    here.knows(10, digest=b"another1")
    here.sent(1, offered(10), name="Old name", address="2 Main St")
    found = {field: (before, now) for _, field, before, now in await here.fields()}
    assert found["propertyName"] == ("Old name", "House 1")
    assert found["address"] == ("2 Main St", "1 Main St, Calgary, AB")


async def test_only_the_first_deliveries_are_compared(here: Setup) -> None:
    count, _ = await here.found(*(Delivery("rentsync", "buildium", number) for number in range(1, 100)))
    assert count == COMPARED
