"""Initial portfolios: a small one for demo and tests, and a large one for benchmarks."""

import random as randomness
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from connectors.buildium.standin.entities import (
    COMMERCIAL,
    Address,
    Generated,
    Lease,
    Listing,
    Occupant,
    Owner,
    Property,
    Unit,
    person,
)
from connectors.buildium.standin.portfolio import LEASE, LISTING, PROPERTY, UNIT, Portfolio
from connectors.ports import Clock

_SITES: Final[tuple[tuple[str, str, Address, int, tuple[str, ...]], ...]] = (
    (
        "Beltline Lofts",
        "MultiFamily",
        Address("1111 10 Street SW", "Calgary", "AB", "T2R 1E3"),
        2008,
        ("Elevator", "FitnessCenter", "Parking"),
    ),
    (
        "Riverside Terrace",
        "MultiFamily",
        Address("88 Memorial Drive NW", "Calgary", "AB", "T2N 1B2"),
        1996,
        ("LaundryRoom", "Parking"),
    ),
    ("Maple Row Townhomes", "CondoTownhome", Address("240 Maple Row", "Edmonton", "AB", "T5J 0N3"), 2015, ("Parking",)),
    ("412 Oak Lane", "SingleFamily", Address("412 Oak Lane", "Calgary", "AB", "T2S 0T1"), 1978, ("Garage",)),
    ("Harvard Trade Centre", "Office", Address("700 9 Avenue SW", "Calgary", "AB", "T2P 3V4"), 1989, ("Elevator",)),
)
_OWNERS: Final = (
    Owner(501, "Robin", "Sample", email="robin.sample@owner.example", property_ids=(1001, 1004)),
    Owner(502, company_name="Riverside Holdings Ltd.", email="office@riverside.example", property_ids=(1002, 1003)),
    Owner(503, "Kit", "Example", email=None, property_ids=(1005,)),
    Owner(504, "Lee", "Former", email=None, is_active=False),
)
_SHARES: Final = (0.42, 0.29, 0.21, 0.0, 0.08)
_LAYOUTS: Final = (
    ("Studio", "OneBath", 420, 1250),
    ("OneBed", "OneBath", 610, 1550),
    ("TwoBed", "OnePointFiveBath", 840, 1895),
    ("TwoBed", "TwoBath", 930, 2050),
    ("ThreeBed", "TwoPointFiveBath", 1280, 2600),
)
_UNIT_FEATURES: Final = (
    "Dishwasher",
    "PetsAllowed",
    "InSuiteLaundry",
    "View",
    "GarageParking",
    "Balcony",
    "CatFriendly",
)


def seed_portfolio(
    clock: Clock, *, properties: int = 5, units: int = 24, seed: int = 7, timezone: str = "America/Edmonton"
) -> Portfolio:
    """Return a small portfolio: two apartment buildings, townhomes, a house and an office building.

    The same arguments give the same portfolio. Most units are leased. Some are vacant and listed, one is vacant and not
    listed; some tenants have given a notice to vacate, and one of their units has a future lease.
    """
    random = randomness.Random(seed)  # noqa: S311 - reproducible names and rents, not a secret
    portfolio = Portfolio(clock, timezone=timezone)
    today = portfolio.today()
    sites = _SITES[:properties]
    counts = [max(1, round(share * units)) for share in _SHARES[: len(sites)]]
    counts[0] = max(1, units - sum(counts[1:]))
    place = 0
    for index, (name, sub_type, address, built, features) in enumerate(sites):
        number = 1001 + index
        portfolio.properties[number] = Property(number, name, address, sub_type, year_built=built, features=features)
        portfolio.units_of[number] = []
        for k in range(counts[index]):
            unit = number * 100 + k + 1
            portfolio.units_of[number].append(unit)
            portfolio.units[unit] = _seed_unit(random, unit, number, sub_type, k)
            _seed_leases(random, portfolio, unit, place, today)
            place += 1
    for owner in _OWNERS:
        owned = tuple(number for number in owner.property_ids if number in portfolio.properties)
        portfolio.owners[owner.id] = replace(owner, property_ids=owned)
    return portfolio


def _seed_unit(random: randomness.Random, unit: int, number: int, sub_type: str, k: int) -> Unit:
    if sub_type in COMMERCIAL:
        rent = Decimal(3200 + 150 * k)
        return Unit(unit, number, f"Suite {100 * (k + 1)}", None, rent, "NotSet", "NotSet", 1400 + 300 * k)
    bedrooms, bathrooms, size, rent_from = _LAYOUTS[4 if sub_type == "SingleFamily" else random.randrange(5)]
    building = None if sub_type != "CondoTownhome" else "AB"[k % 2]
    label = "1" if sub_type == "SingleFamily" else f"{k + 1:02}" if building else f"{k // 4 + 1}{k % 4 + 1:02}"
    rent = Decimal(rent_from + 25 * random.randrange(5)) + (Decimal("0.50") if k == 1 else 0)
    size += 10 * random.randrange(6)
    features = tuple(sorted(random.sample(_UNIT_FEATURES, 3)))
    return Unit(unit, number, label, building, rent, bedrooms, bathrooms, size, None, features)


