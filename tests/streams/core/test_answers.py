"""THE TABLE of what follows an answer: total, and what the flows do."""

import pytest

from connectors.http import NETWORK, meaning
from connectors.ports import Accepted, Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas.delivery import DeliveryResult
from streams.core.answers import RULES, STATUSES, TEXTS, Course, Work, course_of, markdown, refused
from streams.core.retry import Dead, Done, Outcome, Parked
from tests.streams.flows.test_deliver_batches import Desk, wish


def expected(status: int) -> Course | None:
    """Return what the contract has for a delivery; null for a success."""
    if 200 <= status < 300:
        return None
    if status in {401, 403, 404, 410} or 300 <= status < 400:
        return Course.HOLD
    if status == 429:
        return Course.PAUSE
    if status in {408, 409, 425} or status >= 500 or status < 200:
        return Course.RETRY
    return Course.GIVE_UP


def test_every_status_has_one_course() -> None:
    for status in STATUSES:
        failure = meaning(status, "words")
        assert (failure and course_of(Work.DELIVERY, failure)) == expected(status), status
        if failure is not None:
            assert {course_of(work, failure) for work in Work} <= set(TEXTS)


@pytest.mark.parametrize(("raised", "kind", "words"), NETWORK)
def test_every_network_error_has_one_course(raised: type[Exception], kind: type[Failure], words: str) -> None:
    failure = kind(words, status=None)
    assert issubclass(raised, Exception)
    course = {Unavailable: Course.RETRY, Missing: Course.HOLD, Rejected: Course.GIVE_UP}[kind]
    assert [course_of(work, failure) for work in Work] == [course] * 3


def test_every_failure_of_a_port_has_a_row() -> None:
    assert {rule.kind for rule in RULES} == {Throttled, Unavailable, Unauthorized, Missing, Rejected}
    for kind in (Throttled, Unavailable, Unauthorized, Missing, Rejected):
        assert course_of(Work.READ, kind("words", status=None)) in TEXTS


@pytest.mark.parametrize(
    ("answer", "by_receiver", "by_account", "by_command"),
    [
        (Unauthorized("no", 401), True, True, True),
        (Unauthorized("no", 403), True, False, False),
        (Missing("no", 404), True, True, True),
        (Missing("no", None), True, True, True),
        (Rejected("no", 422), False, False, False),
        (Unavailable("no", 503), False, False, False),
        (Throttled("no"), False, False, False),
        (Accepted(200), False, False, False),
    ],
)
def test_what_refuses_the_configuration_as_a_whole(
    answer: object, by_receiver: bool, by_account: bool, by_command: bool
) -> None:
    found = [refused(work, answer) for work in (Work.DELIVERY, Work.READ, Work.COMMAND)]
    assert found == [answer if refuses else None for refuses in (by_receiver, by_account, by_command)]


def course_taken(outcome: Outcome, result: DeliveryResult) -> Course | None:
    """Return which course a delivery took; null if it was acknowledged."""
    match outcome:
        case Done():
            assert result is DeliveryResult.ACKNOWLEDGED
            return None
        case Dead():
            return Course.GIVE_UP
        case Parked(reason="throttled") if wish(outcome).held:
            return Course.PAUSE
        case _:
            return Course.HOLD if wish(outcome).held else Course.RETRY


@pytest.mark.parametrize("hundred", range(100, 600, 100))
async def test_a_delivery_takes_the_course_of_the_table(hundred: int) -> None:
    """For each status, at a receiver that was well before."""
    for status in range(hundred, hundred + 100):
        desk = Desk()
        desk.receiver.answer = meaning(status, "words") or Accepted(status)
        outcome = await desk.deliver(attempt=2)
        assert course_taken(outcome, desk.outcome.result) == expected(status), status


def test_the_table_has_one_row_for_what_has_the_same_course() -> None:
    text = markdown(meaning, NETWORK)
    rows = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("|"))

    assert rows["200 to 299"] == "success | success | success"
    assert rows["100 to 199, 408 to 409, 425, 500 to 599"] == "retry | retry | retry"
    assert rows["403"] == "hold | leave out | give up"
    assert rows["429"] == "pause | pause | pause"
    assert [course for name, course in rows.items() if "the connection timed out" in name] == ["retry | retry | retry"]
    assert all(f"- **{course}**: " in text for course in Course)
