"""The decisions of a replay: what is written for each of its records, how fast, and which order is possible when."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from schemas import topics
from schemas.base import Model
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.commands import Command, CommandAction, Push, PushOutcome
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DueReason
from schemas.pms import FetchRequest
from schemas.rent_roll import Page, PulseEnd, SweepEnd
from schemas.replay import ReplayOrder, ReplayPart, ReplayPlan, ReplayProgress, ReplayStep, ReplayWish
from schemas.retry import History
from schemas.topics import TopicSpec
from streams.core.flows import Emit, Record
from streams.core.retry import history_of, other_headers

MOST_REPLAYS: Final = 3
"""A record that was replayed so often is left out, unless it is asked for by its id."""

RATE: Final = 20
"""Records a second by default."""

FASTEST: Final = 1000

LONGEST_STEP: Final = 100
"""Records of one step."""

# ------------------------------------------------------------------------------------------------ what is written


class Left(StrEnum):
    """Why nothing is written for a record of a plan."""

    GONE = "gone"
    UNREADABLE = "unreadable"
    REFUSED = "refused"


_SAME: Final[Mapping[type[Model], TopicSpec]] = {
    Command: topics.COMMANDS,
    PushOutcome: topics.SYNC_EVENTS,
    FetchRequest: topics.WEBHOOKS,
    Page: topics.CHANGES,
    SweepEnd: topics.CHANGES,
    PulseEnd: topics.CHANGES,
    DeliveryOutcome: topics.OUTCOMES,
}
"""Records that are processed again as they are: the folds ignore what is older than what they know."""


def again(record: Record | None, org: str, replay: str) -> Emit | Left:
    """Return what has a record processed again; what is decided by state is decided by the state of that moment.

    ``record``: as it is on the source; null if that has it no more.
    """
    if record is None:
        return Left.GONE
    try:
        value = decode(record.value)
    except (DecodeError, UnknownWriter):
        return Left.UNREADABLE
    if getattr(value, "org", None) != org:
        return Left.REFUSED
    found = _request(value, org, replay)
    if found is None:
        return Left.REFUSED
    history = History(replays=history_of(record).replays + 1, replay=replay)
    topic, request = found
    return Emit(topic, org, request, headers=(*other_headers(record), *history.headers()))


def _request(value: Model, org: str, replay: str) -> tuple[TopicSpec, Model] | None:
    """Return what is written for a record, and where; null if nothing would process it again."""
    match value:
        case Batch():
            return topics.DUE, _due(org, value.connection, value.property.id, value.sink, value)
        case DeliveryDue():
            return topics.DUE, _due(org, value.connection, value.property_id, value.sink, value)
        case Push():
            return topics.COMMANDS, _retry(value, replay)
        case _:
            topic = _SAME.get(type(value))
            return None if topic is None else (topic, value)


def _due(org: str, connection: str, property_id: int, sink: str | None, before: Batch | DeliveryDue) -> DeliveryDue:
    """Return a request to cut a delivery from what is true now."""
    return DeliveryDue(
        org=org,
        connection=connection,
        property_id=property_id,
        reason=DueReason.ASKED,
        seen_at=before.seen_at,
        sink=sink,
    )


def _retry(push: Push, replay: str) -> Command:
    """Return a request to try an operation again, as a person makes it."""
    return Command(
        org=push.org,
        connection=push.connection,
        action=CommandAction.RETRY,
        operation=push.operation,
        entity=push.entity,
        id=push.id,
        by=f"replay {replay}",
        at=push.since,
    )


# --------------------------------------------------------------------------------------------------- what is planned


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that was asked for, as far as its plan depends on it."""

    partition: int
    offset: int
    entity: str | None
    integration: str | None
    """The receiver, else the connection."""
    makes_up: tuple[str | None, ...] | None
    """What records have in common of which the last one makes up for the others; null: it stands alone."""
    is_closed: bool = False
    """Whether what it failed at has been made up for since."""
    replays: int = 0
    is_suitable: bool = True
    delivery: tuple[str, str, int] | None = None
    """Receiver, connection and property, if it is about a delivery."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """The records of a plan, and those that are left out of it, by why."""

    replayed: tuple[Candidate, ...]
    superseded: int = 0
    exhausted: int = 0
    unsuitable: int = 0

    @property
    def matched(self) -> int:
        return len(self.replayed) + self.superseded + self.exhausted + self.unsuitable


def sort(candidates: Iterable[Candidate], *, named: bool = False) -> Sorted:
    """Return which of the records are replayed; they come in any order.

    ``named``: they were asked for by their ids, so that it does not count how often they were replayed.
    """
    newest: dict[Any, Candidate] = {}
    superseded = unsuitable = 0
    for one in sorted(candidates, key=lambda one: (one.partition, one.offset)):
        if not one.is_suitable:
            unsuitable += 1
        elif one.is_closed:
            superseded += 1
        else:
            key = one.makes_up or (one.partition, one.offset)
            superseded += newest.pop(key, None) is not None
            newest[key] = one
    chosen = tuple(one for one in newest.values() if named or one.replays < MOST_REPLAYS)
    return Sorted(chosen, superseded, len(newest) - len(chosen), unsuitable)


def parts(chosen: Iterable[Candidate]) -> tuple[ReplayPart, ...]:
    """Return the places of records, partition by partition."""
    found: dict[int, list[int]] = {}
    for one in chosen:
        found.setdefault(one.partition, []).append(one.offset)
    return tuple(
        ReplayPart(partition=partition, offsets=tuple(sorted(offsets))) for partition, offsets in sorted(found.items())
    )


# ------------------------------------------------------------------------------------------------------- how it runs


class ReplayState(StrEnum):
    """The state of a replay."""

    PLANNED = "planned"
    """It waits for its approval."""
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


_STATES: Final[Mapping[ReplayWish, ReplayState]] = {
    ReplayWish.RUN: ReplayState.RUNNING,
    ReplayWish.PAUSE: ReplayState.PAUSED,
    ReplayWish.CANCEL: ReplayState.CANCELLED,
}

POSSIBLE: Final[Mapping[ReplayState, frozenset[ReplayWish]]] = {
    ReplayState.PLANNED: frozenset({ReplayWish.RUN, ReplayWish.CANCEL}),
    ReplayState.RUNNING: frozenset({ReplayWish.RUN, ReplayWish.PAUSE, ReplayWish.CANCEL}),
    ReplayState.PAUSED: frozenset({ReplayWish.RUN, ReplayWish.PAUSE, ReplayWish.CANCEL}),
    ReplayState.CANCELLED: frozenset({ReplayWish.CANCEL}),
    ReplayState.DONE: frozenset(),
}
"""The orders that each state takes; one that asks for the present state changes nothing."""


def state_of(order: ReplayOrder | None, progress: ReplayProgress | None) -> ReplayState:
    """Return the state that follows from the last order and the progress."""
    if progress is not None and progress.ended_at is not None:
        return ReplayState.DONE
    return ReplayState.PLANNED if order is None else _STATES.get(order.wish, ReplayState.PAUSED)


def step_size(rate: int) -> int:
    """Return how many records one step has, so that there are about two steps a second."""
    return min(max(rate // 2, 1), LONGEST_STEP)


def next_places(plan: ReplayPlan, position: int) -> tuple[int, Sequence[int]] | None:
    """Return the partition and the offsets of the next step; null if there is none."""
    for part in plan.parts:
        if position < len(part.offsets):
            return part.partition, part.offsets[position : position + step_size(plan.rate)]
        position -= len(part.offsets)
    return None


def advanced(progress: ReplayProgress, results: Iterable[Emit | Left], at: Any) -> ReplayProgress:
    """Return the progress after a step."""
    counts = dict.fromkeys(Left, 0)
    done = written = 0
    for one in results:
        done += 1
        if isinstance(one, Left):
            counts[one] += 1
        else:
            written += 1
    return progress.model_copy(
        update={
            "at": at,
            "position": progress.position + done,
            "replayed": progress.replayed + written,
            "gone": progress.gone + counts[Left.GONE],
            "unreadable": progress.unreadable + counts[Left.UNREADABLE],
            "refused": progress.refused + counts[Left.REFUSED],
        }
    )


class Chains:
    """How far each replay is here, so that of two chains of steps one ends.

    What is known here is lost with the process, and has to be forgotten with the ownership of an org.
    """

    def __init__(self) -> None:
        self._reached: dict[tuple[str, str], int] = {}

    def admits(self, step: ReplayStep) -> bool:
        """Return whether to make a step: not if it, or a later one, was made."""
        return step.progress.position >= self._reached.get((step.org, step.id), 0)

    def made(self, progress: ReplayProgress) -> None:
        """Note the progress after a step, before its records are durable: no other step of the replay runs by then."""
        self._reached[progress.org, progress.id] = progress.position

    def failed(self, step: ReplayStep) -> None:
        """Note that what a step wrote is not durable: it may be made again."""
        self._reached.pop((step.org, step.id), None)

    def forget(self, lost: Callable[[str], bool]) -> None:
        """Forget the orgs that are ``lost``, or owned again."""
        self._reached = {key: reached for key, reached in self._reached.items() if not lost(key[0])}
