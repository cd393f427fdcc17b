"""Tests of what the broker's answers prove about a membership."""

from types import SimpleNamespace
from typing import Any

import pytest

from streams.backends.membership import GIVE_UP_WITHIN, NO_ERROR, REBALANCE_IN_PROGRESS, Api, Membership, error_of

SESSION, REBALANCE = 10.0, 60.0
UNKNOWN_MEMBER = 25


class Member:
    """A membership, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.membership = Membership(SESSION, REBALANCE, lambda: self.now)
        self.ends = 0
        self.membership.on_end(self._ended)

    def _ended(self) -> None:
        self.ends += 1

    def join(self) -> "Member":
        self.membership.sends(Api.JOIN_GROUP)
        self.membership.answered(Api.SYNC_GROUP, NO_ERROR, self.now)
        return self

    def beat(self, error: int = NO_ERROR, *, took: float = 0.0) -> None:
        sent_at = self.now
        self.now += took
        self.membership.answered(Api.HEARTBEAT, error, sent_at)

    def proven_for(self) -> float:
        """Return for how many seconds the ownership is proven if nothing more is answered."""
        now, seconds = self.now, 0.0
        while self.membership.proven and seconds < 1000:
            self.now += 0.5
            seconds += 0.5
        self.now = now
        return seconds


def test_nothing_is_owned_before_the_group_has_assigned_it() -> None:
    member = Member()
    member.beat()

    assert not member.membership.joined
    assert not member.membership.proven


def test_an_answer_proves_the_ownership_for_less_than_the_session() -> None:
    assert 8.0 < Member().join().proven_for() < SESSION


def test_the_time_counts_from_before_the_request() -> None:
    """The broker may have read it long before its answer arrived."""
    member = Member().join()
    member.beat(took=6.0)

    assert member.proven_for() < SESSION - 6.0


def test_heartbeats_prolong_the_proof() -> None:
    member = Member().join()
    for _ in range(100):
        member.now += 1
        member.beat()

    assert member.proven_for() > 8.0
    assert member.ends == 0


def test_an_answer_that_comes_out_of_order_shortens_nothing() -> None:
    member = Member().join()
    member.now += 5
    member.membership.answered(Api.HEARTBEAT, NO_ERROR, member.now - 4)
    member.membership.answered(Api.HEARTBEAT, NO_ERROR, member.now)
    member.membership.answered(Api.HEARTBEAT, NO_ERROR, member.now - 3)

    assert member.proven_for() > 8.0


def test_an_unproven_member_is_still_one_and_goes_on_when_it_is_answered() -> None:
    """The broker may have been down for all."""
    member = Member().join()
    member.now += 300
    assert (member.membership.joined, member.membership.proven, member.ends) == (True, False, 0)
    member.beat()

    assert member.membership.proven


def test_during_a_rebalance_heartbeats_prove_the_session_but_not_beyond_the_rebalance() -> None:
    member = Member().join()
    began = member.now
    while member.membership.proven:
        member.now += 1
        member.beat(REBALANCE_IN_PROGRESS)

    assert 50 < member.now - began < REBALANCE


@pytest.mark.parametrize("api", [Api.HEARTBEAT, Api.OFFSET_COMMIT])
@pytest.mark.parametrize("error", [22, 25, 82])
def test_a_member_that_the_group_removed_owns_nothing_at_once(api: Api, error: int) -> None:
    member = Member().join()
    member.membership.answered(api, error, member.now)

    assert (member.membership.joined, member.membership.proven, member.ends) == (False, False, 1)
    assert member.membership.generation == 1


def test_an_answer_from_before_the_removal_does_not_bring_it_back() -> None:
    member = Member().join()
    member.beat(UNKNOWN_MEMBER)
    member.beat()

    assert not member.membership.proven


@pytest.mark.parametrize("api", [Api.JOIN_GROUP, Api.LEAVE_GROUP])
def test_a_member_that_joins_again_or_leaves_owns_nothing_meanwhile(api: Api) -> None:
    member = Member().join()
    member.membership.sends(api)

    assert (member.membership.proven, member.ends) == (False, 1)
    assert member.join().membership.proven
    assert (member.membership.generation, member.ends) == (1, 1)


def test_a_failed_commit_of_another_kind_changes_nothing() -> None:
    member = Member().join()
    member.membership.answered(Api.OFFSET_COMMIT, REBALANCE_IN_PROGRESS, member.now)
    member.membership.answered(Api.OFFSET_COMMIT, 14, member.now)

    assert member.membership.proven


def test_work_that_goes_on_after_the_removal_is_overdue() -> None:
    member = Member().join()
    member.beat(UNKNOWN_MEMBER)
    member.now += GIVE_UP_WITHIN - 1
    assert member.membership.overdue() is None
    member.now += 2

    assert "removed this member" in (member.membership.overdue() or "")
    member.membership.sends(Api.JOIN_GROUP)
    assert member.membership.overdue() is None


def test_work_that_outlives_the_time_of_a_rebalance_is_overdue_before_its_end() -> None:
    member = Member().join()
    began = member.now
    while member.membership.overdue() is None:
        member.now += 1
        member.beat(REBALANCE_IN_PROGRESS)

    assert 50 < member.now - began < REBALANCE


def test_silence_alone_is_no_reason_to_end() -> None:
    member = Member().join()
    member.now += 3600

    assert member.membership.overdue() is None


def test_the_error_of_a_commit_is_the_first_of_its_partitions() -> None:
    partitions = [("t", [(0, 0), (1, 25)]), ("u", [(0, 27)])]

    assert error_of(SimpleNamespace(topics=partitions)) == UNKNOWN_MEMBER
    assert error_of(SimpleNamespace(topics=[("t", [(0, 0)])])) == NO_ERROR
    assert error_of(SimpleNamespace(error_code=27)) == REBALANCE_IN_PROGRESS


class Client:
    """A client of aiokafka that answers everything with an error of the test's."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.error = NO_ERROR
        self.takes = 0.0

    async def send(self, _node: int, _request: Any, **_options: Any) -> Any:
        self.member.now += self.takes
        return SimpleNamespace(error_code=self.error)


async def test_the_requests_of_a_client_are_followed() -> None:
    member = Member()
    client = Client(member)
    member.membership.watch(client)

    async def request(api: Api) -> None:
        await client.send(1, SimpleNamespace(API_KEY=int(api)), group=None)

    await request(Api.JOIN_GROUP)
    await request(Api.SYNC_GROUP)
    assert member.membership.proven
    client.takes = 20.0
    await request(Api.HEARTBEAT)
    assert not member.membership.proven
    client.takes, client.error = 0.0, UNKNOWN_MEMBER
    await request(Api.HEARTBEAT)
    assert not member.membership.joined


async def test_other_requests_are_none_of_its_business() -> None:
    member = Member().join()
    client = Client(member)
    client.error = UNKNOWN_MEMBER
    member.membership.watch(client)
    await client.send(1, SimpleNamespace(API_KEY=1))

    assert member.membership.proven
