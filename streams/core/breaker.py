"""The circuit breaker of an integration: while the outside does not answer, its records are held and it is not called.

It opens when several *different* things failed one after the other: one record that fails on every rung of the ladder
has its five attempts and opens nothing. A trial that fails uses up no attempt of its record, so that an outage, however
long, costs attempts only until the breaker opens. Only `Unavailable` (time-outs included) is such a failure.

It opens at once when an answer refuses the configuration as a whole, be it the credentials or the address: until a
person changes the configuration, which gets a breaker of its own, every call ends like this one. Any other answer shows
that the outside is there. In memory of the worker that owns the org.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from connectors.ports import Missing, Unauthorized, Unavailable
from streams.core.observer import Observer
from streams.core.retry import Held, Reason

FAILURES = 5
"""Different things that fail one after the other, until the breaker opens."""

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)

TRIAL_WITHIN = timedelta(minutes=2)
"""A trial that has brought no answer by then may be repeated: its call was cancelled, or met a bug."""


class State(StrEnum):
    """Whether an integration is called."""

    CLOSED = "closed"
    """It is called."""
    OPEN = "open"
    """It is not called before a moment."""
    HALF_OPEN = "half_open"
    """One call is on trial; the others wait for its answer."""


class Event(StrEnum):
    """What moves a breaker."""

    ANSWERED = "answered"
    FAILED = "failed"
    TRIPPED = "tripped"
    """It failed, and that was the last of `FAILURES`; or the configuration was refused."""
    WAITED = "waited"
    """A call is wanted and the wait is over."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.CLOSED, Event.ANSWERED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.ANSWERED): State.CLOSED,  # by a call that began before it opened
    (State.OPEN, Event.FAILED): State.OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.ANSWERED): State.CLOSED,
    (State.HALF_OPEN, Event.FAILED): State.OPEN,
    (State.HALF_OPEN, Event.WAITED): State.HALF_OPEN,
}

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one integration."""

    state: State = State.CLOSED
    failed: frozenset[Hashable] = frozenset()
    """While closed: the things that failed since the last answer."""
    pause: timedelta = timedelta()
    """How long it stays open, or stayed open before the trial."""
    until: datetime = _NEVER
    """While open: when a trial may begin. While half open: when the trial may be repeated."""
    refused: bool = False
    """Whether it is not closed because the configuration was refused."""


CLOSED = Breaker()


def admit(breaker: Breaker, now: datetime) -> tuple[Breaker, bool]:
    """Return the breaker after a call was wanted, and whether the call may begin."""
    if breaker.state is State.CLOSED:
        return breaker, True
    if now < breaker.until:
        return breaker, False
    state = TRANSITIONS[breaker.state, Event.WAITED]
    return replace(breaker, state=state, until=now + TRIAL_WITHIN), True


def answered(breaker: Breaker, thing: Hashable, now: datetime, *, available: bool, refused: bool = False) -> Breaker:
    """Return the breaker after a call for ``thing`` has ended; ``refused`` if the same is true of every call."""
    if available:
        return Breaker(TRANSITIONS[breaker.state, Event.ANSWERED])
    failed = breaker.failed | {thing}
    trips = breaker.state is State.CLOSED and (refused or len(failed) >= FAILURES)
    state = TRANSITIONS[breaker.state, Event.TRIPPED if trips else Event.FAILED]
    if state is State.CLOSED:
        return replace(breaker, failed=failed)
    if state is breaker.state:
        return breaker
    pause = min(breaker.pause * 2, LONGEST_PAUSE) if breaker.state is State.HALF_OPEN else FIRST_PAUSE
    return Breaker(state, pause=pause, until=now + pause, refused=refused)


class Integration(NamedTuple):
    """One integration of an org; another version of its configuration begins with a breaker of its own."""

    org: str
    name: str
    version: int = 0


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


class Breakers:
    """The breakers of all integrations that a worker calls."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._breakers: dict[Integration, Breaker] = {}

    def hold(self, integration: Integration, now: datetime) -> Held | None:
        """Return null if a call may begin, whose end is then reported to `ended`; else the hold of its record."""
        before = self._breakers.get(integration, CLOSED)
        after, may = admit(before, now)
        self._keep(integration, before, after)
        if may:
            return None
        if after.state is State.HALF_OPEN:
            before_it = "refused its configuration" if after.refused else "did not answer"
            return Held(Reason.CIRCUIT_OPEN, f"{integration.name} {before_it}, and one call is on trial", now)
        why = "refuses its configuration" if after.refused else "does not answer"
        detail = f"{integration.name} {why}: it is not called before {_moment(after.until)}"
        return Held(Reason.CIRCUIT_OPEN, detail, after.until)

    def ended(
        self,
        integration: Integration,
        thing: Hashable,
        answer: object,
        now: datetime,
        *,
        refusal: Unauthorized | Missing | None = None,
    ) -> Held | None:
        """Note what a call for ``thing`` was answered; return the hold of its record if attempts cannot help it.

        That is a trial that failed, and a ``refusal``: an answer that refuses the configuration as a whole. Such a
        record has to keep its attempts: a breaker holds, it never drops.
        """
        before = self._breakers.get(integration, CLOSED)
        available = refusal is None and not isinstance(answer, Unavailable)
        after = answered(before, thing, now, available=available, refused=refusal is not None)
        self._keep(integration, before, after)
        if refusal is not None:
            reason = Reason.MISSING if isinstance(refusal, Missing) else Reason.UNAUTHORIZED
            return Held(reason, f"{integration.name} is on hold until its configuration is corrected: {refusal.detail}")
        if not isinstance(answer, Unavailable) or before.state is not State.HALF_OPEN:
            return None
        detail = f"{integration.name} is not called before {_moment(after.until)}: {answer.detail}"
        return Held(Reason.CIRCUIT_OPEN, detail, after.until)

    def _keep(self, integration: Integration, before: Breaker, after: Breaker) -> None:
        if after == before:
            return
        if after == CLOSED:
            del self._breakers[integration]
        else:
            self._breakers[integration] = after
        if after.state is not before.state:
            self._observer.breaker_moved(integration.org, integration.name, after.state.value)
