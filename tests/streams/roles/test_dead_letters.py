"""Tests of ``rentstream dead-letters``: what is found in the view, and what is printed."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from schemas import topics
from schemas.retry import History
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.backends.ports import ConsumedRecord, Partition
from streams.core.flows import ProducerRecord, Record
from streams.roles import dead_letters as role
from streams.view.database import Database, parse_url
from tests.streams.roles.terminal import Terminal
from tests.streams.view.parts import NOON, View, fetched
from tests.streams.view.test_queries import fetch, letter


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, {"DATABASE_URL": f"sqlite:///{tmp_path}/view.db", "KAFKA_BOOTSTRAP_SERVERS": "x:1"})


@pytest.fixture
def view(tmp_path: Path) -> View:
    database = Database(parse_url(f"sqlite:///{tmp_path}/view.db"))
    database.migrate()
    return View(database)


def test_letters_are_listed_by_cause_the_newest_first(terminal: Terminal, view: View) -> None:
    view.write(*(letter(number, fetch(number), NOON + timedelta(seconds=number)) for number in range(7)))
    view.write(letter(9, b"?", NOON + timedelta(minutes=1), reason="malformed", detail="no record of ours"))
    view.write(fetched(3, NOON + timedelta(minutes=2)))
    lines = terminal.run("dead-letters", "list").splitlines()

    assert lines[0].endswith("1 x f: malformed, last 2026-03-01 12:01:00Z")
    assert lines[1] == "  no record of ours"
    assert lines[2].split() == ["2-9", "2026-03-01", "12:01:00Z", "open", "-"]
    assert lines[3].endswith("6 x f: rejected, last 2026-03-01 12:00:06Z"), "unit 3 was read since"
    assert [line.split()[0] for line in lines[5:10]] == ["2-6", "2-5", "2-4", "2-2", "2-1"]
    assert lines[10].startswith("    … and 1 more: rentstream dead-letters list --fingerprint ")

    lines = terminal.run("dead-letters", "list", "--all", "--reason", "rejected").splitlines()
    assert lines[0].endswith("7 x f: rejected, 1 closed, last 2026-03-01 12:00:06Z")
    assert lines[-1].startswith("    … and 2 more: rentstream dead-letters list --fingerprint ")


def test_json_has_the_form_of_the_api(terminal: Terminal, view: View) -> None:
    view.write(letter(1, fetch()), letter(2, fetch(), org=b"acme"))
    (found,) = json.loads(terminal.run("dead-letters", "list", "--json", "--since", "2026-03-01T12:00:00Z"))
    assert (found["id"], found["time"], found["org"]) == ("2-1", "2026-03-01T12:00:00Z", "default")
    (found,) = json.loads(terminal.run("dead-letters", "list", "--json", "--org", "acme"))
    assert found["id"] == "2-2"
    assert json.loads(terminal.run("dead-letters", "list", "--json", "--until", "2026-03-01T12:00:00Z")) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("list", "--entity", "unit:5"), "nothing that was given up is open (--all shows the rest)\n"),
        (("list", "--all", "--entity", "unit:5"), "nothing was given up\n"),
    ],
)
def test_an_empty_list_says_so(terminal: Terminal, view: View, words: tuple[str, ...], expected: str) -> None:
    view.write(letter(1, fetch()))
    assert terminal.run("dead-letters", *words) == expected
    assert terminal.exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (("list", "--since", "yesterday"), 2, "--since needs a time"),
        (("list", "--limit", "0"), 2, "--limit"),
        (("show", "seven"), 2, "such as 3-1042"),
        (("show", "2-7"), 1, "org default has no dead letter 2-7"),
    ],
)
def test_wrong_use_is_one_sentence(
    terminal: Terminal, view: View, words: tuple[str, ...], code: int, shown: str
) -> None:
    view.write(letter(1, fetch()))
    terminal.run("dead-letters", *words)
    assert terminal.exit_code == code
    assert shown in "".join(terminal.outputs)
    assert "Traceback" not in "".join(terminal.outputs)


def test_a_view_that_was_never_filled_is_not_created(terminal: Terminal, tmp_path: Path) -> None:
    terminal.run("dead-letters", "list")
    assert terminal.exit_code == 1
    assert "there is no query view in" in "".join(terminal.outputs)
    assert not (tmp_path / "view.db").exists()
    Database(parse_url(f"sqlite:///{tmp_path}/view.db")).engine.connect().close()
    terminal.run("dead-letters", "list")
    assert terminal.exit_code == 1
    assert "cannot be used (no such table" in "".join(terminal.outputs)


# ---------------------------------------------------------------------------------------------------------- one record


async def read(offset: int) -> Record | None:
    """Return the dead letter at an offset of a topic with two of them."""
    clock = MovableClock(NOON)
    backend = MemoryBackend(MemoryBroker(clock, 4))
    headers = History(origin="pms.webhooks").headers()
    records = [ProducerRecord(topics.DEAD_LETTERS.name, b"default", value, headers) for value in (b"one", b"two")]
    await backend.producer().send(records, 2)
    reading = asyncio.ensure_future(role._record(backend, clock, Partition(topics.DEAD_LETTERS.name, 2), offset))
    while not reading.done():
        await clock.advance(1.0)
    return reading.result()


@pytest.mark.parametrize(("offset", "expected"), [(0, b"one"), (1, b"two"), (2, None), (99, None)])
async def test_a_record_is_read_at_its_offset(offset: int, expected: bytes | None) -> None:
    found = await read(offset)
    assert (found.value if found else None) == expected


def test_a_record_is_shown_decoded_or_as_bytes() -> None:
    plain = ConsumedRecord("dead-letters", 2, 0, 0, b"default", b"\x00\x01", (("rent-origin", b"x"), ("trace", b"x")))
    assert role.content_as_json(plain) == {
        "key": "default",
        "headers": {"trace": "x"},
        "unreadable": "not a record of ours: it begins with 00 01",
        "bytes": "0001",
    }
    found = role.content_as_json(letter(1, fetch(7)))
    assert (found["record"], found["content"]["entity"]) == ("FetchRequest", 7)
    lines = role.letter_lines({"id": "2-1", "message": None}, found)
    assert lines[:3] == ["id             2-1", "", "FetchRequest:"]
    assert '"entity": 7' in lines[3]
