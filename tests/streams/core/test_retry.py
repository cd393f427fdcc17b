"""A failure leads to the rung that the tables say, and a parked or dead record tells its story."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas import retry as header
from schemas import topics
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason
from streams.core.flows import Emit, ProducerRecord
from streams.core.retry import (
    Dead,
    DeadLetterLimit,
    Done,
    Held,
    Parked,
    Reason,
    Rung,
    TooManyDead,
    attempt_of,
    due_at,
    first_failed_at,
    first_failure,
    ladder,
    milliseconds,
    origin_of,
    outcome_of,
    outcome_of_hold,
    park,
    to_dead_letter,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 1500, tzinfo=UTC)
NOW_MS = 1772366400001
SEED = ladder("1m,2m,5m,10m")
RECORD = DeliveryDue(org="org", connection="c", property_id=1, reason=DueReason.RETRY, seen_at=NOW)


@dataclass(frozen=True)
class Found:
    """A record as it comes off a topic."""

    topic: str = "pms.webhooks"
    partition: int = 3
    offset: int = 7
    timestamp: int = NOW_MS
    key: bytes | None = b"org"
    value: bytes | None = b"bytes"
    headers: Sequence[tuple[str, bytes]] = field(default_factory=tuple)

    @classmethod
    def back(cls, sent: ProducerRecord, topic: str) -> "Found":
        return cls(topic=topic, key=sent.key, value=sent.value, headers=sent.headers)


# ------------------------------------------------------------------------------------------------------ the ladder


def test_the_ladder_is_read_from_its_delays() -> None:
    assert (
        Rung("1m", 60, "retry.1m"),
        Rung("2m", 120, "retry.2m"),
        Rung("5m", 300, "retry.5m"),
        Rung("10m", 600, "retry.10m"),
    ) == SEED
    assert [one.seconds for one in ladder(" 250ms, 2s ,1h")] == [0.25, 2, 3600]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not a delay: a whole number with a unit"),
        ("1m,,2m", "'' is not a delay"),
        ("1m;2m", "'1m;2m' is not a delay"),
        ("1.5m", "'1.5m' is not a delay"),
        ("soon", "such as 5m"),
        ("0s", "0s is out of range"),
        ("25h", "25h is out of range: a delay is longer than nothing and at most 24h"),
        ("5m,2m", "2m is not longer than 5m: each delay is longer than the one before"),
        ("60s,1m", "1m is not longer than 60s"),
    ],
)
def test_a_bad_ladder_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ladder(text)


# ---------------------------------------------------------------------------------------------------- the verdicts


@pytest.mark.parametrize(
    ("failure", "attempt", "rung"),
    [
        (Unavailable("down", 503), 1, "1m"),
        (Unavailable("down", 503), 2, "2m"),
        (Unavailable("down", None), 3, "5m"),
        (Unavailable("down", 500), 4, "10m"),
        (Unavailable("down", 503, retry_after=200), 1, "5m"),
        (Unavailable("down", 503, retry_after=10), 3, "5m"),
        (Throttled("slow"), 1, "1m"),
        (Throttled("slow"), 2, "2m"),
        (Throttled("slow", 0), 3, "1m"),
        (Throttled("slow", 60), 1, "1m"),
        (Throttled("slow", 60.5), 1, "2m"),
        (Throttled("slow", 301), 4, "10m"),
        (Throttled("slow", 86_400), 1, "10m"),
    ],
)
def test_what_may_pass_waits_on_its_rung(failure: Failure, attempt: int, rung: str) -> None:
    found = outcome_of(failure, attempt, NOW, SEED)

    assert isinstance(found, Parked)
    assert (found.rung.delay, found.attempt, found.detail) == (rung, attempt, failure.detail)
    assert found.due_at == NOW_MS + found.rung.seconds * 1000
    assert found.reason is (Reason.THROTTLED if isinstance(failure, Throttled) else Reason.UNAVAILABLE)


@pytest.mark.parametrize(
    ("failure", "attempt", "reason"),
    [
        (Unauthorized("key"), 1, Reason.UNAUTHORIZED),
        (Missing("gone"), 1, Reason.MISSING),
        (Rejected("bad", 422), 1, Reason.REJECTED),
        (Unavailable("down"), 5, Reason.EXHAUSTED),
        (Throttled("slow", 5), 5, Reason.EXHAUSTED),
        (Throttled("slow"), 99, Reason.EXHAUSTED),
    ],
)
def test_what_does_not_pass_is_given_up(failure: Failure, attempt: int, reason: Reason) -> None:
    found = outcome_of(failure, attempt, NOW, SEED)

    assert isinstance(found, Dead)
    assert (found.reason, found.attempt) == (reason, attempt)
    assert failure.detail in found.detail


@given(st.integers(1, 6), st.none() | st.floats(0, 10_000))
def test_a_wait_is_as_long_as_the_outside_asked_where_the_ladder_reaches(attempt: int, asked: float | None) -> None:
    for failure in (Throttled("slow", asked), Unavailable("down", 503, asked)):
        found = outcome_of(failure, attempt, NOW, SEED)
        if attempt > 4:
            assert isinstance(found, Dead)
        else:
            assert isinstance(found, Parked)
            assert found.rung.seconds >= min(asked or 0, 600)


def test_a_record_that_never_succeeds_is_tried_five_times() -> None:
    record, waited = Found(), []
    while isinstance(found := outcome_of(Unavailable("down"), attempt_of(record), NOW, SEED), Parked):
        waited.append(found.rung.delay)
        record = Found.back(park(record, found, "fetch_changes", NOW), "pms.webhooks")

    assert waited == ["1m", "2m", "5m", "10m"]
    assert found.attempt == 5


# ------------------------------------------------------------------------------------------------------------ holds

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("until", "waited", "rung"),
    [
        (0, None, "1m"),
        (30, None, "1m"),
        (61, None, "2m"),
        (600, None, "10m"),
        (86_400, None, "10m"),
        (30, 3600, "1m"),
        (None, None, "1m"),
        (None, 60, "1m"),
        (None, 61, "2m"),
        (None, 7200, "10m"),
    ],
)
def test_what_is_held_waits_on_the_first_rung_that_is_long_enough(
    until: int | None, waited: int | None, rung: str
) -> None:
    held = Held(Reason.CIRCUIT_OPEN, "it does not answer", None if until is None else NOW + timedelta(seconds=until))
    found = outcome_of_hold(held, 3, None if waited is None else NOW_MS - waited * 1000, NOW, SEED)

    assert isinstance(found, Parked)
    assert (found.rung.delay, found.attempt) == (rung, 2)
    assert (found.reason, found.detail) == (Reason.CIRCUIT_OPEN, "it does not answer")
    assert found.due_at == NOW_MS + found.rung.seconds * 1000


def test_after_a_day_what_is_held_is_given_up_with_the_reason_of_the_hold() -> None:
    held = Held(Reason.INTEGRATION_PROBLEM, "the encryption key k1 is not there")
    almost = outcome_of_hold(held, 1, NOW_MS - 24 * HOUR_MS + 1, NOW, SEED)
    found = outcome_of_hold(held, 1, NOW_MS - 24 * HOUR_MS, NOW, SEED)

    assert isinstance(almost, Parked)
    assert found == Dead(
        Reason.INTEGRATION_PROBLEM, "the encryption key k1 is not there; given up after 24 hours", attempt=0
    )


def test_a_hold_uses_up_no_attempt_and_does_not_forget_when_it_began() -> None:
    """Held on every other look for an hour, a record still has its five attempts."""
    record, at, tries = Found(), NOW, 0
    for look in range(40):
        attempt = attempt_of(record)
        held = Held(Reason.CIRCUIT_OPEN, "it does not answer", at)
        found: Parked | Dead
        if look % 2:
            found = outcome_of(Unavailable("down"), attempt, at, SEED)
            tries += 1
        else:
            found = outcome_of_hold(held, attempt, first_failed_at(record), at, SEED)
        if isinstance(found, Dead):
            break
        record = Found.back(park(record, found, "fetch_changes", at), "pms.webhooks")
        at += timedelta(seconds=found.rung.seconds)

    assert (tries, found.reason) == (5, Reason.EXHAUSTED)
    assert first_failed_at(record) == NOW_MS
    assert first_failure(record) == ((header.FIRST_FAILED_AT, b"%d" % NOW_MS),)
    assert first_failure(Found()) == ()


# ------------------------------------------------------------------------------------------------ park and bury


def parked(record: Found, at: datetime = NOW) -> ProducerRecord:
    found = outcome_of(Unavailable("down", 503), attempt_of(record), at, SEED)
    assert isinstance(found, Parked)
    return park(record, found, "fetch_changes", at)


def test_a_parked_record_keeps_its_bytes_and_tells_its_story() -> None:
    sent = parked(Found(headers=(("rent-seq", b"9"), ("trace", b"x"))))

    assert (sent.topic, sent.key, sent.value) == ("retry.1m", b"org", b"bytes")
    assert sent.headers == (
        ("rent-seq", b"9"),
        ("trace", b"x"),
        (header.ATTEMPT, b"1"),
        (header.ORIGIN, b"pms.webhooks"),
        (header.DUE_AT, b"%d" % (NOW_MS + 60_000)),
        (header.REASON, b"unavailable"),
        (header.DETAIL, b"down"),
        (header.FLOW, b"fetch_changes"),
        (header.FIRST_FAILED_AT, b"%d" % NOW_MS),
    )


def test_parked_again_it_still_knows_when_it_first_failed() -> None:
    again = parked(Found.back(parked(Found()), "pms.webhooks"), datetime(2027, 1, 1, tzinfo=UTC))
    record = Found.back(again, "retry.2m")

    assert again.topic == "retry.2m"
    assert len(again.headers) == len(dict(again.headers)) == 7
    assert (attempt_of(record), origin_of(record)) == (3, "pms.webhooks")
    assert due_at(record) == milliseconds(datetime(2027, 1, 1, tzinfo=UTC)) + 120_000
    assert dict(again.headers)[header.FIRST_FAILED_AT] == b"%d" % NOW_MS


def test_another_record_may_come_back_in_its_place() -> None:
    due = Emit(topics.DUE, "org", RECORD, headers=(("trace", b"y"),))
    given = Parked(SEED[1], 5, 2, Reason.THROTTLED, "slow", instead=due)
    sent = park(Found(topic="deliveries.batches"), given, "deliver_batches", NOW)

    assert (sent.topic, sent.key, sent.value) == ("retry.2m", b"org", encode(RECORD))
    assert dict(sent.headers)[header.ORIGIN] == b"deliveries.due"
    assert dict(sent.headers)["trace"] == b"y"
    assert dict(sent.headers)[header.ATTEMPT] == b"2"


def test_a_dead_letter_keeps_its_bytes_and_says_why() -> None:
    record = Found.back(parked(Found(key=None)), "pms.webhooks")
    sent = to_dead_letter(record, Dead(Reason.REJECTED, "the name is missing"), "fetch_changes", NOW)

    assert (sent.topic, sent.key, sent.value) == ("dead-letters", b"", b"bytes")
    assert dict(sent.headers) == {
        header.ATTEMPT: b"2",
        header.ORIGIN: b"pms.webhooks",
        header.REASON: b"rejected",
        header.DETAIL: b"the name is missing",
        header.FLOW: b"fetch_changes",
        header.FIRST_FAILED_AT: b"%d" % NOW_MS,
    }
    assert len(sent.headers) == 6


def test_a_detail_is_never_too_long_for_a_header() -> None:
    sent = to_dead_letter(Found(), Dead(Reason.BUG, "é" * 10_000 + "\ud800"), "f", NOW)

    assert len(dict(sent.headers)[header.DETAIL]) == 4000


@pytest.mark.parametrize("junk", [b"", b"x", b"-1", b"1" * 30, "²".encode()])
def test_headers_that_make_no_sense_are_as_good_as_none(junk: bytes) -> None:
    record = Found(headers=((header.ATTEMPT, junk), (header.DUE_AT, junk)))

    assert attempt_of(record) == 1
    assert due_at(record) is None
    assert origin_of(Found(headers=((header.ORIGIN, b"\xff"),))) is None
    assert origin_of(Found()) is None


# ----------------------------------------------------------------------------------------------- when to stop at all


BUG, MALFORMED, REJECTED = Dead(Reason.BUG, "b"), Dead(Reason.MALFORMED, "m"), Dead(Reason.REJECTED, "r")


def test_a_run_of_records_that_speak_against_us_stops_the_flow() -> None:
    limit = DeadLetterLimit(3)
    limit.ended([BUG, MALFORMED])

    with pytest.raises(TooManyDead, match="3 records in a row were given up, the last: bug: b"):
        limit.ended([BUG])


@pytest.mark.parametrize("other", [Done(), REJECTED, Parked(SEED[0], 0, 1, Reason.UNAVAILABLE, "")])
def test_any_other_ending_begins_the_count_anew(other: Done | Dead | Parked) -> None:
    limit = DeadLetterLimit(2)
    for _ in range(5):
        limit.ended([BUG, other])

    assert limit.run == 0


def test_a_limit_of_nothing_never_stops() -> None:
    limit = DeadLetterLimit(0)
    limit.ended([BUG] * 1000)

    assert limit.run == 1000
