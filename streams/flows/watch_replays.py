"""``watch_replays``: begins replays that were approved, and goes on with those that no record would go on with."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from connectors.ports import Clock
from schemas import topics
from schemas.partitions import partition_for
from schemas.replay import ReplayProgress, ReplayStep
from streams.core.flows import Barrier, Emit, View
from streams.replays.book import Replay, ReplayBook

LOST_AFTER: Final = timedelta(seconds=60)
"""After this time without progress the next step is taken as lost."""


class WatchReplays:
    """Emits the next step of each running replay that makes no progress."""

    def __init__(self, book: ReplayBook, partitions: int, clock: Clock) -> None:
        self._book = book
        self._partitions = partitions
        self._clock = clock
        self._asked: dict[tuple[str, str], float] = {}
        """When a step was emitted last, by `Clock.monotonic`."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier]:
        """Look at the replays of a partition; remember what was emitted once it is durable."""
        del views
        now, asked = self._clock.monotonic(), list[tuple[str, str]]()
        for org in self._book.orgs():
            if partition_for(org, self._partitions) == partition:
                for one in self._book.running(org):
                    if self._is_due(one, now):
                        yield Emit(topics.REPLAY_STEPS, org, _step(one, self._clock))
                        asked.append((org, one.plan.id))
        if asked:
            yield Barrier.DURABLE
            self._asked |= dict.fromkeys(asked, now)

    def _is_due(self, one: Replay, now: float) -> bool:
        """Return whether a step is to be emitted."""
        assert one.order is not None
        key = one.plan.org, one.plan.id
        ordered = one.progress is None or one.progress.at <= one.order.at
        lost = self._clock.now() - one.changed_at >= LOST_AFTER
        return (ordered or lost) and now - self._asked.get(key, float("-inf")) >= LOST_AFTER.total_seconds()


def _step(one: Replay, clock: Clock) -> ReplayStep:
    """Return the next step of a replay."""
    now, plan = clock.now(), one.plan
    progress = one.progress or ReplayProgress(org=plan.org, id=plan.id, at=now, began_at=now, position=0)
    return ReplayStep(org=plan.org, id=plan.id, progress=progress)
