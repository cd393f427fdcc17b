"""The end of a pulse: until when the changes of an account are known."""

from datetime import timedelta

from schemas.codec import decode_as, encode
from schemas.rent_roll import AccountRow, PulseEnd
from streams.core.flows import Disposition
from streams.core.rent_roll import account_key, apply, scope
from streams.core.rows import Rows
from tests.streams.core.delivery.offers import NOW
from tests.streams.core.views import MemoryView

KEY = account_key(scope("o", "c"))


def end(minutes: int) -> PulseEnd:
    return PulseEnd(org="o", connection="c", until=NOW + timedelta(minutes=minutes))


def test_the_newest_end_is_kept() -> None:
    """Records may come again, and late."""
    view = MemoryView()
    view[KEY] = encode(AccountRow(sweep="s", first_sweep="s", started_at=NOW, completed_at=NOW, entities=7))
    verdicts = []
    for minutes in (1, 3, 2, 3):
        rows = Rows(view)
        verdicts.append(apply(rows, end(minutes)).verdict)
        view.take(rows)
    row = decode_as(AccountRow, view[KEY])

    assert verdicts == [Disposition.APPLIED, Disposition.APPLIED, Disposition.IGNORED, Disposition.IGNORED]
    assert (row.pulsed_until, row.entities) == (NOW + timedelta(minutes=3), 7)


def test_an_account_that_was_never_swept_has_no_pulse() -> None:
    view = MemoryView()
    rows = Rows(view)

    assert apply(rows, end(1)).verdict is Disposition.IGNORED
    view.take(rows)
    assert not view
