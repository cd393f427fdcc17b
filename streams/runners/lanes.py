"""Who is next: a lane for each key, in which one thing is done at a time, and priorities between the lanes."""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """Something that waits in a lane."""

    @property
    def rank(self) -> int:
        """Its priority; 0 goes first."""
        ...

    @property
    def joins(self) -> Hashable | None:
        """Items that wait behind each other and have this in common are done together; null joins nothing."""
        ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(slots=True)
class _Lane(Generic[I]):
    """What waits of one key, by rank."""

    queues: list[deque[I]]
    busy: bool = False

    def head(self) -> int | None:
        return next((rank for rank, queue in enumerate(self.queues) if queue), None)


class Lanes(Generic[I]):
    """Items by key. A lane that is in neither ``ready`` nor busy is empty, and forgotten."""

    def __init__(self, ranks: int, most_together: int) -> None:
        self._most = most_together
        self._lanes: dict[Hashable, _Lane[I]] = {}
        self._ready: list[dict[Hashable, None]] = [{} for _ in range(ranks)]
        """Of each rank, the lanes whose head has it, in the order in which they became ready."""
        self.waiting = 0

    def put(self, key: Hashable, item: I) -> None:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane([deque() for _ in self._ready])
        before = lane.head()
        lane.queues[item.rank].append(item)
        self.waiting += 1
        if not lane.busy and (before is None or item.rank < before):
            if before is not None:
                del self._ready[before][key]
            self._ready[item.rank][key] = None

    def next(self, may: Callable[[int], bool]) -> tuple[Hashable, list[I]] | None:
        """Take what is next of those ranks that may: of the lane that has waited longest in the first rank.

        The lane is busy until `done`.
        """
        for rank, ready in enumerate(self._ready):
            if ready and may(rank):
                key = next(iter(ready))
                del ready[key]
                lane = self._lanes[key]
                lane.busy = True
                run = self._run(lane, rank)
                self.waiting -= len(run)
                return key, run
        return None

    def _run(self, lane: _Lane[I], rank: int) -> list[I]:
        run = [lane.queues[rank].popleft()]
        joins = run[0].joins
        if joins is None:
            return run
        for queue in lane.queues[rank:]:
            while queue and queue[0].joins == joins and len(run) < self._most:
                run.append(queue.popleft())
            if queue:
                break
        return run

    def done(self, key: Hashable) -> None:
        """The lane is free for what waits in it."""
        lane = self._lanes[key]
        lane.busy = False
        self._file(key, lane)

    def drop(self, going: Callable[[I], bool]) -> None:
        """Forget items that wait."""
        for key, lane in list(self._lanes.items()):
            before = lane.head()
            for rank, queue in enumerate(lane.queues):
                lane.queues[rank] = deque(item for item in queue if not going(item))
            if not lane.busy and before is not None:
                del self._ready[before][key]
                self._file(key, lane)
        self.waiting = sum(len(queue) for lane in self._lanes.values() for queue in lane.queues)

    def _file(self, key: Hashable, lane: _Lane[I]) -> None:
        head = lane.head()
        if head is None:
            del self._lanes[key]
        else:
            self._ready[head][key] = None
