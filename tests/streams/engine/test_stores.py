import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.core.flows import RowsDamaged
from streams.engine.fatal import Exit
from streams.engine.settings import EngineSettings
from streams.engine.stores import MemoryStore, NotHeld, PartitionStore, RocksMemory, RocksStore, is_locked, new_store

HOUR = 3600.0


def settings_of(folder: Path, store: str = "rocksdb") -> EngineSettings:
    return EngineSettings(
        bootstrap_servers="localhost:9092",
        app_id="app",
        worker="w1",
        data_dir=folder,
        partitions=4,
        store=store,  # type: ignore[arg-type]
    )


def rocks(folder: Path, **more: float) -> RocksStore:
    return RocksStore(folder, "rows", RocksMemory(settings_of(folder)), more.get("max_age", HOUR))


@pytest.fixture(params=["memory", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PartitionStore]:
    made = MemoryStore() if request.param == "memory" else rocks(tmp_path)
    made.open(0)
    yield made
    for partition in made.partitions():
        made.close(partition)


class TestEveryStore:
    """The contract of stores on disk and in memory."""

    def test_a_row_is_read_as_it_was_written(self, store: PartitionStore) -> None:
        store.write(0, [(b"a", b"1"), (b"b", b""), (b"c", b"3"), (b"c", None)], 7)
        view = store.view(0)

        assert (view.get(b"a"), view.get(b"b"), view.get(b"c")) == (b"1", b"", None)
        assert store.offset(0) == 7

    def test_rows_without_an_offset_leave_the_old_one(self, store: PartitionStore) -> None:
        store.write(0, [(b"a", b"1")], 7)
        store.write(0, [(b"a", b"2")], None)

        assert store.offset(0) == 7
        assert store.view(0).get(b"a") == b"2"

    def test_a_view_sees_what_is_written_after_it_was_made(self, store: PartitionStore) -> None:
        view = store.view(0)
        store.write(0, [(b"a", b"1")], 0)

        assert view.get(b"a") == b"1"

    def test_a_scan_gives_a_prefix_in_the_order_of_keys(self, store: PartitionStore) -> None:
        keys = [b"b/2", b"b/10", b"a", b"b", b"b/", b"c", b"b/\xff", b"b0"]
        store.write(0, [(key, key) for key in keys], 1)

        assert [key for key, _ in store.view(0).scan(b"b/")] == [b"b/", b"b/10", b"b/2", b"b/\xff"]
        assert sorted(keys) == [key for key, _ in store.view(0).scan(b"")]

    def test_the_offset_is_never_among_the_rows(self, store: PartitionStore) -> None:
        store.write(0, [(b"__faust row", b"1")], 5)

        assert list(store.view(0).scan(b"__faust")) == [(b"__faust row", b"1")]

    def test_standby_rows_are_in_use_once_their_partition_is_opened(self, store: PartitionStore) -> None:
        assert store.open_standby(1) is None
        store.write_standby(1, [(b"a", b"1"), (b"b", b"2"), (b"a", None)], 7)

        assert store.open_standby(1) == 7
        assert store.partitions() == {0}
        with pytest.raises(NotHeld):
            store.view(1)
        store.open(1)
        assert (list(store.view(1).scan(b"")), store.offset(1)) == ([(b"b", b"2")], 7)
        with pytest.raises(NotHeld):
            store.write_standby(1, [], 8)
        with pytest.raises(NotHeld):
            store.open_standby(1)
        store.close_standby(1, drop=True)
        assert store.view(1).get(b"b") == b"2"

    def test_standby_rows_can_be_dropped(self, store: PartitionStore) -> None:
        store.open_standby(1)
        store.write_standby(1, [(b"a", b"1")], 7)
        store.close_standby(1, drop=True)

        assert store.open_standby(1) is None
        with pytest.raises(NotHeld):
            store.write_standby(2, [], 1)
        store.close_standby(1)

    def test_a_scan_may_go_on_while_rows_are_written(self, store: PartitionStore) -> None:
        store.write(0, [(b"%d" % n, b"") for n in range(10)], 1)
        found = store.view(0).scan(b"")
        next(found)
        store.write(0, [(b"%d" % n, None) for n in range(5)], 2)

        assert len(list(found)) >= 5

    def test_partitions_do_not_see_each_other(self, store: PartitionStore) -> None:
        store.open(1)
        store.write(0, [(b"a", b"0")], 0)
        store.write(1, [(b"a", b"1")], 9)

        assert store.view(0).get(b"a") == b"0"
        assert store.view(1).get(b"a") == b"1"
        assert list(store.view(1).scan(b"")) == [(b"a", b"1")]

    def test_a_partition_that_is_not_open_has_no_rows(self, store: PartitionStore) -> None:
        store.open(1)
        store.close(1)
        store.close(1)

        with pytest.raises(NotHeld):
            store.view(1)
        with pytest.raises(NotHeld):
            store.write(1, [(b"a", b"1")], 0)
        assert store.offset(1) is None
        assert store.partitions() == frozenset({0})

    def test_a_reset_removes_rows_and_offset(self, store: PartitionStore) -> None:
        store.write(0, [(b"a", b"1")], 7)
        store.reset(0)

        assert store.view(0).get(b"a") is None
        assert store.offset(0) is None

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=3))),
        st.binary(max_size=2),
    )
    def test_a_store_is_a_sorted_dict(
        self, store: PartitionStore, rows: list[tuple[bytes, bytes | None]], prefix: bytes
    ) -> None:
        store.reset(0)
        store.write(0, rows, len(rows))
        model: dict[bytes, bytes] = {}
        for key, value in rows:
            model.pop(key, None)
            if value is not None:
                model[key] = value

        assert sorted(item for item in model.items() if item[0].startswith(prefix)) == list(store.view(0).scan(prefix))


