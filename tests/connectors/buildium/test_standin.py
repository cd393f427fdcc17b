"""Tests of the stand-in: it answers and rejects requests like Buildium."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from connectors.buildium.standin import (
    DEMO_ID,
    DEMO_SECRET,
    Address,
    BuildiumStandIn,
    Events,
    Portfolio,
    RateLimit,
    bulk_portfolio,
    seed_portfolio,
)
from connectors.buildium.standin.entities import Generated
from schemas.base import EntityKind

PROPERTY, UNIT, LEASE = EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE
TENANT, LISTING = EntityKind.TENANT, EntityKind.LISTING
NOW = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)


class SetClock:
    """A clock whose time the test sets."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Caller:
    """A client of the stand-in without a socket."""

    def __init__(self, portfolio: Portfolio, **more: Any) -> None:
        self.clock = SetClock()
        self.standin = BuildiumStandIn(portfolio, **more)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.standin),
            base_url="http://buildium",
            headers={"x-buildium-client-id": DEMO_ID, "x-buildium-client-secret": DEMO_SECRET},
        )

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers=headers)

    async def ids(self, path: str) -> list[int]:
        response = await self.get(path)
        assert response.status_code == 200, response.text
        return [row.get("Id") or row["Unit"]["Id"] for row in response.json()]


@pytest.fixture
def portfolio() -> Portfolio:
    return seed_portfolio(SetClock())


@pytest.fixture
async def caller(portfolio: Portfolio) -> AsyncIterator[Caller]:
    caller = Caller(portfolio)
    yield caller
    await caller.http.aclose()


