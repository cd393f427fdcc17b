"""Avro follows from the records."""

import json
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import fastavro
import msgspec
import pytest

from schemas import __main__ as committing
from schemas.avro import schema_of
from schemas.base import Half, Instant, Model, Money
from schemas.codec import RECORDS, committed, head_of
from tests.schemas.strategies import defstruct


class Colour(StrEnum):
    UNKNOWN = "unknown"
    RED = "red"


class Nested(Model, frozen=True, kw_only=True):
    id: int
    colour: Colour = Colour.UNKNOWN


INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 14, "scale": 2}
COLOUR = {
    "type": "enum",
    "name": "Colour",
    "namespace": "rentstream",
    "symbols": ["unknown", "red"],
    "default": "unknown",
}
NESTED = {
    "type": "record",
    "name": "Nested",
    "namespace": "rentstream",
    "fields": [{"name": "id", "type": "long"}, {"name": "colour", "type": COLOUR, "default": "unknown"}],
}


def declared(hint: Any, default: Any = ...) -> dict[str, Any]:
    """The Avro field of a record that has one field of this type."""
    field = ("it", hint) if default is ... else ("it", hint, default)
    record = defstruct("Probe", [field])
    (field,) = schema_of(record)["fields"]
    found: dict[str, Any] = field
    return found


@pytest.mark.parametrize(
    ("hint", "avro"),
    [
        (bool, "boolean"),
        (int, "long"),
        (float, "double"),
        (str, "string"),
        (bytes, "bytes"),
        (date, {"type": "int", "logicalType": "date"}),
        (Instant, INSTANT),
        (Money, MONEY),
        (Half, {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}),
        (Colour, COLOUR),
        (Nested, NESTED),
        (int | None, ["null", "long"]),
        (None | str, ["null", "string"]),
        (Money | None, ["null", MONEY]),
        (Instant | None, ["null", INSTANT]),
        (Nested | None, ["null", NESTED]),
        (tuple[int, ...], {"type": "array", "items": "long"}),
        (tuple[Nested, ...], {"type": "array", "items": NESTED}),
        (tuple[Money, ...], {"type": "array", "items": MONEY}),
        (tuple[int, ...] | None, ["null", {"type": "array", "items": "long"}]),
        (Annotated[int, msgspec.Meta(ge=0)], "long"),
    ],
    ids=str,
)
def test_every_kind_of_field_has_its_avro_type(hint: Any, avro: Any) -> None:
    """A required field has its type and no default."""
    assert declared(hint) == {"name": "it", "type": avro}


@pytest.mark.parametrize(
    ("hint", "default", "avro"),
    [
        (bool, True, True),
        (int, 7, 7),
        (str, "", ""),
        (bytes, b"", ""),
        (bytes, b"\xff\x00", "\xff\x00"),
        (int | None, None, None),
        (Colour, Colour.RED, "red"),
        (tuple[int, ...], (), []),
        (tuple[int, ...], (1, 2), [1, 2]),
    ],
    ids=str,
)
def test_a_default_is_written_as_json(hint: Any, default: Any, avro: Any) -> None:
    """The default of the schema is what fastavro takes for one, and json can write it."""
    field = declared(hint, default)
    assert field["default"] == avro
    assert type(field["default"]) is type(avro)
    json.dumps(field)
    fastavro.parse_schema({"type": "record", "name": "Probe", "fields": [field]})


def test_a_named_type_stands_in_place_once_and_by_name_afterwards() -> None:
    class Twice(Model, frozen=True, kw_only=True):
        one: Nested
        two: Nested | None = None
        colour: Colour

    one, two, colour = schema_of(Twice)["fields"]
    assert one["type"] == NESTED
    assert two["type"] == ["null", "rentstream.Nested"]
    assert colour["type"] == "rentstream.Colour"


