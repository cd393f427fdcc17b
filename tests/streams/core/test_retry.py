"""Tests of the decision after a failure, and of the headers of parked records and dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from connectors.ports import Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas import topics
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason
from streams.core.flows import Emit, ProducerRecord
from streams.core.retry import (
    Dead,
    DeadLetterGuard,
    Held,
    Parked,
    Reason,
    Rung,
    attempt_of,
    first_failed_at,
    first_failure,
    history_of,
    ladder,
    milliseconds,
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
class ConsumedRecord:
    """A consumed record."""

    topic: str = "pms.webhooks"
    partition: int = 3
    offset: int = 7
    timestamp: int = NOW_MS
    key: bytes | None = b"org"
    value: bytes | None = b"bytes"
    headers: Sequence[tuple[str, bytes]] = field(default_factory=tuple)

    @classmethod
    def of(cls, sent: ProducerRecord, topic: str) -> "ConsumedRecord":
        return cls(topic=topic, key=sent.key, value=sent.value, headers=sent.headers)


# ---------------------------------------------------------------------------------------------------- retry ladder


def test_a_ladder_is_parsed_from_its_delays() -> None:
    assert (
        Rung("1m", 60, "retry.1m"),
        Rung("2m", 120, "retry.2m"),
        Rung("5m", 300, "retry.5m"),
        Rung("10m", 600, "retry.10m"),
    ) == SEED
    assert [one.seconds for one in ladder(" 250ms, 2s ,1h")] == [0.25, 2, 3600]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a delay: a whole number with a unit"),
        ("1m,,2m", "'' is not a delay"),
        ("1m;2m", "'1m;2m' is not a delay"),
        ("1.5m", "'1.5m' is not a delay"),
        ("soon", "such as 5m"),
        ("0s", "0s is out of range"),
        ("25h", "25h is out of range: a delay must be greater than 0 and at most 24h"),
        ("5m,2m", "2m is not longer than 5m: the delays must increase"),
        ("60s,1m", "1m is not longer than 60s"),
    ],
)
def test_an_invalid_ladder_raises_a_readable_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ladder(text)


# -------------------------------------------------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    ("failure", "attempt", "rung"),
    [
        (Unavailable("down", 503), 1, "1m"),
        (Unavailable("down", 503), 2, "2m"),
        (Unavailable("down", None), 3, "5m"),
        (Unavailable("down", 500), 4, "10m"),
        (Throttled("slow"), 1, "1m"),
        (Throttled("slow"), 2, "2m"),
    ],
)
def test_a_transient_failure_is_parked_on_its_rung(failure: Failure, attempt: int, rung: str) -> None:
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
def test_a_permanent_failure_or_the_last_attempt_is_dead(failure: Failure, attempt: int, reason: Reason) -> None:
    found = outcome_of(failure, attempt, NOW, SEED)

    assert isinstance(found, Dead)
    assert (found.reason, found.attempt) == (reason, attempt)
    assert failure.detail in found.detail


def test_a_record_that_never_succeeds_has_five_attempts() -> None:
    record, waited = ConsumedRecord(), []
    while isinstance(found := outcome_of(Unavailable("down"), attempt_of(record), NOW, SEED), Parked):
        waited.append(found.rung.delay)
        record = ConsumedRecord.of(park(record, found, "fetch_changes", NOW), "pms.webhooks")

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
def test_a_held_record_waits_on_the_first_rung_that_is_long_enough(
    until: int | None, waited: int | None, rung: str
) -> None:
    held = Held(Reason.CIRCUIT_OPEN, "it is unavailable", None if until is None else NOW + timedelta(seconds=until))
    found = outcome_of_hold(held, 3, None if waited is None else NOW_MS - waited * 1000, NOW, SEED)

    assert isinstance(found, Parked)
    assert (found.rung.delay, found.attempt) == (rung, 2)
    assert (found.reason, found.detail) == (Reason.CIRCUIT_OPEN, "it is unavailable")
    assert found.due_at == NOW_MS + found.rung.seconds * 1000


def test_a_record_that_was_held_for_a_day_is_dead() -> None:
    held = Held(Reason.INTEGRATION_PROBLEM, "the encryption key k1 is missing")
    almost = outcome_of_hold(held, 1, NOW_MS - 24 * HOUR_MS + 1, NOW, SEED)
    found = outcome_of_hold(held, 1, NOW_MS - 24 * HOUR_MS, NOW, SEED)

    assert isinstance(almost, Parked)
    assert found == Dead(Reason.INTEGRATION_PROBLEM, "the encryption key k1 is missing; held for 24 hours", attempt=0)


def test_what_a_newer_release_wrote_is_never_dead() -> None:
    """Only an upgrade ends that."""
    held = Held(Reason.UNKNOWN_WRITER, "a newer release wrote it")

    assert isinstance(outcome_of_hold(held, 1, NOW_MS - 1000 * HOUR_MS, NOW, SEED), Parked)


def test_a_hold_uses_up_no_attempt_and_keeps_the_time_of_the_first_failure() -> None:
    """A record that is held before each attempt has its five attempts."""
    record, at, attempts = ConsumedRecord(), NOW, 0
    for number in range(40):
        attempt = attempt_of(record)
        held = Held(Reason.CIRCUIT_OPEN, "it is unavailable", at)
        found: Parked | Dead
        if number % 2:
            found = outcome_of(Unavailable("down"), attempt, at, SEED)
            attempts += 1
        else:
            found = outcome_of_hold(held, attempt, first_failed_at(record), at, SEED)
        if isinstance(found, Dead):
            break
        record = ConsumedRecord.of(park(record, found, "fetch_changes", at), "pms.webhooks")
        at += timedelta(seconds=found.rung.seconds)

    assert (attempts, found.reason) == (5, Reason.EXHAUSTED)
    assert first_failed_at(record) == NOW_MS
    assert first_failure(record) == (("rent-first-failed-at", b"%d" % NOW_MS),)
    assert first_failure(ConsumedRecord()) == ()


# ------------------------------------------------------------------------------------- parked records, dead letters


def parked(record: ConsumedRecord, at: datetime = NOW) -> ProducerRecord:
    found = outcome_of(Unavailable("down", 503), attempt_of(record), at, SEED)
    assert isinstance(found, Parked)
    return park(record, found, "fetch_changes", at)


def test_a_parked_record_keeps_its_bytes_and_has_its_history_in_headers() -> None:
    sent = parked(ConsumedRecord(headers=(("rent-seq", b"9"), ("trace", b"x"))))

    assert (sent.topic, sent.key, sent.value) == ("retry.1m", b"org", b"bytes")
    assert sent.headers == (
        ("rent-seq", b"9"),
        ("trace", b"x"),
        ("rent-attempt", b"1"),
        ("rent-origin", b"pms.webhooks"),
        ("rent-due-at", b"%d" % (NOW_MS + 60_000)),
        ("rent-reason", b"unavailable"),
        ("rent-detail", b"down"),
        ("rent-flow", b"fetch_changes"),
        ("rent-first-failed-at", b"%d" % NOW_MS),
    )


def test_a_record_parked_again_keeps_the_time_of_the_first_failure() -> None:
    again = parked(ConsumedRecord.of(parked(ConsumedRecord()), "pms.webhooks"), datetime(2027, 1, 1, tzinfo=UTC))
    record = ConsumedRecord.of(again, "retry.2m")

    assert again.topic == "retry.2m"
    assert len(again.headers) == len(dict(again.headers)) == 7
    assert (attempt_of(record), history_of(record).origin) == (3, "pms.webhooks")
    assert history_of(record).due_at == milliseconds(datetime(2027, 1, 1, tzinfo=UTC)) + 120_000
    assert dict(again.headers)["rent-first-failed-at"] == b"%d" % NOW_MS


def test_another_record_may_return_in_its_place() -> None:
    due = Emit(topics.DUE, "org", RECORD, headers=(("trace", b"y"),))
    outcome = Parked(SEED[1], 5, 2, Reason.THROTTLED, "slow", instead=due)
    sent = park(ConsumedRecord(topic="deliveries.batches"), outcome, "deliver_batches", NOW)

    assert (sent.topic, sent.key, sent.value) == ("retry.2m", b"org", encode(RECORD))
    assert dict(sent.headers)["rent-origin"] == b"deliveries.due"
    assert dict(sent.headers)["trace"] == b"y"
    assert dict(sent.headers)["rent-attempt"] == b"2"


def test_a_dead_letter_keeps_its_bytes_and_has_its_reason_in_headers() -> None:
    record = ConsumedRecord.of(parked(ConsumedRecord(key=None)), "pms.webhooks")
    sent = to_dead_letter(record, Dead(Reason.REJECTED, "the name is missing"), "fetch_changes", NOW)

    assert (sent.topic, sent.key, sent.value) == ("dead-letters", b"", b"bytes")
    assert dict(sent.headers) == {
        "rent-attempt": b"2",
        "rent-origin": b"pms.webhooks",
        "rent-reason": b"rejected",
        "rent-detail": b"the name is missing",
        "rent-flow": b"fetch_changes",
        "rent-first-failed-at": b"%d" % NOW_MS,
    }
    assert len(sent.headers) == 6


def test_a_detail_is_truncated() -> None:
    sent = to_dead_letter(ConsumedRecord(), Dead(Reason.BUG, "é" * 10_000 + "\ud800"), "f", NOW)

    assert len(dict(sent.headers)["rent-detail"]) == 4000


@pytest.mark.parametrize("junk", [b"", b"x", b"-1", b"1" * 30, "²".encode()])
def test_invalid_headers_are_ignored(junk: bytes) -> None:
    record = ConsumedRecord(headers=(("rent-attempt", junk), ("rent-due-at", junk)))

    assert attempt_of(record) == 1
    assert history_of(record).due_at is None
    assert history_of(ConsumedRecord(headers=(("rent-origin", b"\xff"),))).origin is None
    assert history_of(ConsumedRecord()).origin is None


# -------------------------------------------------------------------------------- dead letters that indicate a bug


BUG, MALFORMED, REJECTED = Dead(Reason.BUG, "b"), Dead(Reason.MALFORMED, "m"), Dead(Reason.REJECTED, "r")


def guard(*succeeded: str) -> DeadLetterGuard:
    found = DeadLetterGuard(most=2)
    for group in succeeded:
        found.succeeded(group)
    return found


@pytest.mark.parametrize("dead", [BUG, MALFORMED])
def test_a_new_process_has_no_evidence_that_others_succeed(dead: Dead) -> None:
    """A restart must not use up records: each process would begin to count again."""
    fresh = guard()
    assert not fresh.allows(dead, "a")

    fresh.succeeded("a")
    assert fresh.allows(dead, "a")


def test_a_run_of_failures_waits_for_a_success() -> None:
    one = guard("a")
    assert [one.allows(BUG, "a") for _ in range(4)] == [True, True, False, False]

    one.succeeded("a")
    assert one.allows(BUG, "a")


def test_another_reason_is_a_success() -> None:
    one = guard()
    assert one.allows(REJECTED, "a")
    assert one.allows(BUG, "a")


def test_the_success_of_one_group_is_no_evidence_for_another() -> None:
    """And its failures do not keep the records of another one waiting once that one succeeds."""
    one = guard("b")
    assert not one.allows(BUG, "a")
    assert not one.allows(BUG, "a", 5)

    one.succeeded("b")
    assert one.allows(BUG, "b")
    assert not one.allows(BUG, "a")


def test_failures_of_several_groups_count_together() -> None:
    one = guard("a", "b", "c")
    assert [one.allows(BUG, group) for group in "abc"] == [True, True, False]


def test_any_success_is_evidence_for_what_cannot_be_read() -> None:
    """Such a record is of no group."""
    one = guard()
    assert not one.allows(MALFORMED)

    one.succeeded("a")
    assert one.allows(MALFORMED)


def test_successes_are_counted_if_they_end_a_run() -> None:
    one = guard("a", "a")
    before = one.successes
    one.allows(BUG, "a")
    one.succeeded("a")
    one.succeeded("a")

    assert one.successes == before + 1
