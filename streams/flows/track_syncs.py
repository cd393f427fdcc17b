"""``track_syncs``: orders the commands of upstream apps, and keeps what became of each property and owner."""

from collections.abc import Mapping
from datetime import datetime

from schemas.base import Model
from schemas.commands import Command, PushOutcome
from streams.core import sync
from streams.core.flows import Disposition, FoldResult, Record, View
from streams.core.rows import Rows


def step(rows: Rows, views: Mapping[str, View], value: Model, record: Record, now: datetime) -> FoldResult:
    """Fold one record; see `streams.core.sync.apply`."""
    del views
    if not isinstance(value, Command | PushOutcome):
        return FoldResult(Disposition.IGNORED)
    return sync.apply(rows, value, sync.Cause(f"{record.topic}:{record.offset}", now))
