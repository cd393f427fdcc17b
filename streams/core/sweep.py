"""How an account is read in full: stage by stage, page by page, each step a record that leads to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from connectors.ports import PageOf
from schemas.base import EntityKind
from schemas.integrations import SyncProgress
from schemas.pms import SweepStep
from schemas.rent_roll import Page, SweepEnd
from streams.core.rent_roll import STAGES, item_of
from streams.core.rent_roll.keys import STAMP, stamp

_ASKED = "-asked"

PAGES_AT_ONCE = 10
"""Calls of one step: as many as the account's budget lets begin in a second."""

AGAIN = 2
"""How often a stage is begun again if its list shrank while it was read."""

ITEMS_A_RECORD = 500
"""Entities of one record on ``rent-roll.changes``; a call may bring more."""


def sweep_id(now: datetime, every: float, share: float = 0.0) -> str:
    """Return the id of the sweep that is due at ``now``: one for each slot of ``every`` seconds, in order of time.

    The slots of an account begin after a ``share`` of the interval (`streams.core.spread`), to the second.
    """
    shift = share * every // 1
    return stamp(datetime.fromtimestamp((now.timestamp() - shift) // every * every + shift, UTC))


def following(sweep: str) -> str:
    """Return the id of a sweep that comes right after another one."""
    at = datetime.strptime(sweep.partition(_ASKED)[0], STAMP).replace(tzinfo=UTC)
    return stamp(at + timedelta(seconds=1))


def asked_sweep_id(now: datetime) -> str:
    """Return the id of a sweep that a person asks for; it comes after that of a slot that begins in the same second.

    It ends with the microseconds since 1970, because a second request within a second is another sweep: it may confirm
    removals.
    """
    since_epoch = now - datetime.fromtimestamp(0, UTC)
    return f"{stamp(now)}{_ASKED}-{since_epoch // timedelta(microseconds=1)}"


def is_asked(sweep: str) -> bool:
    """Return whether the id of a sweep is one of those that people ask for."""
    return _ASKED in sweep


def covers(sweep: str, asked: str) -> bool:
    """Return whether a sweep that ended is one that a person asked for, or that was asked for later."""
    return is_asked(sweep) and sweep.partition(_ASKED)[2] >= asked.partition(_ASKED)[2]


def begun(step: SweepStep, at: datetime) -> SweepStep:
    """Return a step; the id of a sweep that a person asked for begins with ``at``, when it really begins.

    It may have waited for another sweep, and results are ordered by ids. ``at`` has to be the same if the step is
    repeated.
    """
    if not step.asked or step.seq or at <= step.started_at:
        return step
    _, asked, request = step.sweep.partition(_ASKED)
    return step.model_copy(update={"sweep": f"{stamp(at)}{asked}{request}", "started_at": at})


@dataclass(frozen=True, slots=True)
class Read:
    """One call of a step: its offset, and the first of the sequences that were taken for its records."""

    offset: int
    seq: int


def offsets(step: SweepStep, page_size: int) -> tuple[int, ...]:
    """Return the offsets of a step's calls: one while the length of the list is unknown, then several at once."""
    if step.total is None:
        return (step.offset,)
    return tuple(range(step.offset, max(step.total, step.offset + 1), step.page_rows or page_size)[:PAGES_AT_ONCE])


def sequences(page_size: int) -> int:
    """Return how many sequences one call needs: one for each record that it may fill."""
    return -(-page_size // ITEMS_A_RECORD)


def pages(step: SweepStep, reads: Sequence[tuple[Read, PageOf]], at: datetime) -> list[Page]:
    """Return the records of what a step's calls brought, in the order of their sequences."""
    made: list[Page] = []
    for read, page in reads:
        for part in range(0, max(len(page.items), 1), ITEMS_A_RECORD):
            items = tuple(item_of(found.snapshot) for found in page.items[part : part + ITEMS_A_RECORD])
            made.append(
                Page(
                    org=step.org,
                    connection=step.connection,
                    kind=step.stage,
                    seq=read.seq + part // ITEMS_A_RECORD,
                    fetched_at=at,
                    sweep=step.sweep,
                    number=step.page + len(made),
                    items=items,
                )
            )
    return made


def after(
    step: SweepStep, reads: Sequence[tuple[Read, PageOf]], made: Sequence[Page], at: datetime
) -> SweepStep | SweepEnd:
    """Return what follows a step: more of its stage, its stage once more, the next stage, or the end.

    The next offset follows from the rows that came. A stage ends when as many were read as the PMS counts, or by an
    empty page. If its list shrank meanwhile, rows may have moved to a page that was already read: the stage is begun
    again, at most `AGAIN` times. After that the sweep is complete but torn, and what it missed is not fetched.
    """
    found = _look(step, reads)
    page, entities = step.page + len(made), step.entities + found.offset - step.offset
    if not found.ended:
        update = {"offset": found.offset, "page": page, "entities": entities}
        return step.model_copy(update=update | {"total": found.total, "page_rows": found.page_rows})
    if not found.whole and step.again < AGAIN:
        begun = {"offset": 0, "page": 0, "total": None, "page_rows": 0, "again": step.again + 1}
        return step.model_copy(update=begun | {"entities": step.entities - step.offset})
    ended = step.model_copy(update={"page": page, "entities": entities, "torn": step.torn or not found.whole})
    return _next_stage(ended, at)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the calls of a step say about its stage."""

    offset: int
    """How many rows were read without a gap."""
    total: int | None
    page_rows: int
    shrank: bool
    empty: bool

    @property
    def ended(self) -> bool:
        return self.empty or (self.total is not None and self.offset >= self.total)

    @property
    def whole(self) -> bool:
        return not self.shrank and (self.total is None or self.offset == self.total)


def _look(step: SweepStep, reads: Sequence[tuple[Read, PageOf]]) -> _Look:
    offset, total, page_rows = step.offset, step.total, step.page_rows
    shrank = empty = False
    for read, page in reads:
        if page.total is not None:
            shrank = shrank or (total is not None and page.total < total)
            total = page.total
        if read.offset != offset or empty:
            continue  # a page before it was shorter than expected: it is read again, without a gap
        offset += page.rows
        page_rows = max(page_rows, page.rows)
        empty = page.rows == 0
    return _Look(offset, total, page_rows, shrank, empty)


OPTIONAL_STAGES = (EntityKind.LISTING,)
"""Kinds without which a rent roll can be kept: a sweep goes on if the credentials may not read them."""


def without(step: SweepStep, at: datetime) -> SweepStep | SweepEnd:
    """Return what follows a step whose kind of entity the credentials may not read: the sweep leaves it out.

    What is known of this kind stays as it is: that nothing was read proves nothing.
    """
    return _next_stage(step.model_copy(update={"denied": (*step.denied, step.stage)}), at)


def _next_stage(step: SweepStep, at: datetime) -> SweepStep | SweepEnd:
    """Return the first step of the stage after that of ``step``, of which ``page`` pages were written; or the end."""
    done = (*step.pages, step.page)
    following = STAGES.index(step.stage) + 1
    if following < len(STAGES):
        update = {"stage": STAGES[following], "offset": 0, "page": 0, "total": None, "pages": done}
        return step.model_copy(update=update | {"page_rows": 0, "again": 0})
    return SweepEnd(
        org=step.org,
        connection=step.connection,
        sweep=step.sweep,
        seq=step.seq,
        started_at=step.started_at,
        ended_at=at,
        pages=done,
        entities=step.entities,
        torn=step.torn,
        denied=step.denied,
        confirms_removals=step.confirms_removals,
    )


def progress(step: SweepStep, at: datetime, failed: str | None = None) -> SyncProgress:
    """Return how far a sweep is, for those who wait for it; ``failed`` is the reason if it ends here."""
    return SyncProgress(
        org=step.org,
        name=step.connection,
        sweep=step.sweep,
        started_at=step.started_at,
        at=at,
        stage=step.stage,
        number=STAGES.index(step.stage) + 1,
        stages=len(STAGES),
        read=step.offset,
        total=step.total,
        failed=failed,
        denied=step.denied,
    )


class Admission(Enum):
    """Whether a step of a sweep is to be made."""

    YES = "yes"
    REPEATED = "repeated"
    """It was made, and what follows it is written."""
    BUSY = "busy"
    """It begins a sweep while another one is running."""


_Position = tuple[int, int, int]
"""How far a sweep is: stage, how often that was begun again, offset."""


@dataclass(frozen=True, slots=True)
class _Sweep:
    """The sweep of a connection that this process saw last."""

    id: str
    at: datetime
    """When it was seen."""
    reached: _Position = (-1, 0, 0)
    """The last step that was made."""
    completed: bool = False


class Running:
    """Which sweep of a connection is running, and how far: no second one begins beside it, and no step is made twice.

    After a crash a step comes twice, and so does what follows it; both would lead to a chain of steps to the end. What
    is known here is lost with the process, and has to be forgotten with the ownership of an org: by then a step that
    was made may have led to nothing.
    """

    def __init__(self, patience: timedelta = timedelta(minutes=2)) -> None:
        self._patience = patience
        self._sweeps: dict[tuple[str, str], _Sweep] = {}

    def admits(self, step: SweepStep, now: datetime) -> Admission:
        """Return whether to make a step; the first step of another sweep has to wait until the running one ends."""
        key = (step.org, step.connection)
        known = self._sweeps.get(key)
        if known is not None and known.id == step.sweep:
            if known.completed or _position(step) <= known.reached:
                return Admission.REPEATED
            self._sweeps[key] = replace(known, at=now)
            return Admission.YES
        begins = step.stage is STAGES[0] and step.offset == 0
        if begins and known is not None and not known.completed and now - known.at < self._patience:
            return Admission.BUSY
        self._sweeps[key] = _Sweep(step.sweep, now)
        return Admission.YES

    def made(self, step: SweepStep) -> None:
        """Note that a step was made; one that is tried again was not."""
        self._note(step, reached=_position(step))

    def completed(self, step: SweepStep) -> None:
        """Note that a sweep was read to its end: another one may begin."""
        self._note(step, completed=True)

    def ended(self, org: str, connection: str) -> None:
        """Let another sweep of the connection begin, or this one again, because it failed."""
        self._sweeps.pop((org, connection), None)

    def forget(self, lost: Callable[[str], bool]) -> None:
        """Forget the orgs that are ``lost``, or owned again."""
        self._sweeps = {key: one for key, one in self._sweeps.items() if not lost(key[0])}

    def _note(self, step: SweepStep, **facts: Any) -> None:
        key = (step.org, step.connection)
        known = self._sweeps.get(key)
        if known is not None and known.id == step.sweep:
            self._sweeps[key] = replace(known, **facts)


def _position(step: SweepStep) -> _Position:
    return STAGES.index(step.stage), step.again, step.offset