FIELDS = {
    PROPERTY: """Id Name StructureDescription NumberUnits IsActive OperatingBankAccountId Reserve Address YearBuilt
        RentalType RentalSubType RentalManager""",
    UNIT: """Id PropertyId BuildingName UnitNumber Description MarketRent Address UnitBedrooms UnitBathrooms UnitSize
        IsUnitListed IsUnitOccupied""",
    LEASE: """Id PropertyId UnitId UnitNumber LeaseFromDate LeaseToDate LeaseType LeaseStatus IsEvictionPending TermType
        RenewalOfferStatus CurrentTenants CurrentNumberOfOccupants AccountDetails Cosigners AutomaticallyMoveOutTenants
        CreatedDateTime LastUpdatedDateTime MoveOutData PaymentDueDay Tenants""",
    TENANT: """Id FirstName LastName Email AlternateEmail PhoneNumbers CreatedDateTime EmergencyContact DateOfBirth
        SMSOptInStatus Address AlternateAddress MailingPreference Leases Comment TaxId""",
    LISTING: """ListingDate Rent Deposit LeaseTerms AvailableDate IsManagedExternally RentalApplicationUrl Contact
        Property Unit""",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_entities_have_the_fields_of_buildiums_messages(portfolio: Portfolio, kind: EntityKind) -> None:
    for number in portfolio.ids(kind):
        assert set(portfolio.json(kind, number)) == set(FIELDS[kind].split())


async def test_both_headers_are_required(caller: Caller) -> None:
    for headers in ({"x-buildium-client-id": "x"}, {"x-buildium-client-secret": ""}):
        response = await caller.get("/v1/rentals", **headers)
        assert response.status_code == 401
        assert set(response.json()) == {"UserMessage", "ErrorCode", "Errors"}


@pytest.mark.parametrize(
    "path",
    ["/rentals", "/v2/rentals", "/v1/Rentals", "/v1/rentals/", "/v1/properties", "/v1/rentals?Limit=5",
     "/v1/rentals?OFFSET=5", "/v1/leases?LeaseStatuses=Active", "/v1/rentals/units/abc"],
)  # fmt: skip
async def test_paths_and_parameter_names_are_case_sensitive(caller: Caller, path: str) -> None:
    response = await caller.get(path)

    assert response.status_code == 404
    assert "UserMessage" not in response.text


async def test_an_entity_that_does_not_exist_is_answered_with_buildiums_error(caller: Caller) -> None:
    response = await caller.get("/v1/rentals/4242")

    assert (response.status_code, response.json()) == (
        404,
        {"UserMessage": "No property found with the id.", "ErrorCode": None, "Errors": []},
    )
    assert response.headers["x-amzn-RequestId"]
    unlisted = await caller.get("/v1/rentals/units/4242/listing")
    assert (unlisted.status_code, unlisted.json()["UserMessage"]) == (404, "No listing found with the unit id")


async def test_pages_have_fifty_rows_by_default_and_a_thousand_at_most() -> None:
    caller = Caller(bulk_portfolio(SetClock(), 1_200))
    for query, first, rows in (
        ("orderby=Id", 1, 50),
        ("orderby=Id&limit=5000", 1, 1000),
        ("orderby=Id&limit=1000&offset=1000", 1001, 200),
        ("orderby=Id&limit=7&offset=3", 4, 7),
        ("orderby=Id%20desc&limit=1", 1200, 1),
        ("orderby=MarketRent%20desc,id&limit=3", 299, 3),
    ):
        response = await caller.get(f"/v1/rentals/units?{query}")
        assert (len(response.json()), response.headers["x-total-count"]) == (rows, "1200"), query
        assert response.json()[0]["Id"] == first, query
    assert await caller.ids("/v1/rentals/units?limit=1000") != sorted(await caller.ids("/v1/rentals/units?limit=1000"))
    await caller.http.aclose()


async def test_invalid_queries_are_refused(caller: Caller) -> None:
    for query, status in (
        ("limit=0", 400),
        ("limit=many", 400),
        ("offset=-1", 400),
        ("orderby=Colour", 400),
        ("orderby=Address", 400),
        ("orderby=Id%20sideways", 400),
        ("propertyids=x", 400),
        ("status=Inactive", 400),
        ("lastupdatedfrom=2025-01-01", 422),
        ("rentalownerids=4", 501),
        ("x=" + "y" * 4096, 500),
        ("something=else", 200),
    ):
        assert (await caller.get(f"/v1/rentals?{query}")).status_code == status, query


async def test_filters(caller: Caller, portfolio: Portfolio) -> None:
    first, second = portfolio.ids(PROPERTY)[:2]
    units = [*portfolio.units_of[first], *portfolio.units_of[second]]
    assert await caller.ids(f"/v1/rentals/units?propertyids={first}&propertyids={second}&orderby=Id") == sorted(units)
    assert await caller.ids("/v1/rentals?subtypes=Office") == [1005]
    assert await caller.ids("/v1/rentals?location=edmon") == [1003]
    portfolio.inactivate_property(second)
    assert await caller.ids("/v1/rentals?status=InActive") == [second]
    assert second not in await caller.ids("/v1/rentals?status=Active")
    listed = [unit for unit in portfolio.units_of[first] if unit in portfolio.listings]
    assert (
        await caller.ids(f"/v1/rentals/units/listings?entitytype=Property&entityid={first}&orderby=Unit.Id") == listed
    )
    lease = portfolio.ids(LEASE)[0]
    portfolio.end_lease(lease)
    assert lease not in await caller.ids("/v1/leases?leasestatuses=Active&leasestatuses=Future&limit=1000")
    assert await caller.ids("/v1/leases?leasestatuses=Past") == [lease]
    of_first = await caller.ids(f"/v1/leases?propertyids={first}&orderby=Id")
    assert of_first == [
        one for one in portfolio.ids(LEASE) if portfolio.leases[one].unit_id in portfolio.units_of[first]
    ]
    assert await caller.ids("/v1/leases?leasetypes=AtWill") == []
    assert set(await caller.ids("/v1/leases/tenants?limit=1000")) == set(portfolio.ids(TENANT))


async def test_updates_are_filtered_by_an_inclusive_time_range(portfolio: Portfolio) -> None:
    clock = portfolio.clock
    assert isinstance(clock, SetClock)
    caller = Caller(portfolio)
    clock.time = NOW + timedelta(hours=1)
    unit = portfolio.ids(UNIT)[2]
    portfolio.set_rent(unit, 1234)

    for window, found in (
        ("lastupdatedfrom=2025-11-22T13:00:00Z", [unit]),
        ("lastupdatedfrom=2025-11-22T13:00:00Z&lastupdatedto=2025-11-22T13:00:00Z", [unit]),
        ("lastupdatedfrom=2025-11-22T13:00:01Z", []),
    ):
        assert await caller.ids(f"/v1/rentals/units?{window}") == found
    owner = min(portfolio.owners)
    portfolio.owners[owner].updated_at = clock.time
    assert await caller.ids("/v1/rentals/owners?lastupdatedfrom=2025-11-22T13:00:00Z") == [owner]
    assert await caller.ids("/v1/rentals/owners?lastupdatedfrom=2025-11-22T13:00:01Z") == []
    await caller.http.aclose()


async def test_more_than_ten_calls_a_second_are_throttled(portfolio: Portfolio) -> None:
    now = [0.0]
    caller = Caller(portfolio, limit=RateLimit(), monotonic=lambda: now[0])
    statuses = [(await caller.get("/v1/rentals")).status_code for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    now[0] = 1.0
    assert (await caller.get("/v1/rentals")).status_code == 200
    assert caller.standin.throttled == 2
    await caller.http.aclose()


async def test_more_than_ten_calls_at_once_are_throttled(portfolio: Portfolio) -> None:
    caller = Caller(portfolio, limit=RateLimit(starts=1000), latency=0.05)
    statuses = sorted(r.status_code for r in await asyncio.gather(*(caller.get("/v1/rentals") for _ in range(15))))

    assert statuses == [200] * 10 + [429] * 5
    await caller.http.aclose()


async def test_faults_apply_in_order_and_by_path(caller: Caller) -> None:
    caller.standin.fail(503, times=2, path="/v1/rentals")
    caller.standin.fail(429, retry_after="7")
    caller.standin.fail(body=b"<html>")

    answers = [
        await caller.get(path) for path in ("/v1/leases", "/v1/rentals", "/v1/rentals", "/v1/rentals", "/v1/rentals")
    ]
    assert [answer.status_code for answer in answers] == [429, 503, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[3].text == "<html>"
    assert [call.status for call in caller.standin.calls] == [429, 503, 503, 200, 200]


ANNEX = {
    "Name": "Annex",
    "Address": {
        "AddressLine1": "1 Main St",
        "City": "Calgary",
        "State": "AB",
        "PostalCode": "T2P",
        "Country": "Canada",
    },
    "RentalSubType": "MultiFamily",
    "OperatingBankAccountId": 10_407,
}


async def test_a_property_is_created_changed_and_inactivated(caller: Caller) -> None:
    """Without units it gets a default one; a PUT empties what it does not name."""
    created = await caller.http.post("/v1/rentals", json={**ANNEX, "StructureDescription": "brick"})
    assert created.status_code == 201
    number = created.json()["Id"]
    assert (created.json()["Name"], created.json()["StructureDescription"]) == ("Annex", "brick")
    assert [unit.number for unit in caller.standin.portfolio.units.values() if unit.property_id == number] == ["1"]

    changed = await caller.http.put(f"/v1/rentals/{number}", json={**ANNEX, "Name": "Annex 2"})
    assert (changed.json()["Name"], changed.json()["StructureDescription"]) == ("Annex 2", "")
    assert (await caller.http.post(f"/v1/rentals/{number}/inactivationrequest")).status_code == 204
    assert (await caller.get(f"/v1/rentals/{number}")).json()["IsActive"] is False


async def test_the_same_write_twice_creates_two(caller: Caller) -> None:
    answers = [await caller.http.post("/v1/rentals", json=ANNEX) for _ in range(2)]
    assert len({answer.json()["Id"] for answer in answers}) == 2


async def test_owners_and_units_are_created(caller: Caller) -> None:
    owner = {
        "IsCompany": False,
        "FirstName": "Ada",
        "LastName": "Lee",
        "Address": ANNEX["Address"],
        "PropertyIds": [1001],
    }
    created = await caller.http.post("/v1/rentals/owners", json=owner)
    assert (created.status_code, created.json()["PropertyIds"]) == (201, [1001])
    number = created.json()["Id"]
    assert (await caller.get(f"/v1/rentals/owners/{number}")).json()["FirstName"] == "Ada"
    put = await caller.http.put(f"/v1/rentals/owners/{number}", json={**owner, "FirstName": "Eve"})
    assert put.json()["FirstName"] == "Eve"

    unit = {"PropertyId": 1001, "UnitNumber": "new", "Address": ANNEX["Address"]}
    assert (await caller.http.post("/v1/rentals/units", json=unit)).status_code == 201
    again = await caller.http.post("/v1/rentals/units", json=unit)
    assert (again.status_code, again.json()["Errors"][0]["Key"]) == (422, "UnitNumber")


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"Name": ""}, "Name"),
        ({"Name": "x" * 128}, "Name"),
        ({"RentalSubType": "Castle"}, "RentalSubType"),
        ({"OperatingBankAccountId": 5}, "OperatingBankAccountId"),
        ({"YearBuilt": 12}, "YearBuilt"),
        ({"Address": {**ANNEX["Address"], "State": "XX"}}, "Address.State"),  # type: ignore[dict-item]
        ({"Address": {**ANNEX["Address"], "Country": "US"}}, "Address.Country"),  # type: ignore[dict-item]
        ({"Units": [{"UnitNumber": "1", "Address": ANNEX["Address"]}] * 2}, "Units[1].UnitNumber"),
    ],
)
async def test_a_wrong_field_of_a_write_is_named(caller: Caller, wrong: dict[str, object], key: str) -> None:
    answer = await caller.http.post("/v1/rentals", json={**ANNEX, **wrong})
    assert (answer.status_code, answer.json()["Errors"][0]["Key"]) == (422, key)


