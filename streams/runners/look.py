"""The numbers of what a flow reads from a PMS, taken in the moment in which its first request is sent."""

from contextvars import Token
from typing import Self

from connectors.ports import MAY_CALL, Clock, WaitToCall
from streams.core.sequence import FetchSequence


class Look:
    """A context for the requests of one look at a PMS, and its numbers: they are taken when the first one is sent.

    A request may wait long for its turn in the API budget. With a number from before that wait, what it brings would
    count as older than what another request brought meanwhile.
    """

    def __init__(self, sequence: FetchSequence, partition: int, clock: Clock, count: int = 1) -> None:
        """``count``: how many numbers the look needs, one for each record that it may fill."""
        self._sequence, self._partition, self._clock, self._count = sequence, partition, clock, count
        self._sent = False
        self._outer: Token[WaitToCall | None] | None = None
        self.first = self._take()
        """The first of its numbers."""

    def __enter__(self) -> Self:
        outer = MAY_CALL.get()

        async def wait() -> None:
            if outer is not None:
                await outer()
            if not self._sent:
                self._sent, self.first = True, self._take()

        self._outer = MAY_CALL.set(wait)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._outer is not None
        MAY_CALL.reset(self._outer)

    def _take(self) -> int:
        return self._sequence.take(self._partition, self._clock.now(), self._count)
