"""Which batches of a partition were handed out, and up to where all of them are done."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Open:
    """A batch that was handed out: where the next one begins, and how many folds still work on it."""

    end: int
    readers: int


class OffsetTracker:
    """The only source of the offset that is committed for one partition.

    Faust's own acks say "done" for a record whose agent raised or was cancelled; here only a fold that came to its end
    says so, and the offset never passes a batch that is still open.
    """

    __slots__ = ("_open", "delivered", "done")

    def __init__(self) -> None:
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self.done: int | None = None
        """The offset to commit: everything before it is done. ``None`` until a first batch is done."""
        self.delivered: int | None = None
        """The last offset that was handed out."""

    def deliver(self, last: int, readers: int = 1) -> None:
        """Hand out the batch that ends with the offset ``last`` to so many folds."""
        self._open[last] = _Open(last + 1, readers)
        self.delivered = last

    def finish(self, last: int) -> None:
        """One fold is done with the batch that ends with ``last`` (one of before a rebalance is not known any more)."""
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
        """Batches that are handed out and not done."""
        return len(self._open)
