"""Integrations are disabled, enabled, deleted and made again at any moment: nothing is lost or sent twice."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from connectors.rentsync.standin import shape_of
from schemas import topics
from schemas.codec import decode_as
from schemas.pms import FetchRequest
from tests.world import listed_rent, receiver_matches
from tests.world.memory import MemoryWorld, Site

ORG = "acme"
UNIT = 100104
"""An available unit of property 1001."""


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """One org with stored integrations, delivered; idle."""
    async with MemoryWorld(environment=False) as world:
        await world.add_delivered_orgs(ORG)
        async with world.beside(ORG):
            yield world


def batches(site: Site, first: int) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return mode and units (id, rent) of each batch that was accepted after the first ones."""
    return [
        (batch.mode, [(unit["unit_id"], unit["base_rent"]) for unit in batch.units])
        for batch in site.rentsync.accepted[first:]
    ]


def ignored_webhooks(world: MemoryWorld) -> list[FetchRequest]:
    records = (decode_as(FetchRequest, record.value) for record in world.read(topics.WEBHOOKS.name))
    return [one for one in records if one.ignored is not None]


# ------------------------------------------------------------------------------------------------------------ a source


async def test_webhooks_of_a_disabled_account_are_kept_as_ignored(world: MemoryWorld) -> None:
    """They are verified and accepted, and lead to no call."""
    site = world.sites[ORG]
    await world.disable(ORG, "buildium")
    calls, body = len(site.buildium.calls), site.portfolio.set_rent(UNIT, 2001)[0].body(site.portfolio.account)
    world.receive_webhook(body, site.webhook_secret)
    await world.rest()

    (webhook,) = ignored_webhooks(world)
    assert (webhook.ignored, webhook.body, webhook.entity) == ("disabled", body, UNIT)
    assert len(site.buildium.calls) == calls


async def test_what_was_missed_while_an_account_was_disabled_is_found_when_it_is_enabled(world: MemoryWorld) -> None:
    """At once, and not only at the next scheduled sweep."""
    site = world.sites[ORG]
    await world.disable(ORG, "buildium")
    await world.send_webhooks(site.portfolio.set_rent(UNIT, 2002), org=ORG)
    await world.pass_time(100)
    assert listed_rent(site, UNIT) != 2002.0

    await world.enable(ORG, "buildium")
    assert await world.until(lambda: listed_rent(site, UNIT) == 2002.0) < 5


async def test_a_fetch_on_its_way_when_its_account_is_disabled_is_found_by_the_sweep_after_enabling(
    world: MemoryWorld,
) -> None:
    site = world.sites[ORG]
    site.buildium.fail(503, times=3)
    await world.send_webhooks(site.portfolio.edit_unit(UNIT, number="X1"), org=ORG)
    await world.pass_time(10)  # it waits on a rung
    await world.disable(ORG, "buildium")
    await world.rest()
    await world.enable(ORG, "buildium")
    await world.until(lambda: site.rentsync.state[UNIT].unit_code == "X1", within=5)
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_an_account_that_is_deleted_and_made_again_starts_over(world: MemoryWorld) -> None:
    """It has another address for webhooks, is disabled at first, and what changed meanwhile is delivered."""
    site = world.sites[ORG]
    before = await world.state(ORG, "buildium")
    await world.delete(ORG, "buildium")
    site.portfolio.set_rent(UNIT, 2003)
    await world.pass_time(120)
    state = await world.store(ORG, "buildium", world.buildium_of(site))
    assert (state.enabled, state.sync_state, state.last_ran, state.version) == (False, "disabled", None, 1)
    assert state.webhook_path != before.webhook_path

    await world.enable(ORG, "buildium")
    await world.until(lambda: listed_rent(site, UNIT) == 2003.0, within=5)
    await world.rest()
    assert receiver_matches(site)
    assert (await world.state(ORG, "buildium")).last_status == "Success"


# ---------------------------------------------------------------------------------------------------------- a receiver


