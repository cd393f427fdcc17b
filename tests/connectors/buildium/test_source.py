"""Tests of Buildium as a `PropertySource`: the suite of the port, and the behaviour specific to Buildium."""

import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from connectors.budget import Budget, Limits
from connectors.buildium.calls import user_message
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.source import BuildiumSource
from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, BuildiumStandIn, RateLimit, bulk_portfolio, seed_portfolio
from connectors.clock import SystemClock
from connectors.ports import (
    Fetched,
    Found,
    Gone,
    Missing,
    PageOf,
    Priority,
    Rejected,
    Throttled,
    Unavailable,
)
from connectors.serving import running
from schemas.base import EntityKind
from schemas.pms import STAGES
from schemas.rent_roll import LeaseSnapshot, LeaseStatus, UnitSnapshot
from tests.connectors.source_suite import Account, SourceSuite

UNIT, LEASE, TENANT, LISTING = EntityKind.UNIT, EntityKind.LEASE, EntityKind.TENANT, EntityKind.LISTING
FREE = Limits(in_flight=100, starts=10_000)


def source_at(url: str, limits: Limits = FREE, **env: str) -> BuildiumSource:
    clock = SystemClock()
    given = {
        "BUILDIUM_BASE_URL": url,
        "RENTSTREAM_ALLOW_PRIVATE": "1",
        "BUILDIUM_CLIENT_ID": DEMO_ID,
        "BUILDIUM_CLIENT_SECRET": DEMO_SECRET,
        "BUILDIUM_RETRY_DELAY": "1",
        **env,
    }
    settings = BuildiumSettings.read(given)
    return BuildiumSource.open(settings, clock, budget=Budget(clock, limits), random=random.Random(1))


@dataclass
class Setup:
    """A stand-in on a server, and a source that reads from it."""

    standin: BuildiumStandIn
    source: BuildiumSource
    url: str


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    standin = BuildiumStandIn(seed_portfolio(SystemClock()))
    async with running(standin) as url:
        source = source_at(url + "/v1")
        yield Setup(standin, source, url)
        await source.aclose()


class TestBuildiumSource(SourceSuite):
    @pytest.fixture
    async def account(self, setup: Setup) -> AsyncIterator[Account]:
        standin, portfolio = setup.standin, setup.standin.portfolio
        lease = portfolio.ids(LEASE)[0]
        portfolio.end_lease(portfolio.ids(LEASE)[1])
        portfolio.sign_lease(
            portfolio.ids(UNIT)[0], portfolio.today() + timedelta(days=400), tenants=[portfolio.ids(TENANT)[0]]
        )

        def fail(status: int, times: int, retry_after: str | None) -> None:
            standin.fail(status, times=times, retry_after=retry_after)

        others = [
            source_at(setup.url + "/v2"),
            source_at(setup.url + "/v1", BUILDIUM_CLIENT_SECRET="wrong"),
            source_at("http://127.0.0.1:9/v1"),
        ]
        yield Account(
            source=setup.source,
            some={
                EntityKind.PROPERTY: portfolio.ids(EntityKind.PROPERTY)[0],
                UNIT: portfolio.ids(UNIT)[0],
                LEASE: lease,
                TENANT: portfolio.leases[lease].occupants[0].tenant_id,
                LISTING: portfolio.ids(LISTING)[0],
            },
            ids={
                EntityKind.PROPERTY: list(portfolio.ids(EntityKind.PROPERTY)),
                UNIT: list(portfolio.ids(UNIT)),
                LEASE: list(portfolio.live_leases()),
                LISTING: list(portfolio.ids(LISTING)),
            },
            unlisted_unit=next(unit for unit in portfolio.ids(UNIT) if unit not in portfolio.listings),
            absent=424_242,
            fail=fail,
            answer_with=lambda body: standin.fail(body=body),
            attempts=3,
            at_wrong_url=others[0],
            unauthorized=others[1],
            unreachable=others[2],
        )
        for other in others:
            await other.aclose()


async def test_a_404_in_another_form_is_a_wrong_url(setup: Setup) -> None:
    assert isinstance(await setup.source.fetch(UNIT, 1), Fetched)
    for body in (b"Not Found", b'{"message":"no"}', b'{"UserMessage":"no"}', b'{"UserMessage":null,"Errors":[]}', b"["):
        setup.standin.fail(404, body=body)
        assert type(await setup.source.fetch(UNIT, 1)) is Missing


