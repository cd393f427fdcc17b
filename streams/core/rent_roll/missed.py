"""What a complete sweep missed: it is fetched by its id, and removed if the PMS answers that it does not exist.

To ask is harmless, so everything is asked for, in portions. The answers decide. Where many of them say that an entity
does not exist, the account or the permissions of the key may be damaged instead: then nothing is removed before a
person confirms it. Until enough has been answered to judge that, nothing is removed either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.base import EntityKind
from schemas.rent_roll import AbsentRow

_PORTFOLIO: Final = frozenset({EntityKind.PROPERTY, EntityKind.UNIT})

GUARDED_BY: Final[Mapping[EntityKind, frozenset[EntityKind]]] = {
    EntityKind.PROPERTY: _PORTFOLIO,
    EntityKind.UNIT: _PORTFOLIO,
    EntityKind.LEASE: _PORTFOLIO | {EntityKind.LEASE},
    EntityKind.LISTING: _PORTFOLIO,
}
"""A kind is guarded if many entities of one of these kinds may be gone.

A property takes its units with it; where units vanish, that their leases and listings vanish as well proves nothing.
Many leases that end, or many listings, are ordinary.
"""

GUARD_LEAST: Final = 10
GUARD_SHARE: Final = 0.2
"""More than `GUARD_LEAST` entities of a kind *and* at least this share of them are many."""

PORTION: Final = 2000
"""Entities of a kind that are asked for after one sweep: about three minutes at ten calls a second."""


@dataclass(frozen=True, slots=True)
class Missed:
    """What a sweep missed of one kind of entity."""

    known: int
    """How many entities the sweep should have brought."""
    rows: Mapping[int, int]
    """The sequences of the rows that it did not bring, by id."""
    absent: Mapping[int, AbsentRow]
    """What does not exist according to earlier answers and is not removed yet, by id."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows for one kind of entity."""

    ask: tuple[int, ...]
    """What is to be fetched now."""
    guarded: bool
    """Whether an answer that it does not exist removes nothing yet."""
    remove: tuple[int, ...] = ()
    forget: tuple[int, ...] = ()
    """Absent entities that exist after all, or were removed before."""
    held: int = 0
    """How many wait for a person."""


def decide(
    found: Mapping[EntityKind, Missed], sweep: str, *, asked_since: int, confirmed: bool
) -> Mapping[EntityKind, Decision]:
    """Return what follows from what a sweep missed, by kind.

    ``asked_since``: a row with a newer sequence was fetched after the sweep before, so it exists; 0: unknown.
    ``confirmed``: a person confirmed that much may be gone.
    """
    sorted_out = {kind: _Sorted.of(missed, asked_since) for kind, missed in found.items()}
    suspicious = {
        kind for kind, missed in found.items() if not confirmed and sorted_out[kind].is_suspicious(missed.known)
    }
    return {
        kind: _decision(kind, missed, sorted_out[kind], sweep, guarded=bool(GUARDED_BY[kind] & suspicious))
        for kind, missed in found.items()
    }


def _decision(kind: EntityKind, missed: Missed, sorted_out: "_Sorted", sweep: str, *, guarded: bool) -> Decision:
    gone, open_, there = sorted_out.gone, sorted_out.open, sorted_out.there
    repeated = {entity for entity, row in missed.absent.items() if row.removed_by == sweep}
    remove = repeated if guarded else gone | repeated
    forget = missed.absent.keys() - gone - repeated
    return Decision(
        ask=(*sorted(open_), *sorted(there, key=lambda entity: (missed.rows[entity], entity)))[:PORTION],
        guarded=guarded,
        remove=tuple(sorted(remove)),
        forget=tuple(sorted(forget)),
        held=len(gone) if guarded and kind in GUARDED_BY[kind] and _are_many(len(gone), missed.known) else 0,
    )


@dataclass(frozen=True, slots=True)
class _Sorted:
    """What was missed of one kind, by what is known of it."""

    gone: frozenset[int]
    """The PMS answered that it does not exist."""
    there: frozenset[int]
    """It was fetched since the sweep before: the lists do not show it, but it exists."""
    open: frozenset[int]
    """It was not asked for yet, or there was no answer."""

    @classmethod
    def of(cls, missed: Missed, asked_since: int) -> "_Sorted":
        rows = missed.rows
        gone = frozenset(
            entity
            for entity, row in missed.absent.items()
            if not row.removed_by and entity in rows and rows[entity] < row.seq
        )
        there = frozenset(_newer(rows, asked_since)) - gone if asked_since else frozenset()
        return cls(gone, there, frozenset(rows) - gone - there)

    def is_suspicious(self, known: int) -> bool:
        """Return whether many entities are gone, or could be as far as it is known."""
        return _are_many(len(self.gone) + len(self.open), known)


def _newer(rows: Mapping[int, int], seq: int) -> Iterable[int]:
    return (entity for entity, own in rows.items() if own > seq)


def _are_many(count: int, known: int) -> bool:
    return count > GUARD_LEAST and count >= GUARD_SHARE * known
