"""Without the key that encrypted its secrets an integration is held, and nothing else is; with the key it goes on."""

from collections.abc import AsyncIterator

import pytest

from schemas import topics
from tests.world import listed_rent, receiver_matches
from tests.world.memory import ENCRYPTION_KEYS, MemoryWorld, Site, seed

OLD = ENCRYPTION_KEYS
NEW = "k2:" + "bmV3" * 10 + "bmU="
"""Another key of 32 bytes."""
UNIT = 100104


@pytest.fixture(params=["buildium", "rentsync"])
def lost(request: pytest.FixtureRequest) -> str:
    """The integration of acme whose key will be lost."""
    return str(request.param)


@pytest.fixture
async def world(lost: str) -> AsyncIterator[MemoryWorld]:
    """Two orgs, delivered; the old key encrypted the secrets of one integration, the new one those of all others."""
    async with MemoryWorld(environment=False) as world:
        acme = world.site("acme", seed(world.clock), "the-secret-of-acme")
        await store(world, acme, lost)
        await world.restart(f"{NEW},{OLD}")
        await store(world, acme, "rentsync" if lost == "buildium" else "buildium")
        await world.add_delivered_orgs("cedar")
        await world.until(lambda: receiver_matches(acme))
        await world.rest()
        yield world


async def store(world: MemoryWorld, site: Site, name: str) -> None:
    """Store an integration of a site, and enable it."""
    await world.store(site.org, name, world.buildium_of(site) if name == "buildium" else world.rentsync_of(site))
    await world.enable(site.org, name)


async def change_without_workers(world: MemoryWorld, rent: int) -> None:
    """Change a unit of both orgs while no worker runs; the webhooks are durable."""
    await world.kill_worker()
    for org in ("acme", "cedar"):
        await world.send_webhooks(world.sites[org].portfolio.set_rent(UNIT, rent), org=org)
    await world.start(1)


async def test_it_is_held_in_words_and_the_others_go_on(world: MemoryWorld, lost: str) -> None:
    """What came before is held, not dead, and goes on where it was when the key is back."""
    acme, cedar = world.sites["acme"], world.sites["cedar"]
    first = len(acme.rentsync.accepted)
    world.encryption_keys = NEW
    await change_without_workers(world, 2701)
    assert await world.until(lambda: listed_rent(cedar, UNIT) == 2701.0) < 5
    await world.pass_time(1200)

    assert len(acme.rentsync.accepted) == first
    assert world.read(topics.DEAD_LETTERS.name) == []
    reasons = {dict(record.headers)["rent-reason"] for record in world.read(topics.rung("1m").name)}
    assert reasons == {b"integration_problem"}

    await world.restart(f"{NEW},{OLD}")
    await world.until(lambda: listed_rent(acme, UNIT) == 2701.0, within=660)
    await world.rest()
    assert receiver_matches(acme)
    assert world.read(topics.DEAD_LETTERS.name) == []
    assert len(acme.rentsync.accepted) == first + 1


async def test_its_state_names_the_key_and_what_to_do(world: MemoryWorld, lost: str) -> None:
    await world.restart(NEW)
    states = {
        (org, one.name): one for org in ("acme", "cedar") for one in await world.managed(world.integrations.list(org))
    }
    held = {key for key, one in states.items() if one.hold}
    state = states["acme", lost]

    assert held == {("acme", lost)}
    assert state.hold is not None
    assert "k1" in state.hold
    assert "RENTSTREAM_ENCRYPTION_KEYS" in state.hold
    assert "enter the secret again" in state.hold
    assert state.sync_state == "held"
    assert {one.readable for one in state.secrets} == {False}


async def test_a_webhook_that_cannot_be_verified_is_asked_for_again(world: MemoryWorld, lost: str) -> None:
    """With 503, so that Buildium repeats it; the other org's is taken."""
    await world.restart(NEW)
    acme, cedar = world.sites["acme"], world.sites["cedar"]
    body = acme.portfolio.set_rent(UNIT, 2702)[0].body(acme.portfolio.account)
    if lost == "buildium":
        with pytest.raises(AssertionError, match="503"):
            world.receive_webhook(body, acme.webhook_secret)
    else:
        assert world.receive_webhook(body, acme.webhook_secret).org == "acme"
    assert world.receive_webhook(body, cedar.webhook_secret).org == "cedar"


async def test_secrets_that_are_entered_again_end_the_hold(world: MemoryWorld, lost: str) -> None:
    acme = world.sites["acme"]
    world.encryption_keys = NEW
    await change_without_workers(world, 2703)
    await world.restart(NEW)
    await world.pass_time(30)
    state = await world.store("acme", lost, world.buildium_of(acme) if lost == "buildium" else world.rentsync_of(acme))
    assert (state.hold, state.enabled) == (None, True)
    await world.until(lambda: listed_rent(acme, UNIT) == 2703.0, within=120)


async def test_a_new_first_key_is_used_after_reencryption(world: MemoryWorld, lost: str) -> None:
    """Then the old key may be removed, and nothing is held."""
    assert await world.managed(world.integrations.reencrypt("a story")) == 1
    await world.restart(NEW)
    for org in ("acme", "cedar"):
        assert [one.hold for one in await world.managed(world.integrations.list(org))] == [None, None]
    await world.send_webhooks(world.sites["acme"].portfolio.set_rent(UNIT, 2704), org="acme")
    await world.until(lambda: listed_rent(world.sites["acme"], UNIT) == 2704.0, within=5)
