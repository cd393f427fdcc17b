"""Tests of Buildium as a `PropertyGateway`, against the stand-in on a real server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from connectors.buildium.gateway import BuildiumGateway
from connectors.buildium.source import BuildiumSource
from connectors.buildium.standin import BuildiumStandIn, seed_portfolio
from connectors.clock import SystemClock
from connectors.ports import Halfway, Invalid, Pushed, Rejected, Throttled, Unauthorized, Unavailable, Undecided
from connectors.serving import running
from schemas.commands import OwnerBody, Phone, PostalAddress, PropertyBody, Push, SyncEntity, UnitBody
from tests.connectors.buildium.test_source import source_at

HOME = PostalAddress(line1="123 Test St", city="Test City", state="CA", postal_code="90210", country="US")
PROPERTY = PropertyBody(name="Test Property", address=HOME, sub_type="Office")
OWNER = OwnerBody(first_name="Ada", last_name="Lee", email="ada@example.com", address=HOME, properties=("1001",))


@dataclass
class Setup:
    """A stand-in on a server, and a gateway to it."""

    standin: BuildiumStandIn
    source: BuildiumSource

    async def push(self, content: PropertyBody | OwnerBody, *, bank_account: int | None = None, **more: Any) -> Any:
        is_property = isinstance(content, PropertyBody)
        push = Push(
            org="o",
            connection="c",
            operation="op",
            entity=SyncEntity.PROPERTY if is_property else SyncEntity.OWNER,
            id="ours",
            version=1,
            attempt=1,
            property=content if isinstance(content, PropertyBody) else None,
            owner=content if isinstance(content, OwnerBody) else None,
            **{"since": datetime.now(UTC), "property_ids": () if is_property else (1001,)} | more,
        )
        return await BuildiumGateway(self.source.calls, bank_account).push(push)

    @property
    def properties(self) -> list[str]:
        return [one.name for one in self.standin.portfolio.properties.values()]

    def units_of(self, number: int) -> list[str]:
        return [one.number for one in self.standin.portfolio.units.values() if one.property_id == number]


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    standin = BuildiumStandIn(seed_portfolio(SystemClock()))
    async with running(standin) as url:
        source = source_at(url + "/v1", BUILDIUM_TIMEOUT="1000")
        yield Setup(standin, source)
        await source.aclose()


async def test_a_property_is_created_with_the_only_bank_account(setup: Setup) -> None:
    pushed = await setup.push(PROPERTY)
    assert isinstance(pushed, Pushed), pushed
    created = setup.standin.portfolio.properties[pushed.pms_id]
    assert (created.name, created.sub_type, created.address.country) == ("Test Property", "Office", "UnitedStates")
    assert setup.standin.portfolio.details[pushed.pms_id]["OperatingBankAccountId"] == 10_407


async def test_every_field_is_written(setup: Setup) -> None:
    full = PropertyBody(
        name="Full",
        address=HOME,
        sub_type="MultiFamily",
        structure="brick",
        year_built=1990,
        reserve=Decimal("500.50"),
        bank_account=10_407,
        units=(
            UnitBody(
                number="1", size=700, market_rent=Decimal("1500.25"), bedrooms=Decimal(2), bathrooms=Decimal("1.5")
            ),
            UnitBody(number="2", bedrooms=Decimal(12), bathrooms=Decimal(7), description="large"),
        ),
    )
    pushed = await setup.push(full, owner_ids=(501,))
    details = setup.standin.portfolio.details[pushed.pms_id]
    assert (details["StructureDescription"], details["Reserve"]) == ("brick", 500.5)
    one, two = [unit for unit in setup.standin.portfolio.units.values() if unit.property_id == pushed.pms_id]
    assert (one.market_rent, one.bedrooms, one.bathrooms, one.size) == (
        Decimal("1500.25"), "TwoBed", "OnePointFiveBath", 700,
    )  # fmt: skip
    assert (two.bedrooms, two.bathrooms, two.description) == ("NineBedPlus", "FivePlusBath", "large")
    assert pushed.pms_id in setup.standin.portfolio.owners[501].property_ids


async def test_an_inactive_property_is_inactivated_after_its_creation(setup: Setup) -> None:
    inactive = PropertyBody(name="Old", address=HOME, sub_type="Office", is_active=False)
    pushed = await setup.push(inactive)
    assert setup.standin.portfolio.properties[pushed.pms_id].is_active is False


@pytest.mark.parametrize(("accounts", "words"), [([], "has none"), ([1, 2], "has 2 of them")])
async def test_without_a_bank_account_the_error_says_what_to_do(setup: Setup, accounts: list[int], words: str) -> None:
    setup.standin.portfolio.bank_accounts = accounts
    answer = await setup.push(PROPERTY)
    assert isinstance(answer, Invalid)
    assert words in answer.detail
    assert "set it for the connection" in answer.detail
    assert [pointer for pointer, _ in answer.fields] == ["/operatingBankAccountId"]


async def test_the_bank_account_of_the_connection_is_taken(setup: Setup) -> None:
    setup.standin.portfolio.bank_accounts = [7, 8]
    pushed = await setup.push(PROPERTY, bank_account=8)
    assert setup.standin.portfolio.details[pushed.pms_id]["OperatingBankAccountId"] == 8


async def test_what_an_attempt_whose_answer_was_lost_has_created_is_found(setup: Setup) -> None:
    """The server creates the property and answers too late, as after a crash of ours."""
    since = datetime.now(UTC)
    first = await setup.push(PROPERTY, since=since)
    again = await setup.push(PROPERTY, since=since)
    assert again == Pushed(first.pms_id, found=True)
    assert setup.properties.count("Test Property") == 1


async def test_a_property_that_was_there_before_is_not_taken_for_the_new_one(setup: Setup) -> None:
    await setup.push(PROPERTY)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert isinstance(await setup.push(PROPERTY, since=later), Pushed)
    assert setup.properties.count("Test Property") == 2


async def test_of_several_candidates_a_person_has_to_choose(setup: Setup) -> None:
    since = datetime.now(UTC)
    await setup.push(PROPERTY, since=since + timedelta(hours=1))
    await setup.push(PROPERTY, since=since + timedelta(hours=1))
    answer = await setup.push(PROPERTY, since=since)
    assert isinstance(answer, Undecided)
    assert "nothing was created" in answer.detail
    assert setup.properties.count("Test Property") == 2


async def test_more_than_a_hundred_units_are_created_one_by_one(setup: Setup) -> None:
    units = tuple(UnitBody(number=str(number)) for number in range(103))
    pushed = await setup.push(PropertyBody(name="Tower", address=HOME, sub_type="MultiFamily", units=units))
    assert setup.units_of(pushed.pms_id) == [one.number for one in units]


async def test_a_creation_that_stopped_halfway_is_continued(setup: Setup) -> None:
    since = datetime.now(UTC)
    tower = PropertyBody(
        name="Tower",
        address=HOME,
        sub_type="MultiFamily",
        is_active=False,
        units=tuple(UnitBody(number=str(number)) for number in range(103)),
    )
    setup.standin.fail(500, path="/v1/rentals/units", times=3)  # the list, with all of its retries
    halfway = await setup.push(tower, since=since)
    assert isinstance(halfway, Halfway)
    assert isinstance(halfway.why, Unavailable)
    assert len(setup.units_of(halfway.pms_id)) == 100
    assert await setup.push(tower, since=since, pms_id=halfway.pms_id) == Pushed(halfway.pms_id)
    assert len(setup.units_of(halfway.pms_id)) == 103
    assert setup.standin.portfolio.properties[halfway.pms_id].is_active is False


async def test_a_change_keeps_what_the_command_does_not_name(setup: Setup) -> None:
    created = await setup.push(
        PropertyBody(name="A", address=HOME, sub_type="Office", structure="brick", year_built=1990)
    )
    number = created.pms_id
    assert await setup.push(PropertyBody(name="B", address=HOME, sub_type="Retail"), pms_id=number) == Pushed(number)
    changed = setup.standin.portfolio.properties[number]
    assert (changed.name, changed.sub_type, changed.year_built) == ("B", "Retail", 1990)
    assert setup.standin.portfolio.details[number]["StructureDescription"] == "brick"


async def test_a_property_that_is_gone_cannot_be_changed(setup: Setup) -> None:
    answer = await setup.push(PROPERTY, pms_id=4711)
    assert answer == Invalid("Buildium has no property 4711 (any more)")


async def test_errors_name_our_fields(setup: Setup) -> None:
    wrong = PropertyBody(
        name="x" * 128,
        address=PostalAddress(line1="1", postal_code="1", state="XX", country="United States"),
        sub_type="Office",
        units=(UnitBody(number="1"), UnitBody(number="1")),
    )
    answer = await setup.push(wrong)
    assert isinstance(answer, Invalid)
    pointers = {pointer for pointer, _ in answer.fields}
    assert {"/name", "/state", "/units/1/number"} <= pointers
    assert answer.detail.startswith("Buildium answered 422")


async def test_an_owner_is_created_and_changed(setup: Setup) -> None:
    pushed = await setup.push(OWNER)
    assert setup.standin.portfolio.owners[pushed.pms_id].property_ids == (1001,)
    phones = (Phone(kind="mobile", number="403-555-0123"),)
    company = OwnerBody(company_name="Lee Ltd.", phones=phones, address=HOME)
    assert await setup.push(company, pms_id=pushed.pms_id, property_ids=(1002,)) == Pushed(pushed.pms_id)
    changed = setup.standin.portfolio.owners[pushed.pms_id]
    assert (changed.company_name, changed.email, changed.property_ids) == ("Lee Ltd.", "ada@example.com", (1002,))


async def test_an_owner_is_not_created_twice(setup: Setup) -> None:
    since = datetime.now(UTC)
    first = await setup.push(OWNER, since=since)
    assert await setup.push(OWNER, since=since) == Pushed(first.pms_id, found=True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (403, Unauthorized),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
        (418, Rejected),
    ],
)
async def test_a_write_that_fails_is_made_once(setup: Setup, status: int, kind: type[object]) -> None:
    """Whether it is made again is decided after a look at what it may have left behind."""
    await setup.push(PROPERTY)
    before = len(setup.standin.calls)
    setup.standin.fail(status, path="/v1/rentals/1001/inactivationrequest", times=5)
    inactive = PropertyBody(name="Beltline Lofts", address=HOME, sub_type="MultiFamily", is_active=False)
    answer = await setup.push(inactive, pms_id=1001)
    assert isinstance(answer, kind), answer
    written = [call.path for call in list(setup.standin.calls)[before:] if call.method == "POST"]
    assert written == ["/v1/rentals/1001/inactivationrequest"]


async def test_an_answer_without_an_id_is_no_success(setup: Setup) -> None:
    setup.standin.fail(200, path="/v1/rentals/owners", body=b"[]")
    setup.standin.fail(201, path="/v1/rentals/owners", body=b"{}")
    assert isinstance(await setup.push(OWNER), Unavailable)


async def test_a_command_without_content_is_refused(setup: Setup) -> None:
    push = Push(
        org="o", connection="c", operation="op", entity=SyncEntity.PROPERTY, id="x", version=1, attempt=1,
        since=datetime.now(UTC),
    )  # fmt: skip
    assert isinstance(await BuildiumGateway(setup.source.calls).push(push), Invalid)
