"""The book of replays: whatever order compaction leaves the records in."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.replay import ReplayOrder, ReplayProgress, ReplayWish
from streams.core.replays import ReplayState
from streams.replays.book import ReplayBook
from tests.streams.core.test_replays import order, planned, progress

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOPIC = topics.REPLAY_STATES


def apply(book: ReplayBook, *records: Model) -> None:
    for one in records:
        book.apply(TOPIC.name, TOPIC.key_of(one), encode(one))


def test_a_replay_is_whole_in_any_order_of_its_records() -> None:
    records = (planned((1, 2, 3)), order(ReplayWish.RUN), progress(2, replayed=2))
    for some in itertools.permutations(records):
        book = ReplayBook()
        apply(book, *some)
        found = book.get("o", "r1")
        assert found is not None
        assert (found.state, found.position, found.plan.replayed) == (ReplayState.RUNNING, 2, 3)
        assert [one.plan.id for one in book.running("o")] == ["r1"]
        assert book.orgs() == ("o",)


def test_orgs_do_not_see_each_other() -> None:
    book = ReplayBook()
    apply(book, planned((1,)))
    assert book.get("p", "r1") is None
    assert book.of("p") == book.running("p") == []


def test_the_newest_plan_is_first() -> None:
    book = ReplayBook()
    apply(book, planned((1,)), planned((1,)).model_copy(update={"id": "r2", "at": NOW + timedelta(hours=1)}))
    assert [one.plan.id for one in book.of("o")] == ["r2", "r1"]


def test_a_tombstone_deletes_what_its_key_names() -> None:
    book = ReplayBook()
    apply(book, planned((1,)), order(ReplayWish.RUN), progress(1))
    book.apply(TOPIC.name, b"o/r1/progress", None)
    found = book.get("o", "r1")
    assert found is not None
    assert found.progress is None
    book.apply(TOPIC.name, b"o/r1/order", None)
    assert [one.state for one in book.of("o")] == [ReplayState.PLANNED]
    book.apply(TOPIC.name, b"o/r1/plan", None)
    assert book.of("o") == []
    book.apply(TOPIC.name, b"\xff", None)
    book.apply(TOPIC.name, None, None)


def test_what_cannot_be_read_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    book = ReplayBook()
    apply(book, planned((1,)))
    book.apply(TOPIC.name, b"o/r1/plan", b"\x00poison")
    assert book.get("o", "r1") is not None
    assert "is skipped" in caplog.text


def test_the_last_change_is_that_of_any_record() -> None:
    book = ReplayBook()
    later = NOW + timedelta(minutes=1)
    apply(book, planned((1,)))
    changes: list[Model] = [
        ReplayOrder(org="o", id="r1", wish=ReplayWish.RUN, at=later, by="ann"),
        ReplayProgress(org="o", id="r1", at=later + timedelta(minutes=1), began_at=later, position=0),
    ]
    for one in changes:
        apply(book, one)
        found = book.get("o", "r1")
        assert found is not None
        assert found.changed_at == getattr(one, "at")  # noqa: B009 -- of two classes
