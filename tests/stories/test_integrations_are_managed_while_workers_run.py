"""An org is added, changed, disabled, enabled and deleted over the API; every process follows without a restart."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest_asyncio

from connectors.buildium.standin import Webhooks
from schemas import topics
from schemas.codec import decode_as
from schemas.pms import FetchRequest
from tests.world import listed_rent, receiver_matches
from tests.world.cluster import ClusterWorld, Org

EFFECT_WITHIN = 2.0
"""Seconds after the answer to a change until every process acts on it."""
ORG = "acme"


@pytest_asyncio.fixture(loop_scope="session")
async def org(cluster_world: ClusterWorld) -> AsyncIterator[Org]:
    """An account and a receiver that nothing names yet."""
    async with cluster_world.org(ORG) as org:
        yield org


def letters(world: ClusterWorld) -> int:
    return sum(record.key == ORG.encode() for record in world.read(topics.DEAD_LETTERS.name))


def raise_rents(org: Org, start: int) -> list[tuple[int, int]]:
    """Return a unit and its new rent for each unit of the org's receiver."""
    return [(unit, start + number) for number, unit in enumerate(sorted(org.rentsync.state))]


async def send(org: Org, sender: Webhooks, unit: int, rent: int) -> None:
    await sender.send(org.portfolio.set_rent(unit, rent))


async def quiet(world: ClusterWorld) -> None:
    """Wait until a change must have taken effect, and nothing is in progress."""
    until = time.monotonic() + EFFECT_WITHIN
    await world.until(lambda: time.monotonic() >= until)
    await world.rest()


async def test_an_org_from_its_first_to_its_last_day(cluster_world: ClusterWorld, org: Org) -> None:
    world = cluster_world
    processes = (*world.workers, *world.webs)
    assert len(processes) == 3

    # Added and enabled: everything is read and delivered.
    sender = await org.enable()
    await world.until(lambda: receiver_matches(org))
    await world.rest()
    state = (await org.call("GET", "/buildium")).json()
    assert (state["syncState"], state["lastStatus"], state["hold"]) == ("synced", "Success", None)
    await send(org, sender, 100104, 2000)
    await world.until(lambda: listed_rent(org, 100104) == 2000.0)

    # The key is replaced under load: nothing is lost, refused later than it may be, or sent twice.
    first, refused_after = len(org.rentsync.accepted), 0.0
    changes = [change for start in (2100, 2200, 2300) for change in raise_rents(org, start)]
    for number, (unit, rent) in enumerate(changes):
        await send(org, sender, unit, rent)
        if number == len(changes) // 2:
            org.buildium.client_secret = org.secrets["newClientSecret"]
            body = org.body("buildium", clientSecret=org.secrets["newClientSecret"])
            assert (await org.call("PUT", "/buildium", body)).status_code == 200
            refused_after = time.monotonic() + EFFECT_WITHIN
    await world.until(lambda: receiver_matches(org))
    await world.rest()
    assert [call.path for call in org.buildium.calls if call.status == 401 and call.at > refused_after] == []
    assert {rent for _, rent in changes[-len(org.rentsync.state) :]} == {
        int(one.base_rent or 0) for one in org.rentsync.state.values()
    }
    sent = Counter((one["unit_id"], one["base_rent"]) for b in org.rentsync.accepted[first:] for one in b.units)
    assert max(sent.values()) == 1

    # The account is disabled: its webhooks are taken and ignored. Enabled again, a sweep finds what was missed.
    assert (await org.call("POST", "/buildium/disable")).status_code == 200
    calls = len(org.buildium.calls)
    await quiet(world)
    await send(org, sender, 100104, 2401)
    await world.rest()
    assert len(org.buildium.calls) == calls
    taken = [record.value for record in world.read(topics.WEBHOOKS.name) if record.key == ORG.encode()]
    assert decode_as(FetchRequest, taken[-1]).ignored == "disabled"
    assert (await org.call("POST", "/buildium/enable")).status_code == 200
    await world.until(lambda: listed_rent(org, 100104) == 2401.0)

    # The receiver is disabled while deliveries are on their way, and enabled again.
    sending = asyncio.gather(*(send(org, sender, unit, rent) for unit, rent in raise_rents(org, 2500)))
    assert (await org.call("POST", "/rentsync/disable")).status_code == 200
    await sending
    await quiet(world)
    accepted = len(org.rentsync.accepted)
    await send(org, sender, 100104, 2600)
    await world.rest()
    assert len(org.rentsync.accepted) == accepted
    assert (await org.call("POST", "/rentsync/enable")).status_code == 200
    await world.until(lambda: receiver_matches(org))
    assert listed_rent(org, 100104) == 2600.0

    # Deleted: nothing is read or sent any more, and its address is gone.
    await world.rest()
    assert set(sender.statuses) == {202}
    await org.delete()
    await quiet(world)
    calls, accepted = len(org.buildium.calls), len(org.rentsync.accepted)
    assert (await org.call("GET", "/buildium")).status_code == 404
    before = len(sender.statuses)
    await send(org, sender, 100104, 2700)
    assert set(sender.statuses[before:]) == {404}
    await world.rest()
    assert (len(org.buildium.calls), len(org.rentsync.accepted)) == (calls, accepted)
    await sender.aclose()

    assert set(org.rentsync.statuses) == {200}
    assert letters(world) == 0
    assert (*world.workers, *world.webs) == processes
    assert [process.code for process in processes] == [None] * 3


async def test_the_org_of_the_environment_is_not_concerned(cluster_world: ClusterWorld, org: Org) -> None:
    """Its ids are the same; an org sees only its own integrations."""
    world = cluster_world
    first = len(world.rentsync.accepted)
    sender = await org.enable()
    await world.until(lambda: receiver_matches(org))
    await sender.aclose()
    await world.rest()
    assert len(world.rentsync.accepted) == first
    assert receiver_matches(world)
    assert {one["org"] for one in (await org.call("GET")).json()} == {ORG}
    others = (await world.call_api("GET", "/api/integrations", "default")).json()
    assert {(one["name"], one["origin"]) for one in others} == {
        ("buildium", "environment"),
        ("rentsync", "environment"),
    }
