"""What calls have in common: what follows for a record whose integration cannot be called."""

from collections.abc import Mapping

from connectors.ports import Unauthorized
from schemas.base import EntityKind
from streams.core.answers import Course, Work, course_of
from streams.core.flows import Disposition
from streams.core.retry import Done, Held, Reason
from streams.core.sweep import OPTIONAL_STAGES
from streams.directory.entry import Problem, ProblemKind

HOLDS: Mapping[ProblemKind, Reason] = {
    ProblemKind.UNKNOWN: Reason.UNKNOWN_INTEGRATION,
    ProblemKind.WRONG_ROLE: Reason.UNKNOWN_INTEGRATION,
    ProblemKind.UNKNOWN_SYSTEM: Reason.INTEGRATION_PROBLEM,
    ProblemKind.UNREADABLE_SECRET: Reason.INTEGRATION_PROBLEM,
    ProblemKind.INVALID: Reason.INTEGRATION_PROBLEM,
    ProblemKind.CLOSED: Reason.INTEGRATION_PROBLEM,
}
"""Why a record is held. A disabled integration is none of these: its records are ignored."""


def held_by(problem: Problem) -> Held | Done:
    """Return what follows for a record whose integration has a problem: it is held, or ignored if it is disabled."""
    if problem.kind is ProblemKind.DISABLED:
        return Done(ending=Disposition.IGNORED)
    return Held(HOLDS[problem.kind], problem.detail)


def may_be_left_out(kind: EntityKind, answer: object) -> bool:
    """Return whether the credentials may not read a kind of entity without which a rent roll can be kept."""
    return (
        kind in OPTIONAL_STAGES
        and isinstance(answer, Unauthorized)
        and course_of(Work.READ, answer) is Course.LEAVE_OUT
    )
