"""``maintain_rent_roll``: folds snapshots into the rent roll."""

from collections.abc import Mapping
from datetime import datetime

from schemas.base import Record as Said
from schemas.rent_roll import Page, SweepEnd
from streams.core import rent_roll
from streams.core.flows import Applied, Record, Verdict, View
from streams.core.rows import Rows


def step(rows: Rows, views: Mapping[str, View], said: Said, record: Record, now: datetime) -> Applied:
    """Fold one record; see `streams.core.rent_roll.apply`."""
    del views, record
    if not isinstance(said, Page | SweepEnd):
        return Applied(Verdict.IGNORED)
    return rent_roll.apply(rows, said, now)
