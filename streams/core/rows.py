"""A cache over a table: the rows that a batch has read and written, before they are durable."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from schemas.base import Model
from schemas.codec import DecodeError, decode_as, encode
from streams.core.flows import View

log = logging.getLogger("streams.core")

R = TypeVar("R", bound=Model)


class UnreadableRow(DecodeError):  # noqa: N818 -- named after what it is about
    """A row whose bytes are no record of its class, as its changelog has them. The record that needs it is not bad."""

    def __init__(self, key: bytes, raw: bytes | None, why: DecodeError) -> None:
        super().__init__(f"the row {key.decode(errors='replace')} cannot be decoded: {why}")
        self.key = key
        self.raw = raw


def read_row(record: type[R], key: bytes, raw: bytes | None) -> R:
    """Decode a row. Raise `UnreadableRow`, or `schemas.codec.UnknownWriter` if a newer release wrote it."""
    try:
        return decode_as(record, raw)
    except DecodeError as error:
        raise UnreadableRow(key, raw, error) from None


def readable(record: type[R], key: bytes, raw: bytes | None) -> R | None:
    """Return a decoded row; null if it does not exist or cannot be decoded, which is logged.

    For scans: a fold that needs the row writes a dead letter of it, and replaces it.
    """
    if raw is None:
        return None
    try:
        return read_row(record, key, raw)
    except UnreadableRow as error:
        log.warning("A row is passed over: %s", error)
        return None


def look_up(view: View, record: type[R], key: bytes) -> R | None:
    """Return a row of a view as `readable` does."""
    return readable(record, key, view.get(key))


class Rows:
    """Rows of one partition of a table, including the writes of the current batch.

    The writes of a record become part of the batch with `keep`, so that those of a failed record can be dropped.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._read: dict[bytes, Model] = {}
        self._bytes: dict[bytes, bytes | None] = {}
        """What `raw` has read, so that `find` need not read it again."""
        self._kept: dict[bytes, Model | None] = {}
        self._pending: dict[bytes, Model | None] = {}
        self._under: dict[bytes, dict[bytes, None]] | None = None
        """Keys that the batch has written, by each of their prefixes that ends with a slash; null before a first scan.

        A batch may write many rows and scan often: looking through all of them each time would take the square of it.
        """

    def raw(self, key: bytes) -> bytes | None:
        """Return the stored bytes of a row; null if it does not exist or this batch has written it."""
        if key in self._kept or key in self._pending:
            return None
        found = self._bytes[key] = self._view.get(key)
        return found

    def find(self, record: type[R], key: bytes) -> R | None:
        """Return a decoded row; null if it does not exist. Raise `UnreadableRow`."""
        for written in (self._pending, self._kept):
            if key in written:
                found = written[key]
                assert found is None or isinstance(found, record)
                return found
        found = self._read.get(key)
        if found is None:
            raw = self._bytes[key] if key in self._bytes else self._view.get(key)
            if raw is None:
                return None
            found = self._read[key] = read_row(record, key, raw)
        assert isinstance(found, record)
        return found

    def scan(self, record: type[R], prefix: bytes) -> Iterator[tuple[bytes, Callable[[], R]]]:
        """Yield the key of every row under ``prefix``, and a function that decodes the row or raises `UnreadableRow`.

        Rows that the batch has written come last, in the order of writing.
        """
        own = self._own_rows(prefix)
        for key, raw in self._view.scan(prefix):
            if key not in own:
                yield key, partial(read_row, record, key, raw)
        for key, row in own.items():
            if row is not None:
                yield key, partial(self._own, record, key)

    def _own_rows(self, prefix: bytes) -> dict[bytes, Model | None]:
        """Return the rows under a prefix that the batch has written, in the order of writing; null: removed."""
        if self._under is None:
            self._under = {}
            for key in (*self._kept, *self._pending):
                self._index(key)
        keys = self._under.get(prefix, ()) if prefix.endswith(b"/") else (*self._kept, *self._pending)
        found: dict[bytes, Model | None] = {}
        for key in keys:
            if key in self._pending:
                found[key] = self._pending[key]
            elif key in self._kept:
                found[key] = self._kept[key]
        if prefix.endswith(b"/"):
            return found
        return {key: row for key, row in found.items() if key.startswith(prefix)}

    def _index(self, key: bytes) -> None:
        assert self._under is not None
        end = key.find(b"/")
        while end >= 0:
            self._under.setdefault(key[: end + 1], {})[key] = None
            end = key.find(b"/", end + 1)

    def _write(self, key: bytes, row: Model | None) -> None:
        if self._under is not None and key not in self._pending and key not in self._kept:
            self._index(key)
        self._pending[key] = row

    def _own(self, record: type[R], key: bytes) -> R:
        found = self.find(record, key)
        assert found is not None
        return found

    def put(self, key: bytes, row: Model) -> None:
        self._write(key, row)

    def remove(self, key: bytes) -> None:
        """Delete a row; one that does not exist is left alone."""
        if self._pending.get(key) or self._kept.get(key) or self._view.get(key) is not None:
            self._write(key, None)

    def discard(self, unreadable: UnreadableRow) -> bool:
        """Remove a row that cannot be decoded, whatever becomes of the record; return false if it is not of this table.

        The writes since the last `keep` or `drop` are dropped: the record has to be applied again.
        """
        if unreadable.raw is None or self._view.get(unreadable.key) != unreadable.raw:
            return False
        self.drop()
        self._write(unreadable.key, None)
        self.keep()
        return True

    def keep(self) -> None:
        """Keep the writes since the last `keep` or `drop`."""
        if self._pending:
            self._kept.update(self._pending)
            self._pending = {}

    def drop(self) -> None:
        """Discard the writes since the last `keep` or `drop`."""
        self._pending = {}

    def savepoint(self) -> Mapping[bytes, Model | None]:
        """Return the writes since the last `keep` or `drop`, to go back to."""
        return dict(self._pending)

    def roll_back(self, savepoint: Mapping[bytes, Model | None]) -> None:
        """Discard the writes since a savepoint."""
        self._pending = dict(savepoint)

    def encoded(self) -> dict[bytes, bytes | None]:
        """Return the kept rows as bytes, to be written to the table; null deletes one."""
        return {key: None if row is None else encode(row) for key, row in self._kept.items()}
