"""The rows of tables, partition by partition, each with the changelog offset up to which they are complete.

Independent of Faust and Kafka. Keys and values are bytes; a partition is open while this worker owns it. Of a partition
that another worker owns there may be standby rows: written from its changelog, and in use once the partition is opened.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import rocksdict

from streams.core.flows import RowsDamaged, View
from streams.engine.fatal import Exit, Fatal
from streams.engine.folder import cause_of
from streams.engine.settings import EngineSettings

log = logging.getLogger("streams.engine")

Row = tuple[bytes, bytes | None]
"""A key and its value; ``None`` deletes."""

_DAMAGED = "DAMAGED"
"""Name of the file that marks rows which could not be read."""

_COMPLETE = "COMPLETE"
"""Name of the file that marks rows that were rewritten completely."""

_OFFSET = b"__faust\0offset__"
"""The key of the offset in a RocksDB; no row may have it."""


class NotHeld(LookupError):  # noqa: N818 -- named after what the partition is not
    """The rows of a partition were used that this worker does not own, or has no standby rows of."""


class PartitionView:
    """One table as a step reads it. Both functions raise `RowsDamaged` if rows on disk cannot be read."""

    __slots__ = ("get", "scan")

    def __init__(
        self,
        get: Callable[[bytes], bytes | None],
        scan: Callable[[bytes], Iterator[tuple[bytes, bytes]]],
    ) -> None:
        self.get = get
        self.scan = scan


class FreshRows(Protocol):
    """The rows of a partition that are rewritten, beside those that are in use."""

    def write(self, rows: Iterable[Row], offset: int) -> None: ...

    def discard(self) -> None:
        """Delete them."""
        ...


class PartitionStore(Protocol):
    """The rows of one table, for the partitions that are open."""

    def open(self, partition: int) -> None: ...
    def close(self, partition: int) -> None: ...
    def partitions(self) -> frozenset[int]: ...

    def offset(self, partition: int) -> int | None:
        """Return the offset of the last changelog record that is in the rows, or ``None`` if there is none."""
        ...

    def write(self, partition: int, rows: Iterable[Row], offset: int | None) -> None:
        """Write all rows and the offset atomically; without an offset the old one stays."""
        ...

    def view(self, partition: int) -> View: ...

    def reset(self, partition: int) -> None:
        """Drop all rows of an open partition; it stays open."""
        ...

    def open_standby(self, partition: int) -> int | None:
        """Open standby rows of a partition that is not open; return their offset as `offset` does."""
        ...

    def write_standby(self, partition: int, rows: Iterable[Row], offset: int) -> None:
        """Write standby rows and their offset atomically. Raise `NotHeld` if the partition is open or they are not."""
        ...

    def close_standby(self, partition: int, *, drop: bool = False) -> None:
        """Close standby rows, and with ``drop`` delete them; do nothing if there are none or the partition is open."""
        ...

    def begin_rewrite(self, partition: int) -> FreshRows:
        """Return an empty copy of a partition, to be written from its changelog."""
        ...

    def adopt(self, partition: int, fresh: FreshRows) -> None:
        """Use fresh rows in place of the present ones. Raise `NotHeld` if the partition is not open any more."""
        ...


class MemoryStore:
    """A dict for each partition, which ends with the process."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._standbys: dict[int, dict[bytes, bytes]] = {}
        self._offsets: dict[int, int] = {}

    def open(self, partition: int) -> None:
        if partition not in self._rows:
            self._rows[partition] = self._standbys.pop(partition, {})

    def close(self, partition: int) -> None:
        self._rows.pop(partition, None)
        self._offsets.pop(partition, None)

    def partitions(self) -> frozenset[int]:
        return frozenset(self._rows)

    def offset(self, partition: int) -> int | None:
        return self._offsets.get(partition)

    def write(self, partition: int, rows: Iterable[Row], offset: int | None) -> None:
        _change(self._held(partition), rows)
        if offset is not None:
            self._offsets[partition] = offset

    def view(self, partition: int) -> View:
        held = self._held(partition)

        def scan(prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
            for key in sorted(key for key in held if key.startswith(prefix)):
                value = held.get(key)
                if value is not None:
                    yield key, value

        return PartitionView(held.get, scan)

    def reset(self, partition: int) -> None:
        self.close(partition)
        self.open(partition)

    def open_standby(self, partition: int) -> int | None:
        if partition in self._rows:
            raise NotHeld(f"partition {partition} is open, so it has no standby rows")
        self._standbys.setdefault(partition, {})
        return self._offsets.get(partition)

    def write_standby(self, partition: int, rows: Iterable[Row], offset: int) -> None:
        if partition not in self._standbys:
            raise NotHeld(f"partition {partition} has no standby rows")
        _change(self._standbys[partition], rows)
        self._offsets[partition] = offset

    def close_standby(self, partition: int, *, drop: bool = False) -> None:  # noqa: ARG002
        if self._standbys.pop(partition, None) is not None:
            self._offsets.pop(partition, None)

    def begin_rewrite(self, partition: int) -> FreshRows:
        raise NotImplementedError("rows in memory are never damaged")

    def adopt(self, partition: int, fresh: FreshRows) -> None:
        raise NotImplementedError("rows in memory are never damaged")

    def _held(self, partition: int) -> dict[bytes, bytes]:
        try:
            return self._rows[partition]
        except KeyError:
            raise NotHeld(f"partition {partition} is not held by this worker") from None


def _change(held: dict[bytes, bytes], rows: Iterable[Row]) -> None:
    for key, value in rows:
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


class RocksMemory:
    """The cache and the write buffers that all RocksDBs of the process share, which bounds their memory."""

    def __init__(self, settings: EngineSettings) -> None:
        self.cache: Any = rocksdict.Cache(settings.block_cache_bytes)
        self.buffers: Any = rocksdict.WriteBufferManager(settings.write_buffers_bytes, allow_stall=False)
        self.write_buffer_bytes = settings.write_buffer_bytes

    def options(self) -> Any:
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, block_based=False)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self.buffers)
        options.set_write_buffer_size(self.write_buffer_bytes)
        options.set_max_write_buffer_number(3)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_keep_log_file_num(2)
        options.set_max_open_files(128)
        return options


