"""The shell of a scan: what a pure look over the rows says, as records for the log; it writes no row."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from streams.core.flows import Emit, ProducerRecord, View, encoded

ScanStep = Callable[[Mapping[str, View], int], Iterable[Emit | None]]
"""All views, and the partition that they are of; null stands for a row that was looked at in vain."""


class Scan:
    """One scan, as the engine (or the in-memory world) calls it.

    A null is passed on: between any two things that a scan yields, whoever runs it may let others work.
    """

    def __init__(self, step: ScanStep, *, prefix: str = "") -> None:
        self._step = step
        self._prefix = prefix

    def __call__(self, views: Mapping[str, View], partition: int) -> Iterator[ProducerRecord | None]:
        """Look at one partition."""
        for one in self._step(views, partition):
            yield None if one is None else encoded(one, self._prefix)
