"""The history of a record that was parked or given up, in headers; its key and value stay the bytes that they were.

`History` is the only reader and writer of these headers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

Headers = Sequence[tuple[str, bytes | None]]

SEQ = "rent-seq"
"""The fetch sequence of a page, so that a new owner of a partition can go on from it without decoding. No history."""

REPLAY = "rent-replay"
"""The header with the id of the replay."""

LONGEST = 2000
"""Characters of a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened to a record so far; the names of the headers are ``rent-`` and those of the fields."""

    attempt: int = 0
    """How many attempts were made."""
    origin: str | None = None
    """The topic that decides again, without the prefix."""
    due_at: int | None = None
    """Milliseconds since the epoch: not before then."""
    reason: str | None = None
    """One word of a closed set (`streams.core.retry.Reason`)."""
    detail: str | None = None
    """One sentence for a person, without secrets."""
    flow: str | None = None
    """The flow that parked it or gave it up."""
    first_failed_at: int | None = None
    """Milliseconds since the epoch."""
    replays: int = 0
    """How often it was replayed."""
    replay: str | None = None
    """The replay that wrote it last."""

    @classmethod
    def read(cls, headers: Headers) -> Self:
        """Return the history in some headers; a value that cannot be read counts as absent."""
        found = {name: value for name, value in reversed(headers) if value is not None and name in _FIELDS}
        values: dict[str, Any] = {_FIELDS[name]: _read(_FIELDS[name], value) for name, value in found.items()}
        return cls(**values)

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers; what is absent or zero has none."""
        values = ((name, getattr(self, attribute)) for name, attribute in _FIELDS.items())
        return tuple(
            (name, str(value)[:LONGEST].encode(errors="replace"))
            for name, value in values
            if value is not None and value != 0
        )

    def changed(self, **values: object) -> Self:
        """Return a history with other values of these fields."""
        return replace(self, **values)  # type: ignore[arg-type]


def is_replayed(headers: Headers) -> bool:
    """Return whether a replay wrote a record."""
    return any(name == REPLAY for name, _ in headers)


def is_history(name: str) -> bool:
    """Return whether a header belongs to the history."""
    return name in _FIELDS


_FIELDS = {f"rent-{field.name.replace('_', '-')}": field.name for field in fields(History)}
_NUMBERS = {"attempt": 0, "due_at": None, "first_failed_at": None, "replays": 0}


def _read(attribute: str, value: bytes) -> int | str | None:
    if attribute in _NUMBERS:
        return int(value) if len(value) < 16 and value.isdigit() else _NUMBERS[attribute]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
