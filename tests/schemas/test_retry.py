"""The history of a record in its headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.retry import SEQ, History, is_history

FULL = History(
    attempt=2,
    origin="pms.webhooks",
    due_at=1772366400001,
    reason="unavailable",
    detail="503: é",
    flow="fetch_changes",
    first_failed_at=1772366400000,
    replays=1,
)
HEADERS = (
    ("rent-attempt", b"2"),
    ("rent-origin", b"pms.webhooks"),
    ("rent-due-at", b"1772366400001"),
    ("rent-reason", b"unavailable"),
    ("rent-detail", "503: é".encode()),
    ("rent-flow", b"fetch_changes"),
    ("rent-first-failed-at", b"1772366400000"),
    ("rent-replays", b"1"),
)


def test_the_names_of_the_headers_do_not_change() -> None:
    """Records of former releases wait on their rungs, and scripts read dead letters."""
    assert FULL.headers() == HEADERS
    assert History.read(HEADERS) == FULL


def test_what_is_absent_has_no_header() -> None:
    assert History().headers() == ()
    assert History.read([("x", b"1"), (SEQ, b"7"), ("rent-detail", None)]) == History()
    assert [is_history(name) for name in ("rent-attempt", SEQ, "traceparent")] == [True, False, False]


@pytest.mark.parametrize("junk", [b"", b"x", b"-1", b"1" * 30, "²".encode()])
def test_a_number_that_is_none_counts_as_absent(junk: bytes) -> None:
    names = ("rent-attempt", "rent-due-at", "rent-first-failed-at", "rent-replays")
    assert History.read([(name, junk) for name in names]) == History()
    assert History.read([("rent-origin", b"\xff")]) == History()


def test_the_first_of_two_equal_headers_counts() -> None:
    assert History.read([("rent-attempt", b"3"), ("rent-attempt", b"1")]).attempt == 3


@given(
    st.builds(
        History,
        attempt=st.integers(0, 10**14),
        origin=st.none() | st.text(max_size=50).map(lambda text: text.encode(errors="ignore").decode()),
        due_at=st.none() | st.integers(1, 10**14),
        detail=st.none() | st.text(max_size=50).map(lambda text: text.encode(errors="ignore").decode()),
        replays=st.integers(0, 9),
    )
)
def test_what_is_written_is_read(history: History) -> None:
    assert History.read(history.headers()) == history
