"""The description of a dead letter, and which ones are alike."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import EntityKind
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.pms import FetchOrigin, FetchRequest
from schemas.retry import History
from streams.backends.ports import ConsumedRecord
from streams.core.dead_letters import fingerprint, letter_of, normalized, place_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HISTORY = History(
    attempt=5,
    origin="pms.webhooks",
    reason="exhausted",
    detail="no attempt left after 5; the last: unavailable: 503",
    flow="fetch_changes",
    first_failed_at=1772366400000,
)


def letter(value: bytes | None, history: History = HISTORY, key: bytes | None = b"acme") -> ConsumedRecord:
    at = round(AT.timestamp() * 1000)
    return ConsumedRecord("dead-letters", 3, 1042, at, key, value or b"", history.headers())


def test_a_letter_names_its_entity_its_cause_and_its_place() -> None:
    request = FetchRequest(
        org="acme",
        connection="buildium",
        origin=FetchOrigin.WEBHOOK,
        event="Lease.Updated",
        kind=EntityKind.LEASE,
        entity=77,
        received_at=AT,
    )
    found = letter_of(letter(encode(request)))

    assert (found.id, found.org, found.at, found.attempts) == ("3-1042", "acme", AT, 5)
    assert (found.origin, found.flow, found.reason) == ("pms.webhooks", "fetch_changes", "exhausted")
    assert (found.connection, found.entity, found.property_id) == ("buildium", "lease:77", None)
    assert found.first_failed_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert place_of(found.id) == (3, 1042)


def test_a_delivery_names_its_property() -> None:
    due = DeliveryDue(
        org="acme", connection="buildium", property_id=10, reason=DueReason.RETRY, seen_at=AT, sink="rentsync"
    )
    found = letter_of(letter(encode(due)))

    assert (found.entity, found.property_id, found.receiver) == ("property:10", 10, "rentsync")


@given(st.binary(max_size=60), st.none() | st.binary(max_size=20), st.integers(-(2**63), 2**63 - 1))
def test_nothing_in_a_letter_makes_its_reading_fail(value: bytes, key: bytes | None, timestamp: int) -> None:
    found = letter_of(ConsumedRecord("dead-letters", 0, 0, timestamp, key, value, ()))
    assert (found.entity, found.origin, found.reason) == (None, "", None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("unit 100104 has no rent", "unit 100105 has no rent"),
        ("the name 'Sunset' is taken", "the name 'Corner \"Offices' is taken"),
        ("not before 2026-03-01T12:00:00Z", "not before 2027-12-31T00:00:01Z"),
        ("https://a.example/x answered 503", "https://b.example/y?z=1 answered 503"),
        (
            "operation 7d1a5be0-58f2-4a52-8d3e-8f0d8c2b7a11 failed",
            "operation 0d1a5be0-58f2-4a52-8d3e-8f0d8c2b7a1f failed",
        ),
        ("Too   many\nunits", "too many units"),
        ("digest 00ffab1234567890", "digest deadbeef12345678"),
    ],
)
def test_letters_of_one_cause_are_alike(one: str, other: str) -> None:
    assert fingerprint("f", "rejected", one) == fingerprint("f", "rejected", other)


def test_letters_of_different_causes_are_not_alike() -> None:
    words = "the rent is missing"
    prints = {
        fingerprint("f", "rejected", words),
        fingerprint("g", "rejected", words),
        fingerprint("f", "missing", words),
        fingerprint("f", "rejected", "the address is missing"),
        fingerprint("f", "rejected", None),
    }
    assert len(prints) == 5
    assert all(len(one) == 12 for one in prints)


def test_words_stay_readable() -> None:
    text = "Unit 100104 of 'Sunset' at https://x.example/a: 3 of 1,204.50 fields since 2026-03-01"
    assert normalized(text) == "unit <number> of <text> at <url> <number> of <number> fields since <time>"


@pytest.mark.parametrize("text", ["", "3", "3-", "-1", "a-b", "3-1042-1", "3 - 1"])
def test_an_id_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="3-1042"):
        place_of(text)
