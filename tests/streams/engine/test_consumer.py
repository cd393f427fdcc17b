"""Tests of the position at which consumption continues after a rebalance."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.engine.consumer import Consumer, ConsumerThread

NEW, OLD, CHANGELOG = TP("outcomes", 0), TP("due", 0), TP("app-table-changelog", 0)


class Reader:
    """The methods of aiokafka's consumer that seek."""

    def __init__(self) -> None:
        self.rewound: tuple[TP, ...] = ()

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return {NEW: None, OLD: 5, CHANGELOG: None}

    async def end_offsets(self, partitions: list[TP]) -> dict[TP, int]:
        return dict.fromkeys(partitions, 9)

    async def seek_to_beginning(self, *partitions: TP) -> None:
        self.rewound = partitions


async def test_a_partition_without_a_commit_is_read_from_its_beginning_again() -> None:
    """Records read during a rebalance were dropped and have to be read again; changelogs are not affected."""
    reader: Any = Reader()
    thread: Any = ConsumerThread.__new__(ConsumerThread)
    thread._consumer = reader
    thread.consumer = SimpleNamespace(app=None)
    thread.app = SimpleNamespace(table_of_changelog={CHANGELOG.topic: object()})

    committed = await thread._seek_to_committed()

    assert committed[OLD] == 5
    assert reader.rewound == (NEW,)


async def test_faust_does_not_judge_whether_a_partition_is_processed() -> None:
    """It logged errors about every partition that a worker took over after it had run for five minutes."""
    consumer: Any = Consumer.__new__(Consumer)  # without a thread: nothing is asked
    await consumer.verify_all_partitions_active()
