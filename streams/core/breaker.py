"""The circuit breaker of an integration: while it is open, the integration is not called and its records are held.

It opens after consecutive failures for several *different* entities, so that one record that fails on every rung of
the ladder does not open it. A trial call that fails uses up no attempt of its record, so that an outage costs attempts
only until the breaker opens. Only `Unavailable`, which includes timeouts, counts as a failure.

It opens at once when an answer refuses the configuration as a whole, be it the credentials or the address: until a
person changes the configuration, which gets a breaker of its own, every call ends like this one. Any other answer shows
that the system is available. The state is in the memory of the worker that owns the org.

It also opens at once when the system asks for a pause (``Retry-After``, or 429 without it): nothing is sent before that
pause has ended, by any record of the integration, and waiting for it uses up no attempt.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from connectors.ports import Missing, Throttled, Unauthorized, Unavailable
from streams.core.observer import Observer
from streams.core.retry import Held, Reason

FAILURES = 5
"""Consecutive failures, each for a different entity, that open the breaker."""

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)

TRIAL_WITHIN = timedelta(minutes=2)
"""A trial call without an answer after this time may be repeated, because it was cancelled or raised an exception."""


class State(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    """Calls are allowed."""
    OPEN = "open"
    """Calls are not allowed before a point in time."""
    HALF_OPEN = "half_open"
    """One trial call is in flight; other calls are not allowed."""


class Event(StrEnum):
    """An event that may change the state of a breaker."""

    ANSWERED = "answered"
    FAILED = "failed"
    TRIPPED = "tripped"
    """A call failed, and `FAILURES` is reached; or the configuration was refused, or a pause was asked for."""
    WAITED = "waited"
    """A call is requested after the pause has ended."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.CLOSED, Event.ANSWERED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.ANSWERED): State.CLOSED,  # a call that began before the breaker opened
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
    """The entities that failed since the last answer, if the state is closed."""
    pause: timedelta = timedelta()
    """The duration of the open state, or of the one before the trial call."""
    until: datetime = _NEVER
    """If open: when a trial call may begin. If half open: when the trial call may be repeated."""
    refused: bool = False
    """Whether it is not closed because the configuration was refused."""
    asked_until: datetime = _NEVER
    """The end of the pause that the system asked for: an answer to an earlier call does not shorten it."""


CLOSED = Breaker()


def admit(breaker: Breaker, now: datetime) -> tuple[Breaker, bool]:
    """Return the breaker after a call was requested, and whether the call is allowed."""
    if breaker.state is State.CLOSED:
        return breaker, True
    if now < breaker.until:
        return breaker, False
    state = TRANSITIONS[breaker.state, Event.WAITED]
    return replace(breaker, state=state, until=now + TRIAL_WITHIN), True


def answered(
    breaker: Breaker,
    entity: Hashable,
    now: datetime,
    *,
    available: bool,
    refused: bool = False,
    asked: timedelta | None = None,
) -> Breaker:
    """Return the breaker after a call for ``entity`` has ended.

    ``refused``: the same is true of every call. ``asked``: the pause that the system asked for; null if it did not.
    """
    if available and breaker.state is State.OPEN and now < breaker.asked_until:
        return breaker
    if available:
        return Breaker(TRANSITIONS[breaker.state, Event.ANSWERED])
    failed = breaker.failed | {entity}
    trips = breaker.state is State.CLOSED and (refused or asked is not None or len(failed) >= FAILURES)
    state = TRANSITIONS[breaker.state, Event.TRIPPED if trips else Event.FAILED]
    if state is State.CLOSED:
        return replace(breaker, failed=failed)
    asked_until = breaker.asked_until if asked is None else max(breaker.asked_until, now + asked)
    if state is breaker.state:
        return replace(breaker, until=max(breaker.until, asked_until), asked_until=asked_until)
    pause = min(breaker.pause * 2, LONGEST_PAUSE) if breaker.state is State.HALF_OPEN else FIRST_PAUSE
    until = max(now + pause, asked_until)
    return Breaker(state, pause=pause, until=until, refused=refused, asked_until=asked_until)


