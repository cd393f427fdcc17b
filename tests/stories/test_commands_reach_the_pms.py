"""Properties and owners of upstream apps are created in Buildium once, in order, and everybody can see what became of
each."""

import httpx
import pytest

from schemas import topics
from schemas.topics import TopicSpec
from tests.world import World
from tests.world.commands import accepted, office, owner, pass_time, sync_of, until_it_is
from tests.world.loss import Loss
from tests.world.memory import MemoryWorld

SEED = b"""{
    "name": "Test Property",
    "addressLine1": "123 Test St",
    "city": "Test City",
    "state": "CA",
    "postalCode": "90210",
    "country": "US",
    "rentalSubType": "Office",
    "status": "Active"
  }"""
"""The body of the guide's own example, byte for byte."""


def created(world: World, name: str) -> list[int]:
    """Return the ids of the properties of a name in Buildium."""
    return [one.id for one in world.portfolio.properties.values() if one.name == name]


async def test_the_example_of_the_guide_ends_as_a_property_in_buildium(world: World) -> None:
    _, href = await accepted(world, "/api/properties", SEED)
    assert (await sync_of(world, href))["status"] in {"pending", "syncing", "synced"}
    found = await until_it_is(world, href, "synced")
    (number,) = created(world, "Test Property")
    assert (found["buildiumId"], found["error"], found["attempts"]) == (number, None, 1)
    assert world.portfolio.properties[number].address.country == "UnitedStates"


async def test_an_owner_waits_for_a_property_that_is_on_its_way(world: World) -> None:
    world.buildium.fail(503, path="/v1/rentals", method="POST")
    property_id, href = await accepted(world, "/api/properties", office("On its way"))
    _, owner_href = await accepted(world, "/api/owners", owner(property_id))
    assert (await sync_of(world, owner_href))["status"] == "pending"
    found, owned = await until_it_is(world, href, "synced"), await until_it_is(world, owner_href, "synced")
    assert world.portfolio.owners[owned["buildiumId"]].property_ids == (found["buildiumId"],)


async def test_an_outage_of_buildium_is_waited_out(world: World) -> None:
    world.buildium.fail(500, path="/v1/rentals", method="POST", times=2)
    _, href = await accepted(world, "/api/properties", office("Patience"))
    waiting = await until_it_is(world, href, "syncing", "synced")
    found = await until_it_is(world, href, "synced")
    assert found["attempts"] > 1
    assert waiting["operations"][0]["id"] == found["operations"][0]["id"]
    assert len(created(world, "Patience")) == 1


async def test_a_creation_whose_answer_was_lost_is_not_made_twice(world: World) -> None:
    world.buildium.fail(503, path="/v1/rentals", method="POST", lost=True)
    _, href = await accepted(world, "/api/properties", office("Lost answer"))
    found = await until_it_is(world, href, "synced")
    assert created(world, "Lost answer") == [found["buildiumId"]]


async def test_a_refusal_names_the_fields_and_can_be_corrected(world: World) -> None:
    own_id, href = await accepted(world, "/api/properties", office("Wrong state", state="ZZ"))
    failed = await until_it_is(world, href, "failed")
    assert [one["pointer"] for one in failed["error"]["fields"]] == ["/state"]
    listed = (await world.ask("GET", "/api/buildium/sync")).json()["items"]
    assert listed[0]["entityId"] == own_id
    await accepted(world, f"/api/properties/{own_id}", office("Right state"), "PUT")
    found = await until_it_is(world, href, "synced")
    assert (found["error"], created(world, "Right state")) == (None, [found["buildiumId"]])
    assert own_id not in [one["entityId"] for one in (await world.ask("GET", "/api/buildium/sync")).json()["items"]]


async def test_what_failed_is_tried_again_on_demand(world: World) -> None:
    world.portfolio.bank_accounts.append(99)
    _, href = await accepted(world, "/api/properties", office("Which account"))
    failed = await until_it_is(world, href, "failed")
    assert "bank account" in failed["error"]["message"]
    world.portfolio.bank_accounts.remove(99)
    answer = await world.ask("POST", "/api/buildium/sync", {"entityType": "property"})
    assert (answer.status_code, answer.json()["retried"]) == (202, 1)
    await until_it_is(world, href, "synced")


