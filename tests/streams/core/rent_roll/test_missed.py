"""What follows from what a sweep missed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import EntityKind
from schemas.rent_roll import AbsentRow
from streams.core.rent_roll.missed import GUARD_LEAST, PORTION, Decision, Missed, decide

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROPERTY, UNIT, LEASE, LISTING = EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING
OLD, SINCE, ANSWERED = 5, 10, 20
"""Sequences: of a row, of the sweep before, and of an answer since then."""


def missed(
    rows: int, known: int, *, gone: int = 0, there: int = 0, kind: EntityKind = UNIT
) -> dict[EntityKind, Missed]:
    """Return that so many of the known entities are missing: the first ones gone, the next ones fetched since then."""
    sequences = {number: ANSWERED if gone <= number < gone + there else OLD for number in range(rows)}
    absent = {number: AbsentRow(seq=ANSWERED, at=NOW) for number in range(gone)}
    return {kind: Missed(known, sequences, absent)}


def decided(
    found: dict[EntityKind, Missed], kind: EntityKind = UNIT, *, since: int = SINCE, confirmed: bool = False
) -> Decision:
    return decide(found, "s2", asked_since=since, confirmed=confirmed)[kind]


@pytest.mark.parametrize(
    ("rows", "known", "guarded"),
    [(GUARD_LEAST, GUARD_LEAST, False), (12, 30, True), (11, 55, True), (11, 56, False), (30, 1000, False)],
)
def test_an_unanswered_kind_is_guarded_if_many_are_missing(rows: int, known: int, guarded: bool) -> None:
    """More than ten, and at least a fifth."""
    found = decided(missed(rows, known))
    assert (len(found.ask), found.guarded, found.held, found.remove) == (rows, guarded, 0, ())


def test_confirmed_removals_are_not_guarded() -> None:
    assert not decided(missed(30, 30), confirmed=True).guarded


@pytest.mark.parametrize(
    ("kind", "guarded"),
    [
        (PROPERTY, {PROPERTY, UNIT, LEASE, LISTING}),
        (UNIT, {PROPERTY, UNIT, LEASE, LISTING}),
        (LEASE, {LEASE}),
        (LISTING, set()),
    ],
)
def test_where_units_vanish_nothing_that_belongs_to_them_is_believed(
    kind: EntityKind, guarded: set[EntityKind]
) -> None:
    """Leases and listings that vanish are no reason to doubt anything else."""
    few = {one: missed(1, 100, kind=one)[one] for one in (PROPERTY, UNIT, LEASE, LISTING)}
    found = decide(few | missed(30, 30, kind=kind), "s2", asked_since=SINCE, confirmed=False)
    assert {one for one, decision in found.items() if decision.guarded} == guarded


def test_listings_that_are_not_believed_are_no_removals_that_wait() -> None:
    """The units are; their listings go with them."""
    found = missed(30, 30, gone=30, kind=LISTING) | missed(30, 30, gone=30)
    assert (decided(found, LISTING).held, decided(found).held) == (0, 30)
    assert decided(found, LISTING).remove == ()
    assert decided(found, LISTING, confirmed=True).remove == tuple(range(30))


def test_before_enough_is_answered_nothing_is_removed() -> None:
    """Two are gone and twenty-eight are open: they may be gone as well."""
    found = decided(missed(30, 30, gone=2))
    assert (found.remove, found.held, found.guarded) == ((), 0, True)
    assert found.ask == tuple(range(2, 30))


def test_few_that_are_gone_are_removed_once_the_others_have_answered() -> None:
    found = decided(missed(30, 30, gone=2, there=28))
    assert (found.remove, found.held, found.guarded) == ((0, 1), 0, False)
    assert found.ask == tuple(range(2, 30))


def test_many_that_are_gone_wait_and_are_not_asked_for_again() -> None:
    found = decided(missed(30, 30, gone=12, there=18))
    assert (found.remove, found.held, found.guarded) == ((), 12, True)
    assert found.ask == tuple(range(12, 30))
    assert decided(missed(30, 30, gone=12, there=18), confirmed=True).remove == tuple(range(12))


def test_without_a_sweep_before_nothing_counts_as_answered() -> None:
    assert decided(missed(30, 30, there=30), since=0).guarded


def test_what_was_not_asked_for_comes_first_and_the_rest_in_portions() -> None:
    found = decided(missed(PORTION + 50, 10 * PORTION, there=100))
    assert found.ask == tuple(range(100, PORTION + 50)) + tuple(range(50))


def test_what_exists_after_all_is_forgotten() -> None:
    """A sweep brought it, or its row is newer than the answer."""
    absent = {1: AbsentRow(seq=ANSWERED, at=NOW), 2: AbsentRow(seq=ANSWERED, at=NOW)}
    found = decided({UNIT: Missed(50, {1: ANSWERED + 1}, absent)})
    assert (found.forget, found.remove, found.ask) == ((1, 2), (), (1,))


def test_what_was_removed_is_repeated_for_its_sweep_and_forgotten_by_the_next() -> None:
    absent = {1: AbsentRow(seq=ANSWERED, at=NOW, removed_by="s2"), 2: AbsentRow(seq=ANSWERED, at=NOW, removed_by="s1")}
    found = decided({UNIT: Missed(50, {}, absent)})
    assert (found.remove, found.forget) == ((1,), (2,))


@given(
    known=st.integers(0, 200),
    rows=st.integers(0, 200),
    gone=st.integers(0, 200),
    there=st.integers(0, 200),
    confirmed=st.booleans(),
)
def test_nothing_is_lost_and_many_are_never_removed_without_a_person(
    known: int, rows: int, gone: int, there: int, confirmed: bool
) -> None:
    """Whatever is missing is asked for, removed or held."""
    rows, gone = min(rows, known), min(gone, rows, known)
    found = decided(missed(rows, known, gone=gone, there=min(there, rows - gone)), confirmed=confirmed)
    many = gone > GUARD_LEAST and gone >= 0.2 * known

    assert not set(found.ask) & set(found.remove)
    assert set(found.ask) == set(range(gone, rows))
    assert found.remove in ((), tuple(range(gone)))
    assert not (many and found.remove and not confirmed)
    assert found.held == (gone if many and not confirmed else 0)
    assert found.guarded or found.remove == tuple(range(gone))
