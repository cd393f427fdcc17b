"""A value of each schema. It imports nothing of the project, because another release runs it too."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any


def sample(schema: Any) -> dict[str, Any]:
    """Some value of a writer: zeros, one item of each array, and the last symbol of each enum."""
    found: dict[str, Any] = _zero(schema, {})
    return found


def _zero(kind: Any, named: dict[str, Any]) -> Any:  # noqa: PLR0911 -- a table of kinds
    if isinstance(kind, list):
        return _zero(kind[-1], named)
    if isinstance(kind, dict) and "name" in kind:
        named[f"{kind['namespace']}.{kind['name']}"] = kind
    match kind:
        case {"type": "record", "fields": fields}:
            return {field["name"]: _zero(field["type"], named) for field in fields}
        case {"type": "enum", "symbols": symbols}:
            return symbols[-1]
        case {"type": "array", "items": items}:
            return [_zero(items, named)]
        case {"logicalType": "timestamp-micros"}:
            return datetime(2026, 1, 1, tzinfo=UTC)
        case {"logicalType": "date"}:
            return date(2026, 1, 1)
        case {"logicalType": "decimal"}:
            return Decimal(0)
    plain = {"string": "", "bytes": b"", "boolean": False, "long": 0}
    return plain[kind] if kind in plain else _zero(named[kind], named)
