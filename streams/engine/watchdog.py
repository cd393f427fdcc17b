"""Finds the states in which Faust or aiokafka hang for ever while the process looks alive.

What it looks at is a plain value, so that every rule can be tested without a broker.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.engine.fatal import Exit

TP = tuple[str, int]

BEAT_PATIENCE = 5.0
"""Seconds without a beat of the event loop after which it is no wonder that questions stay unanswered."""

GROUP_ERROR_PATIENCE = 3.0
"""Seconds that an error of the group may wait to be noticed by aiokafka itself."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How far one owned partition of a source topic is."""

    done: int | None
    delivered: int | None
    position: int | None
    end: int | None
    waiting: int

    @property
    def pending(self) -> bool:
        return self.waiting > 0 or (self.end is not None and self.position is not None and self.end > self.position)


@dataclass(frozen=True, slots=True)
class Vitals:
    """What can be seen of a worker at one moment."""

    group_error: str | None = None
    moving: bool = False
    """A rebalance, a recovery, or the start, is under way."""
    progress: tuple[int, ...] = ()
    """Any number that changes while that goes on."""
    states: Mapping[TP, PartitionState] = field(default_factory=dict)
    beat_age: float = 0.0
    """Seconds since the event loop was last seen to run."""
    answer_age: float = 0.0
    """Seconds that a question to the consumer's thread has been without an answer; an error is one."""


Diagnosis = tuple[Exit, str]


class Watchdog:
    """Remembers since when nothing has changed, and says when that is too long."""

    def __init__(self, stuck_after: float, stalled_after: float) -> None:
        self._stuck_after = stuck_after
        self._stalled_after = stalled_after
        self._error_since: float | None = None
        self._progress: tuple[float, tuple[int, ...]] | None = None
        self._standings: dict[TP, tuple[float, PartitionState]] = {}

    def look(self, vitals: Vitals, now: float) -> Diagnosis | None:
        """Return why the worker must end, or ``None``."""
        return self._group(vitals, now) or self._stuck(vitals, now) or self._stalled(vitals, now)

    def _group(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if vitals.group_error is None:
            self._error_since = None
            return None
        if self._error_since is None:
            self._error_since = now
        if now - self._error_since < GROUP_ERROR_PATIENCE:
            return None
        return Exit.GROUP_FAILED, f"the consumer group failed and nobody would notice: {vitals.group_error}"

    def _stuck(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if not vitals.moving:
            self._progress = None
            return None
        if self._progress is None or self._progress[1] != vitals.progress:
            self._progress = (now, vitals.progress)
        age = now - self._progress[0]
        if age < self._stuck_after:
            return None
        return Exit.STUCK, f"a rebalance or recovery has made no progress for {age:.0f} s"

    def _stalled(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if vitals.beat_age > self._stalled_after:
            return Exit.STALLED, f"the event loop has been blocked for {vitals.beat_age:.0f} s"
        if vitals.moving:
            self._standings.clear()
            return None
        if vitals.answer_age > self._stalled_after and vitals.beat_age < BEAT_PATIENCE:
            return Exit.STALLED, f"the consumer has not answered for {vitals.answer_age:.0f} s"
        seen: dict[TP, tuple[float, PartitionState]] = {}
        for tp, state in vitals.states.items():
            if not state.pending:
                continue
            since, before = self._standings.get(tp, (now, state))
            moved = (before.done, before.delivered, before.position) != (
                state.done,
                state.delivered,
                state.position,
            )
            seen[tp] = (now, state) if moved else (since, before)
        self._standings = seen
        for (topic, partition), (since, _) in seen.items():
            if now - since >= self._stalled_after:
                return (
                    Exit.STALLED,
                    f"records wait on {topic}-{partition} and nothing has moved there for {now - since:.0f} s",
                )
        return None
