"""What a step of a scan may rely on: it is resumed after a barrier only if everything before is durable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.core.flows import Barrier, ProducerRecord, View
from streams.core.observer import NullObserver
from streams.engine.scans import CHUNK, Scan, ScanTask

RECORD = ProducerRecord("due", b"org", b"x")


@dataclass
class Stage:
    """A scan of one partition, with its output in memory; ``moves_after`` writes partitions move."""

    yields: Sequence[ProducerRecord | Barrier | None]
    moves_after: int | None = None
    written: list[int] = field(default_factory=list)
    """Records of each write."""
    resumed: list[int] = field(default_factory=list)
    """How many records were durable each time that the step was resumed."""
    observer: NullObserver = field(default_factory=NullObserver)

    @property
    def output(self) -> "Stage":
        return self

    async def owned(self) -> None: ...

    async def effects(self, partition: int, effects: Sequence[ProducerRecord]) -> None:
        assert partition == 0
        self.written.append(len(effects))

    def views(self, tables: object, partition: int) -> Mapping[str, View]:
        del tables, partition
        return {}

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[ProducerRecord | Barrier | None]:
        del views, partition
        for one in self.yields:
            yield one
            self.resumed.append(sum(self.written))

    def moves(self) -> int:
        return 0 if self.moves_after is None or len(self.written) < self.moves_after else 1

    async def run(self) -> bool:
        context: Any = self
        task = ScanTask(
            Scan("look", 1.0, self.step, (), on_assigned=False), context, lambda: frozenset({0}), self.moves
        )
        return await task._partition(0)


async def test_records_are_written_in_chunks_and_at_the_end() -> None:
    stage = Stage([RECORD] * CHUNK + [None, RECORD])

    assert await stage.run()
    assert stage.written == [CHUNK, 1]


async def test_a_step_is_resumed_after_a_barrier_when_everything_before_is_written() -> None:
    stage = Stage([RECORD, RECORD, Barrier.DURABLE, RECORD, Barrier.DURABLE, Barrier.DURABLE])

    assert await stage.run()
    assert stage.written == [2, 1]
    assert stage.resumed == [0, 0, 2, 2, 3, 3]


async def test_a_step_is_not_resumed_after_a_barrier_once_partitions_moved() -> None:
    stage = Stage([RECORD, Barrier.DURABLE, RECORD, Barrier.DURABLE], moves_after=1)

    assert not await stage.run()
    assert stage.written == [1]
    assert stage.resumed == [0, 1, 1]