async def test_a_receiver_that_is_enabled_later_gets_a_first_snapshot_of_all(world: MemoryWorld) -> None:
    """The account was swept long before; a second receiver of the org gets what the first one has."""
    site = world.sites[ORG]
    other = world.site("other", site.portfolio, "unused")
    first = len(site.rentsync.accepted)
    await world.store(ORG, "second", world.rentsync_of(other))
    await world.pass_time(120)
    assert other.rentsync.accepted == []

    await world.enable(ORG, "second")
    await world.until(lambda: receiver_matches(other), within=5)
    await world.rest()

    assert {batch.mode for batch in other.rentsync.accepted} == {"snapshot"}
    assert len(other.rentsync.accepted) == 4
    assert len(site.rentsync.accepted) == first


async def test_a_receiver_that_is_made_again_gets_a_first_snapshot(world: MemoryWorld) -> None:
    """Nothing proves that it still knows what the deleted one was sent."""
    site = world.sites[ORG]
    await world.delete(ORG, "rentsync")
    await world.send_webhooks(site.portfolio.set_rent(UNIT, 2004), org=ORG)
    await world.pass_time(30)
    first = len(site.rentsync.accepted)
    await world.store(ORG, "rentsync", world.rentsync_of(site))
    await world.enable(ORG, "rentsync")
    await world.until(lambda: receiver_matches(site), within=5)
    await world.rest()

    assert [mode for mode, _ in batches(site, first)] == ["snapshot"] * 4


async def test_a_receiver_with_another_address_gets_a_first_snapshot(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    moved = world.site("moved", site.portfolio, "unused")
    first = len(site.rentsync.accepted)
    await world.store(ORG, "rentsync", world.rentsync_of(site, url=moved.rentsync_url))
    await world.until(lambda: receiver_matches(moved), within=5)
    await world.rest()

    assert {batch.mode for batch in moved.rentsync.accepted} == {"snapshot"}
    assert len(moved.rentsync.accepted) == 4
    assert len(site.rentsync.accepted) == first


async def test_a_receiver_with_another_key_gets_nothing_again(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    first = len(site.rentsync.accepted)
    site.rentsync.api_key = "another-key"
    await world.store(ORG, "rentsync", replace(world.rentsync_of(site), secrets={"apiKey": SecretStr("another-key")}))
    await world.pass_time(30)
    await world.rest()
    assert batches(site, first) == []


async def test_a_receiver_disabled_while_deliveries_are_on_their_way_loses_and_doubles_nothing(
    world: MemoryWorld,
) -> None:
    """Some are in flight, some wait on a rung, some are made while it is disabled."""
    site = world.sites[ORG]
    in_flight, waiting, later = 100104, 100204, 100301
    first = len(site.rentsync.accepted)
    site.rentsync.answer_next(503)
    await world.send_webhooks(site.portfolio.set_rent(waiting, 2005), org=ORG)
    await world.until(lambda: 503 in site.rentsync.statuses)
    site.to_rentsync.latency = 5.0
    await world.send_webhooks(site.portfolio.set_rent(in_flight, 2006), org=ORG)
    await world.pass_time(2)

    await world.disable(ORG, "rentsync")
    await world.send_webhooks(site.portfolio.set_rent(later, 2007), org=ORG)
    await world.rest()
    assert batches(site, first) == [("delta", [(in_flight, 2006.0)])]

    site.to_rentsync.latency = 0.0
    await world.enable(ORG, "rentsync")
    await world.until(lambda: receiver_matches(site), within=5)
    await world.rest()
    assert sorted(batches(site, first)[1:]) == [("delta", [(waiting, 2005.0)]), ("delta", [(later, 2007.0)])]
    assert world.read(topics.DEAD_LETTERS.name) == []


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5])
async def test_a_receiver_switched_off_and_on_at_any_moment_of_a_delivery(world: MemoryWorld, seconds: float) -> None:
    site = world.sites[ORG]
    site.to_rentsync.latency = site.to_buildium.latency = 0.2
    first, units = len(site.rentsync.accepted), sorted(site.rentsync.state)
    for turn, unit in enumerate(units):
        await world.send_webhooks(site.portfolio.set_rent(unit, 2100 + turn), org=ORG)
    await world.pass_time(seconds)
    await world.disable(ORG, "rentsync")
    await world.pass_time(seconds)
    await world.enable(ORG, "rentsync")
    await world.until(lambda: receiver_matches(site), within=10)
    await world.rest()

    sent = [unit for _, units_of in batches(site, first) for unit in units_of]
    assert len(sent) == len(set(sent)) == len(units)
    assert world.read(topics.DEAD_LETTERS.name) == []