class Integration(NamedTuple):
    """One version of an integration of an org; a changed configuration starts with a new breaker."""

    org: str
    name: str
    version: int = 0


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


class Breakers:
    """The breakers of the integrations that a worker calls."""

    def __init__(
        self,
        observer: Observer,
        throttled: timedelta = timedelta(minutes=1),
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """Create the breakers of a worker, all of them closed.

        ``throttled``: the pause after a 429, at the least. ``monotonic``: seconds of a clock that never steps, so that
        one that does neither prolongs nor ends a pause; null: pauses are measured by the times that are passed in.
        """
        self._observer = observer
        self._monotonic = monotonic
        self._throttled = throttled
        self._breakers: dict[Integration, Breaker] = {}

    def hold(self, integration: Integration, now: datetime) -> Held | None:
        """Return null if a call is allowed, otherwise the hold of its record.

        The end of an allowed call has to be reported to `ended`.
        """
        before = self._breakers.get(integration, CLOSED)
        after, allowed = admit(before, self._steady(now))
        self._store(integration, before, after)
        if allowed:
            return None
        if after.state is State.HALF_OPEN:
            why = "refused its configuration" if after.refused else "is unavailable"
            return Held(Reason.CIRCUIT_OPEN, f"{integration.name} {why}, and a trial call is in flight", now)
        why = "refuses its configuration" if after.refused else "is unavailable"
        until = self._until(after, now)
        return Held(Reason.CIRCUIT_OPEN, f"{integration.name} {why} and is not called before {_moment(until)}", until)

    def ended(
        self,
        integration: Integration,
        entity: Hashable,
        answer: object,
        now: datetime,
        *,
        refusal: Unauthorized | Missing | None = None,
    ) -> Held | None:
        """Record the answer to a call for ``entity``; return the hold of its record if it must keep its attempts.

        That is the record of a failed trial call, of a call after which the system asked for a pause, and of a
        ``refusal``: an answer that refuses the configuration as a whole. A breaker holds, it never drops.
        """
        before, asked = self._breakers.get(integration, CLOSED), self._asked(answer)
        available = refusal is None and not isinstance(answer, Unavailable | Throttled)
        steady = self._steady(now)
        after = answered(before, entity, steady, available=available, refused=refusal is not None, asked=asked)
        self._store(integration, before, after)
        if refusal is not None:
            reason = Reason.MISSING if isinstance(refusal, Missing) else Reason.UNAUTHORIZED
            return Held(reason, f"{integration.name} is on hold until its configuration is corrected: {refusal.detail}")
        if not isinstance(answer, Unavailable | Throttled) or (asked is None and before.state is not State.HALF_OPEN):
            return None
        reason = Reason.THROTTLED if isinstance(answer, Throttled) else Reason.CIRCUIT_OPEN
        until = self._until(after, now)
        return Held(reason, f"{integration.name} is not called before {_moment(until)}: {answer.detail}", until)

    def _steady(self, now: datetime) -> datetime:
        """Return the time by which pauses are measured."""
        return now if self._monotonic is None else _NEVER + timedelta(seconds=self._monotonic())

    def _until(self, breaker: Breaker, now: datetime) -> datetime:
        """Return the end of a pause by the clock that shows ``now``."""
        return now + (breaker.until - self._steady(now))

    def _asked(self, answer: object) -> timedelta | None:
        """Return the pause that an answer asks for; null if it asks for none."""
        if isinstance(answer, Throttled):
            return max(timedelta(seconds=answer.retry_after or 0.0), self._throttled)
        if isinstance(answer, Unavailable) and answer.retry_after:
            return timedelta(seconds=answer.retry_after)
        return None

    def _store(self, integration: Integration, before: Breaker, after: Breaker) -> None:
        if after == before:
            return
        if after == CLOSED:
            del self._breakers[integration]
        else:
            self._breakers[integration] = after
        if after.state is not before.state:
            self._observer.breaker_moved(integration.org, integration.name, after.state.value)
