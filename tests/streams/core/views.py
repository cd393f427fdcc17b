"""A table in memory, for tests of pure steps."""

from collections.abc import Iterator, Mapping

from streams.core.rows import Rows


class MemoryView(dict[bytes, bytes]):
    """Rows of one partition; a `streams.core.flows.View`."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((key, value) for key, value in self.items() if key.startswith(prefix)))

    def write(self, rows: Mapping[bytes, bytes | None]) -> None:
        for key, value in rows.items():
            if value is None:
                self.pop(key, None)
            else:
                self[key] = value

    def take(self, rows: Rows) -> None:
        rows.keep()
        self.write(rows.encoded())
