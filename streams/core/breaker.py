"""The circuit breaker of an integration: while it is open, the integration is not called and its records are held.

It opens after consecutive failures for several *different* entities, so that one record that fails on every rung of
the ladder does not open it. A trial call that fails uses up no attempt of its record, so that an outage costs attempts
only until the breaker opens. Only `Unavailable`, which includes timeouts, counts as a failure.

After a trial call that was answered its calls begin step by step: at most 2 at once, then 4 and 8, each after as many
answers. What recovers under the load of all that has waited would fail again.

It opens at once when an answer refuses the configuration as a whole, be it the credentials or the address: until a
person changes the configuration, which gets a breaker of its own, every call ends like this one. Any other answer shows
that the system is available. The state is in the memory of the worker that owns the org.

It also opens after many rejections in a row, of different entities and for the same reason: then what is sent is wrong
as a whole, by a change of the system or of this program, and records wait instead of all becoming dead letters.

It also opens at once when the system asks for a pause (``Retry-After``, or 429 without it): nothing is sent before that
pause has ended, by any record of the integration, and waiting for it uses up no attempt.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from connectors.ports import Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas import topics
from schemas.integrations import HoldReport
from streams.core.dead_letters import normalized
from streams.core.flows import Emit
from streams.core.observer import Observer
from streams.core.retry import Held, Reason

FAILURES = 5
"""Consecutive failures, each for a different entity, that open the breaker."""

STEPS = (2, 4, 8)
"""Calls at once, step by step, after a trial call was answered."""

FAILURES_OF_STEP = 2
"""Consecutive failures, each for a different entity, that open it again in a step."""

REJECTIONS = 20
"""Rejections in a row for the same reason, each of a different entity, that open the breaker."""

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)
LONGEST_HOLD = timedelta(days=1)
"""Of a report: the clock of the process that wrote it may have been ahead."""

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
    RAMPING = "ramping"
    """Calls are allowed, a limited number at once (`Breakers.width`)."""


class Event(StrEnum):
    """An event that may change the state of a breaker."""

    ANSWERED = "answered"
    FAILED = "failed"
    TRIPPED = "tripped"
    """A call failed, and `FAILURES` or `REJECTIONS` is reached; or the configuration was refused, or a pause was asked
    for."""
    WAITED = "waited"
    """A call is requested after the pause has ended."""
    GREW = "grew"
    """As many calls were answered as may be at once in the last step."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.CLOSED, Event.ANSWERED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.ANSWERED): State.CLOSED,  # a call that began before the breaker opened
    (State.OPEN, Event.FAILED): State.OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.ANSWERED): State.RAMPING,
    (State.HALF_OPEN, Event.FAILED): State.OPEN,
    (State.HALF_OPEN, Event.WAITED): State.HALF_OPEN,
    (State.RAMPING, Event.ANSWERED): State.RAMPING,
    (State.RAMPING, Event.GREW): State.CLOSED,
    (State.RAMPING, Event.FAILED): State.RAMPING,
    (State.RAMPING, Event.TRIPPED): State.OPEN,
}

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
"""Holds are named by their beginning: another one begins later."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one integration."""

    state: State = State.CLOSED
    failed: frozenset[Hashable] = frozenset()
    """The entities that failed since the last answer, if calls are allowed."""
    pause: timedelta = timedelta()
    """The duration of the open state, or of the last one."""
    until: datetime = _NEVER
    """If open: when a trial call may begin. If half open: when the trial call may be repeated."""
    refused: bool = False
    """Whether it is not closed because the configuration was refused."""
    step: int = 0
    """Of `STEPS`, if ramping."""
    answers: int = 0
    """Those in this step."""
    asked_until: datetime = _NEVER
    """The end of the pause that the system asked for: an answer to an earlier call does not shorten it."""
    cause: str = ""
    """Why the last call was rejected, without what is particular to it; empty if it was not."""
    rejected: frozenset[Hashable] = frozenset()
    """The entities that were rejected for it in a row, if calls are allowed."""
    rejecting: bool = False
    """Whether it is not closed because of rejections."""


CLOSED = Breaker()


def admit(breaker: Breaker, now: datetime) -> tuple[Breaker, bool]:
    """Return the breaker after a call was requested, and whether the call is allowed."""
    if breaker.state in (State.CLOSED, State.RAMPING):
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
    cause: str = "",
) -> Breaker:
    """Return the breaker after a call for ``entity`` has ended.

    ``refused``: the same is true of every call. ``asked``: the pause that the system asked for; null if it did not.
    ``cause``: why the call was rejected; empty if it was not, or if that proves nothing about others.
    """
    if available and breaker.state is State.OPEN and now < breaker.asked_until:
        return breaker
    if available and cause:
        return _rejected(breaker, entity, now, cause)
    if available:
        return _grown(breaker)
    failed = breaker.failed | {entity}
    most = {State.CLOSED: FAILURES, State.RAMPING: FAILURES_OF_STEP}.get(breaker.state)
    trips = most is not None and (refused or asked is not None or len(failed) >= most)
    state = TRANSITIONS[breaker.state, Event.TRIPPED if trips else Event.FAILED]
    if state in (State.CLOSED, State.RAMPING):
        return replace(breaker, failed=failed)
    asked_until = breaker.asked_until if asked is None else max(breaker.asked_until, now + asked)
    if state is breaker.state:
        return replace(breaker, until=max(breaker.until, asked_until), asked_until=asked_until)
    pause = FIRST_PAUSE if breaker.state is State.CLOSED else min(breaker.pause * 2, LONGEST_PAUSE)
    until = max(now + pause, asked_until)
    return Breaker(state, pause=pause, until=until, refused=refused, asked_until=asked_until)


