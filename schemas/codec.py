"""Records to bytes and back, so that every value names the schema that wrote it.

A value is ``C3 01``, the eight-byte CRC-64-AVRO fingerprint of its writer's schema (little end first), and the body:
Avro (single-object encoding), or msgpack for the rows of tables (`schemas.base.Row`). Every schema that ever wrote is
in ``schemas/avsc/`` (``make avsc``); today's classes read all of them.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any, TypeVar

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas import commands, delivery, integrations, pms, rent_roll, replay
from schemas.avro import NAMESPACE, ROWS, schema_of
from schemas.base import Model, Row
from schemas.binary import reader_of, writer_of

RECORDS: tuple[type[Model], ...] = (
    commands.Command,
    commands.Push,
    commands.PushOutcome,
    commands.SyncState,
    commands.SyncOperation,
    commands.FieldProblem,
    commands.SyncRow,
    commands.OperationRow,
    commands.TakenRow,
    commands.BlockedRow,
    commands.UnsyncedRow,
    pms.FetchRequest,
    pms.SweepStep,
    pms.RecheckStep,
    pms.PulseStep,
    rent_roll.Page,
    rent_roll.SweepEnd,
    rent_roll.PulseEnd,
    rent_roll.PropertySnapshot,
    rent_roll.UnitSnapshot,
    rent_roll.LeaseSnapshot,
    rent_roll.ListingSnapshot,
    rent_roll.UnitRow,
    rent_roll.LeaseRow,
    rent_roll.PropertyRow,
    rent_roll.SeenRow,
    rent_roll.AbsentRow,
    rent_roll.MarkRow,
    rent_roll.MemberRow,
    rent_roll.SweptRow,
    rent_roll.AccountRow,
    delivery.DeliveryDue,
    delivery.Batch,
    delivery.DeliveryOutcome,
    delivery.DeliveryRow,
    delivery.DoubtsRow,
    delivery.DoubtfulUnit,
    delivery.KnownRow,
    delivery.NextDateRow,
    delivery.OpenRow,
    delivery.ReceiverRow,
    integrations.Integration,
    integrations.IntegrationChange,
    integrations.CheckReport,
    integrations.SyncProgress,
    integrations.SyncResult,
    integrations.HoldReport,
    replay.ReplayPlan,
    replay.ReplayOrder,
    replay.ReplayProgress,
    replay.ReplayStep,
)
"""Every record that is a value of its own on a topic, in a row or in an item; nested ones follow from them."""

MAGIC = b"\xc3\x01"
_HEAD = len(MAGIC) + 8

R = TypeVar("R", bound=Model)


class DecodeError(ValueError):
    """These bytes are not a known record; the message describes what they are instead."""


class UnknownWriter(ValueError):  # noqa: N818 -- named after who it is about
    """A record of ours whose schema this release does not have: a newer release wrote it. Nothing is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Writer:
    head: bytes
    write: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what a writer of a record wrote, by up to two ways."""

    record: type[Model]
    fast: Callable[[bytes], Any] | None
    """Null if the writer is not today's own. It raises any exception for what it cannot read."""
    slow: Callable[[bytes], Any]
    """Determines what is wrong, if anything is. It may raise any exception."""


class _TooLongError(Exception):
    """A body that goes on after its end."""


def head_of(schema: Any) -> bytes:
    """Return the ten bytes at the beginning of every value written with ``schema``."""
    digest = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    return MAGIC + bytes.fromhex(digest)


@cache
def _writer(record: type[Model]) -> _Writer:
    head = head_of(schema_of(record))
    if issubclass(record, Row):
        pack = msgspec.msgpack.Encoder().encode
        return _Writer(head, lambda row: head + pack(row))
    write = writer_of(record)

    def avro(item: Any) -> bytes:
        out = bytearray(head)
        write(item, out)
        return bytes(out)

    return _Writer(head, avro)


def _reader(record: type[Model], schema: Any, *, own: bool = False) -> _Reader:
    """Return the reader of what was written with a schema; ``own``: it is that of today's writer."""
    if schema["namespace"] == ROWS:
        unpack = msgspec.msgpack.Decoder(record).decode
        today = schema_of(record)
        return _Reader(
            record,
            lambda value: unpack(value[_HEAD:]),
            lambda value: msgspec.convert(_symbols(msgspec.msgpack.decode(value[_HEAD:]), today, {}), record),
        )
    # The same namespace on both sides: rows were written as Avro before.
    written, reading = fastavro.parse_schema(schema), fastavro.parse_schema(schema_of(record, NAMESPACE))
    read = reader_of(record) if own else None

    def resolved(value: bytes) -> Any:
        body = BytesIO(value)
        body.seek(_HEAD)
        found = msgspec.convert(fastavro.schemaless_reader(body, written, reading), record)
        if rest := len(value) - body.tell():
            raise _TooLongError(f"{rest} bytes too many")
        return found

    return _Reader(record, None if read is None else lambda value: read(value, _HEAD), resolved)


