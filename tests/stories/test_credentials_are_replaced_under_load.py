"""New credentials take effect in every process at once: nothing is lost or sent twice, and no process restarts."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr

from connectors.rentsync.standin import PATH, TOKEN_PATH
from schemas import topics
from streams.directory.model import PutIntegration
from tests.world import receiver_matches
from tests.world.memory import STORY, MemoryWorld, Site

ORG = "acme"
TURNS = 60
"""Webhooks of a story, one in a tenth of a second."""
LATENCY = 0.35
"""Seconds of every call, so that some are in flight at any moment."""
EFFECT_WITHIN = 2.0


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """One org with stored integrations, two workers and a web role; idle."""
    async with MemoryWorld(environment=False) as world:
        await world.start(workers=1)
        (site,) = await world.add_delivered_orgs(ORG)
        site.to_buildium.latency = site.to_rentsync.latency = LATENCY
        async with world.beside(ORG):
            yield world


def with_secrets(body: PutIntegration, **secrets: str) -> PutIntegration:
    """Return a change of these secrets only; the others are kept."""
    return replace(body, secrets={name: SecretStr(value) for name, value in secrets.items()})


async def webhooks_with_a_change(world: MemoryWorld, site: Site, change: Callable[[], Awaitable[object]]) -> None:
    """Change the rents of all units again and again; in the middle of it ``change`` something."""
    units = sorted(site.rentsync.state)
    for turn in range(TURNS):
        if turn == TURNS // 2:
            await change()
        await world.send_webhooks(site.portfolio.set_rent(units[turn % len(units)], 2000 + turn), org=ORG)
        await world.pass_time(0.1)
    await world.until(lambda: receiver_matches(site))
    await world.rest()


def no_batch_came_twice(site: Site, first: int) -> bool:
    """Return whether no unit was sent twice with the same rent."""
    sent = Counter(
        (unit["unit_id"], unit["base_rent"]) for batch in site.rentsync.accepted[first:] for unit in batch.units
    )
    return max(sent.values()) == 1


async def test_the_key_of_the_account_is_replaced(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    first, changed_at = len(site.rentsync.accepted), list[float]()

    async def change() -> None:
        site.buildium.client_secret = "the-new-client-secret"
        await world.store(ORG, "buildium", with_secrets(world.buildium_of(site), clientSecret="the-new-client-secret"))
        changed_at.append(world.clock.monotonic())

    await webhooks_with_a_change(world, site, change)

    refused = [call.at - LATENCY for call in site.buildium.calls if call.status == 401]
    assert refused
    assert max(refused) <= changed_at[0] + EFFECT_WITHIN
    assert world.read(topics.DEAD_LETTERS.name) == []
    assert no_batch_came_twice(site, first)
    sweeps = [record for record in world.read(topics.SWEEPS.name) if record.key == ORG.encode()]
    assert len(sweeps) == 4, "no sweep had to find what was lost"


async def test_the_key_of_the_receiver_is_replaced(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    first, changed_at = len(site.rentsync.accepted), list[float]()

    async def change() -> None:
        site.rentsync.api_key = "the-new-key"
        await world.store(ORG, "rentsync", with_secrets(world.rentsync_of(site), apiKey="the-new-key"))
        changed_at.append(world.clock.monotonic())

    await webhooks_with_a_change(world, site, change)

    calls = zip(site.to_rentsync.spans, site.rentsync.statuses, strict=True)
    refused = [began for (began, _), status in calls if status == 401]
    assert refused
    assert max(refused) <= changed_at[0]
    assert world.read(topics.DEAD_LETTERS.name) == []
    assert no_batch_came_twice(site, first)


async def test_what_comes_while_no_key_is_valid_is_held_until_there_is_one(world: MemoryWorld) -> None:
    """The old key was revoked five minutes before the new one was stored; hardly a call is made meanwhile."""
    site, unit = world.sites[ORG], 100101
    since = len(site.buildium.calls)
    site.buildium.client_secret = "the-new-client-secret"
    for number in range(1, 31):
        await world.send_webhooks(site.portfolio.edit_unit(unit, number=f"N{number}"), org=ORG)
        await world.pass_time(10)
    calls = len(site.buildium.calls) - since
    assert {call.status for call in list(site.buildium.calls)[since:]} == {401}
    await world.store(ORG, "buildium", with_secrets(world.buildium_of(site), clientSecret="the-new-client-secret"))

    seconds = await world.until(lambda: site.rentsync.state[unit].unit_code == "N30", within=700)

    assert seconds <= 300
    assert calls <= 6
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_receiver_that_refuses_the_key_gets_the_state_of_the_moment_when_it_is_replaced(
    world: MemoryWorld,
) -> None:
    site = world.sites[ORG]
    first, answers = len(site.rentsync.accepted), len(site.rentsync.statuses)
    site.rentsync.api_key = "the-new-key"
    for turn in range(20):
        await world.send_webhooks(site.portfolio.set_rent(100104, 2100 + turn), org=ORG)
        await world.pass_time(10)
    refused = len(site.rentsync.statuses) - answers
    await world.store(ORG, "rentsync", with_secrets(world.rentsync_of(site), apiKey="the-new-key"))

    await world.until(lambda: receiver_matches(site), within=300)
    await world.rest()

    assert refused <= 6
    assert [batch.units[0]["base_rent"] for batch in site.rentsync.accepted[first:]] == [2119.0]
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_webhook_secret_is_rotated_without_a_refused_webhook(world: MemoryWorld) -> None:
    """The old secret and the new one are both valid until the old one is removed."""
    site = world.sites[ORG]
    old = await world.state(ORG, "buildium")
    token = (old.webhook_path or "").rsplit("/", 1)[1]
    body = site.portfolio.set_rent(100104, 2500)[0].body(site.portfolio.account)
    _, made = await world.managed(world.integrations.rotate_webhook_secret(ORG, "buildium", None, STORY))
    assert made is not None

    for secret in (site.webhook_secret, made.get_secret_value()):
        for address in (None, token):
            assert world.receive_webhook(body, secret, address).ignored is None

    (since,) = [one.since for one in old.secrets if one.name == "webhookSecret"]
    await world.managed(world.integrations.remove_webhook_secret(ORG, "buildium", since, STORY))
    assert world.receive_webhook(body, made.get_secret_value(), token).org == ORG
    with pytest.raises(AssertionError, match="401"):
        world.receive_webhook(body, site.webhook_secret, token)


async def test_every_process_knows_a_change_within_two_seconds(world: MemoryWorld) -> None:
    site, processes = world.sites[ORG], world.processes
    assert len(processes) == 3
    state = await world.store(ORG, "buildium", world.buildium_of(site, makeReadyDays=3))

    def known() -> list[int]:
        return [entry.version for one in processes if (entry := one.known.directory.get(ORG, "buildium"))]

    assert await world.until(lambda: known() == [state.version] * 3, within=EFFECT_WITHIN) <= EFFECT_WITHIN
    assert world.processes == processes


async def test_the_secrets_of_signatures_are_rotated_under_load(memory_world: MemoryWorld) -> None:
    """While both are known to this side, the receiver may take either: nothing is refused."""
    world = memory_world
    site = await world.add_org("maple", enabled=False)
    access = site.rentsync.access
    access.scheme, access.hmac_secrets = "hmac", ("old",)

    async def change_to(secrets: tuple[str, ...], rent: int) -> None:
        """Store the receiver with these secrets while rents change."""
        body = world.rentsync_of(site, auth="hmac")
        body = replace(body, secrets={"apiKey": None, "hmacSecret": tuple(SecretStr(one) for one in secrets)})
        await send_rents(world, site, rent)
        await world.store("maple", "rentsync", body)
        await send_rents(world, site, rent + 20)
        await world.until(lambda: receiver_matches(site), within=120)

    await world.store(
        "maple", "rentsync", replace(world.rentsync_of(site, auth="hmac"), secrets={"hmacSecret": SecretStr("old")})
    )
    await world.enable("maple", "rentsync")
    await world.enable("maple", "buildium")
    await world.until(lambda: receiver_matches(site), within=120)
    await change_to(("new", "old"), 3000)
    access.hmac_secrets = ("new",)
    await change_to(("new",), 3100)

    assert set(site.rentsync.statuses) == {200}


async def test_the_client_secret_of_tokens_is_rotated_under_load(memory_world: MemoryWorld) -> None:
    """A token that was got with the old one serves until its end; the next one is got with the new one."""
    world = memory_world
    site = await world.add_org("maple", enabled=False)
    access = site.rentsync.access
    access.scheme, access.client_id, access.client_secret, access.lifetime = "oauth2", "us", "old", 60.0
    token_url = site.rentsync_url.replace(PATH, TOKEN_PATH)

    def body(secret: str) -> PutIntegration:
        put = world.rentsync_of(site, auth="oauth2", oauthTokenUrl=token_url, oauthClientId="us")
        return replace(put, secrets={"apiKey": None, "oauthClientSecret": SecretStr(secret)})

    await world.store("maple", "rentsync", body("old"))
    await world.enable("maple", "rentsync")
    await world.enable("maple", "buildium")
    await world.until(lambda: receiver_matches(site), within=120)
    access.client_secret = "new"
    await send_rents(world, site, 3200)
    await world.store("maple", "rentsync", body("new"))
    await send_rents(world, site, 3220)
    await world.pass_time(90)
    await send_rents(world, site, 3240)
    await world.until(lambda: receiver_matches(site), within=120)

    assert set(site.rentsync.statuses) == {200}
    assert 2 <= access.asked <= 4
    assert not any(b"token-" in (one.value or b"") for topic in world.broker.topics() for one in world.read(topic))


async def send_rents(world: MemoryWorld, site: Site, rent: int) -> None:
    """Change the rent of some units, one after the other."""
    for number, unit in enumerate(sorted(site.portfolio.units)[:10]):
        await world.send_webhooks(site.portfolio.set_rent(unit, rent + number), org="maple")
        await world.pass_time(0.2)
