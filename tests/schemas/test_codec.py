"""Bytes name the schema that wrote them; whatever they are, reading them ends in a record or an error message."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from schemas import codec
from schemas.avro import NAMESPACE, ROWS, hints_of, schema_of
from schemas.base import Model, Row
from schemas.codec import (
    MAGIC,
    RECORDS,
    DecodeError,
    UnknownWriter,
    committed,
    decode,
    decode_as,
    encode,
    head_of,
    row_holds,
)
from schemas.delivery import DeliveryDue, DueReason
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import (
    LeaseEntry,
    LeaseRow,
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    MarkRow,
    PropertyRow,
    PropertySnapshot,
    UnitRow,
    UnitSnapshot,
)
from tests.schemas.samples import sample
from tests.schemas.strategies import data, defstruct, records

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
every_writer = pytest.mark.parametrize(("path", "schema"), [*committed()], ids=[path for path, _ in committed()])

UNIT = UnitSnapshot(id=1, property_id=10, code="0101", market_rent=Decimal("1500.5"))


def written(schema: Any, value: dict[str, Any]) -> bytes:
    """A value as a writer of this schema writes it, to a topic or a table."""
    out = BytesIO()
    out.write(head_of(schema))
    if schema["namespace"] == ROWS:
        out.write(msgspec.msgpack.encode(value))
    else:
        fastavro.schemaless_writer(out, fastavro.parse_schema(deepcopy(schema)), value, disable_tuple_notation=True)
    return out.getvalue()


@contextmanager
def knowing(record: type[Model], schema: Any) -> Iterator[None]:
    """As if this writer of a record had been committed."""
    readers, head = codec._readers(), head_of(schema)
    before = readers.get(head)
    readers[head] = codec._reader(record, deepcopy(schema))
    try:
        yield
    finally:
        if before is None:
            del readers[head]
        else:
            readers[head] = before


def test_the_fingerprint_is_that_of_the_avro_specification() -> None:
    """CRC-64-AVRO of "int" is 7275d51a3f395c8f; single-object encoding puts its little end first."""
    assert head_of("int") == b"\xc3\x01" + bytes.fromhex("7275d51a3f395c8f")[::-1]


def test_a_value_begins_with_the_head_of_its_writer() -> None:
    """And the body is plain Avro: what another Avro reader with that schema reads."""
    value = encode(UNIT)
    schema = schema_of(UnitSnapshot)
    assert value[:10] == head_of(schema)
    assert fastavro.schemaless_reader(BytesIO(value[10:]), schema, None)["code"] == "0101"


def test_no_two_records_share_a_head() -> None:
    assert len({head_of(schema_of(record)) for record in RECORDS}) == len(RECORDS)


@every_record
def test_what_is_written_is_read_as_it_was(record: type[Model]) -> None:
    """Encode and decode are each other's inverse, and equal records have equal bytes."""

    @FEW
    @given(records(record))
    def law(item: Model) -> None:
        value = encode(item)
        assert decode(value) == item
        assert encode(decode(value)) == value

    law()


def test_equal_amounts_and_moments_have_equal_bytes() -> None:
    """However they were spelled: a row is compared without being decoded."""
    assert encode(UNIT) == encode(UNIT.model_copy(update={"market_rent": Decimal("1500.50")}))
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=-7)))
    dues = [
        DeliveryDue(org="o", connection="c", property_id=1, reason=DueReason.CHANGED, seen_at=seen)
        for seen in (at, there)
    ]
    assert encode(dues[0]) == encode(dues[1])
    assert decode_as(DeliveryDue, encode(dues[1])).seen_at.tzinfo is UTC


def test_a_itemthat_does_not_stand_alone_is_not_encoded_as_another() -> None:
    """A class outside the list has a head of its own that no reader knows."""

    class Stranger(Model, frozen=True, kw_only=True):
        id: int

    with pytest.raises(UnknownWriter, match="a newer release"):
        decode(encode(Stranger(id=1)))


# ------------------------------------------------------------------------------------------- rows, without decoding


ROW_CLASSES = (UnitRow, LeaseRow, PropertyRow)
SNAPSHOTS = (UnitSnapshot, LeaseSnapshot, ListingSnapshot, PropertySnapshot)
BODIES = st.one_of([records(snapshot) for snapshot in SNAPSHOTS]).map(encode)


@pytest.mark.parametrize("row", ROW_CLASSES)
def test_whether_a_row_is_gone_is_the_first_byte_of_its_body(row: type[Model]) -> None:
    """`row_holds` looks for it there, behind the one byte of a map with less than 16 fields."""
    assert row.__struct_fields__[0] == "gone"
    assert len(row.__struct_fields__) < 16


