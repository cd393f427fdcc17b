"""Where reading continues after partitions have moved."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.engine.consumer import ConsumerThread

NEW, OLD, CHANGELOG = TP("outcomes", 0), TP("due", 0), TP("app-table-changelog", 0)


class Reader:
    """aiokafka's consumer, as far as seeking goes."""

    def __init__(self) -> None:
        self.rewound: tuple[TP, ...] = ()

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return {NEW: None, OLD: 5, CHANGELOG: None}

    async def seek_to_beginning(self, *partitions: TP) -> None:
        self.rewound = partitions


async def test_a_partition_without_a_commit_is_read_from_its_beginning_again() -> None:
    """What was read of it while partitions moved was dropped; a changelog is not read again for that."""
    reader: Any = Reader()
    thread: Any = ConsumerThread.__new__(ConsumerThread)
    thread._consumer = reader
    thread.consumer = SimpleNamespace(app=None)
    thread.app = SimpleNamespace(table_of_changelog={CHANGELOG.topic: object()})

    committed = await thread._seek_to_committed()

    assert committed[OLD] == 5
    assert reader.rewound == (NEW,)