def _rejected(breaker: Breaker, entity: Hashable, now: datetime, cause: str) -> Breaker:
    """Return the breaker after a rejection."""
    if breaker.rejecting and breaker.state is State.OPEN:
        return breaker
    if breaker.rejecting and breaker.state is State.HALF_OPEN:
        pause = min(breaker.pause * 2, LONGEST_PAUSE)
        return replace(breaker, state=TRANSITIONS[breaker.state, Event.FAILED], pause=pause, until=now + pause)
    rejected = frozenset({entity}) | (breaker.rejected if breaker.cause == cause else frozenset())
    if len(rejected) < REJECTIONS or breaker.state not in (State.CLOSED, State.RAMPING):
        return replace(_grown(breaker), cause=cause, rejected=rejected)
    state = TRANSITIONS[breaker.state, Event.TRIPPED]
    return Breaker(state, pause=FIRST_PAUSE, until=now + FIRST_PAUSE, rejecting=True)


def _grown(breaker: Breaker) -> Breaker:
    """Return the breaker after an answer."""
    state = TRANSITIONS[breaker.state, Event.ANSWERED]
    if state is State.CLOSED:
        return CLOSED
    if breaker.state is not State.RAMPING:
        return Breaker(state, pause=breaker.pause)
    answers = breaker.answers + 1
    if answers < STEPS[breaker.step]:
        return replace(breaker, failed=frozenset(), answers=answers)
    if breaker.step + 1 == len(STEPS):
        return Breaker(TRANSITIONS[breaker.state, Event.GREW])
    return replace(breaker, failed=frozenset(), step=breaker.step + 1, answers=0)


class Integration(NamedTuple):
    """One version of an integration of an org; a changed configuration starts with a new breaker."""

    org: str
    name: str
    version: int = 0


def _reason(answer: object) -> Reason:
    """Return why nothing is called after an answer."""
    match answer:
        case Missing():
            return Reason.MISSING
        case Unauthorized():
            return Reason.UNAUTHORIZED
        case Throttled():
            return Reason.THROTTLED
        case Rejected():
            return Reason.REJECTED
    return Reason.CIRCUIT_OPEN


def _why(breaker: Breaker) -> str:
    """Return why a breaker is not closed, as a clause after the name of the integration."""
    if breaker.refused:
        return "refuses its configuration"
    if breaker.rejecting:
        return f"has rejected {REJECTIONS} in a row for one reason"
    return "is unavailable"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