async def test_other_writes_do_not_exist(caller: Caller) -> None:
    assert (await caller.http.delete("/v1/rentals/1001")).status_code == 501
    assert (await caller.http.put("/v1/rentals/1", json=ANNEX)).status_code == 404


@pytest.mark.parametrize(
    ("path", "required"),
    [
        ("/v1/rentals", ["Name", "Address", "RentalSubType", "OperatingBankAccountId"]),
        ("/v1/rentals/owners", ["IsCompany", "Address", "PropertyIds"]),
    ],
)
async def test_an_empty_body_is_answered_with_every_required_field(
    caller: Caller, path: str, required: list[str]
) -> None:
    answer = await caller.http.post(path, json={})

    assert answer.status_code == 422
    assert set(answer.json()) == {"UserMessage", "ErrorCode", "Errors"}
    assert [error["Key"] for error in answer.json()["Errors"]] == required
    assert (await caller.http.post(path, json=[])).status_code == 400
    assert (await caller.http.post(path, content=b"{", headers={"content-type": "application/json"})).status_code == 400
    assert (await caller.http.post(path, content=b"{}", headers={"content-type": "text/plain"})).status_code == 415


async def test_the_account_has_the_fields_of_buildiums_message(caller: Caller) -> None:
    account = (await caller.get("/v1/administration/account")).json()

    assert set(account) == {"Id", "CompanyName", "Url", "Contact", "AccountingSettings"}
    assert account["Id"] == caller.standin.portfolio.account


