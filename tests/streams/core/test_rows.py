"""Tests of the rows of a batch: its writes can be read, kept and dropped."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import DecodeError, encode
from schemas.delivery import ReceiverRow
from schemas.rent_roll import SweptRow
from streams.core.rows import Rows
from tests.streams.core.views import MemoryView

A, B, C = b"a/1", b"a/2", b"b/1"


def row(seq: int) -> SweptRow:
    return SweptRow(seq=seq)


def stored(**seqs: int) -> MemoryView:
    names = {"a": A, "b": B, "c": C}
    return MemoryView({names[name]: encode(row(seq)) for name, seq in seqs.items()})


def test_a_row_is_read_from_the_table_until_the_batch_writes_it() -> None:
    rows = Rows(stored(a=1))
    assert rows.find(SweptRow, A) == row(1)
    assert rows.find(SweptRow, B) is None
    rows.put(A, row(2))
    assert rows.find(SweptRow, A) == row(2)
    rows.keep()
    assert rows.find(SweptRow, A) == row(2)
    rows.put(A, row(3))
    assert rows.find(SweptRow, A) == row(3)


def test_a_row_whose_bytes_were_read_is_not_read_again() -> None:
    view = stored(a=1)
    rows = Rows(view)
    assert rows.raw(A) == encode(row(1))
    assert rows.raw(B) is None
    view.clear()
    view[B] = encode(row(9))
    assert (rows.find(SweptRow, A), rows.find(SweptRow, B)) == (row(1), None)


def test_writes_of_a_failed_record_are_dropped_and_others_stay() -> None:
    rows = Rows(stored(a=1))
    rows.put(A, row(2))
    rows.keep()
    rows.put(A, row(3))
    rows.put(B, row(4))
    rows.drop()
    assert rows.find(SweptRow, A) == row(2)
    assert rows.find(SweptRow, B) is None
    assert rows.encoded() == {A: encode(row(2))}


def test_only_kept_rows_are_written() -> None:
    rows = Rows(stored(a=1))
    rows.find(SweptRow, A)
    rows.put(B, row(2))
    assert rows.encoded() == {}
    rows.keep()
    rows.keep()
    assert rows.encoded() == {B: encode(row(2))}


def test_stored_bytes_are_returned_only_for_rows_that_the_batch_did_not_write() -> None:
    """The bytes are compared without decoding; those of a written row would be stale."""
    rows = Rows(stored(a=1))
    assert rows.raw(A) == encode(row(1))
    assert rows.raw(B) is None
    rows.find(SweptRow, A)
    assert rows.raw(A) == encode(row(1))
    rows.put(A, row(1))
    assert rows.raw(A) is None
    rows.keep()
    assert rows.raw(A) is None


def test_a_scan_includes_the_rows_that_the_batch_wrote() -> None:
    rows = Rows(stored(a=1, b=2, c=3))
    rows.put(A, row(10))
    rows.keep()
    rows.put(b"a/0", row(11))
    rows.put(b"b/2", row(12))
    assert [(key, found()) for key, found in rows.scan(SweptRow, b"a/")] == [
        (B, row(2)),
        (A, row(10)),
        (b"a/0", row(11)),
    ]
    rows.drop()
    assert {key: found() for key, found in rows.scan(SweptRow, b"")} == {A: row(10), B: row(2), C: row(3)}


def test_a_row_of_another_class_is_never_returned() -> None:
    view = stored(a=1)
    rows = Rows(view)
    with pytest.raises(DecodeError, match="a SweptRow where a ReceiverRow belongs"):
        rows.find(ReceiverRow, A)
    with pytest.raises(DecodeError):
        [found() for _, found in rows.scan(ReceiverRow, b"a/")]
    rows.put(B, row(1))
    with pytest.raises(AssertionError):
        rows.find(ReceiverRow, B)


KEYS = st.sampled_from([A, B, C])
CALLS = st.lists(st.tuples(st.sampled_from(["put", "put", "keep", "drop"]), KEYS, st.integers(0, 9)), max_size=20)


@given(st.dictionaries(KEYS, st.integers(0, 9)), CALLS)
def test_rows_read_like_a_dictionary_copied_at_each_keep(
    table: dict[bytes, int], calls: list[tuple[str, bytes, int]]
) -> None:
    """The property holds for any sequence of puts, keeps and drops."""
    view = MemoryView({key: encode(row(seq)) for key, seq in table.items()})
    rows = Rows(view)
    kept, pending = dict(table), dict(table)
    written: set[bytes] = set()
    fresh: set[bytes] = set()
    for call, key, seq in calls:
        if call == "put":
            rows.put(key, row(seq))
            pending[key] = seq
            fresh.add(key)
        elif call == "keep":
            rows.keep()
            kept, written = dict(pending), written | fresh
            fresh = set()
        else:
            rows.drop()
            pending, fresh = dict(kept), set()
        for one in (A, B, C):
            found: Any = rows.find(SweptRow, one)
            assert (found.seq if found else None) == pending.get(one)
        assert {one: found().seq for one, found in rows.scan(SweptRow, b"")} == pending
    assert rows.encoded() == {one: encode(row(kept[one])) for one in written}


def test_a_row_can_be_removed_and_written_again() -> None:
    rows = Rows(stored(a=1, b=2))
    rows.remove(A)
    assert rows.find(SweptRow, A) is None
    assert [key for key, _ in rows.scan(SweptRow, b"a/")] == [B]
    rows.keep()
    assert rows.encoded() == {A: None}
    rows.put(A, row(3))
    rows.keep()
    rows.remove(B)
    rows.drop()
    assert (rows.find(SweptRow, A), rows.find(SweptRow, B)) == (row(3), row(2))
    assert rows.encoded() == {A: encode(row(3))}


def test_what_does_not_exist_is_not_removed() -> None:
    """Unless this batch has written it."""
    rows = Rows(stored())
    rows.remove(A)
    rows.put(B, row(1))
    rows.remove(B)
    rows.keep()
    assert rows.encoded() == {B: None}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "remove", "keep", "drop", "scan"]),
            st.sampled_from([b"a/1", b"a/2", b"a/b/1", b"a/b/2", b"a//1", b"b/1", b"c"]),
        ),
        max_size=30,
    ),
    st.sampled_from([b"", b"a", b"a/", b"a/b/", b"a//", b"b/", b"c", b"d/"]),
)
def test_a_scan_finds_what_the_table_would_hold(steps: list[tuple[str, bytes]], prefix: bytes) -> None:
    """Whenever it is made, and however long the prefix is."""
    rows = Rows(stored(a=1, c=3))
    kept: dict[bytes, int] = {A: 1, C: 3}
    table = dict(kept)
    for at, (what, key) in enumerate(steps):
        if what == "put":
            rows.put(key, row(100 + at))
            table[key] = 100 + at
        elif what == "remove":
            rows.remove(key)
            table.pop(key, None)
        elif what == "keep":
            rows.keep()
            kept = dict(table)
        elif what == "drop":
            rows.drop()
            table = dict(kept)
        else:
            list(rows.scan(SweptRow, prefix))

    found = {key: read().seq for key, read in rows.scan(SweptRow, prefix)}
    assert found == {key: seq for key, seq in table.items() if key.startswith(prefix)}