async def test_a_404_counts_only_after_the_url_has_proven_to_be_buildium(setup: Setup) -> None:
    setup.standin.fail(404, times=2, message="We do not know this path.")
    answer = await setup.source.fetch(UNIT, 1)
    assert isinstance(answer, Missing)

    assert await setup.source.fetch(UNIT, 1) == Fetched((Gone(UNIT, 1),))
    assert [call.path for call in setup.standin.calls][-2:] == ["/v1/rentals/units/1", "/v1/rentals"]


async def test_a_list_that_does_not_exist_is_missing(setup: Setup) -> None:
    await setup.source.probe()
    setup.standin.fail(404, message="Nothing here.")

    assert type(await setup.source.page(UNIT, 0)) is Missing


async def test_a_list_without_a_total_count_is_a_page_of_a_list_of_unknown_length(setup: Setup) -> None:
    """A proxy may have removed the header; a sweep then ends with an empty page."""
    setup.standin.fail(body=b'[{"Id":7,"PropertyId":1,"UnitNumber":"1"}]')
    page = await setup.source.page(UNIT, 0)

    assert isinstance(page, PageOf)
    assert (len(page.items), page.rows, page.total) == (1, 1, None)


async def test_a_total_count_that_is_no_number_is_unavailable(setup: Setup) -> None:
    setup.standin.total_count = "many"

    assert isinstance(await setup.source.page(UNIT, 0), Unavailable)


async def test_listings_have_another_sort_order_if_the_units_id_is_refused(setup: Setup) -> None:
    setup.standin.fail(400, message="The result has no property Unit.Id to sort by.")
    page = await setup.source.page(LISTING, 0)

    assert isinstance(page, PageOf)
    assert page.total == page.rows > 0
    await setup.source.page(LISTING, 0)
    assert ["Unit.Id" in call.query for call in setup.standin.calls] == [True, False, False]


async def test_a_listing_without_its_unit_belongs_to_the_requested_unit(setup: Setup) -> None:
    setup.standin.fail(body=b'{"Rent":900.5,"Unit":null}')
    fetched = await setup.source.fetch(LISTING, 77)

    assert isinstance(fetched, Fetched)
    assert fetched.items[0].id == 77


async def test_another_entity_than_the_requested_one_is_unavailable(setup: Setup) -> None:
    setup.standin.fail(body=b'{"Id":8,"PropertyId":1,"UnitNumber":"1"}')

    assert isinstance(await setup.source.fetch(UNIT, 7), Unavailable)


async def test_an_entity_without_its_ids_is_rejected(setup: Setup) -> None:
    setup.standin.fail(body=b'{"Id":7,"UnitNumber":"1"}')

    assert isinstance(await setup.source.fetch(UNIT, 7), Rejected)


async def test_rows_without_ids_are_left_out_of_a_page_but_counted(setup: Setup) -> None:
    unit = setup.standin.portfolio.ids(UNIT)[3]
    setup.standin.portfolio.edit_unit(unit, property_id=setup.standin.portfolio.units[unit].property_id, id=0)
    page = await setup.source.page(UNIT, 0)

    assert isinstance(page, PageOf)
    assert page.total == page.rows == len(page.items) + 1


async def test_an_incomplete_lease_of_a_tenant_is_fetched(setup: Setup) -> None:
    portfolio = setup.standin.portfolio
    lease = portfolio.ids(LEASE)[0]
    tenant = portfolio.leases[lease].occupants[0].tenant_id
    nested: dict[str, Any] = portfolio.json(LEASE, lease) | {"Tenants": None}
    body = str({"Id": tenant, "Leases": [nested]}).replace("'", '"')
    for python, json in (("None", "null"), ("True", "true"), ("False", "false")):
        body = body.replace(python, json)
    setup.standin.fail(body=body.encode())
    fetched = await setup.source.fetch(TENANT, tenant)

    assert isinstance(fetched, Fetched)
    (found,) = fetched.items
    assert isinstance(found, Found)
    assert isinstance(found.snapshot, LeaseSnapshot)
    assert found.snapshot.tenants
    assert setup.standin.calls[-1].path == f"/v1/leases/{lease}"


async def test_no_call_is_made_without_a_key() -> None:
    source = BuildiumSource.open(BuildiumSettings.read({}), SystemClock())

    answer = await source.fetch(UNIT, 1)
    assert not isinstance(answer, Fetched)
    assert "BUILDIUM_CLIENT_ID" in answer.detail
    await source.aclose()


