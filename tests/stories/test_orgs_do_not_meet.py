"""Orgs whose accounts have equal ids share partitions and workers, and each receiver gets what is of its org only."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode, decode_as, encode
from schemas.partitions import partition_for
from schemas.rent_roll import ListingSnapshot, Page
from streams.core.rent_roll import item_of
from tests.world import Since, asking_rent, listed_rent, receiver_matches
from tests.world.memory import MemoryWorld, Site

TOGETHER = ("default", "cedar", "juniper")
"""Orgs of one partition."""
APART = "acme"
"""An org of another one."""


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """Four orgs with the same portfolio, each delivered to its own receiver; idle."""
    async with MemoryWorld() as world:
        assert len({partition_for(org, world.broker.partitions) for org in TOGETHER}) == 1
        assert partition_for(APART, world.broker.partitions) != partition_for("cedar", world.broker.partitions)
        await world.add_delivered_orgs(*TOGETHER[1:], APART)
        await world.until(lambda: receiver_matches(world))
        yield world


def sites(world: MemoryWorld) -> list[Site]:
    return [world.sites[org] for org in (*TOGETHER, APART)]


def listed(world: MemoryWorld, unit: int) -> dict[str, float | None]:
    """Return the rent of a unit at each receiver."""
    return {site.org: listed_rent(site, unit) for site in sites(world)}


async def change_everywhere(world: MemoryWorld, unit: int, first_rent: int) -> dict[str, int]:
    """Change a unit in every account, each to another rent; all webhooks come in one moment. Return the rents."""
    rents = {site.org: first_rent + number for number, site in enumerate(sites(world))}
    for org, rent in rents.items():
        await world.send_webhooks(world.sites[org].portfolio.set_rent(unit, rent), org=org)
    return rents


async def test_equal_ids_changed_in_one_moment_reach_each_receiver_with_its_own_rent(world: MemoryWorld) -> None:
    """The records of three of them are of one partition and of one batch of the folds."""
    before = {site.org: len(site.rentsync.accepted) for site in sites(world)}
    unit = 100104
    rents = await change_everywhere(world, unit, 3000)
    await world.until(lambda: listed(world, unit).items() >= rents.items(), within=5)
    await world.rest()

    for site in sites(world):
        new = [[(one["unit_id"], one["base_rent"]) for one in batch.units] for batch in site.rentsync.accepted]
        assert new[before[site.org] :] == [[(unit, rents[site.org])]]
        assert receiver_matches(site)


async def test_equal_ids_in_one_batch_of_records_are_all_due(world: MemoryWorld) -> None:
    """A fold emits a reason to deliver once for each property of a batch, but not once for those of several orgs.

    After more than five seconds a scan might look at these properties for another reason.
    """
    unit, rents = 100104, {"default": 3201, "cedar": 3202, "juniper": 3203}
    for org, rent in rents.items():
        world.sites[org].portfolio.set_rent(unit, rent)  # so that the listing is the same
        await world.put(topics.CHANGES.name, encode(listing_page(world, org, unit, Decimal(rent))), key=org.encode())
    await world.until(lambda: listed(world, unit).items() >= rents.items(), within=5)


def listing_page(world: MemoryWorld, org: str, unit: int, rent: Decimal) -> Page:
    """Return what a fetch of a unit's listing would write."""
    pages = [decode(record.value) for record in world.read(topics.CHANGES.name)]
    known = [one for one in pages if isinstance(one, Page) and one.org == org and one.kind is EntityKind.LISTING]
    item = next(item for item in known[-1].items if item.id == unit)
    listing = decode_as(ListingSnapshot, item.body).model_copy(update={"rent": rent})
    return known[-1].model_copy(
        update={"seq": known[-1].seq + 1_000_000, "sweep": None, "items": (item_of(listing),), "number": 0}
    )


async def test_a_change_of_one_org_is_sent_for_this_org_only(world: MemoryWorld) -> None:
    cedar, juniper = world.sites["cedar"], world.sites["juniper"]
    before = {site.org: (len(site.rentsync.accepted), len(site.buildium.calls)) for site in sites(world)}
    await world.send_webhooks(cedar.portfolio.rename_property(1001, "Cedar Court"), org="cedar")
    await world.rest()

    assert {one.body["property"]["project_name"] for one in cedar.rentsync.accepted[before["cedar"][0] :]} == {
        "Cedar Court"
    }
    for site in sites(world):
        if site is not cedar:
            assert (len(site.rentsync.accepted), len(site.buildium.calls)) == before[site.org]
    assert receiver_matches(juniper)


async def test_a_removed_unit_stays_with_the_others(world: MemoryWorld) -> None:
    """Its row is marked, and not one with the same id."""
    unit, juniper = 100104, world.sites["juniper"]
    await world.send_webhooks(juniper.portfolio.remove_unit(unit), org="juniper")
    await world.until(lambda: juniper.rentsync.state[unit].status_name == "Removed")
    await world.rest()
    await world.pass_time(960)  # a sweep of every account

    statuses = {site.org: site.rentsync.state[unit].status_name for site in sites(world)}
    assert statuses == {"default": "Available", "cedar": "Available", "juniper": "Removed", APART: "Available"}


async def test_no_two_orgs_share_an_idempotency_key_or_a_row(world: MemoryWorld) -> None:
    await change_everywhere(world, 100104, 3100)
    await world.rest()
    keys = [{batch.key for batch in site.rentsync.accepted} for site in sites(world)]
    rows = [key for view in world.tables.values() for key, _ in view.scan(b"")]

    assert sum(map(len, keys)) == len(set.union(*keys))
    assert {key.split(b"/")[0].decode() for key in rows} == {site.org for site in sites(world)}


async def test_a_webhook_belongs_to_the_org_whose_secret_verifies_it(world: MemoryWorld) -> None:
    """All accounts have the same number, so it decides nothing."""
    cedar, juniper = world.sites["cedar"], world.sites["juniper"]
    (event,) = juniper.portfolio.edit_unit(100101, number="J1")
    body = event.body(juniper.portfolio.account)
    assert cedar.portfolio.account == juniper.portfolio.account

    assert world.receive_webhook(body, juniper.webhook_secret).org == "juniper"
    assert world.receive_webhook(body, cedar.webhook_secret).org == "cedar"


async def test_three_accounts_that_change_at_the_same_time_lose_nothing(world: MemoryWorld) -> None:
    """Every unit of every account, doubled and shuffled."""
    since = Since(world)
    for site in sites(world):
        units = sorted(site.rentsync.state)
        events = tuple(
            event for turn, unit in enumerate(units * 5) for event in site.portfolio.set_rent(unit, 4000 + turn)
        )
        await world.send_webhooks(events, copies=2, shuffled=True, org=site.org)
    await world.until(lambda: all(receiver_matches(site) for site in sites(world)), within=300)
    await world.rest()

    assert all(
        listed_rent(site, unit) == asking_rent(site, unit) for site in sites(world) for unit in site.rentsync.state
    )
    assert since.dead() == []
    assert not any(world.read(topic.name) for topic in (topics.DEAD_LETTERS, topics.rung("1m")))
