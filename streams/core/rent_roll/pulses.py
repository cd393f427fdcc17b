"""The end of a pulse: what changed until then is in the rows, so the next pulse asks from there on."""

from schemas.rent_roll import AccountRow, PulseEnd
from streams.core.flows import Disposition, FoldResult
from streams.core.rent_roll.keys import account_key, scope
from streams.core.rows import Rows


def fold_pulse_end(rows: Rows, end: PulseEnd) -> FoldResult:
    """Note until when changes were read. Its pages come before it, in the same partition."""
    key = account_key(scope(end.org, end.connection))
    account = rows.find(AccountRow, key)
    if account is None or (account.pulsed_until is not None and end.until <= account.pulsed_until):
        return FoldResult(Disposition.IGNORED)
    rows.put(key, account.model_copy(update={"pulsed_until": end.until}))
    return FoldResult(Disposition.APPLIED)
