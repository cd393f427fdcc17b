"""The scheduler of a call: a lane for each key, in which one batch is in flight at a time; priorities and fairness.

Each lane belongs to a group (the integration of an org). Within a rank, groups with ready lanes are served in turn,
and a quota limits the batches in flight of a flow and of each of its groups, so that a backlog or an outage of one
group does not delay the others.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """An item that waits in a lane."""

    @property
    def rank(self) -> int:
        """Return the priority; 0 is the highest one."""
        ...

    @property
    def group(self) -> Hashable:
        """Return the group whose quota the item uses."""
        ...

    @property
    def joins(self) -> Hashable | None:
        """Return the value that consecutive items share to be taken together; null: never together."""
        ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(slots=True, eq=False)
class Quota:
    """The limit on batches in flight of one flow, shared by its ranks."""

    total: int
    each: int | None = None
    """The limit for each group; null: only ``total`` applies."""
    width: Callable[[Hashable], int | None] | None = None
    """Returns a smaller limit of a group, which may change with each batch that ends; null: there is none."""
    held: bool = False
    """Whether no batch may begin for now."""
    taken: int = field(default=0, init=False)
    _of: Counter[Hashable] = field(default_factory=Counter, init=False)

    def is_full(self, group: Hashable) -> bool:
        """Return whether a group has reached its limit."""
        taken = self._of[group]
        if self.each is not None and taken >= self.each:
            return True
        width = None if self.width is None else self.width(group)
        return width is not None and taken >= width

    def take(self, group: Hashable) -> None:
        """Count a batch that begins."""
        self.taken += 1
        self._of[group] += 1

    def release(self, group: Hashable) -> None:
        """Count a batch that has ended."""
        self.taken -= 1
        self._of[group] -= 1
        if not self._of[group]:
            del self._of[group]


@dataclass(slots=True)
class _Lane(Generic[I]):
    """The waiting items of one key, by rank."""

    queues: list[deque[I]]
    busy: tuple[int, Hashable] | None = None
    """Rank and group of the batch in flight; null if there is none."""

    def head(self) -> tuple[int, Hashable] | None:
        """Return rank and group of the next item; null if the lane is empty."""
        return next(((rank, queue[0].group) for rank, queue in enumerate(self.queues) if queue), None)


_Ready = OrderedDict[Hashable, OrderedDict[Hashable, None]]
"""Keys of lanes by group, both in the order in which they are served."""


class Lanes(Generic[I]):
    """Items by key. A lane that is neither ready nor busy is empty and is removed."""

    def __init__(self, quotas: Sequence[Quota], max_batch: int) -> None:
        """Create lanes with the quota of each rank; a rank leaves one slot to each higher rank with the same quota."""
        self._quotas = tuple(quotas)
        self._slots = [quota.total - self._quotas[:rank].count(quota) for rank, quota in enumerate(self._quotas)]
        self._max_batch = max_batch
        self._lanes: dict[Hashable, _Lane[I]] = {}
        self._ready: list[_Ready] = [OrderedDict() for _ in self._quotas]
        self._full: list[_Ready] = [OrderedDict() for _ in self._quotas]
        """Ready lanes of groups that have reached their limit."""
        self.waiting = 0

    def put(self, key: Hashable, item: I) -> None:
        """Append an item to the lane of a key."""
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
        """Take the next batch with its key; null if no lane may begin.

        It comes from the highest rank with a free slot, there from the next group, and there from the oldest lane. The
        lane is busy until `done`.
        """
        for rank, ready in enumerate(self._ready):
            quota = self._quotas[rank]
            while ready and not quota.held and quota.taken < max(1, self._slots[rank]):
                group, lanes = next(iter(ready.items()))
                if quota.is_full(group):  # its limit has become smaller
                    self._move(quota, group, self._ready, self._full)
                    continue
                key, _ = lanes.popitem(last=False)
                ready.move_to_end(group)
                if not lanes:
                    del ready[group]
                return key, self._begin(key, rank, group)
        return None

    def done(self, key: Hashable) -> None:
        """Release the slot and the lane of a key after its batch has ended."""
        lane = self._lanes[key]
        assert lane.busy is not None
        rank, group = lane.busy
        lane.busy = None
        quota = self._quotas[rank]
        quota.release(group)
        if not quota.is_full(group):
            self._move(quota, group, self._full, self._ready)
        self._file(key, lane)

    def waiting_from(self, rank: int) -> int:
        """Return how many items of a rank and those below it wait."""
        return sum(len(queue) for lane in self._lanes.values() for queue in lane.queues[rank:])

    def drop(self, matches: Callable[[I], bool]) -> None:
        """Remove the waiting items that match."""
        for key, lane in list(self._lanes.items()):
            before = lane.head()
            for rank, queue in enumerate(lane.queues):
                lane.queues[rank] = deque(item for item in queue if not matches(item))
            if lane.busy is None and before is not None:
                self._withdraw(key, *before)
                self._file(key, lane)
        self.waiting = sum(len(queue) for lane in self._lanes.values() for queue in lane.queues)

    # ----------------------------------------------------------------------------------------------------- internals

    def _begin(self, key: Hashable, rank: int, group: Hashable) -> list[I]:
        lane, quota = self._lanes[key], self._quotas[rank]
        lane.busy = rank, group
        quota.take(group)
        if quota.is_full(group):
            self._move(quota, group, self._ready, self._full)
        batch = self._batch(lane, rank)
        self.waiting -= len(batch)
        return batch

    def _batch(self, lane: _Lane[I], rank: int) -> list[I]:
        batch = [lane.queues[rank].popleft()]
        joins = batch[0].joins
        if joins is None:
            return batch
        for queue in lane.queues[rank:]:
            while queue and queue[0].joins == joins and len(batch) < self._max_batch:
                batch.append(queue.popleft())
            if queue:
                break
        return batch

    def _file(self, key: Hashable, lane: _Lane[I]) -> None:
        head = lane.head()
        if head is None:
            del self._lanes[key]
        else:
            self._offer(key, *head)

    def _offer(self, key: Hashable, rank: int, group: Hashable) -> None:
        places, others = self._ready, self._full
        if self._quotas[rank].is_full(group):
            places, others = others, places
        self._move(self._quotas[rank], group, others, places)
        places[rank].setdefault(group, OrderedDict())[key] = None

    def _withdraw(self, key: Hashable, rank: int, group: Hashable) -> None:
        places = self._full if key in self._full[rank].get(group, ()) else self._ready
        lanes = places[rank][group]
        del lanes[key]
        if not lanes:
            del places[rank][group]

    def _move(self, quota: Quota, group: Hashable, source: list[_Ready], target: list[_Ready]) -> None:
        """Move a group between ready and full, in every rank of a quota."""
        for rank, one in enumerate(self._quotas):
            if one is quota and (lanes := source[rank].pop(group, None)) is not None:
                target[rank].setdefault(group, OrderedDict()).update(lanes)