class RocksStore:
    """A RocksDB for each partition, below ``folder``; it outlives the process and may be deleted between two runs."""

    def __init__(
        self,
        folder: Path,
        name: str,
        memory: RocksMemory,
        max_age: float,
        wall_clock: Callable[[], float] = time.time,
        fatal: Fatal | None = None,
    ) -> None:
        """``fatal`` is called if the disk takes nothing; null: the error is raised."""
        self._folder = folder
        self._name = name
        self._fatal = fatal
        self._memory = memory
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._dbs: dict[int, Any] = {}
        self._standbys: dict[int, Any] = {}
        self._paths: dict[int, Path] = {}
        """Where the open rows of each partition are: those that were rewritten are moved when they are opened."""
        self._offsets: dict[int, int] = {}

    def path(self, partition: int) -> Path:
        return self._folder / f"{self._name}-{partition}.db"

    def open(self, partition: int) -> None:
        """Open a partition, empty if its rows are too old or corrupt. Raise while another process holds the files."""
        if partition not in self._dbs:
            standby = self._standbys.pop(partition, None)
            with self._disk(partition):
                self._dbs[partition] = standby if standby is not None else self._open_rows(partition)

    def _open_rows(self, partition: int) -> Any:
        path = self.path(partition)
        self._settle(path)
        self._drop_unusable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = rocksdict.Rdict(str(path), options=self._memory.options())
        except Exception as error:
            if not _is_broken(error):
                raise
            log.warning("The rows in %s are corrupt and are rebuilt from the changelog: %s", path, error)
            shutil.rmtree(path, ignore_errors=True)
            db = rocksdict.Rdict(str(path), options=self._memory.options())
        self._paths[partition] = path
        offset = db.get(_OFFSET)
        if offset is not None:
            self._offsets[partition] = int(offset)
        return db

    def close(self, partition: int) -> None:
        self._offsets.pop(partition, None)
        db = self._dbs.pop(partition, None)
        if db is not None:
            db.close()

    def partitions(self) -> frozenset[int]:
        return frozenset(self._dbs)

    def offset(self, partition: int) -> int | None:
        return self._offsets.get(partition)

    def write(self, partition: int, rows: Iterable[Row], offset: int | None) -> None:
        with self._disk(partition):
            self._held(partition).write(_batch(rows, offset))
        if offset is not None:
            self._offsets[partition] = offset

    def view(self, partition: int) -> View:
        db = self._held(partition)
        read = db.get

        def get(key: bytes) -> bytes | None:
            try:
                return read(key)  # type: ignore[no-any-return]
            except Exception as error:
                raise self._damaged(partition, error) from error

        def scan(prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
            # No upper bound in the read options: rocksdict would keep a pointer to it after they are freed.
            last = prefix
            for key, value in db.items(from_key=prefix):
                if not key.startswith(prefix):
                    return
                last = key
                if key != _OFFSET:
                    yield key, value
            if error := _unreadable_after(db, last):
                raise self._damaged(partition, error) from error

        return PartitionView(get, scan)

    @contextlib.contextmanager
    def _disk(self, partition: int) -> Iterator[None]:
        """End the worker with one sentence if the disk takes nothing: only a person can change that."""
        try:
            yield
        except Exception as error:
            if self._fatal is not None and (cause := cause_of(error)):
                path = self._paths.get(partition, self.path(partition))
                self._fatal(Exit.DISK, f"the rows in {path} cannot be written, {cause}; nothing is lost")
            raise

    def _damaged(self, partition: int, error: Exception) -> RowsDamaged:
        """Mark the rows of a partition, so that they are rebuilt when it is opened again."""
        path = self._paths.get(partition, self.path(partition))
        with contextlib.suppress(OSError):  # the disk may take nothing any more
            (path / _DAMAGED).touch()
        message = f"the rows in {path} cannot be read ({error}); they are rebuilt from the changelog"
        return RowsDamaged(message, self._name, partition)

    def reset(self, partition: int) -> None:
        self.close(partition)
        for path in (self.path(partition), *_beside(self.path(partition))):
            shutil.rmtree(path, ignore_errors=True)
        self.open(partition)

    def open_standby(self, partition: int) -> int | None:
        if partition in self._dbs:
            raise NotHeld(f"partition {partition} of {self._name} is open, so it has no standby rows")
        if partition not in self._standbys:
            with self._disk(partition):
                self._standbys[partition] = self._open_rows(partition)
        return self._offsets.get(partition)

    def write_standby(self, partition: int, rows: Iterable[Row], offset: int) -> None:
        if partition not in self._standbys:
            raise NotHeld(f"partition {partition} of {self._name} has no standby rows")
        with self._disk(partition):
            self._standbys[partition].write(_batch(rows, offset))
        self._offsets[partition] = offset

    def close_standby(self, partition: int, *, drop: bool = False) -> None:
        db = self._standbys.pop(partition, None)
        if db is None:
            return
        self._offsets.pop(partition, None)
        db.close()
        if drop:
            shutil.rmtree(self._paths[partition], ignore_errors=True)

    def begin_rewrite(self, partition: int) -> "RocksRows":
        used = self._paths[partition]
        path = next(one for one in _beside(self.path(partition)) if one != used)
        shutil.rmtree(path, ignore_errors=True)
        return RocksRows(path, rocksdict.Rdict(str(path), options=self._memory.options()))

    def adopt(self, partition: int, fresh: FreshRows) -> None:
        assert isinstance(fresh, RocksRows)
        before, path = self._held(partition), self._paths[partition]
        fresh.complete()
        self._dbs[partition], self._paths[partition] = fresh.db, fresh.path
        if fresh.offset is not None:
            self._offsets[partition] = fresh.offset
        before.close()
        shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def _settle(path: Path) -> None:
        """Move rows that were adopted to their place, where they could not be as long as the former ones were open."""
        complete = [one for one in _beside(path) if (one / _COMPLETE).exists()]
        if complete:
            newest = max(complete, key=lambda one: (one / _COMPLETE).stat().st_mtime_ns)
            shutil.rmtree(path, ignore_errors=True)
            (newest / _COMPLETE).unlink()
            newest.rename(path)
        for one in _beside(path):
            shutil.rmtree(one, ignore_errors=True)

    def _held(self, partition: int) -> Any:
        try:
            return self._dbs[partition]
        except KeyError:
            raise NotHeld(f"partition {partition} of {self._name} is not held by this worker") from None

    def _drop_unusable(self, path: Path) -> None:
        if not path.exists():
            return
        if (path / _DAMAGED).exists():
            log.warning("The rows in %s are damaged and are rebuilt from the changelog", path)
            shutil.rmtree(path, ignore_errors=True)
            return
        newest = 0.0
        for file in path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, file.stat().st_mtime)
        if self._wall_clock() - newest > self._max_age:
            log.warning("The rows in %s are too old to be brought up to date and are rebuilt from the changelog", path)
            shutil.rmtree(path, ignore_errors=True)


