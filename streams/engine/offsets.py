"""Which batches of a partition were delivered, and up to which offset all of them are finished."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Open:
    """A batch that was delivered: where the next one begins, and how many folds have not finished it."""

    end: int
    readers: int


class OffsetTracker:
    """The only source of the offset that is committed for one partition.

    Faust acknowledges a record whose agent raised or was cancelled. Here a batch counts only once its folds have
    finished it, and the offset never passes a batch that is still open.
    """

    __slots__ = ("_open", "delivered", "done")

    def __init__(self) -> None:
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self.done: int | None = None
        """The offset to commit: everything before it is finished. Null until a first batch is."""
        self.delivered: int | None = None
        """The last offset that was delivered."""

    def deliver(self, last: int, readers: int = 1) -> None:
        """Note that the batch that ends with the offset ``last`` was delivered to so many folds."""
        self._open[last] = _Open(last + 1, readers)
        self.delivered = last

    def finish(self, last: int) -> None:
        """Note that one fold has finished the batch that ends with ``last``; one from before a rebalance is ignored."""
        batch = self._open.get(last)
        if batch is None:
            return
        batch.readers -= 1
        while self._open:
            first = next(iter(self._open.values()))
            if first.readers > 0:
                return
            self._open.popitem(last=False)
            self.done = first.end

    @property
    def waiting(self) -> int:
        """Return how many batches are delivered and not finished."""
        return len(self._open)
