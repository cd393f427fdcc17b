"""The fast way in and out of bytes is fastavro's and msgspec's, only faster: one is held against the other."""

from datetime import date, datetime
from decimal import Decimal
from io import BytesIO

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.avro import schema_of
from schemas.base import Model, Row
from schemas.binary import reader_of, writer_of
from schemas.codec import RECORDS
from tests.schemas.strategies import records

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
TOPICS = [record for record in RECORDS if not issubclass(record, Row)]
every_record = pytest.mark.parametrize("record", TOPICS, ids=lambda record: record.__name__)


@every_record
def test_the_bytes_are_those_of_fastavro(record: type[Model]) -> None:
    """Bit for bit: rows that fastavro wrote are compared with rows that this wrote."""
    schema, write = fastavro.parse_schema(schema_of(record)), writer_of(record)

    @FEW
    @given(records(record))
    def law(item: Model) -> None:
        ours, theirs = bytearray(), BytesIO()
        write(item, ours)
        fastavro.schemaless_writer(
            theirs,
            schema,
            msgspec.to_builtins(item, builtin_types=(datetime, date, Decimal, bytes)),
            disable_tuple_notation=True,
        )
        assert bytes(ours) == theirs.getvalue()

    law()


@every_record
def test_what_is_read_is_what_validation_would_have_made(record: type[Model]) -> None:
    """The same values of the same types, and a record that can be copied, compared and printed like any other."""
    schema, write, read = fastavro.parse_schema(schema_of(record)), writer_of(record), reader_of(record)

    @FEW
    @given(records(record))
    def law(item: Model) -> None:
        body = bytearray(b"head")
        write(item, body)
        plain = fastavro.schemaless_reader(BytesIO(bytes(body[4:])), schema, None)
        found, slow = read(bytes(body), 4), msgspec.convert(plain, record)
        assert found == slow
        assert repr(found) == repr(slow)

    law()


@every_record
def test_what_the_fast_way_takes_the_slow_way_takes_alike(record: type[Model]) -> None:
    """However the bytes were damaged: where it does not raise, its result is that of fastavro and msgspec."""
    schema, write, read = fastavro.parse_schema(schema_of(record)), writer_of(record), reader_of(record)

    @FEW
    @given(records(record), st.data())
    def law(item: Model, draw: st.DataObject) -> None:
        whole = bytearray()
        write(item, whole)
        at = draw.draw(st.integers(0, len(whole)))
        piece, length = draw.draw(st.binary(max_size=3)), draw.draw(st.integers(0, 3))
        body = bytes(whole[:at]) + piece + bytes(whole[at + length :])
        try:
            found = read(body, 0)
        except Exception:
            return
        rest = BytesIO(body)
        assert msgspec.convert(fastavro.schemaless_reader(rest, schema, None), record) == found
        assert rest.tell() == len(body)

    law()


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_no_reader_could_read_is_not_written(number: int) -> None:
    class Counted(Model, frozen=True, kw_only=True):
        count: int

    with pytest.raises(OverflowError):
        writer_of(Counted)(Counted(count=number), bytearray())