async def test_owners_are_listed_in_pages(caller: Caller) -> None:
    page = await caller.get("/v1/rentals/owners?orderby=Id&offset=1&limit=2")

    assert page.headers["x-total-count"] == "4"
    assert [owner["Id"] for owner in page.json()] == [502, 503]
    assert set(page.json()[0]) == {
        "Id",
        "IsCompany",
        "IsActive",
        "FirstName",
        "LastName",
        "CompanyName",
        "PhoneNumbers",
        "Email",
        "AlternateEmail",
        "Comment",
        "Address",
        "ManagementAgreementStartDate",
        "ManagementAgreementEndDate",
        "PropertyIds",
        "TaxInformation",
    }


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("status=Inactive", [504]),
        ("propertyids=1001&propertyids=1002&orderby=Id", [501, 502]),
        ("", [504, 503, 502, 501]),
        ("status=active", 400),
        ("Status=Active", 404),
        ("phone=1", 501),
        ("orderby=Email", 501),
        ("limit=0", 400),
    ],
)
async def test_owners_are_filtered(caller: Caller, query: str, answer: list[int] | int) -> None:
    response = await caller.get(f"/v1/rentals/owners?{query}")

    if isinstance(answer, int):
        assert response.status_code == answer
    else:
        assert [owner["Id"] for owner in response.json()] == answer


