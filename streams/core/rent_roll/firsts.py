"""Units that are seen for the first time: they are not offered before their leases and their listing were read.

The PMS announces a new unit alone, and its leases later or never. The leases of its property and its listing are asked
for, and the row notes what is still awaited. If an answer never comes, the end of a sweep that began later has read
both (`UnitRow.awaited_sweep`), so nothing is awaited for longer than that.
"""

from datetime import datetime, timedelta
from typing import Final

from schemas.rent_roll import AccountRow, UnitRow
from streams.core.rent_roll.keys import stamp

LEASES: Final = 1
LISTING: Final = 2


def proving_sweep(sweep: str | None, fetched_at: datetime) -> str:
    """Return the first sweep whose end proves that everything about a unit was read.

    ``sweep``: the one that brought the unit; null if it was fetched, then the sweep has to begin afterwards.
    """
    return sweep if sweep is not None else stamp(fetched_at + timedelta(seconds=1))


def is_read(unit: UnitRow, account: AccountRow) -> bool:
    """Return whether the leases and the listing of a unit were read."""
    return not unit.awaits or account.whole_sweep >= unit.awaited_sweep