async def test_a_shared_budget_stays_open_when_the_source_is_closed() -> None:
    clock = SystemClock()
    budget = Budget(clock)
    source = BuildiumSource.open(BuildiumSettings.read({}), clock, budget=budget)
    assert source.budget is budget
    await source.aclose()
    async with budget.slot(Priority.WEBHOOK):
        assert budget.in_flight == 1


async def test_the_probe_tests_url_and_key(setup: Setup) -> None:
    assert await setup.source.probe() is None
    setup.standin.fail(body=b"<html>Welcome</html>")
    assert isinstance(await setup.source.probe(), Missing)


async def test_the_request_id_is_logged_and_the_key_is_not(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await setup.source.fetch(UNIT, 1)
        setup.standin.fail(401)
        answer = await setup.source.fetch(UNIT, 1)

    assert "request id" in caplog.text
    assert DEMO_SECRET not in caplog.text + repr(answer) + repr(setup.source) + repr(vars(setup.source))


async def test_a_sweep_at_full_speed_is_never_throttled() -> None:
    standin = BuildiumStandIn(bulk_portfolio(SystemClock(), 2_500), limit=RateLimit())
    async with running(standin) as url:
        source = source_at(url + "/v1", Limits())
        seen: dict[EntityKind, int] = dict.fromkeys(STAGES, 0)
        for kind in STAGES:
            total = 1
            while seen[kind] < total:
                page = await source.page(kind, seen[kind])
                assert isinstance(page, PageOf), page
                assert page.total is not None
                seen[kind], total = seen[kind] + page.rows, page.total
        await source.aclose()

    assert seen == {EntityKind.PROPERTY: 25, UNIT: 2_500, LEASE: 2_375, LISTING: 125}
    assert standin.throttled == 0


async def test_a_429_is_retried(setup: Setup) -> None:
    setup.standin.fail(429, times=1)
    answer = await setup.source.fetch(UNIT, setup.standin.portfolio.ids(UNIT)[0])
    assert isinstance(answer, Fetched)

    setup.standin.fail(429, times=3)
    assert isinstance(await setup.source.fetch(UNIT, 1), Throttled)


async def test_a_call_that_hangs_times_out(setup: Setup) -> None:
    source = source_at(setup.url + "/v1", BUILDIUM_TIMEOUT="100", BUILDIUM_RETRY_ATTEMPTS="2")
    setup.standin.fail(times=2, seconds=0.3)

    assert isinstance(await source.fetch(UNIT, 1), Unavailable)
    await source.aclose()


async def test_flags_and_statuses_are_derived_from_dates(setup: Setup) -> None:
    portfolio = setup.standin.portfolio
    unit = next(unit for unit in portfolio.ids(UNIT) if not portfolio.leases_of.get(unit))
    today = portfolio.today()
    lease = portfolio.sign_lease(unit, today + timedelta(days=3))[0].ids["LeaseId"]

    async def look() -> tuple[LeaseStatus, bool | None]:
        of_lease, of_unit = await setup.source.fetch(LEASE, lease), await setup.source.fetch(UNIT, unit)
        assert isinstance(of_lease, Fetched)
        assert isinstance(of_unit, Fetched)
        one, two = of_lease.items[0], of_unit.items[0]
        assert isinstance(one, Found)
        assert isinstance(two, Found)
        assert isinstance(one.snapshot, LeaseSnapshot)
        assert isinstance(two.snapshot, UnitSnapshot)
        return one.snapshot.status, two.snapshot.is_occupied

    assert await look() == (LeaseStatus.FUTURE, False)
    portfolio.start_lease(lease)
    assert await look() == (LeaseStatus.ACTIVE, True)
    portfolio.give_notice(lease, None, today)
    assert await look() == (LeaseStatus.ACTIVE, True)
    portfolio.end_lease(lease)
    assert await look() == (LeaseStatus.PAST, False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"UserMessage":"No unit found.","ErrorCode":null,"Errors":[]}', "No unit found."),
        (
            b'{"UserMessage":"Bad  \\n data.","ErrorCode":null,"Errors":[{"Key":"Name","Value":"is too long"}]}',
            "Bad data. (Name: is too long)",
        ),
        (b'{"UserMessage":"x","Errors":null}', "x"),
        (b'{"UserMessage":"","Errors":[]}', None),
        (b'{"UserMessage":7,"Errors":[]}', None),
        (b'{"UserMessage":"x"}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_message_of_an_error_is_read(body: bytes, message: str | None) -> None:
    assert user_message(body) == message
