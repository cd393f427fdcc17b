"""Dead letters in the view: which ones are open, which are alike, and the way through their pages."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.codec import encode
from schemas.delivery import Batch, BatchMode, DeliveryPhase, OfferedProperty
from schemas.pms import FetchOrigin, FetchRequest
from schemas.retry import History
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Record
from streams.view.database import Database
from streams.view.queries import LetterFilter, Queries
from tests.streams.view.parts import NOON, View, delivery, fetched

LATER = NOON + timedelta(minutes=5)


def letter(offset: int, value: Model | bytes, at: datetime = NOON, org: bytes = b"default", **history: Any) -> Record:
    facts: dict[str, Any] = {"attempt": 1, "reason": "rejected", "detail": f"unit {offset} is wrong", "flow": "f"}
    headers = History(**facts | history).headers()
    body = encode(value) if isinstance(value, Model) else value
    stamp = round(at.timestamp() * 1000)
    return ConsumedRecord(topics.DEAD_LETTERS.name, 2, offset, stamp, org, body, headers)


def fetch(entity: int = 7) -> FetchRequest:
    return FetchRequest(
        org="default",
        connection="buildium",
        origin=FetchOrigin.WEBHOOK,
        event="RentalUnit.Updated",
        kind=EntityKind.UNIT,
        entity=entity,
        received_at=NOON,
    )


def batch(number: int = 1) -> Batch:
    return Batch(
        org="default",
        connection="buildium",
        sink="rentsync",
        property=OfferedProperty(id=number, name="House", address="1 Main St", is_active=True),
        mode=BatchMode.DELTA,
        version=3,
        attempt=1,
        cut_at=NOON,
        seen_at=NOON,
        sync_id="sync-2026-03-01-12-00-00",
        batch_id="b",
        units=(),
    )


@pytest.fixture
def view(database: Database) -> View:
    return View(database)


def read(view: View, org: str = "default", cursor: str | None = None, limit: int = 10, **wanted: Any) -> Any:
    return Queries(view.database).dead_letters(org, LetterFilter(**wanted), limit, cursor)


def states(view: View) -> dict[str, str]:
    return {one["id"]: one["state"] for one in read(view).items}


def test_a_letter_has_the_form_of_the_api(view: View) -> None:
    view.write(letter(9, fetch(), origin="pms.webhooks", first_failed_at=1772366400000, replays=2))
    (found,) = read(view).items
    fingerprint = found.pop("fingerprint")

    assert len(fingerprint) == 12
    assert found == {
        "id": "2-9",
        "time": NOON,
        "org": "default",
        "origin": "pms.webhooks",
        "flow": "f",
        "reason": "rejected",
        "attempts": 1,
        "connection": "buildium",
        "receiver": None,
        "entity": "unit:7",
        "message": "unit 9 is wrong",
        "firstFailedAt": datetime.fromisoformat("2026-03-01T12:00:00+00:00"),
        "replays": 2,
        "state": "open",
    }


def test_a_letter_of_a_delivery_is_open_until_the_receiver_knows_the_property(view: View) -> None:
    view.write(letter(1, batch(), LATER, origin="deliveries.batches"), delivery(phase=DeliveryPhase.OWED))
    assert states(view) == {"2-1": "open"}
    view.write(delivery(2, acknowledged_at=LATER + timedelta(hours=1)))
    assert states(view) == {"2-1": "open"}, "another property"
    view.write(delivery(acknowledged_at=LATER + timedelta(seconds=1)))
    assert states(view) == {"2-1": "closed"}


def test_a_letter_of_a_delivery_that_is_owed_no_longer_is_closed(view: View) -> None:
    """The property was changed back, or left the scope: nothing is sent, so nothing is acknowledged."""
    view.write(letter(1, batch(), LATER, origin="deliveries.batches"), delivery())
    assert states(view) == {"2-1": "open"}, "its row may not have been read yet"
    view.writer.caught_up(LATER + timedelta(minutes=1))
    assert states(view) == {"2-1": "closed"}
    view.write(delivery(phase=DeliveryPhase.OWED))
    assert states(view) == {"2-1": "open"}


def test_a_letter_of_a_fetch_is_open_until_the_entity_is_read(view: View) -> None:
    view.write(letter(1, fetch(7)), letter(2, fetch(70)), fetched(7, NOON + timedelta(seconds=5)))
    assert states(view) == {"2-1": "closed", "2-2": "open"}


def test_a_record_that_nothing_can_be_read_of_stays_open(view: View) -> None:
    view.write(letter(1, b"?", reason="malformed", detail="not a record of ours"))
    assert states(view) == {"2-1": "open"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [3, 2, 1, 0]),
        ({"open": True}, [3, 2, 0]),
        ({"open": False}, [1]),
        ({"place": (2, 1)}, [1]),
        ({"since": NOON + timedelta(seconds=2)}, [3, 2]),
        ({"until": NOON + timedelta(seconds=2)}, [1, 0]),
        ({"origin": "pms.webhooks"}, [1, 0]),
        ({"reason": "bug"}, [2]),
        ({"entity": "unit:7"}, [1]),
        ({"integration": "rentsync"}, [3]),
        ({"integration": "buildium", "open": True}, [3, 0]),
    ],
)
def test_letters_can_be_filtered(view: View, wanted: dict[str, Any], expected: list[int]) -> None:
    def at(number: int) -> datetime:
        return NOON + timedelta(seconds=number)

    view.write(
        letter(0, fetch(70), at(0), origin="pms.webhooks"),
        letter(1, fetch(7), at(1), origin="pms.webhooks"),
        letter(2, b"?", at(2), origin="deliveries.due", reason="bug"),
        letter(3, batch(), at(3), origin="deliveries.batches"),
        delivery(phase=DeliveryPhase.OWED),
        fetched(7, at(60)),
    )
    assert [int(one["id"].removeprefix("2-")) for one in read(view, **wanted).items] == expected


def test_pages_cover_each_letter_once_also_those_of_one_moment(view: View) -> None:
    view.write(*(letter(number, fetch(number)) for number in range(7)))
    seen: list[str] = []
    cursor = None
    while True:
        page = read(view, limit=3, cursor=cursor)
        seen += [one["id"] for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        view.write(letter(100 + len(seen), fetch(), LATER))
    assert seen == [f"2-{number}" for number in range(6, -1, -1)]


def test_letters_that_are_alike_are_one_group(view: View) -> None:
    letters: Sequence[Record] = [letter(number, fetch(number), NOON + timedelta(seconds=number)) for number in range(5)]
    view.write(*letters, letter(9, fetch(9), LATER, reason="bug", detail="KeyError"), fetched(3, LATER))
    found = Queries(view.database).dead_letter_groups("default", LetterFilter(), 10).items

    assert [(one["reason"], one["letters"], one["open"], one["entities"]) for one in found] == [
        ("bug", 1, 1, 1),
        ("rejected", 5, 4, 5),
    ]
    assert (found[1]["first"], found[1]["last"]) == (NOON, NOON + timedelta(seconds=4))
    assert found[1]["message"] == "unit 4 is wrong"
    only = LetterFilter(fingerprint=found[0]["fingerprint"])
    assert [one["letters"] for one in Queries(view.database).dead_letter_groups("default", only, 10).items] == [1]


def test_no_org_sees_letters_of_another_one(view: View) -> None:
    view.write(letter(1, fetch()), letter(2, b"?", org=b"acme"))
    assert [one["id"] for one in read(view, "acme").items] == ["2-2"]
    assert Queries(view.database).dead_letter_groups("other", LetterFilter(), 10).items == []