async def test_a_key_may_lack_permissions(caller: Caller) -> None:
    """A permission can be denied for one kind of entity, for reading or for writing only, and be changed."""
    paths = ("/v1/rentals", "/v1/rentals/units", "/v1/leases", "/v1/leases/tenants", "/v1/rentals/units/listings",
             "/v1/rentals/owners", "/v1/administration/account", "/v1/rentals/units/100101/listing")  # fmt: skip
    caller.standin.deny("listings", "properties:edit")
    denied = {path for path in paths if (await caller.get(path)).status_code == 403}
    written = [(await caller.http.post(path, json={})).status_code for path in ("/v1/rentals", "/v1/rentals/owners")]
    caller.standin.deny("owners")

    assert denied == {"/v1/rentals/units/listings", "/v1/rentals/units/100101/listing"}
    assert written == [403, 422]
    assert (await caller.get("/v1/rentals/owners")).json()["Errors"] == []
    assert (await caller.http.post("/v1/rentals/owners", json={})).status_code == 403
    assert (await caller.get("/v1/rentals/units/listings")).status_code == 200
    with pytest.raises(ValueError, match="no such permission: houses"):
        caller.standin.deny("houses")


def named(events: Events) -> list[str]:
    return [event.name for event in events]


def test_every_edit_returns_the_events_of_buildium(portfolio: Portfolio) -> None:
    today, unit = portfolio.today(), portfolio.ids(UNIT)[0]
    rental = portfolio.units[unit].property_id
    listed = portfolio.ids(LISTING)[0]
    lease = portfolio.leases_of[unit][0]

    assert named(portfolio.set_rent(unit, "1999.50")) == ["RentalUnit.Updated"]
    assert named(portfolio.set_rent(listed, 5)) == ["RentalUnit.Updated", "Listing.Updated"]
    assert portfolio.json(LISTING, listed)["Rent"] == 5.0
    assert named(portfolio.list_unit(unit)) == ["Listing.Created"]
    assert named(portfolio.list_unit(unit, 7)) == ["Listing.Updated"]
    assert portfolio.json(UNIT, unit)["IsUnitListed"] is True
    assert named(portfolio.unlist_unit(unit)) == ["Listing.Deleted"]
    assert portfolio.unlist_unit(unit) == ()
    assert named(portfolio.give_notice(lease, None, today)) == ["Lease.MoveOut.Created"] * len(
        portfolio.leases[lease].occupants
    )
    assert portfolio.withdraw_notice(lease) == ()
    assert named(portfolio.sign_lease(unit, today, tenants=2)) == ["Lease.Created"] + ["LeaseTenant.Created"] * 2
    assert named(portfolio.edit_lease(lease, eviction_pending=True)) == ["Lease.Updated"]
    assert named(portfolio.move_lease(lease, listed)) == ["Lease.Updated"]
    assert portfolio.json(LEASE, lease)["UnitId"] == listed
    assert named(portfolio.rename_property(rental, "New")) == ["Rental.Updated"]
    assert named(portfolio.move_property(rental, Address("9 Elm", "Calgary", "AB", "T1T 1T1"))) == ["Rental.Updated"]
    assert portfolio.json(UNIT, unit)["Address"]["AddressLine1"] == "9 Elm"
    assert named(portfolio.inactivate_property(rental)) == ["Rental.Updated"]
    assert named(portfolio.reactivate_property(rental)) == ["Rental.Updated"]
    (created,) = portfolio.add_property("Annex", Address("1 A", "Calgary", "AB", "T"))
    (added,) = portfolio.add_unit(created.ids["PropertyId"], "1", market_rent=Decimal(5))
    assert (created.name, added.name) == ("Rental.Created", "RentalUnit.Created")
    assert portfolio.json(PROPERTY, created.ids["PropertyId"])["NumberUnits"] == 1
    assert named(portfolio.remove_unit(listed)) == ["Lease.Deleted", "Listing.Deleted", "RentalUnit.Deleted"]
    assert named(portfolio.remove_property(created.ids["PropertyId"])) == ["RentalUnit.Deleted", "Rental.Deleted"]


