"""The contract suite of `PropertySource`, over a real HTTP server.

The tests of a connector inherit `SourceSuite` and implement the fixture ``account``.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from connectors.ports import (
    Failure,
    Fetched,
    Found,
    Gone,
    Missing,
    PageOf,
    Priority,
    PropertySource,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from schemas.base import EntityKind
from schemas.pms import STAGES
from schemas.rent_roll import LeaseSnapshot, LeaseStatus, ListingSnapshot, PropertySnapshot, UnitSnapshot

SNAPSHOTS = {
    EntityKind.PROPERTY: PropertySnapshot,
    EntityKind.UNIT: UnitSnapshot,
    EntityKind.LEASE: LeaseSnapshot,
    EntityKind.LISTING: ListingSnapshot,
}


@dataclass
class Account:
    """An account of the PMS with entities of every kind, and functions that inject faults."""

    source: PropertySource
    some: Mapping[EntityKind, int]
    """An existing id of each kind; the tenant has leases, and the id of the listing is that of a listed unit."""
    ids: Mapping[EntityKind, list[int]]
    """The ids that a complete sweep returns, by stage."""
    unlisted_unit: int
    absent: int
    fail: Callable[[int, int, str | None], None]
    """Let a number of answers have a status and a Retry-After."""
    answer_with: Callable[[bytes], None]
    """Let the next answer be 200 with a body."""
    attempts: int
    """The number of attempts of a call."""
    at_wrong_url: PropertySource
    """The same account with a wrong path in the URL."""
    unauthorized: PropertySource
    """The same account with a wrong key."""
    unreachable: PropertySource
    """A URL without a server."""


def _property_of(found: Found) -> int | None:
    return found.snapshot.id if isinstance(found.snapshot, PropertySnapshot) else found.snapshot.property_id


class SourceSuite:
    """The contract of `PropertySource`."""

    @pytest.fixture
    async def account(self) -> AsyncIterator[Account]:
        raise NotImplementedError
        yield  # noqa: PT022 - the fixture of the subclass cleans up

    @pytest.mark.parametrize("kind", SNAPSHOTS)
    async def test_an_entity_is_returned_as_a_snapshot_of_its_kind(self, account: Account, kind: EntityKind) -> None:
        fetched = await account.source.fetch(kind, account.some[kind])

        assert isinstance(fetched, Fetched), fetched
        (found,) = fetched.items
        assert isinstance(found, Found)
        assert (found.kind, found.id) == (kind, account.some[kind])
        assert type(found.snapshot) is SNAPSHOTS[kind]

    @pytest.mark.parametrize("kind", SNAPSHOTS)
    async def test_an_entity_that_does_not_exist_is_gone(self, account: Account, kind: EntityKind) -> None:
        assert await account.source.fetch(kind, account.absent) == Fetched((Gone(kind, account.absent),))

    async def test_a_unit_that_is_not_listed_has_a_listing_that_is_gone(self, account: Account) -> None:
        gone = Gone(EntityKind.LISTING, account.unlisted_unit)

        assert await account.source.fetch(EntityKind.LISTING, account.unlisted_unit) == Fetched((gone,))

    async def test_a_tenant_is_fetched_as_its_leases(self, account: Account) -> None:
        fetched = await account.source.fetch(EntityKind.TENANT, account.some[EntityKind.TENANT])

        assert isinstance(fetched, Fetched)
        assert fetched.items
        assert all(isinstance(item, Found) and isinstance(item.snapshot, LeaseSnapshot) for item in fetched.items)

    async def test_a_tenant_that_does_not_exist_has_no_leases(self, account: Account) -> None:
        assert await account.source.fetch(EntityKind.TENANT, account.absent) == Fetched(())

    @pytest.mark.parametrize("kind", STAGES)
    async def test_pages_contain_every_entity_once_in_order(self, account: Account, kind: EntityKind) -> None:
        found: list[int] = []
        offset = 0
        while True:
            page = await account.source.page(kind, offset)
            assert isinstance(page, PageOf), page
            assert page.total == len(account.ids[kind])
            assert page.rows <= account.source.page_size
            assert all(type(item.snapshot) is SNAPSHOTS[kind] for item in page.items)
            found += [item.id for item in page.items]
            offset += page.rows
            if offset >= page.total or page.rows == 0:
                break

        assert found == account.ids[kind]

    async def test_a_page_after_the_end_is_empty(self, account: Account) -> None:
        page = await account.source.page(EntityKind.UNIT, 1_000_000)

        assert isinstance(page, PageOf)
        assert (page.items, page.rows, page.total) == ((), 0, len(account.ids[EntityKind.UNIT]))

    @pytest.mark.parametrize("kind", [EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE])
    async def test_what_was_updated_since_a_time_of_the_systems_clock_is_returned(
        self, account: Account, kind: EntityKind
    ) -> None:
        """All of it since long ago, past leases included, and nothing since the future."""
        page = await account.source.page(kind, 0)
        assert isinstance(page, PageOf)
        assert page.at is not None
        everything = await account.source.changed(kind, page.at - timedelta(days=36_500), 0)
        nothing = await account.source.changed(kind, page.at + timedelta(days=1), 0)

        assert isinstance(everything, PageOf)
        assert {item.id for item in everything.items} >= {item.id for item in page.items}
        assert all(type(item.snapshot) is SNAPSHOTS[kind] for item in everything.items)
        assert (everything.rows > page.rows) is (kind is EntityKind.LEASE)
        assert isinstance(nothing, PageOf)
        assert (nothing.items, nothing.rows, nothing.total) == ((), 0, 0)

    @pytest.mark.parametrize("kind", [EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING])
    async def test_the_entities_of_a_property_are_those_of_the_whole_list(
        self, account: Account, kind: EntityKind
    ) -> None:
        """Of leases those that are not past."""
        page = await account.source.page(kind, 0)
        assert isinstance(page, PageOf)
        number = _property_of(page.items[0])
        assert number is not None
        found = await account.source.all_of(kind, number)
        none = await account.source.all_of(kind, account.absent)

        assert isinstance(found, Fetched)
        assert {item.id for item in found.items} == {one.id for one in page.items if _property_of(one) == number}
        assert none == Fetched(())

    async def test_a_kind_without_such_a_list_is_rejected(self, account: Account) -> None:
        assert isinstance(await account.source.changed(EntityKind.LISTING, datetime.now(UTC), 0), Rejected)
        assert isinstance(await account.source.all_of(EntityKind.PROPERTY, account.absent), Rejected)

    async def test_lists_contain_no_past_lease(self, account: Account) -> None:
        page = await account.source.page(EntityKind.LEASE, 0)

        assert isinstance(page, PageOf)
        assert all(
            isinstance(item.snapshot, LeaseSnapshot) and item.snapshot.status is not LeaseStatus.PAST
            for item in page.items
        )

    async def test_a_fetched_entity_equals_that_of_a_page(self, account: Account) -> None:
        for kind in STAGES:
            page = await account.source.page(kind, 0)
            one = await account.source.fetch(kind, account.some[kind])

            assert isinstance(page, PageOf)
            assert isinstance(one, Fetched)
            assert one.items[0] in page.items

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, Rejected),
            (401, Unauthorized),
            (403, Unauthorized),
            (422, Rejected),
            (429, Throttled),
            (503, Unavailable),
        ],
    )
    async def test_a_failure_is_returned_and_not_raised(
        self, account: Account, status: int, kind: type[Failure]
    ) -> None:
        for call in (
            lambda: account.source.fetch(EntityKind.UNIT, account.some[EntityKind.UNIT]),
            lambda: account.source.fetch(EntityKind.TENANT, account.some[EntityKind.TENANT]),
            lambda: account.source.page(EntityKind.UNIT, 0),
        ):
            account.fail(status, account.attempts if kind in {Throttled, Unavailable} else 1, None)
            answer = await call()

            assert type(answer) is kind
            assert answer.status == status
            assert answer.detail

    async def test_a_transient_failure_is_retried(self, account: Account) -> None:
        account.fail(503, account.attempts - 1, None)

        assert isinstance(await account.source.fetch(EntityKind.UNIT, account.some[EntityKind.UNIT]), Fetched)

    async def test_retry_after_is_returned(self, account: Account) -> None:
        account.fail(429, 1, "120")
        answer = await account.source.page(EntityKind.UNIT, 0)

        assert isinstance(answer, Throttled)
        assert answer.retry_after == 120.0

    @pytest.mark.parametrize(
        "body",
        [b"", b"<html>", b"null", b"7", b'"x"', b"{}", b"[]", b"[1,null]", b"\xff\xfe", b"[" * 100_000, b'{"Id":'],
    )
    async def test_no_response_body_raises(self, account: Account, body: bytes) -> None:
        for kind in (*STAGES, EntityKind.TENANT):
            account.answer_with(body)
            answer = await account.source.fetch(kind, account.some[kind])
            assert isinstance(answer, (Unavailable, Rejected, Fetched))
        for kind in STAGES:
            account.answer_with(body)
            page = await account.source.page(kind, 0)
            assert isinstance(page, (Unavailable, Rejected)) or (isinstance(page, PageOf) and page.items == ())

    async def test_a_wrong_url_removes_nothing(self, account: Account) -> None:
        for kind in (*STAGES, EntityKind.TENANT):
            assert isinstance(await account.at_wrong_url.fetch(kind, account.some[kind]), Missing)
        assert isinstance(await account.at_wrong_url.page(EntityKind.UNIT, 0), Missing)

    async def test_a_wrong_key_is_unauthorized(self, account: Account) -> None:
        assert isinstance(await account.unauthorized.fetch(EntityKind.UNIT, 1), Unauthorized)
        assert isinstance(await account.unauthorized.page(EntityKind.UNIT, 0), Unauthorized)

    async def test_an_unreachable_server_is_unavailable(self, account: Account) -> None:
        assert isinstance(await account.unreachable.fetch(EntityKind.UNIT, 1), Unavailable)

    async def test_a_kind_that_cannot_be_read_is_rejected(self, account: Account) -> None:
        assert isinstance(await account.source.fetch(EntityKind.UNKNOWN, 1), Rejected)
        assert isinstance(await account.source.page(EntityKind.UNKNOWN, 0), Rejected)
        assert isinstance(await account.source.page(EntityKind.TENANT, 0), Rejected)

    async def test_every_priority_is_admitted(self, account: Account) -> None:
        for priority in Priority:
            assert isinstance(await account.source.page(EntityKind.UNIT, 0, priority), PageOf)
