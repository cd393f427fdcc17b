"""The rent roll: pages of snapshots, folded in any order and any number of times into the same rows.

Replies are ordered by the fetch sequence that the fetcher takes before each call. A row keeps the sequence of what it
holds and refuses an older one. One row is written per unit, with a small index row per property. A page of a sweep
writes only the rows that differ, so an unchanged row does not record that a later sweep confirmed it: `SweptRow` holds
how far sweeps have looked at a kind of entity, and a reply that is older than that and differs is fetched again.
"""

from schemas.pms import STAGES
from schemas.rent_roll import Page, PulseEnd, SweepEnd
from streams.core.flows import FoldResult
from streams.core.rent_roll.completeness import fold_sweep_end
from streams.core.rent_roll.keys import (
    account_key,
    id_of,
    lease_key,
    mark_key,
    properties_of,
    property_key,
    scope,
    seen_key,
    swept_key,
    unit_key,
    units_of,
)
from streams.core.rent_roll.pages import fold_page, item_of
from streams.core.rent_roll.pulses import fold_pulse_end
from streams.core.rows import Rows

__all__ = [
    "STAGES",
    "account_key",
    "apply",
    "id_of",
    "item_of",
    "lease_key",
    "mark_key",
    "properties_of",
    "property_key",
    "scope",
    "seen_key",
    "swept_key",
    "unit_key",
    "units_of",
]


def apply(rows: Rows, record: Page | SweepEnd | PulseEnd) -> FoldResult:
    """Fold one record into the rows. Idempotent: a record that is consumed again repeats what it emitted."""
    match record:
        case SweepEnd():
            return fold_sweep_end(rows, record)
        case PulseEnd():
            return fold_pulse_end(rows, record)
    return fold_page(rows, record)