class TestRowsOnDisk:
    """The behaviour of RocksDB only."""

    def test_rows_and_offset_are_persistent(self, tmp_path: Path) -> None:
        first = rocks(tmp_path)
        first.open(3)
        first.write(3, [(b"a", b"1")], 41)
        first.close(3)
        second = rocks(tmp_path)
        second.open(3)

        assert second.offset(3) == 41
        assert second.view(3).get(b"a") == b"1"
        second.close(3)

    def test_rows_that_are_too_old_are_dropped(self, tmp_path: Path) -> None:
        first = rocks(tmp_path)
        first.open(3)
        first.write(3, [(b"a", b"1")], 41)
        first.close(3)
        old = time.time() - 2 * HOUR
        for file in first.path(3).iterdir():
            os.utime(file, (old, old))
        second = rocks(tmp_path)
        second.open(3)

        assert second.offset(3) is None
        second.close(3)

    def test_broken_files_are_rebuilt(self, tmp_path: Path) -> None:
        first = rocks(tmp_path)
        first.open(3)
        first.write(3, [(b"a", b"1")], 41)
        first.close(3)
        (first.path(3) / "CURRENT").write_bytes(b"nonsense")
        second = rocks(tmp_path)
        second.open(3)

        assert second.offset(3) is None
        second.close(3)

    def test_files_of_another_process_are_not_opened(self, tmp_path: Path) -> None:
        first, second = rocks(tmp_path), rocks(tmp_path)
        first.open(3)

        with pytest.raises(Exception, match="lock") as refused:
            second.open(3)
        assert isinstance(refused.value, Exception)
        assert is_locked(refused.value)
        first.close(3)
        second.open(3)
        second.close(3)


ROWS = 20_000


@pytest.fixture
def rotten(tmp_path: Path) -> RocksStore:
    """A store of many rows, of which one block in the middle of its file cannot be read."""
    store = rocks(tmp_path)
    store.open(0)
    store.write(0, [(b"k%06d" % number, random.Random(number).randbytes(100)) for number in range(ROWS)], 7)
    store._dbs[0].flush()
    store.close(0)
    (table,) = store.path(0).glob("*.sst")
    with table.open("r+b") as file:
        file.seek(table.stat().st_size // 2)
        file.write(b"rotten block" * 40)
    store.open(0)
    return store


def test_a_scan_over_a_block_that_cannot_be_read_is_an_error_and_not_an_end(rotten: RocksStore) -> None:
    found = []
    with pytest.raises(RowsDamaged, match="cannot be read"):
        found += [key for key, _ in rotten.view(0).scan(b"k")]


def test_a_row_that_cannot_be_read_is_an_error_of_the_rows(rotten: RocksStore) -> None:
    """Other rows are read."""
    view = rotten.view(0)
    assert view.get(b"k%06d" % 1) == random.Random(1).randbytes(100)
    with pytest.raises(RowsDamaged, match="they are rebuilt from the changelog"):
        [view.get(b"k%06d" % number) for number in range(ROWS)]


def test_damaged_rows_are_empty_when_they_are_opened_again(rotten: RocksStore) -> None:
    """So that they are rebuilt from the changelog."""
    with pytest.raises(RowsDamaged):
        list(rotten.view(0).scan(b"k"))
    rotten.close(0)
    gc.collect()  # the error holds the view, as no process does that starts again
    rotten.open(0)

    assert (rotten.offset(0), list(rotten.view(0).scan(b"k"))) == (None, [])


def test_rows_that_are_written_during_a_scan_are_no_damage(tmp_path: Path) -> None:
    store = rocks(tmp_path)
    store.open(0)
    store.write(0, [(b"a", b"1"), (b"b", b"2")], 1)
    seen = []
    for key, _ in store.view(0).scan(b""):
        seen.append(key)
        store.write(0, [(b"z" + key, b"3")], 2)

    assert seen == [b"a", b"b"]


def test_settings_choose_the_store(tmp_path: Path) -> None:
    disk, memory = settings_of(tmp_path), settings_of(tmp_path, "memory")

    assert isinstance(new_store(disk, "t", RocksMemory(disk)), RocksStore)
    assert isinstance(new_store(memory, "t", None), MemoryStore)


FILL = """
import resource, sys
from pathlib import Path
from streams.engine.fatal import Fatal
from streams.engine.fatal import Exit
from streams.engine.settings import EngineSettings
from streams.engine.stores import RocksMemory, new_store
settings = EngineSettings(bootstrap_servers="b", app_id="a", worker="w", data_dir=Path(sys.argv[1]), partitions=1)
store = new_store(settings, "t", RocksMemory(settings), Fatal())
store.open(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for number in range(1000):
    store.write(0, [(b"k%d" % number, bytes(1000))], number)
"""


def test_a_disk_that_takes_no_rows_ends_the_worker_with_one_sentence(tmp_path: Path) -> None:
    """The limit of the size of a file stands for a full disk."""
    run = subprocess.run([sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True, check=False)

    assert run.returncode == Exit.DISK
    assert "t-0.db cannot be written, no file may grow further: raise the limit" in run.stderr
    assert "nothing is lost" in run.stderr
    assert "Traceback" not in run.stderr