def test_no_cached_row_is_stale_after_any_edit(portfolio: Portfolio) -> None:
    """After every edit, cached rows equal newly rendered ones."""
    unit, other = portfolio.ids(UNIT)[0], portfolio.ids(UNIT)[1]
    lease, rental = portfolio.leases_of[unit][0], portfolio.units[unit].property_id
    today = portfolio.today()
    edits: tuple[Callable[[], Events], ...] = (
        lambda: portfolio.set_rent(unit, 1),
        lambda: portfolio.list_unit(unit, 3),
        lambda: portfolio.edit_unit(unit, number="9Z"),
        lambda: portfolio.rename_property(rental, "X"),
        lambda: portfolio.give_notice(lease, None, today),
        lambda: portfolio.move_lease(lease, other),
        lambda: portfolio.end_lease(lease),
        lambda: portfolio.sign_lease(unit, today),
        lambda: portfolio.remove_lease(lease),
        lambda: portfolio.unlist_unit(unit),
        lambda: portfolio.add_unit(rental, "new"),
        lambda: portfolio.remove_unit(other),
    )
    for edit in edits:
        for kind in (PROPERTY, UNIT, LEASE, LISTING):
            for number in portfolio.ids(kind):
                portfolio.row(kind, number)
        edit()
        for kind in (PROPERTY, UNIT, LEASE, LISTING):
            for number in portfolio.ids(kind):
                assert json.loads(portfolio.row(kind, number)) == portfolio.json(kind, number)


def test_a_new_day_changes_derived_values(portfolio: Portfolio) -> None:
    clock = portfolio.clock
    assert isinstance(clock, SetClock)
    unit = next(unit for unit in portfolio.ids(UNIT) if not portfolio.leases_of.get(unit))
    lease = portfolio.sign_lease(unit, portfolio.today() + timedelta(days=1), type="Fixed")[0].ids["LeaseId"]
    assert b'"LeaseStatus":"Future"' in portfolio.row(LEASE, lease)
    assert b'"IsUnitOccupied":false' in portfolio.row(UNIT, unit)

    clock.time += timedelta(days=1)
    assert b'"LeaseStatus":"Active"' in portfolio.row(LEASE, lease)
    assert b'"IsUnitOccupied":true' in portfolio.row(UNIT, unit)


@pytest.mark.parametrize(
    ("ends_in", "leaves_in", "automatic", "after_the_move", "after_the_end"),
    [
        (5, 1, False, ("Active", "MovedOut", True), ("Past", "MovedOut", False)),
        (1, 5, False, ("Active", "Current", True), ("Past", "MovedOut", False)),
        (1, None, False, ("Active", "Current", True), ("Active", "Current", True)),
        (5, None, True, ("Active", "Current", True), ("Past", "MovedOut", False)),
        (None, 1, False, ("Past", "MovedOut", False), ("Past", "MovedOut", False)),
    ],
)
def test_a_lease_is_past_when_its_end_and_the_move_out_have_passed(
    portfolio: Portfolio,
    ends_in: int | None,
    leaves_in: int | None,
    automatic: bool,
    after_the_move: tuple[str, str, bool],
    after_the_end: tuple[str, str, bool],
) -> None:
    """Until then its unit counts as occupied, although the tenants may have left; an expired lease rolls over."""
    clock, today = portfolio.clock, portfolio.today()
    assert isinstance(clock, SetClock)
    unit = next(unit for unit in portfolio.ids(UNIT) if not portfolio.leases_of.get(unit))
    end = None if ends_in is None else today + timedelta(days=ends_in)
    signed = portfolio.sign_lease(unit, today, end, type="Fixed", automatic_move_out=automatic)
    lease = signed[0].ids["LeaseId"]
    if leaves_in is not None:
        portfolio.give_notice(lease, None, today + timedelta(days=leaves_in))

    def shown() -> tuple[str, str, bool]:
        row = portfolio.json(LEASE, lease)
        return row["LeaseStatus"], row["Tenants"][0]["Status"], portfolio.json(UNIT, unit)["IsUnitOccupied"]

    clock.time += timedelta(days=2)
    portfolio.today()
    assert shown() == after_the_move
    clock.time += timedelta(days=5)
    portfolio.today()
    assert shown() == after_the_end