class Breakers:
    """The breakers of the integrations that a worker calls."""

    def __init__(
        self,
        observer: Observer,
        throttled: timedelta = timedelta(minutes=1),
        monotonic: Callable[[], float] | None = None,
        reported: Callable[[str, str], HoldReport | None] | None = None,
    ) -> None:
        """Create the breakers of a worker, all of them closed.

        ``throttled``: the pause after a 429, at the least. ``monotonic``: seconds of a clock that never steps, so that
        one that does neither prolongs nor ends a pause; null: pauses are measured by the times that are passed in.
        ``reported``: returns the last report about an integration, by org and name.
        """
        self._observer = observer
        self._monotonic = monotonic
        self._throttled = throttled
        self._reported = reported
        self._breakers: dict[Integration, Breaker] = {}
        self._holds: dict[Integration, HoldReport] = {}
        """The last report about each breaker that is not closed."""
        self._ended: dict[Integration, datetime] = {}
        """When the last hold of each began that ended here: its report may still be on its way."""
        self._widths: dict[tuple[str, str], int] = {}
        """How many calls may be at once of those that are ramping."""
        self._due: dict[tuple[str, str], HoldReport] = {}
        """Reports that are not written yet."""

    def hold(self, integration: Integration, now: datetime) -> Held | None:
        """Return null if a call is allowed, otherwise the hold of its record.

        The end of an allowed call has to be reported to `ended`.
        """
        before = self._known(integration, now)
        after, allowed = admit(before, self._steady(now))
        self._store(integration, before, after)
        if allowed:
            return None
        if after.state is State.HALF_OPEN:
            why = _why(after).replace("refuses", "refused")
            return Held(Reason.CIRCUIT_OPEN, f"{integration.name} {why}, and a trial call is in flight", now)
        until = self._until(after, now)
        return Held(
            Reason.CIRCUIT_OPEN, f"{integration.name} {_why(after)} and is not called before {_moment(until)}", until
        )

    def ended(
        self,
        integration: Integration,
        entity: Hashable,
        answer: object,
        now: datetime,
        *,
        refusal: Unauthorized | Missing | None = None,
        alike: bool = False,
    ) -> Held | None:
        """Record the answer to a call for ``entity``; return the hold of its record if it must keep its attempts.

        That is the record of a failed trial call, of a call after which the system asked for a pause, and of a
        ``refusal``: an answer that refuses the configuration as a whole. A breaker holds, it never drops.

        ``alike``: rejections in a row for the same reason hold the integration. A person's command is no such call: it
        gets its answer.
        """
        before, asked = self._known(integration, now), self._asked(answer)
        available = refusal is None and not isinstance(answer, Unavailable | Throttled)
        steady = self._steady(now)
        cause = normalized(answer.detail) if alike and isinstance(answer, Rejected) else ""
        refuses = refusal is not None
        after = answered(before, entity, steady, available=available, refused=refuses, asked=asked, cause=cause)
        self._store(integration, before, after)
        self._report(integration, before, after, answer if refusal is None else refusal, now)
        if refusal is not None:
            reason = _reason(refusal)
            return Held(reason, f"{integration.name} is on hold until its configuration is corrected: {refusal.detail}")
        if after.rejecting and isinstance(answer, Rejected):
            until = self._until(after, now)
            return Held(Reason.REJECTED, f"{integration.name} {_why(after)}, the last: {answer.detail}", until)
        reopened = before.state is State.RAMPING and after.state is State.OPEN
        if not isinstance(answer, Unavailable | Throttled):
            return None
        if asked is None and before.state is not State.HALF_OPEN and not reopened:
            return None
        until = self._until(after, now)
        detail = f"{integration.name} is not called before {_moment(until)}: {answer.detail}"
        return Held(_reason(answer), detail, until)

    def width(self, group: object) -> int | None:
        """Return how many calls of an integration (its org and name) may be at once; null: as many as usual."""
        match group:
            case (str(org), str(name)) if self._widths:
                return self._widths.get((org, name))
        return None

    def reports(self, org: str, name: str) -> tuple[Emit, ...]:
        """Return what has to be written about an integration, and count it as written."""
        report = self._due.pop((org, name), None)
        return () if report is None else (Emit(topics.INTEGRATION_STATUS, org, report),)

    def forget(self, is_new: Callable[[str], bool]) -> None:
        """Forget the integrations of orgs that another worker may have called: their reports count."""
        for known in (self._breakers, self._holds, self._ended):
            for one in [one for one in known if is_new(one.org)]:
                del known[one]
        for by_name in (self._due, self._widths):
            for key in [key for key in by_name if is_new(key[0])]:
                del by_name[key]

    def _known(self, integration: Integration, now: datetime) -> Breaker:
        """Return the present state, after the reports of a former owner and of people."""
        found = self._breakers.get(integration)
        report = self._reported(integration.org, integration.name) if self._reported is not None else None
        if report is None or report.version != integration.version:
            return found or CLOSED
        if found is None:
            if report.until is None or self._ended.get(integration) == report.since:
                return CLOSED
            wait = min(max(report.until - now, timedelta()), LONGEST_HOLD)
            until, pause = self._steady(now) + wait, timedelta(seconds=report.pause_seconds)
            self._holds[integration] = report
            self._breakers[integration] = found = Breaker(
                State.OPEN,
                pause=pause,
                until=until,
                refused=report.refused,
                asked_until=until,
                rejecting=report.reason == Reason.REJECTED,
            )
        elif report.until is None and found.state is State.OPEN and self._is_own(integration, report):
            steady = self._steady(now)
            self._breakers[integration] = found = replace(found, until=min(found.until, steady), asked_until=_NEVER)
            self._ended[integration] = self._holds.pop(integration).since
        return found

    def _is_own(self, integration: Integration, report: HoldReport) -> bool:
        hold = self._holds.get(integration)
        return hold is not None and hold.since == report.since

    def _report(self, integration: Integration, before: Breaker, after: Breaker, answer: object, now: datetime) -> None:
        """Note what has to be written: that a hold began, goes on for longer, or has ended."""
        hold = self._holds.get(integration)
        if after.state is State.OPEN and after != before:
            detail = getattr(answer, "detail", "")
            began = max(now, self._ended.get(integration, _NEVER) + _TICK) if hold is None else hold.since
            report = HoldReport(
                org=integration.org,
                name=integration.name,
                version=integration.version,
                reason=_reason(answer),
                detail=detail,
                since=began,
                until=self._until(after, now),
                refused=after.refused,
                pause_seconds=round(after.pause.total_seconds()),
            )
            self._holds[integration] = self._due[integration.org, integration.name] = report
        elif after.state in (State.CLOSED, State.RAMPING) and hold is not None:
            del self._holds[integration]
            self._ended[integration] = hold.since
            self._due[integration.org, integration.name] = hold.model_copy(update={"until": None})

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
            self._breakers.pop(integration, None)
        else:
            self._breakers[integration] = after
        if after.state is State.RAMPING:
            self._widths[integration[:2]] = STEPS[after.step]
        else:
            self._widths.pop(integration[:2], None)
        if after.state is not before.state:
            self._observer.breaker_moved(integration.org, integration.name, after.state.value)
