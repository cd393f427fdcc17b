"""What follows an answer of an external system: THE TABLE, total over every failure that a port can return.

Which status or network error is which failure is in `connectors.http.MEANINGS` and `connectors.http.NETWORK`. The flows
read this table, and ``docs/operations.md`` shows all of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from connectors.ports import Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable


class Work(StrEnum):
    """What an external system is called for."""

    DELIVERY = "delivery"
    READ = "read"
    COMMAND = "command"


class Course(StrEnum):
    """What follows a failure."""

    RETRY = "retry"
    PAUSE = "pause"
    HOLD = "hold"
    GIVE_UP = "give up"
    LEAVE_OUT = "leave out"


TEXTS: Final = {
    Course.RETRY: "the next attempt is on the next rung of the ladder; after the last one a dead letter. With "
    "`Retry-After` in the answer the same as pause",
    Course.PAUSE: "all of the integration waits as long as asked, at least the first delay; no attempt is used up",
    Course.HOLD: "all of the integration is on hold until its configuration is corrected; no attempt is used up",
    Course.GIVE_UP: "a dead letter at once; 20 deliveries or reads in a row that are rejected for one reason hold the "
    "integration instead, and then no attempt is used up",
    Course.LEAVE_OUT: "listings are left out of the rent roll; for any other kind of entity a dead letter",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a failure, and what follows it for each kind of work."""

    kind: type[Failure]
    delivery: Course
    read: Course
    command: Course
    status: int | None = None
    """Only for this status; null: any."""

    def course(self, work: Work) -> Course:
        found: Course = getattr(self, work.value)
        return found


RULES: Final = (
    Rule(Throttled, Course.PAUSE, Course.PAUSE, Course.PAUSE),
    Rule(Unavailable, Course.RETRY, Course.RETRY, Course.RETRY),
    Rule(Unauthorized, Course.HOLD, Course.LEAVE_OUT, Course.GIVE_UP, status=403),
    Rule(Unauthorized, Course.HOLD, Course.HOLD, Course.HOLD),
    Rule(Missing, Course.HOLD, Course.HOLD, Course.HOLD),
    Rule(Rejected, Course.GIVE_UP, Course.GIVE_UP, Course.GIVE_UP),
)
"""The first row that fits applies."""


def course_of(work: Work, failure: Failure) -> Course:
    """Return what follows a failure."""
    rule = _rule(failure)
    assert rule is not None
    return rule.course(work)


def _rule(failure: Failure | None) -> Rule | None:
    if failure is None:
        return None
    return next(one for one in RULES if isinstance(failure, one.kind) and one.status in (None, failure.status))


def refused(work: Work, answer: object) -> Unauthorized | Missing | None:
    """Return the answer if it refuses the configuration as a whole: every other call would end like this one."""
    if isinstance(answer, Unauthorized | Missing) and course_of(work, answer) is Course.HOLD:
        return answer
    return None


# --------------------------------------------------------------------------------------------------------------- shown

STATUSES: Final = range(100, 600)


Meaning = Callable[[int, str], Failure | None]
"""Returns the failure that a status stands for, with some words; null for a success."""

Network = Sequence[tuple[type[Exception], type[Failure], str]]
"""Rows of network errors, each with the failure that it is, and words."""


def markdown(meaning: Meaning, network: Network) -> str:
    """Return the table for people, with its legend."""
    head = ("answer", "a batch to a receiver", "a read of an account", "an operation in the account")
    rows = [head, ("---",) * len(head), *_statuses(meaning), *_errors(network)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + "\n" + "".join(f"- **{course}**: {text}\n" for course, text in TEXTS.items())


def _statuses(meaning: Meaning) -> Iterator[tuple[str, ...]]:
    """Return one row for all statuses with the same rule."""
    ranges: dict[Rule | None, list[str]] = {}
    for rule, statuses in groupby(STATUSES, lambda status: _rule(meaning(status, ""))):
        first, *rest = statuses
        ranges.setdefault(rule, []).append(f"{first} to {rest[-1]}" if rest else f"{first}")
    for rule, names in ranges.items():
        yield ", ".join(names), *_courses(rule)


def _errors(network: Network) -> Iterator[tuple[str, ...]]:
    """Return one row for all network errors that lead to the same failure."""
    by_kind: dict[type[Failure], list[str]] = {}
    for _, kind, words in network:
        by_kind.setdefault(kind, []).append(words)
    for kind, texts in by_kind.items():
        yield "; ".join(dict.fromkeys(texts)), *_courses(_rule(kind("", status=None)))


def _courses(rule: Rule | None) -> Iterator[str]:
    return ("success" if rule is None else rule.course(work).value for work in Work)