def bodies_of(row: Model) -> set[bytes]:
    """Return the encoded snapshots that a row holds."""
    match row:
        case UnitRow():
            return {body for body in (row.body, row.listing, *(entry.body for entry in row.leases)) if body}
        case LeaseRow() | PropertyRow():
            return {row.body} if row.body else set()
    raise TypeError(row)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of([records(row) for row in ROW_CLASSES]), st.lists(BODIES, min_size=4, max_size=4), st.data())
def test_a_row_holds_a_body_if_and_only_if_decoding_it_finds_the_body(
    row: Model, bodies: list[bytes], draw: st.DataObject
) -> None:
    """Whatever else is in the row, and however similar two bodies are."""
    one, listing, lease, other = bodies
    held: dict[str, object] = {"body": draw.draw(st.sampled_from([None, one]))}
    if isinstance(row, UnitRow):
        held["listing"] = draw.draw(st.sampled_from([None, listing]))
        held["leases"] = draw.draw(st.sampled_from([(), (LeaseEntry(id=1, body=lease),)]))
    row = row.model_copy(update=held)
    gone = row.gone  # type: ignore[attr-defined]
    alike = decode(one)
    almost = draw.draw(st.sampled_from([*type(alike).__struct_fields__]))
    changed = encode(alike.model_copy(update={almost: getattr(draw.draw(records(type(alike))), almost)}))
    for body in (*bodies, other, changed):
        found = row_holds(encode(row), head_of(schema_of(type(row))), body)
        assert found is (not gone and body in bodies_of(row))


def test_a_row_of_an_older_writer_is_left_to_be_decoded() -> None:
    row = UnitRow(body=encode(UNIT), fetched_at=datetime(2026, 1, 1, tzinfo=UTC))
    head = head_of(schema_of(UnitRow))
    assert row_holds(encode(row), head, encode(UNIT))
    assert not row_holds(head_of("int") + encode(row)[10:], head, encode(UNIT))


# ------------------------------------------------------------------------------------------------------- evolution


@every_writer
def test_todays_reader_reads_every_committed_writer(path: str, schema: dict[str, Any]) -> None:
    """Whatever such a writer may have written is today a record of the same name."""

    @FEW
    @given(data(schema))
    def law(value: dict[str, Any]) -> None:
        assert type(decode(written(schema, value))).__name__ == path.split("/", maxsplit=1)[0]

    law()


def test_a_writer_of_yesterday_that_lacks_a_field_is_read_with_its_default() -> None:
    """Every field with a default may be missing from what wrote the value."""
    tried = 0
    for record in RECORDS:
        for missing, _ in hints_of(record):
            if missing.required:
                continue
            kept = [
                (info.name, hint) if info.required else (info.name, hint, info.default)
                for info, hint in hints_of(record)
                if info.name != missing.name
            ]
            older = schema_of(defstruct(record.__name__, kept))
            with knowing(record, older):
                found = decode(written(older, sample(older)))
            assert type(found) is record
            assert getattr(found, missing.name) == missing.default
            tried += 1
    assert tried > 40


def test_a_writer_of_yesterday_with_a_field_that_is_gone_is_read_without_it() -> None:
    older = schema_of(UnitSnapshot)
    older["fields"].insert(1, {"name": "colour", "type": "string"})
    with knowing(UnitSnapshot, older):
        assert decode(written(older, {**asdict(UNIT), "colour": "blue"})) == UNIT


def test_a_symbol_that_today_does_not_know_is_read_as_unknown() -> None:
    """In every enum of every record, wherever it is nested."""
    enums = 0
    for record in RECORDS:
        newer = schema_of(record)
        paths = _enums(newer)
        for kind in paths:
            kind["symbols"].append("brand_new")
        if not paths:
            continue
        with knowing(record, newer):
            found = decode(written(newer, sample(newer)))
        values = [value for value in _leaves(found) if isinstance(value, StrEnum)]
        assert values
        assert {value.value for value in values} == {"unknown"}
        enums += len(paths)
    assert enums > 10