# ---------------------------------------------------------------------------------------------------------- properties


async def test_a_property_that_is_switched_off_is_unavailable_once_and_comes_back(world: MemoryWorld) -> None:
    """Either way: at the receiver, or at the account for all receivers."""
    site = world.sites[ORG]
    units = set(site.portfolio.units_of[1001])
    before = {unit: site.rentsync.state[unit].status_name for unit in units}
    for rent, name, body in ((2301, "rentsync", world.rentsync_of(site)), (2302, "buildium", world.buildium_of(site))):
        first = len(site.rentsync.accepted)
        await world.store(ORG, name, replace(body, properties_off=(1001,)))
        await world.until(lambda: {site.rentsync.state[unit].status_name for unit in units} == {"Unavailable"}, 5)
        await world.send_webhooks(site.portfolio.set_rent(UNIT, rent), org=ORG)
        await world.pass_time(960)  # a sweep
        await world.rest()
        off = batches(site, first)
        assert {site.rentsync.state[unit].status_name for unit in units} == {"Unavailable"}

        await world.store(ORG, name, replace(body, properties_off=()))
        await world.until(lambda: {unit: site.rentsync.state[unit].status_name for unit in units} == before, within=5)
        await world.rest()
        assert receiver_matches(site)
        assert sum(len(units_of) for _, units_of in off) == len(units), "once"


async def test_only_named_properties_take_part_where_the_default_is_off(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    other = world.site("other", site.portfolio, "unused")
    body = replace(world.rentsync_of(other), properties_default=False, properties_on=(1002,))
    await world.store(ORG, "second", body)
    await world.enable(ORG, "second")
    await world.until(lambda: bool(other.rentsync.accepted), within=5)
    await world.pass_time(960)
    await world.rest()
    assert set(other.rentsync.state) == set(site.portfolio.units_of[1002])


SHAPES_IN_TURN = ("flat", "unit", "property")


async def test_the_form_of_batches_changes_while_changes_come_in(world: MemoryWorld) -> None:
    """Each form begins with a snapshot of everything; nothing is refused, lost, or sent twice with one key."""
    site = world.sites[ORG]
    units, rent = sorted(site.portfolio.units), 5000
    for shape in SHAPES_IN_TURN:
        first = len(site.rentsync.accepted)
        for turn, unit in enumerate(units[:6]):
            rent += 1
            await world.send_webhooks(site.portfolio.set_rent(unit, rent), org=ORG)
            await world.pass_time(0.3)
            if turn == 2:
                fields = "all" if shape == "property" else "core"
                body = world.rentsync_of(site, shape=shape, fields=fields)
                await world.store(ORG, "rentsync", body)
        await world.until(lambda: receiver_matches(site), within=120)
        await world.rest()
        bodies = [one.body for one in site.rentsync.accepted[first:]]
        shapes = [shape_of(body) for body in bodies]
        begun = shapes.index(shape)
        assert set(shapes[begun:]) == {shape}
        new = site.rentsync.accepted[first + begun :]
        assert {one.project for one in new if one.mode == "snapshot"} == {
            one.project_id for one in site.rentsync.state.values()
        }
    assert set(site.rentsync.statuses) == {200}