def _seed_leases(random: randomness.Random, portfolio: Portfolio, unit: int, place: int, today: date) -> None:
    rent = portfolio.units[unit].market_rent
    if place % 8 == 3:  # vacant and listed
        portfolio.list_unit(unit, rent, today + timedelta(days=random.choice((0, 0, 12))))
        return
    if place == 13:  # vacant and not listed
        return
    starts = today - timedelta(days=random.randrange(40, 320))
    portfolio.sign_lease(
        unit, starts, starts + timedelta(days=365), tenants=1 + place % 2, rent=rent, type="FixedWithRollover"
    )
    lease = portfolio.leases_of[unit][-1]
    if place % 7 == 5:  # notice given, listed for the day after
        leaves = today + timedelta(days=25 + place)
        portfolio.give_notice(lease, None, leaves, today - timedelta(days=5))
        if place % 2:
            portfolio.list_unit(unit, rent, leaves + timedelta(days=1))
        else:
            portfolio.sign_lease(unit, leaves + timedelta(days=1), leaves + timedelta(days=366), rent=rent)


def bulk_portfolio(
    clock: Clock,
    units: int = 100_000,
    *,
    per_property: int = 100,
    timezone: str = "America/Edmonton",
    warm: bool = False,
) -> Portfolio:
    """Return a large account for benchmarks, whose entities are generated on demand; every 20th unit is vacant.

    Ids: units from 1, properties from 1, leases from 1,000,001, tenants from 2,000,001. The JSON of an entity is
    cached when it is first requested; ``warm`` fills the cache beforehand (some seconds per 100,000 units), so that a
    measured page costs no more than a join of bytes.
    """
    portfolio = Portfolio(clock, timezone=timezone)
    today, buildings = portfolio.today(), -(-units // per_property)
    starts = today - timedelta(days=200)

    def is_leased(unit: int) -> bool:
        return 0 < unit <= units and unit % 20 != 0

    def make_property(number: int) -> Property:
        address = Address(f"{number} {number % 50 + 1} Avenue", "Calgary", "AB", "T2P 0A1")
        return Property(number, f"House {number:05}", address, year_built=1960 + number % 60, features=("Parking",))

    def make_unit(number: int) -> Unit:
        bedrooms, bathrooms, size, rent = _LAYOUTS[number % 5]
        owner, place = divmod(number - 1, per_property)
        return Unit(number, owner + 1, f"{place + 1:03}", None, Decimal(rent + number % 300), bedrooms, bathrooms, size)

    def make_lease(number: int) -> Lease:
        unit = number - 1_000_000
        leaves = today + timedelta(days=30) if unit % 25 == 1 else None
        occupants = [Occupant(number + 1_000_000, starts, leaves, today if leaves else None)]
        return Lease(number, unit, starts, starts + timedelta(days=365), rent=Decimal(1500), occupants=occupants)

    def make_listing(unit: int) -> Listing:
        return Listing(unit, make_unit(unit).market_rent or Decimal(1000), today, today)

    leased = [unit for unit in range(1, units + 1) if is_leased(unit)]
    portfolio.properties = Generated(range(1, buildings + 1), lambda n: 0 < n <= buildings, make_property)
    portfolio.units = Generated(range(1, units + 1), lambda n: 0 < n <= units, make_unit)
    portfolio.leases = Generated([u + 1_000_000 for u in leased], lambda n: is_leased(n - 1_000_000), make_lease)
    portfolio.tenants = Generated([u + 2_000_000 for u in leased], lambda n: is_leased(n - 2_000_000), person)
    portfolio.listings = Generated(range(20, units + 1, 20), lambda n: 0 < n <= units and n % 20 == 0, make_listing)
    portfolio.units_of = Generated(
        range(1, buildings + 1),
        lambda n: 0 < n <= buildings,
        lambda n: list(range((n - 1) * per_property + 1, min(n * per_property, units) + 1)),
    )
    portfolio.leases_of = Generated(leased, is_leased, lambda u: [u + 1_000_000])
    portfolio.leases_of_tenant = Generated(
        [u + 2_000_000 for u in leased], lambda n: is_leased(n - 2_000_000), lambda n: [n - 1_000_000]
    )
    if warm:
        portfolio.live_leases()
        for kind in (PROPERTY, UNIT, LEASE, LISTING):
            for number in portfolio.ids(kind):
                portfolio.row(kind, number)
    return portfolio