def test_tenants_that_buildium_moves_out_have_a_move_out(portfolio: Portfolio) -> None:
    clock, today = portfolio.clock, portfolio.today()
    assert isinstance(clock, SetClock)
    unit = next(unit for unit in portfolio.ids(UNIT) if not portfolio.leases_of.get(unit))
    lease = portfolio.sign_lease(unit, today, today, automatic_move_out=True)[0].ids["LeaseId"]
    before = portfolio.json(LEASE, lease)["MoveOutData"]
    clock.time += timedelta(days=1)
    portfolio.today()

    assert before == []
    assert [one["MoveOutDate"] for one in portfolio.json(LEASE, lease)["MoveOutData"]] == [today.isoformat()]


def test_a_renewal_extends_a_lease_in_place(portfolio: Portfolio) -> None:
    lease = portfolio.ids(LEASE)[0]
    before, until = len(portfolio.leases), portfolio.today() + timedelta(days=500)
    (event,) = portfolio.renew_lease(lease, until)
    row = portfolio.json(LEASE, lease)

    assert (event.name, event.ids) == ("Lease.Updated", {"LeaseId": lease})
    assert (row["LeaseToDate"], row["RenewalOfferStatus"]) == (until.isoformat(), "Renewed")
    assert len(portfolio.leases) == before


def test_the_seed_is_always_the_same_and_has_some_of_everything() -> None:
    one, two = seed_portfolio(SetClock()), seed_portfolio(SetClock())
    for kind in FIELDS:
        assert [one.row(kind, n) for n in one.ids(kind)] == [two.row(kind, n) for n in two.ids(kind)]

    assert (len(one.properties), len(one.units)) == (5, 24)
    assert {rental.sub_type for rental in one.properties.values()} == {
        "MultiFamily", "CondoTownhome", "SingleFamily", "Office"
    }  # fmt: skip
    empty = [unit for unit in one.units if not one.is_occupied(unit)]
    assert len(empty) >= 3
    assert any(unit not in one.listings for unit in empty)
    assert any(unit in one.listings for unit in empty)
    assert any(occupant.moves_out_on for lease in one.leases.values() for occupant in lease.occupants)
    assert len({one.units[unit].number for unit in one.units_of[1001]}) == len(one.units_of[1001])


def test_a_large_portfolio_can_be_edited_like_a_small_one() -> None:
    bulk = bulk_portfolio(SetClock(), 500, warm=True)
    assert (len(bulk.properties), len(bulk.units), len(bulk.leases), len(bulk.listings)) == (5, 500, 475, 25)
    assert len(bulk.live_leases()) == 475

    bulk.set_rent(20, 777)
    assert (bulk.json(UNIT, 20)["MarketRent"], bulk.json(LISTING, 20)["Rent"]) == (777.0, 777.0)
    lease = bulk.sign_lease(20, bulk.today())[0].ids["LeaseId"]
    assert bulk.json(UNIT, 20)["IsUnitOccupied"] is True
    assert bulk.live_leases()[-1] == lease
    bulk.remove_unit(21)
    assert 21 not in bulk.units
    assert 21 not in bulk.ids(UNIT)
    assert bulk.json(PROPERTY, 1)["NumberUnits"] == 99
    bulk.add_unit(1, "new")
    assert len(bulk.units) == 500


def test_generated_entities_are_stored_once_they_are_edited() -> None:
    table = Generated(range(1, 4), lambda n: 1 <= n <= 3, lambda n: [n])
    table[2] = [22]
    table[9] = [9]
    del table[1]

    assert list(table.items()) == [(2, [22]), (3, [3]), (9, [9])]
    assert len(table) == 3
    assert 1 not in table
    with pytest.raises(KeyError):
        del table[1]
    table[1] = [11]
    assert sorted(table) == [1, 2, 3, 9]
