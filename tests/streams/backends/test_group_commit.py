"""Writers that share batches."""

import asyncio
from collections.abc import Sequence

import pytest

from streams.backends.group_commit import GroupCommit
from streams.backends.ports import BackendError
from streams.backends.writer import Entry
from tests.streams.backends.fake_client import entries


class Written:
    """The writes of a `GroupCommit`; a write waits while it is held."""

    def __init__(self) -> None:
        self.together: list[tuple[str, int, list[bytes | None]]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, topic: str, partition: int, records: Sequence[Entry]) -> None:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.together.append((topic, partition, [value for _, value, _ in records]))


async def test_writers_of_one_partition_share_a_write() -> None:
    """Records submitted during a write form the next one, in order; another partition does not wait."""
    written = Written()
    group = GroupCommit(written, "p.")
    first = group.submit("t", 0, entries(b"0"), 1)
    await asyncio.sleep(0)
    rest = [group.submit("t", 0, entries(b"%d" % number), 1) for number in range(1, 5)]
    other = group.submit("t", 1, entries(b"x", b"y"), 2)
    written.go.set()
    await asyncio.gather(first, *rest, other)

    assert sorted(written.together, key=lambda one: one[1]) == [
        ("p.t", 0, [b"0"]),
        ("p.t", 0, [b"1", b"2", b"3", b"4"]),
        ("p.t", 1, [b"x", b"y"]),
    ]


async def test_a_write_is_bounded_in_bytes() -> None:
    """A writer does not have to wait for the acknowledgement of all records of others."""
    written = Written()
    group = GroupCommit(written)
    written.go.set()
    await asyncio.gather(*(group.submit("t", 0, entries(b"%d" % number), 300_000) for number in range(4)))

    assert [values for _, _, values in written.together] == [[b"0", b"1"], [b"2", b"3"]]


async def test_a_writer_cancelled_before_its_write_writes_nothing() -> None:
    """Its records are left out, and those of other writers are written."""
    written = Written()
    group = GroupCommit(written)
    group.connected.clear()
    gone, staying = group.submit("t", 0, entries(b"gone"), 4), group.submit("t", 0, entries(b"staying"), 7)
    gone.cancel()
    written.go.set()
    group.connected.set()
    await staying

    assert [values for _, _, values in written.together] == [[b"staying"]]


async def test_an_error_reaches_every_writer_of_the_write_and_no_other() -> None:
    """The next write is not affected."""
    written = Written()
    group = GroupCommit(written)
    written.error = BackendError("broken")
    written.go.set()
    failed = await asyncio.gather(*(group.submit("t", 0, entries(b"1"), 1) for _ in range(3)), return_exceptions=True)
    written.error = None
    await group.submit("t", 0, entries(b"2"), 1)

    assert [repr(error) for error in failed] == ["BackendError('broken')"] * 3
    assert [values for _, _, values in written.together] == [[b"2"]]


async def test_records_that_are_not_written_at_the_close_fail() -> None:
    """No writer waits forever, whether its records wait or are being written."""
    group = GroupCommit(Written())
    in_flight = group.submit("t", 0, entries(b"1"), 1)
    await asyncio.sleep(0)
    waiting = group.submit("t", 0, entries(b"2"), 1)
    await group.close()

    for one in (in_flight, waiting):
        with pytest.raises(BackendError, match="stops"):
            await one
