"""What calls have in common: what follows for a record whose integration cannot be called."""

from collections.abc import Mapping
from typing import Final

from connectors.ports import Missing, Unauthorized
from schemas.base import EntityKind
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


_FORBIDDEN: Final = 403


def refusal_by_source(answer: object) -> Unauthorized | Missing | None:
    """Return the answer if it refuses credentials or address; a 403 refuses only the kind of entity that was read."""
    return answer if isinstance(answer, Unauthorized | Missing) and not _is_forbidden(answer) else None


def refusal_by_sink(answer: object) -> Unauthorized | Missing | None:
    """Return the answer if it refuses credentials or address: no other batch would be taken."""
    return answer if isinstance(answer, Unauthorized | Missing) else None


def may_be_left_out(kind: EntityKind, answer: object) -> bool:
    """Return whether the credentials may not read a kind of entity without which a rent roll can be kept."""
    return kind in OPTIONAL_STAGES and _is_forbidden(answer)


def _is_forbidden(answer: object) -> bool:
    return isinstance(answer, Unauthorized) and answer.status == _FORBIDDEN