def _enums(kind: Any) -> list[dict[str, Any]]:
    if isinstance(kind, list):
        return [found for branch in kind for found in _enums(branch)]
    if not isinstance(kind, dict):
        return []
    if kind["type"] == "enum":
        return [kind]
    inner = [field["type"] for field in kind.get("fields", ())] + ([kind["items"]] if "items" in kind else [])
    return [found for one in inner for found in _enums(one)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Model):
        for name in type(value).__struct_fields__:
            yield from _leaves(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def test_symbols_in_another_order_are_read_by_their_names() -> None:
    """A symbol is a number in the bytes and a name in the schema."""
    other = schema_of(LeaseSnapshot)
    (status, _) = _enums(other)
    status["symbols"].reverse()
    snapshot = LeaseSnapshot(id=1, property_id=2, unit_id=3, status=LeaseStatus.ACTIVE)
    with knowing(LeaseSnapshot, other):
        assert decode(written(other, asdict(snapshot))) == snapshot


# ------------------------------------------------------------------------------------------------- what is no record


def sentence(value: bytes | None) -> str:
    """Return the message of the error for bytes that are no record."""
    with pytest.raises(DecodeError) as caught:
        decode(value)
    return str(caught.value)


def outcome(value: bytes) -> Model | str:
    """The record, or the sentence."""
    try:
        return decode(value)
    except (DecodeError, UnknownWriter) as error:
        return str(error)


def test_what_a_newer_release_wrote_is_told_from_what_is_bad() -> None:
    with pytest.raises(UnknownWriter, match=r"a newer release wrote it \(schema 0{16}\): upgrade this process"):
        decode(MAGIC + b"\x00" * 20)


def test_each_kind_of_foreign_bytes_has_its_sentence() -> None:
    assert sentence(None) == "there is no value"
    assert sentence(b"") == "not a record of ours: it begins with nothing"
    assert sentence(b'{"a": 1}') == "not a record of ours: it begins with 7b 22 61 22 3a 20 31 7d"
    assert sentence(MAGIC + b"\x00" * 4) == "not a record of ours: it begins with c3 01 00 00 00 00"
    assert "a UnitSnapshot that ends early or is damaged" in sentence(encode(UNIT)[:-1])
    assert "a UnitSnapshot that ends early or is damaged" in sentence(encode(UNIT)[:10])
    assert "a UnitSnapshot with 3 bytes too many" in sentence(encode(UNIT) + b"abc")


def test_values_that_a_itemdoes_not_allow_are_named() -> None:
    """The field, never the value: a value may be anything."""
    value = written(schema_of(MarkRow), {"seq": "a secret", "at": datetime(2026, 1, 1, tzinfo=UTC)})
    assert sentence(value) == "a MarkRow with a value that is not allowed: `$.seq`"


@every_record
def test_rows_that_a_former_release_wrote_as_avro_are_read(record: type[Model]) -> None:
    """And those of other fields; before, rows and topics had one encoding."""
    former = schema_of(record, NAMESPACE)

    @FEW
    @given(records(record))
    def law(item: Model) -> None:
        assert decode(written(former, plain(item))) == item

    with knowing(record, former) if issubclass(record, Row) else nullcontext():
        law()


def plain(item: Model) -> dict[str, Any]:
    """Return a record as fastavro writes it."""
    found: dict[str, Any] = {name: _plain(getattr(item, name)) for name in item.__struct_fields__}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return plain(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def test_fields_with_their_default_cost_nothing_in_a_row() -> None:
    assert len(encode(MarkRow(seq=1, at=datetime(2026, 1, 1, tzinfo=UTC)))) < 40
    assert len(encode(PropertyRow(fetched_at=datetime(2026, 1, 1, tzinfo=UTC)))) < 40


def test_another_itemthan_the_one_that_belongs_here_is_named() -> None:
    with pytest.raises(DecodeError, match="a UnitSnapshot where a LeaseSnapshot belongs"):
        decode_as(LeaseSnapshot, encode(UNIT))
    assert decode_as(UnitSnapshot, encode(UNIT)) == UNIT


HEADS = [head_of(schema_of(record)) for record in RECORDS]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.builds(bytes.__add__, st.sampled_from(HEADS), st.binary(max_size=80)))
def test_any_bytes_end_in_a_itemor_a_sentence(value: bytes) -> None:
    """Never in another exception: a poison record must not stop its neighbours."""
    found = outcome(value)
    assert "\n" not in found if isinstance(found, str) else type(found) in RECORDS


@every_record
def test_a_damaged_itemends_in_a_itemor_a_sentence(record: type[Model]) -> None:
    """A bit flipped, a piece taken out, a piece put in; and what ends early or goes on is never taken."""

    @FEW
    @given(records(record), st.data())
    def law(item: Model, draw: st.DataObject) -> None:
        value = encode(item)
        at = draw.draw(st.integers(0, len(value) - 1))
        other = draw.draw(st.binary(max_size=4))
        length = draw.draw(st.integers(0, 3))
        assert outcome(value[:at] + other + value[at + length :])
        sentence(value[:at])
        sentence(value + b"\x00")

    law()


def test_a_notice_keeps_its_body_byte_for_byte() -> None:
    """What a signature was made over is what a person sees later."""
    body = bytes(range(256))
    notice = FetchRequest(
        org="o",
        connection="c",
        origin=FetchOrigin.WEBHOOK,
        event="Rental.Updated",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        body=body,
    )
    assert decode_as(FetchRequest, encode(notice)).body == body
