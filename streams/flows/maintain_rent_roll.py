"""``maintain_rent_roll``: folds snapshots into the rent roll."""

from collections.abc import Mapping
from datetime import datetime

from schemas.base import Model
from schemas.rent_roll import Page, PulseEnd, SweepEnd
from streams.core import rent_roll
from streams.core.flows import Disposition, FoldResult, Record, View
from streams.core.rows import Rows


def step(rows: Rows, views: Mapping[str, View], value: Model, record: Record, now: datetime) -> FoldResult:
    """Fold one record; see `streams.core.rent_roll.apply`."""
    del views, record, now
    if not isinstance(value, Page | SweepEnd | PulseEnd):
        return FoldResult(Disposition.IGNORED)
    return rent_roll.apply(rows, value)