class RocksRows:
    """Rows of a partition that are rewritten; see `RocksStore.begin_rewrite`."""

    def __init__(self, path: Path, db: Any) -> None:
        self.path = path
        self.db = db
        self.offset: int | None = None

    def write(self, rows: Iterable[Row], offset: int) -> None:
        self.db.write(_batch(rows, offset))
        self.offset = offset

    def complete(self) -> None:
        """Mark them as complete, so that the next start uses them."""
        self.db.flush()
        (self.path / _COMPLETE).touch()

    def discard(self) -> None:
        self.db.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """Return where rows are rewritten: there are two places, because the rows in use may be in one of them."""
    return path.with_suffix(".fresh1"), path.with_suffix(".fresh2")


def _batch(rows: Iterable[Row], offset: int | None) -> Any:
    batch = rocksdict.WriteBatch(raw_mode=True)
    put, delete = batch.put, batch.delete
    for key, value in rows:
        if value is None:
            delete(key)
        else:
            put(key, value)
    if offset is not None:
        put(_OFFSET, b"%d" % offset)
    return batch


def _unreadable_after(db: Any, last: bytes) -> Exception | None:
    """Return why an iteration ended after a key, if not because there are no more rows.

    rocksdict's ``items`` ends in silence at a block that cannot be read.
    """
    rows = db.iter()
    try:
        rows.seek(last)
        if rows.valid() and rows.key() == last:
            rows.next()
        rows.status()
    except Exception as error:
        return error
    return None


def _is_broken(error: Exception) -> bool:
    return "Corruption" in str(error) or "does not exist (create_if_missing" in str(error)


def is_locked(error: Exception) -> bool:
    """Return whether another process, usually one that is ending, holds the files."""
    return "lock" in str(error).lower()


def new_store(
    settings: EngineSettings, name: str, memory: RocksMemory | None, fatal: Fatal | None = None
) -> PartitionStore:
    if settings.store == "memory" or memory is None:
        return MemoryStore()
    return RocksStore(settings.state_dir / "tables", name, memory, settings.state_max_age, fatal=fatal)