async def test_a_change_keeps_what_buildium_has(world: World) -> None:
    own_id, href = await accepted(world, "/api/properties", office("Before", structureDescription="brick"))
    await until_it_is(world, href, "synced")
    await accepted(world, f"/api/properties/{own_id}", office("After", status="Inactive"), "PUT")
    found = await until_it_is(world, href, "synced")
    while len(found["operations"]) < 2 or found["operations"][0]["status"] != "synced":
        await pass_time(world)
        found = await sync_of(world, href)
    number = found["buildiumId"]
    changed = world.portfolio.properties[number]
    assert (changed.name, changed.is_active) == ("After", False)
    assert world.portfolio.details[number]["StructureDescription"] == "brick"


async def test_an_idempotency_key_creates_one_property(world: World) -> None:
    first = await accepted(world, "/api/properties", office("Once"), key="story-1")
    again = await accepted(world, "/api/properties", office("Once"), key="story-1")
    assert first == again
    refused = await world.ask("POST", "/api/properties", office("Twice"), key="story-1")
    assert refused.status_code == 422
    await until_it_is(world, first[1], "synced")
    await world.rest()
    assert len(created(world, "Once")) == 1
    assert created(world, "Twice") == []


async def test_an_org_does_not_see_the_entities_of_another(world: World) -> None:
    own_id, href = await accepted(world, "/api/properties", office("Private"))
    await until_it_is(world, href, "synced")

    async def foreign(method: str, path: str, body: object = None) -> httpx.Response:
        return await world.ask(method, path, body, org="stranger")

    assert (await foreign("GET", href)).status_code == 404
    assert (await foreign("PUT", f"/api/properties/{own_id}", office("Mine"))).status_code == 404
    assert (await foreign("GET", "/api/buildium/sync")).json()["items"] == []


async def test_a_killed_worker_creates_nothing_twice(world: World) -> None:
    """It dies at any moment between the command and its outcome."""
    hrefs = []
    for number in range(5):
        hrefs.append((await accepted(world, "/api/properties", office(f"Killed {number}")))[1])
        if number == 2:
            await world.kill_worker()
            await world.start()
    for number, href in enumerate(hrefs):
        found = await until_it_is(world, href, "synced")
        assert created(world, f"Killed {number}") == [found["buildiumId"]]


async def test_many_commands_of_many_entities_keep_their_order(world: World) -> None:
    entities = {}
    for number in range(6):
        entities[number] = await accepted(world, "/api/properties", office(f"Entity {number}, 0"))
    for turn in range(1, 4):
        for number, (own_id, _) in entities.items():
            await accepted(world, f"/api/properties/{own_id}", office(f"Entity {number}, {turn}"), "PUT")
    for number, (_, href) in entities.items():
        found = await until_it_is(world, href, "synced")
        while len(found["operations"]) < 4 or found["operations"][0]["status"] != "synced":
            await pass_time(world)
            found = await sync_of(world, href)
        assert world.portfolio.properties[found["buildiumId"]].name == f"Entity {number}, 3"
        assert [one["status"] for one in found["operations"]] == ["synced"] * 4


async def test_a_disabled_connection_keeps_its_commands(memory_world: MemoryWorld) -> None:
    """They are made once it is enabled."""
    world = memory_world
    await world.add_delivered_orgs("birch")
    await world.disable("birch", "buildium")
    answer = await world.ask("POST", "/api/properties", office("Held"), org="birch")
    href = answer.json()["sync"]["href"]
    await world.pass_time(300)
    waiting = (await world.ask("GET", href, org="birch")).json()
    assert (waiting["status"], waiting["error"]["code"]) == ("syncing", "integration_problem")
    await world.enable("birch", "buildium")
    await world.pass_time(1300)
    assert (await world.ask("GET", href, org="birch")).json()["status"] == "synced"


@pytest.mark.parametrize("damages", [False, True], ids=["vanishes", "dies"])
@pytest.mark.parametrize("topic", [topics.PUSHES, topics.SYNC_EVENTS], ids=lambda topic: topic.name)
async def test_a_record_on_the_way_may_vanish(memory_world: MemoryWorld, topic: TopicSpec, damages: bool) -> None:
    world = memory_world
    loss = Loss(world, topic, damages=damages)
    _, href = await accepted(world, "/api/properties", office("Vanished"))
    await world.pass_time(5)
    assert loss.happened
    assert (await sync_of(world, href))["status"] == "syncing"
    await world.pass_time(1200)
    found = await sync_of(world, href)
    assert (found["status"], created(world, "Vanished")) == ("synced", [found["buildiumId"]])
