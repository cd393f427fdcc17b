"""Records to bytes and back: Avro single-object encoding, so that every value names the schema that wrote it.

A value is ``C3 01``, the eight-byte CRC-64-AVRO fingerprint of its writer's schema (little end first), and the body.
Every schema that ever wrote is in ``schemas/avsc/`` (``make avsc``); today's classes read all of them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any, TypeVar

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form
from pydantic import ValidationError

from schemas import delivery, integrations, pms, rent_roll
from schemas.avro import schema_of
from schemas.base import Model
from schemas.binary import Reader, Writer, reader_of, writer_of

RECORDS: tuple[type[Model], ...] = (
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
    schema: Any
    write: Writer


@dataclass(frozen=True, slots=True)
class _Reader:
    record: type[Model]
    writer: Any
    reader: Any
    """Null where the writer is today's own schema: nothing to resolve."""
    read: Reader | None = None
    """For what is written as today's own writer does it."""


def head_of(schema: Any) -> bytes:
    """Return the ten bytes at the beginning of every value written with ``schema``."""
    digest = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    return MAGIC + bytes.fromhex(digest)


@cache
def _writer(record: type[Model]) -> _Writer:
    schema = schema_of(record)
    return _Writer(head_of(schema), fastavro.parse_schema(schema), writer_of(record))


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
            readers[head_of(schema)] = _Reader(record, fastavro.parse_schema(schema), _writer(record).schema)
    for record in RECORDS:
        own = _writer(record)
        readers[own.head] = _Reader(record, own.schema, None, reader_of(record))
    return readers


def encode(record: Model) -> bytes:
    """Encode a record of `RECORDS` with today's schema."""
    writer = _writer(type(record))
    out = bytearray(writer.head)
    writer.write(record, out)
    return bytes(out)


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
    if known.read is not None:
        try:
            return known.read(value, _HEAD)  # type: ignore[no-any-return]
        except Exception:  # noqa: S110 -- the slower way determines what is wrong, if anything is
            pass
    body = BytesIO(value)
    body.seek(_HEAD)
    try:
        found = known.record.model_validate(fastavro.schemaless_reader(body, known.writer, known.reader))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise DecodeError(f"a {known.record.__name__} with values that are not allowed: {fields}") from None
    except Exception as error:  # fastavro raises what its decoder meets: EOFError, IndexError, ValueError …
        raise DecodeError(f"a {known.record.__name__} that ends early or is damaged ({type(error).__name__})") from None
    if rest := len(value) - body.tell():
        raise DecodeError(f"a {known.record.__name__} with {rest} bytes too many")
    return found


def row_holds(raw: bytes, head: bytes, body: bytes) -> bool:
    """Return whether an encoded row holds ``body`` and is not marked as gone, without decoding the row.

    ``head`` is that of the row's class (`head_of`), whose first field is the boolean ``gone``; ``body`` is an encoded
    snapshot, which the row keeps in a field of bytes. This is sound, because a body is found only where one was
    written: it begins with `MAGIC`, which is not valid UTF-8 and so in no text, and with the fingerprint of its schema;
    and Avro bodies of one schema are prefix-free, so a longer one never begins with a shorter one. False for a row that
    an older writer wrote: the caller decodes it.
    """
    return raw.startswith(head) and raw[_HEAD] == 0 and body in raw


def decode_as(record: type[R], value: bytes | None) -> R:
    """Decode a value that has to be of one class. Raise `DecodeError` if it is not, or `UnknownWriter`."""
    found = decode(value)
    if not isinstance(found, record):
        raise DecodeError(f"a {type(found).__name__} where a {record.__name__} belongs")
    return found
