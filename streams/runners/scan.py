"""The runner of a scan: a pure step reads the rows of a partition and emits records; it writes no row."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from streams.core.flows import Barrier, Emit, ProducerRecord, View, encoded

ScanStep = Callable[[Mapping[str, View], int], Iterable[Emit | Barrier | None]]
"""From all views and their partition to records; null stands for a row that needs none."""


class Scan:
    """One scan, called by the engine for each partition.

    A null of the step is yielded too, so that the caller can let other tasks run between any two rows.
    """

    def __init__(self, step: ScanStep, *, prefix: str = "") -> None:
        self._step = step
        self._prefix = prefix

    def __call__(self, views: Mapping[str, View], partition: int) -> Iterator[ProducerRecord | Barrier | None]:
        """Scan one partition and yield the records to produce."""
        for one in self._step(views, partition):
            yield encoded(one, self._prefix) if isinstance(one, Emit) else one
