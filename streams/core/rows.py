"""A working set over a table: what a batch has read and written, before any of it is durable."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from schemas.base import Model
from schemas.codec import decode_as, encode
from streams.core.flows import View

R = TypeVar("R", bound=Model)


class Rows:
    """Rows of one partition of a table, as the batch so far leaves them.

    What one record writes counts only once `keep` was called: a poison record is dropped without its neighbours.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._read: dict[bytes, Model] = {}
        self._kept: dict[bytes, Model] = {}
        self._tried: dict[bytes, Model] = {}

    def raw(self, key: bytes) -> bytes | None:
        """Return the stored bytes of a row; null if there is no such row or this batch has written it."""
        if key in self._kept or key in self._tried:
            return None
        return self._view.get(key)

    def find(self, record: type[R], key: bytes) -> R | None:
        """Return a row, decoded. Raise `schemas.codec.DecodeError` if it cannot be."""
        found = self._tried.get(key) or self._kept.get(key) or self._read.get(key)
        if found is not None:
            assert isinstance(found, record)
            return found
        raw = self._view.get(key)
        if raw is None:
            return None
        found = self._read[key] = decode_as(record, raw)
        return found

    def scan(self, record: type[R], prefix: bytes) -> Iterator[tuple[bytes, Callable[[], R]]]:
        """Yield every row under ``prefix``, undecoded: its key, and a function that decodes it.

        The batch's own come last, in the order in which they were written.
        """
        own = {key: row for key, row in (self._kept | self._tried).items() if key.startswith(prefix)}
        for key, raw in self._view.scan(prefix):
            if key not in own:
                yield key, partial(decode_as, record, raw)
        for key in own:
            yield key, partial(self._own, record, key)

    def _own(self, record: type[R], key: bytes) -> R:
        found = self.find(record, key)
        assert found is not None
        return found

    def put(self, key: bytes, row: Model) -> None:
        self._tried[key] = row

    def keep(self) -> None:
        """Keep what was written since the last `keep` or `drop`."""
        if self._tried:
            self._kept.update(self._tried)
            self._tried = {}

    def drop(self) -> None:
        """Discard what was written since the last `keep` or `drop`."""
        self._tried = {}

    def encoded(self) -> dict[bytes, bytes | None]:
        """Return the rows that were kept, as bytes to write."""
        return {key: encode(row) for key, row in self._kept.items()}
