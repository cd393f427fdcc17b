"""Which records are worked on next: a lane for each key, in which one thing is done at a time; priorities; fair shares.

A lane belongs to a group (the integration of an org). Within a rank the groups that have something ready take turns,
and a quota bounds what is in flight of a flow and of each of its groups, so that the backlog or the outage of one group
takes neither all slots nor the first place.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """Something that waits in a lane."""

    @property
    def rank(self) -> int:
        """Its priority; 0 goes first."""
        ...

    @property
    def group(self) -> Hashable:
        """Whose share it takes."""
        ...

    @property
    def joins(self) -> Hashable | None:
        """Items that wait behind each other and have this in common are done together; null joins nothing."""
        ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(slots=True, eq=False)
class Quota:
    """What may be in flight at a time of one flow; its ranks share it."""

    total: int
    each: int | None = None
    """Of each group; null: as much as of all."""
    taken: int = field(default=0, init=False)
    _of: Counter[Hashable] = field(default_factory=Counter, init=False)

    def is_full(self, group: Hashable) -> bool:
        """Return whether a group has its whole share in flight."""
        return self.each is not None and self._of[group] >= self.each

    def take(self, group: Hashable) -> None:
        """Count what begins."""
        self.taken += 1
        self._of[group] += 1

    def give_back(self, group: Hashable) -> None:
        """Count what has ended."""
        self.taken -= 1
        self._of[group] -= 1
        if not self._of[group]:
            del self._of[group]


@dataclass(slots=True)
class _Lane(Generic[I]):
    """What waits of one key, by rank."""

    queues: list[deque[I]]
    busy: tuple[int, Hashable] | None = None
    """Rank and group of what is in flight."""

    def head(self) -> tuple[int, Hashable] | None:
        """Return rank and group of what is next."""
        return next(((rank, queue[0].group) for rank, queue in enumerate(self.queues) if queue), None)


_Ready = OrderedDict[Hashable, OrderedDict[Hashable, None]]
"""Lanes by group, both in the order in which it is their turn."""


class Lanes(Generic[I]):
    """Items by key. A lane that is neither ready nor busy is empty, and forgotten."""

    def __init__(self, quotas: Sequence[Quota], most_together: int) -> None:
        """``quotas``: that of each rank; of ranks that share one, each leaves a slot more to those before it."""
        self._quotas = tuple(quotas)
        self._slots = [quota.total - self._quotas[:rank].count(quota) for rank, quota in enumerate(self._quotas)]
        self._most = most_together
        self._lanes: dict[Hashable, _Lane[I]] = {}
        self._ready: list[_Ready] = [OrderedDict() for _ in self._quotas]
        self._full: list[_Ready] = [OrderedDict() for _ in self._quotas]
        """What is ready of groups that have their whole share in flight."""
        self.waiting = 0

    def put(self, key: Hashable, item: I) -> None:
        """Let an item wait in the lane of a key."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane([deque() for _ in self._quotas])
        before = lane.head()
        lane.queues[item.rank].append(item)
        self.waiting += 1
        if lane.busy is None and (before is None or item.rank < before[0]):
            if before is not None:
                self._withdraw(key, *before)
            self._offer(key, item.rank, item.group)

    def next(self) -> tuple[Hashable, list[I]] | None:
        """Take what is next: of the first rank that has a free slot, the group whose turn it is, its oldest lane.

        The lane is busy until `done`.
        """
        for rank, ready in enumerate(self._ready):
            if ready and self._quotas[rank].taken < max(1, self._slots[rank]):
                group, lanes = next(iter(ready.items()))
                key, _ = lanes.popitem(last=False)
                ready.move_to_end(group)
                if not lanes:
                    del ready[group]
                return key, self._begin(key, rank, group)
        return None

    def done(self, key: Hashable) -> None:
        """Free the lane for what waits in it, and the slot."""
        lane = self._lanes[key]
        assert lane.busy is not None
        rank, group = lane.busy
        lane.busy = None
        quota = self._quotas[rank]
        was_full = quota.is_full(group)
        quota.give_back(group)
        if was_full and not quota.is_full(group):
            self._move(quota, group, self._full, self._ready)
        self._file(key, lane)

    def drop(self, going: Callable[[I], bool]) -> None:
        """Forget items that wait."""
        for key, lane in list(self._lanes.items()):
            before = lane.head()
            for rank, queue in enumerate(lane.queues):
                lane.queues[rank] = deque(item for item in queue if not going(item))
            if lane.busy is None and before is not None:
                self._withdraw(key, *before)
                self._file(key, lane)
        self.waiting = sum(len(queue) for lane in self._lanes.values() for queue in lane.queues)

    # ------------------------------------------------------------------------------------------------------- within

    def _begin(self, key: Hashable, rank: int, group: Hashable) -> list[I]:
        lane, quota = self._lanes[key], self._quotas[rank]
        lane.busy = rank, group
        quota.take(group)
        if quota.is_full(group):
            self._move(quota, group, self._ready, self._full)
        run = self._run(lane, rank)
        self.waiting -= len(run)
        return run

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

    def _file(self, key: Hashable, lane: _Lane[I]) -> None:
        head = lane.head()
        if head is None:
            del self._lanes[key]
        else:
            self._offer(key, *head)

    def _offer(self, key: Hashable, rank: int, group: Hashable) -> None:
        places = self._full if self._quotas[rank].is_full(group) else self._ready
        places[rank].setdefault(group, OrderedDict())[key] = None

    def _withdraw(self, key: Hashable, rank: int, group: Hashable) -> None:
        places = self._full if self._quotas[rank].is_full(group) else self._ready
        lanes = places[rank][group]
        del lanes[key]
        if not lanes:
            del places[rank][group]

    def _move(self, quota: Quota, group: Hashable, source: list[_Ready], target: list[_Ready]) -> None:
        """Move a group to the end of the other order, in every rank of a quota."""
        for rank, one in enumerate(self._quotas):
            if one is quota and (lanes := source[rank].pop(group, None)) is not None:
                target[rank][group] = lanes
