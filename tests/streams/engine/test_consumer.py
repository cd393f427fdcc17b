"""Tests of the position at which consumption continues after a rebalance."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher as fetching
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


class Buffered:
    """Records of one partition that aiokafka has fetched."""

    def __init__(self, count: int, size: int = 1) -> None:
        self.left = [SimpleNamespace(value=b"x" * size)] * count

    def getall(self, max_records: int | None = None) -> list[Any]:
        taken, self.left = self.left[:max_records], self.left[max_records:]
        return taken

    def has_more(self) -> bool:
        return bool(self.left)


async def polls(records: dict[TP, Any], active: set[TP], count: int) -> list[dict[TP, int]]:
    """Return how many records of each partition some polls give: 40 of `OLD`, 100 of others, or 1000 bytes at most."""
    fetcher: Any = fetching.Fetcher.__new__(fetching.Fetcher)
    fetcher._records, fetcher._closed = records, False
    fetcher._subscriptions = SimpleNamespace(
        reassignment_in_progress=False, fetch_context=nullcontext, is_assigned=bool
    )
    fetcher._wait_consume_future, fetcher._fetch_waiters, fetcher._loop = None, set(), asyncio.get_running_loop()
    thread: Any = ConsumerThread.__new__(ConsumerThread)
    thread.consumer = SimpleNamespace(flow_active=True)
    thread.app = SimpleNamespace(poll_limits=lambda topic: (40 if topic == OLD.topic else 100, 1000))
    reader = SimpleNamespace(_fetcher=fetcher, _closed=False)
    found = [await thread._fetch_records(reader, active, timeout=0.01, max_records=8000) for _ in range(count)]
    return [{tp: len(taken) for tp, taken in one.items()} for one in found]


async def test_partitions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was fetched of one of them; and one whose queue is full gives nothing."""
    monkeypatch.setattr(fetching, "FetchResult", Buffered)
    other = TP("due", 1)
    buffered: dict[TP, Any] = {OLD: Buffered(4000), NEW: Buffered(150), other: Buffered(10), CHANGELOG: Buffered(5)}
    assert await polls(buffered, {OLD, NEW, other}, 3) == [
        {OLD: 40, NEW: 100, other: 10},
        {OLD: 40, NEW: 50},
        {OLD: 40},
    ]
    assert buffered.keys() == {OLD, CHANGELOG}


async def test_few_large_records_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FetchResult", Buffered)
    monkeypatch.setattr("streams.engine.consumer.FIRST_RECORDS", 3)
    buffered: dict[TP, Any] = {OLD: Buffered(30, size=100), NEW: Buffered(9, size=700)}
    assert await polls(buffered, {OLD, NEW}, 2) == [{OLD: 10, NEW: 3}, {OLD: 10, NEW: 3}]


async def test_nothing_is_lost_if_another_partition_has_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised by a poll of its own."""
    monkeypatch.setattr(fetching, "FetchResult", Buffered)
    buffered: dict[TP, Any] = {OLD: fetching.FetchError(error=OSError("out of range"), backoff=0), NEW: Buffered(5)}
    assert await polls(buffered, {OLD, NEW}, 1) == [{NEW: 5}]
    with pytest.raises(OSError, match="out of range"):
        await polls(buffered, {OLD, NEW}, 1)
    assert await polls({OLD: Buffered(0)}, {OLD, NEW}, 1) == [{}]


async def test_faust_does_not_judge_whether_a_partition_is_processed() -> None:
    """It logged errors about every partition that a worker took over after it had run for five minutes."""
    consumer: Any = Consumer.__new__(Consumer)  # without a thread: nothing is asked
    await consumer.verify_all_partitions_active()