class Wrong(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | str, "only X | None"),
        (int | str | None, "only X | None"),
        (Decimal, "a Decimal needs Digits"),
        (Wrong, "first member has to be UNKNOWN"),
        (dict[str, int], "no Avro type is agreed"),
        (object, "no Avro type is agreed"),
        (tuple[int, str], "a tuple of one kind"),
    ],
    ids=str,
)
def test_what_avro_cannot_say_alike_is_refused(hint: Any, text: str) -> None:
    """A record that both ends could not read the same way fails when its schema is made."""
    with pytest.raises(TypeError, match=text.replace("|", r"\|")):
        declared(hint)


@pytest.mark.parametrize(
    ("hint", "default", "text"),
    [
        (int | None, 5, "null"),
        (Money, Decimal("1.50"), "default"),
        (date, date(2026, 1, 1), "default"),
        (tuple[Nested, ...], (Nested(id=1),), "default"),
    ],
    ids=str,
)
def test_a_default_that_a_schema_cannot_hold_is_refused(hint: Any, default: Any, text: str) -> None:
    """It would be found by the reader of an old record otherwise."""
    with pytest.raises(TypeError, match=text):
        declared(hint, default)


def test_a_default_factory_is_refused() -> None:
    """What it makes is not known when the schema is written."""
    with pytest.raises(TypeError, match="default factory"):
        declared(str, msgspec.field(default_factory=str))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_derived_schema_is_one_that_fastavro_takes(record: type[Model]) -> None:
    fastavro.parse_schema(schema_of(record))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_todays_writer_is_committed(record: type[Model]) -> None:
    """``make avsc`` was run after the last change of a record."""
    assert schema_of(record) in [schema for path, schema in committed() if path.startswith(f"{record.__name__}/")]


def test_a_committed_writer_stands_under_its_fingerprint() -> None:
    """A file is named by what its schema's values begin with, and no two files claim the same bytes."""
    heads = {path: head_of(schema)[2:].hex() for path, schema in committed()}
    assert {path: path.split("/")[1].removesuffix(".avsc") for path in heads} == heads
    assert len(set(heads.values())) == len(heads)


def test_a_committed_writer_belongs_to_a_record() -> None:
    """A folder whose class is gone would make its records unreadable."""
    assert {path.split("/")[0] for path, _ in committed()} == {record.__name__ for record in RECORDS}


def test_committing_writes_what_is_missing_and_checking_only_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "AVSC", tmp_path / "avsc")
    assert committing.main(check=True) == 1
    assert not (tmp_path / "avsc").exists()
    assert committing.main(check=False) == 0
    assert committing.main(check=True) == 0
    written = {path.relative_to(tmp_path / "avsc").as_posix() for path in (tmp_path / "avsc").glob("*/*.avsc")}
    assert written <= {path for path, _ in committed()}
    assert len(written) == len(RECORDS)
    assert "not committed: avsc/FetchRequest/" in capsys.readouterr().out


def test_a_writer_whose_bytes_would_mean_something_else_is_not_committed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint does not see the scale of a Decimal: old amounts would be read a hundred times too small."""
    monkeypatch.setattr(committing, "AVSC", tmp_path / "avsc")
    committing.main(check=False)
    (path,) = (tmp_path / "avsc" / "UnitSnapshot").iterdir()
    older = path.read_text(encoding="utf-8").replace('"scale": 2', '"scale": 4')
    path.write_text(older, encoding="utf-8")
    assert committing.main(check=False) == 1
    assert path.read_text(encoding="utf-8") == older
    assert "same fingerprint" in capsys.readouterr().out


def test_a_default_that_changed_is_committed_over_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default does not affect the bytes of its writer."""
    monkeypatch.setattr(committing, "AVSC", tmp_path / "avsc")
    committing.main(check=False)
    (path,) = (tmp_path / "avsc" / "SweepStep").iterdir()
    today = path.read_text(encoding="utf-8")
    path.write_text(today.replace('"default": false', '"default": true'), encoding="utf-8")
    assert committing.main(check=False) == 0
    assert path.read_text(encoding="utf-8") == today
