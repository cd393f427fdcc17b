"""What the agent of a fold does when its partitions are given away while it works."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.backends.ports import Fenced, NotOwner
from streams.core.flows import ProducerRecord, RecordBatch, RowsDamaged, Step, StopPartition, View
from streams.core.observer import NullObserver
from streams.engine.agents import EngineContext, Fold, FoldAgent
from streams.engine.fatal import Exit, Fatal
from streams.engine.rebuild import Rebuilds
from streams.engine.settings import EngineSettings
from streams.engine.tables import TableHandle

ROWS = TableHandle("rows", "app-rows-changelog")


@dataclass
class Output:
    """What a fold writes to; each call may raise."""

    errors: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _call(self, name: str) -> None:
        if found := self.errors.get(name):
            raise found.pop(0)
        self.calls.append(name)

    async def owned(self) -> None:
        self._call("owned")

    async def append(self, *_: object) -> int:
        self._call("append")
        return 1

    async def effects(self, *_: object) -> None:
        self._call("effects")


@dataclass
class Site:
    """An agent with its output, a store, and a stream of two batches of one partition."""

    output: Output = field(default_factory=Output)
    stored: list[int] = field(default_factory=list)
    stepped: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    stopped: dict[Any, str] = field(default_factory=dict)
    unreadable: int | None = None
    """The offset of a batch that the step cannot judge."""
    batches: Sequence[tuple[int, int]] = ((3, 10), (3, 20))
    """Partition and offset of the only record of each batch."""
    failing: frozenset[int] = frozenset()
    """Offsets of records that fail, and wait until another one succeeds."""
    succeeded: int = 0

    def write(self, partition: int, rows: object, offset: int) -> None:
        del partition, rows
        self.stored.append(offset)

    def view(self, partition: int) -> View:
        del partition
        return SimpleNamespace()

    def step(self, batch: RecordBatch, views: Mapping[str, View]) -> Step:
        del views
        if batch.records[0].offset == self.unreadable:
            raise StopPartition("written by a newer release")
        self.stepped += [record.offset for record in batch.records]
        waiting = 0
        for record in batch.records:
            failed = record.offset in self.failing
            waiting, self.succeeded = (waiting + 1, self.succeeded) if failed else (0, self.succeeded + 1)
        if waiting and not self.succeeded:
            return Step(waiting=waiting)
        return Step({b"k": b"v"}, [ProducerRecord("due", b"k", b"v")])

    async def events(self) -> AsyncIterator[Any]:
        for partition, offset in self.batches:
            records: Sequence[Any] = [SimpleNamespace(offset=offset)]
            message = SimpleNamespace(offset=offset, tp=TP("t", partition))
            yield SimpleNamespace(message=message, value=records)

    async def run(self) -> None:
        output: Any = self.output
        stores: Any = {"rows": self}
        settings = EngineSettings(bootstrap_servers="x", app_id="a", worker="w", data_dir=Path("x"), partitions=1)
        rebuilds = Rebuilds(settings, stores, {}, output)
        context = EngineContext(output, NullObserver(), Fatal(leave=self.left.append), stores, self.stopped, rebuilds)
        fold = Fold("f", ("t",), ROWS, self.step, ())
        agent = FoldAgent(fold, context, lambda _tp, offset: self.finished.append(offset), lambda: False)
        await agent.run(SimpleNamespace(events=self.events))


async def test_a_batch_is_stepped_written_and_finished_in_this_order() -> None:
    site = Site()
    await site.run()

    assert site.output.calls == ["owned", "append", "effects"] * 2
    assert (site.stepped, site.finished) == ([10, 20], [10, 20])


async def test_no_step_runs_on_rows_that_another_worker_may_have_changed() -> None:
    site = Site(Output({"owned": [NotOwner("given away"), NotOwner("given away")]}))
    await site.run()

    assert (site.stepped, site.stored, site.finished, site.left) == ([], [], [], [])


@pytest.mark.parametrize(("call", "stored"), [("append", []), ("effects", [1])])
async def test_a_batch_whose_write_ends_with_the_ownership_is_not_finished(call: str, stored: list[int]) -> None:
    """What is in the store is in the changelog too; the next owner processes the batch again."""
    site = Site(Output({call: [NotOwner("given away")]}))
    await site.run()

    assert 10 not in site.finished
    assert site.stored[: len(stored)] == stored
    assert site.left == []


async def test_a_write_that_is_refused_although_the_group_says_otherwise_ends_the_worker() -> None:
    site = Site(Output({"append": [Fenced("another process")]}))
    with pytest.raises(SystemExit):
        await site.run()

    assert site.left == [Exit.NOT_OWNER]
    assert site.finished == []


async def test_rows_that_cannot_be_read_end_the_worker_and_are_no_fault_of_a_record() -> None:
    site = Site(Output({"owned": [RowsDamaged("a block is damaged")]}))
    with pytest.raises(SystemExit):
        await site.run()

    assert site.left == [Exit.DAMAGED]
    assert site.finished == []


async def test_nothing_behind_a_batch_that_cannot_be_judged_is_processed(caplog: pytest.LogCaptureFixture) -> None:
    """The worker goes on with other partitions; the offset stays before the batch."""
    site = Site(unreadable=10)
    await site.run()

    assert (site.stepped, site.finished, site.left) == ([], [], [])
    assert site.stopped == {("t", 3): "f"}
    assert "Fold f stops partition t-3: written by a newer release" in caplog.text


async def test_failed_records_wait_for_a_success_of_the_same_partition() -> None:
    site = Site(failing=frozenset({10}))
    await site.run()

    assert site.stepped == [10, 10, 20]
    assert site.finished == [10, 20]


async def test_failed_records_wait_for_a_success_of_another_partition() -> None:
    """The offsets of their partition stay before them until then."""
    site = Site(failing=frozenset({10, 20}), batches=((3, 10), (3, 20), (4, 30)))
    await site.run()

    assert site.stepped == [10, 10, 20, 30, 10, 20]
    assert site.finished == [30, 10, 20]


async def test_failed_records_are_not_finished_while_nothing_succeeds() -> None:
    site = Site(failing=frozenset({10, 20}))
    await site.run()

    assert (site.finished, site.stored, site.left) == ([], [], [])