def _symbols(value: Any, schema: Any, named: dict[str, Any]) -> Any:
    """Return a value in which symbols that a schema does not have are ``unknown``."""
    if isinstance(schema, list):
        return None if value is None else _symbols(value, schema[-1], named)
    if isinstance(schema, str):
        return _symbols(value, named[schema], named) if schema in named else value
    if "name" in schema:
        named[f"{schema['namespace']}.{schema['name']}"] = schema
    match schema:
        case {"type": "enum", "symbols": symbols}:
            return value if value in symbols or not isinstance(value, str) else "unknown"
        case {"type": "array", "items": items} if isinstance(value, list):
            return [_symbols(one, items, named) for one in value]
        case {"type": "record", "fields": fields} if isinstance(value, dict):
            kinds = {field["name"]: field["type"] for field in fields}
            return {name: _symbols(one, kinds[name], named) for name, one in value.items() if name in kinds}
    return value


def committed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and schema of every writer that was ever committed."""
    for folder in sorted(resources.files("schemas").joinpath("avsc").iterdir(), key=lambda entry: entry.name):
        if folder.is_dir():
            for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
                yield f"{folder.name}/{file.name}", json.loads(file.read_text(encoding="utf-8"))


@cache
def _readers() -> dict[bytes, _Reader]:
    by_name = {record.__name__: record for record in RECORDS}
    readers: dict[bytes, _Reader] = {}
    for path, schema in committed():
        record = by_name.get(path.split("/")[0])
        if record is not None:
            readers[head_of(schema)] = _reader(record, schema)
    for record in RECORDS:
        readers[_writer(record).head] = _reader(record, schema_of(record), own=True)
    return readers


def encode(record: Model) -> bytes:
    """Encode a record of `RECORDS` with today's schema."""
    return _writer(type(record)).write(record)


def decode(value: bytes | None) -> Model:
    """Decode a value by the schema that wrote it.

    Raise `DecodeError` if it is no record of ours or damaged, and `UnknownWriter` if a newer release wrote it.
    """
    if value is None:
        raise DecodeError("there is no value")
    known = _readers().get(value[:_HEAD])
    if known is None:
        if value[:2] != MAGIC or len(value) < _HEAD:
            raise DecodeError(f"not a record of ours: it begins with {value[:10].hex(' ') or 'nothing'}")
        schema = value[2:_HEAD].hex()
        raise UnknownWriter(f"a newer release wrote it (schema {schema}): upgrade this process, or roll that back")
    if known.fast is not None:
        try:
            return known.fast(value)  # type: ignore[no-any-return]
        except Exception:  # noqa: S110 -- the slower way determines what is wrong, if anything is
            pass
    name = known.record.__name__
    try:
        return known.slow(value)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        field = str(error).rpartition(" - at ")[2]  # what is before it may contain the value
        raise DecodeError(f"a {name} with a value that is not allowed: {field}") from None
    except _TooLongError as error:
        raise DecodeError(f"a {name} with {error}") from None
    except Exception as error:  # what a decoder meets: EOFError, IndexError, ValueError …
        raise DecodeError(f"a {name} that ends early or is damaged ({type(error).__name__})") from None


_GONE = b"\xa4gone"
"""The name of the field as msgpack has it."""


def row_holds(raw: bytes, head: bytes, body: bytes) -> bool:
    """Return whether an encoded row holds ``body`` and is not marked as gone, without decoding the row.

    ``head`` is that of the row's class (`head_of`), whose first field is the boolean ``gone``, left out if it is false;
    it has less than 16 fields, so the names begin after one byte. ``body`` is an encoded snapshot, which the row keeps
    in a field of bytes. This is sound, because a body is found only where one was written: it begins with `MAGIC`,
    which is not valid UTF-8 and so in no text, and with the fingerprint of its schema; and Avro bodies of one schema
    are prefix-free, so a longer one never begins with a shorter one. False for a row that an older writer wrote: the
    caller decodes it.
    """
    return raw.startswith(head) and not raw.startswith(_GONE, _HEAD + 1) and body in raw


def decode_as(record: type[R], value: bytes | None) -> R:
    """Decode a value that has to be of one class. Raise `DecodeError` if it is not, or `UnknownWriter`."""
    found = decode(value)
    if not isinstance(found, record):
        raise DecodeError(f"a {type(found).__name__} where a {record.__name__} belongs")
    return found
