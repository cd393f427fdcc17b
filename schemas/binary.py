"""Avro's binary encoding of a record, by two functions that are generated for each class on its first use.

They do what fastavro and msgspec do together, in a fifth of the time. The writer's bytes are fastavro's. The reader
knows only what this writer writes; it raises for anything else, be it damaged or merely unusual: `schemas.codec` then
asks fastavro.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, get_args

from schemas.avro import NAMESPACE, hints_of, schema_of
from schemas.base import Model

Writer = Callable[[Any, bytearray], None]
"""Appends the body of a record."""

Reader = Callable[[bytes, int], Any]
"""Reads the record whose body begins there and ends with the bytes. Raises any exception."""


def writer_of(record: type[Model]) -> Writer:
    """Return a function that writes records of this class."""
    code = _Code(record)
    code.write(schema_of(record), "it", 1)
    made: Writer = code.function("it, out")
    return made


def reader_of(record: type[Model]) -> Reader:
    """Return a function that reads records of this class."""
    code = _Code(record)
    code.read(schema_of(record), "it", 1)
    code.add(1, "if at != len(d): raise ValueError('it ends early, or goes on')")
    code.add(1, "return it")
    made: Reader = code.function("d, at")
    return made


# -------------------------------------------------------------------------------------------- what generated code calls

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def _write_long(out: bytearray, value: int) -> None:
    if not -(1 << 63) <= value < 1 << 63:
        raise OverflowError("a whole number of more than 64 bits")
    left = value << 1 if value >= 0 else ~(value << 1)
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)


def _more(d: bytes, at: int, low: int) -> tuple[int, int]:
    """Return a number that does not fit into its first byte, and the offset after it."""
    value, shift = low & 127, 7
    while True:
        byte = d[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    if value >> 64:
        raise OverflowError("a whole number of more than 64 bits")
    return value, at


def _micros(at: datetime) -> int:
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(0, 0, micros)


def _units(amount: Decimal, precision: int, scale: int) -> bytes:
    units = int(amount.scaleb(scale))
    if units != amount.scaleb(scale) or abs(units) >= 10**precision:
        raise ValueError("an amount with more digits than its field takes")
    return units.to_bytes((units.bit_length() + 8) >> 3, "big", signed=True)


def _amount(raw: bytes, precision: int, scale: int) -> Decimal:
    units = int.from_bytes(raw, "big", signed=True)
    if abs(units) >= 10**precision:
        raise ValueError("an amount with more digits than its field takes")
    return Decimal(units).scaleb(-scale)


# -------------------------------------------------------------------------------------------------- how it is generated


class _Code:
    """The text of a function, and the names that it uses."""

    def __init__(self, record: type[Model]) -> None:
        self._lines: list[str] = []
        self._count = 0
        self._classes = {made.__name__: made for made in _classes(record)}
        self._names: dict[str, Any] = {
            "write_long": _write_long,
            "more": _more,
            "micros": _micros,
            "moment": _moment,
            "units": _units,
            "amount": _amount,
            "ordinal": date.fromordinal,
        }

    def add(self, depth: int, *lines: str) -> None:
        self._lines += ["    " * depth + line for line in lines]

    def function(self, arguments: str) -> Callable[..., Any]:
        text = "\n".join([f"def made({arguments}):", *self._lines])
        exec(compile(text, f"<{__name__}>", "exec"), self._names)  # noqa: S102 -- made of class and field names only
        made: Callable[..., Any] = self._names["made"]
        return made

    def _new(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _known(self, value: Any, kind: str) -> str:
        name = self._new(kind)
        self._names[name] = value
        return name

    def _class(self, schema: Any) -> Any:
        return self._classes[schema["name"]]

    def _whole(self, schema: Any) -> Any:
        """Return the schema of a name that was used before."""
        known = self._classes.get(schema.removeprefix(NAMESPACE + ".")) if isinstance(schema, str) else None
        if known is None:
            return schema
        if issubclass(known, Model):
            return schema_of(known)
        return {"type": "enum", "name": known.__name__, "symbols": [member.value for member in known]}

    # ---- writing: lines that append ``it`` to ``out``

    def write(self, schema: Any, it: str, depth: int) -> None:  # noqa: C901, PLR0912 -- a table of kinds
        match self._whole(schema):
            case ["null", inner]:
                self.add(depth, f"if {it} is None: out.append(0)", "else:")
                self.add(depth + 1, "out.append(2)")
                self.write(inner, it, depth + 1)
            case "boolean":
                self.add(depth, f"out.append(1 if {it} else 0)")
            case "long":
                self._write_long(it, depth)
            case "string":
                self._write_bytes(f"{it}.encode()", depth)
            case "bytes":
                self._write_bytes(it, depth)
            case {"logicalType": "timestamp-micros"}:
                self.add(depth, f"write_long(out, micros({it}))")
            case {"logicalType": "date"}:
                self.add(depth, f"write_long(out, {it}.toordinal() - {_EPOCH_DAY})")
            case {"logicalType": "decimal", "precision": precision, "scale": scale}:
                self._write_bytes(f"units({it}, {precision}, {scale})", depth)
            case {"type": "enum", "symbols": symbols}:
                places = self._known({symbol: place << 1 for place, symbol in enumerate(symbols)}, "places")
                self.add(depth, f"out.append({places}[{it}])")
            case {"type": "array", "items": items}:
                one = self._new("one")
                self.add(depth, f"if {it}:")
                self._write_long(f"len({it})", depth + 1)
                self.add(depth + 1, f"for {one} in {it}:")
                self.write(items, one, depth + 2)
                self.add(depth, "out.append(0)")
            case {"type": "record", "fields": fields}:
                for field in fields:
                    value = self._new("v")
                    self.add(depth, f"{value} = {it}.{field['name']}")
                    self.write(field["type"], value, depth)
            case other:
                raise TypeError(f"{other}: no way is known to write it")

    def _write_long(self, it: str, depth: int) -> None:
        number = self._new("n")
        self.add(depth, f"{number} = {it}")
        self.add(depth, f"if 0 <= {number} < 64: out.append({number} << 1)", f"else: write_long(out, {number})")

    def _write_bytes(self, it: str, depth: int) -> None:
        raw = self._new("raw")
        self.add(depth, f"{raw} = {it}")
        self._write_long(f"len({raw})", depth)
        self.add(depth, f"out += {raw}")

    # ---- reading: lines that set ``to`` to the value at offset ``at`` of ``d``

    def read(self, schema: Any, to: str, depth: int) -> None:  # noqa: C901 -- a table of kinds
        match self._whole(schema):
            case ["null", inner]:
                self.add(depth, f"{to} = d[at]", "at += 1")
                self.add(depth, f"if {to} == 0: {to} = None", f"elif {to} != 2: raise ValueError('no such branch')")
                self.add(depth, "else:")
                self.read(inner, to, depth + 1)
            case "boolean":
                self.add(depth, f"{to} = (False, True)[d[at]]", "at += 1")
            case "long":
                self._read_long(to, depth)
            case "string":
                self._read_bytes(to, "d[at:end].decode()", depth)
            case "bytes":
                self._read_bytes(to, "d[at:end]", depth)
            case {"logicalType": "timestamp-micros"}:
                self._read_long(to, depth)
                self.add(depth, f"{to} = moment({to})")
            case {"logicalType": "date"}:
                self._read_long(to, depth)
                self.add(depth, f"{to} = ordinal({to} + {_EPOCH_DAY})")
            case {"logicalType": "decimal", "precision": precision, "scale": scale}:
                self._read_bytes(to, f"amount(d[at:end], {precision}, {scale})", depth)
            case {"type": "enum"} as enum:
                members = self._known({place << 1: member for place, member in enumerate(self._class(enum))}, "members")
                self.add(depth, f"{to} = {members}[d[at]]", "at += 1")
            case {"type": "array", "items": items}:
                self._read_array(items, to, depth)
            case {"type": "record", "fields": fields} as schema_of_record:
                self._read_record(schema_of_record, fields, to, depth)
            case other:
                raise TypeError(f"{other}: no way is known to read it")

    def _read_long(self, to: str, depth: int) -> None:
        self.add(depth, f"{to} = d[at]", "at += 1")
        self.add(depth, f"if {to} > 127: {to}, at = more(d, at, {to})")
        self.add(depth, f"{to} = ({to} >> 1) ^ -({to} & 1)")

    def _read_count(self, to: str, depth: int) -> None:
        self.add(depth, f"{to} = d[at]", "at += 1")
        self.add(depth, f"if {to} > 127: {to}, at = more(d, at, {to})")
        self.add(depth, f"if {to} & 1: raise ValueError('a negative count')")

    def _read_bytes(self, to: str, piece: str, depth: int) -> None:
        # A piece that is cut off by the end of the bytes is found out at the end: ``at`` is past it then.
        self._read_count("n", depth)
        self.add(depth, "end = at + (n >> 1)", f"{to} = {piece}", "at = end")

    def _read_array(self, items: Any, to: str, depth: int) -> None:
        one, count, add = self._new("one"), self._new("count"), self._new("add")
        self._read_count(count, depth)
        self.add(depth, f"{to} = ()", f"if {count}:")
        self.add(depth + 1, f"{to} = []", f"{add} = {to}.append", f"for _ in range({count} >> 1):")
        self.read(items, one, depth + 2)
        self.add(depth + 2, f"{add}({one})")
        self.add(depth + 1, f"{to} = tuple({to})", "if d[at]: raise ValueError('a second block')", "at += 1")

    def _read_record(self, schema: Any, fields: list[Any], to: str, depth: int) -> None:
        values = {field["name"]: self._new("v") for field in fields}
        for field in fields:
            self.read(field["type"], values[field["name"]], depth)
        made = self._known(self._class(schema), "Class")
        self.add(depth, f"{to} = {made}({', '.join(f'{name}={value}' for name, value in values.items())})")


def _classes(hint: Any) -> Iterator[type[Model] | type[StrEnum]]:
    """Yield the records and enums in a type hint, itself included."""
    if isinstance(hint, type) and issubclass(hint, Model):
        yield hint
        for _, inner in hints_of(hint):
            yield from _classes(inner)
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        yield hint
    for inner in get_args(hint):
        yield from _classes(inner)
