"""An integration is stored, tested, enabled, synced and deleted, and its state shows at any moment how far it is."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from schemas import topics
from schemas.codec import decode_as
from schemas.integrations import ChangeAction, CheckStatus, IntegrationChange
from streams.core.flows import Record
from streams.directory.model import Conflict, NotFound, PutIntegration
from tests.world import listed_rent, receiver_matches
from tests.world.memory import MemoryWorld, Site, seed

ORG = "acme"
BUILDIUM, RENTSYNC = "127.0.0.2", "127.0.0.3"
"""Hosts whose names a connection test need not resolve."""


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """An account and a receiver that nothing names yet."""
    world = MemoryWorld(environment=False)
    world.env["RENTSTREAM_ALLOW_PRIVATE"] = "1"
    async with world:
        site = world.site(ORG, seed(world.clock), "the-secret-of-acme")
        world.hosts.apps |= {BUILDIUM: site.to_buildium, RENTSYNC: site.to_rentsync}
        async with world.beside(ORG):
            yield world


def buildium(world: MemoryWorld, key: str | None = None) -> PutIntegration:
    """Return the configuration of the account, perhaps with another key."""
    body = world.buildium_of(world.sites[ORG], baseUrl=f"http://{BUILDIUM}/v1")
    return body if key is None else replace(body, secrets={**body.secrets, "clientSecret": SecretStr(key)})


def rentsync(world: MemoryWorld) -> PutIntegration:
    return world.rentsync_of(world.sites[ORG], url=f"http://{RENTSYNC}/v1/rent-roll/sync")


def of_org(world: MemoryWorld, topic: topics.TopicSpec) -> list[Record]:
    """Return the records of the org whose integrations change."""
    return [record for record in world.read(topic.name) if (record.key or b"").split(b"/")[0] == ORG.encode()]


async def enabled(world: MemoryWorld) -> Site:
    """Store and enable both integrations, and let time pass until the receiver lists all units."""
    for name, body in (("buildium", buildium(world)), ("rentsync", rentsync(world))):
        await world.store(ORG, name, body)
        await world.enable(ORG, name)
    site = world.sites[ORG]
    await world.until(lambda: receiver_matches(site))
    await world.rest()
    return site


async def test_a_new_integration_is_disabled_and_can_be_tested(world: MemoryWorld) -> None:
    """The test reads what it needs, and nothing is synced by it."""
    state = await world.store(ORG, "buildium", buildium(world))
    assert (state.enabled, state.sync_state, state.last_ran, state.hold) == (False, "disabled", None, None)
    report = await world.managed(world.integrations.check(ORG, "buildium"))
    assert report.passed
    assert {one.name: one.status for one in report.checks if one.required}["credentials"] is CheckStatus.PASSED
    assert report.account == world.sites[ORG].portfolio.account
    await world.pass_time(1000)
    assert of_org(world, topics.SWEEPS) == []
    assert (await world.state(ORG, "buildium")).checks == report


async def test_a_test_with_a_wrong_key_names_what_to_do_and_stores_that(world: MemoryWorld) -> None:
    await world.store(ORG, "buildium", buildium(world, key="a-wrong-key-of-acme"))
    report = await world.managed(world.integrations.check(ORG, "buildium"))
    (failed,) = [one for one in report.checks if one.status is CheckStatus.FAILED]
    assert not report.passed
    assert failed.name == "credentials"
    assert failed.fix
    assert "a-wrong-key-of-acme" not in str(report)
    assert (await world.state(ORG, "buildium")).checks == report


async def test_enabling_leads_to_a_first_sync_with_its_time_and_success(world: MemoryWorld) -> None:
    await world.store(ORG, "buildium", buildium(world))
    await world.pass_time(100)
    enabled_at = world.clock.now()
    await world.enable(ORG, "buildium")
    await world.until(lambda: bool(of_org(world, topics.INTEGRATION_STATUS)))
    await world.rest()
    state = await world.state(ORG, "buildium")
    assert (state.sync_state, state.sync_detail, state.last_status) == ("synced", None, "Success")
    assert state.last_ran is not None
    assert enabled_at < state.last_ran <= world.clock.now()
    assert world.sites[ORG].rentsync.accepted == [], "no receiver is there yet"


async def test_a_first_sync_that_fails_is_failed_in_words_and_repeated_when_it_is_corrected(world: MemoryWorld) -> None:
    """At once, not only at the next scheduled sweep."""
    site = world.sites[ORG]
    await world.store(ORG, "rentsync", rentsync(world))
    await world.enable(ORG, "rentsync")
    await world.store(ORG, "buildium", buildium(world, key="a-wrong-key-of-acme"))
    await world.enable(ORG, "buildium")
    await world.pass_time(10)
    state = await world.state(ORG, "buildium")
    assert (state.sync_state, state.last_status) == ("failed", "Failed")
    assert state.sync_detail == "Buildium answered 401 Unauthorized: The API key is invalid or missing."

    await world.store(ORG, "buildium", buildium(world))
    assert await world.until(lambda: receiver_matches(site)) < 5
    await world.rest()
    state = await world.state(ORG, "buildium")
    assert (state.sync_state, state.last_status) == ("synced", "Success")


async def test_each_later_sync_renews_its_time(world: MemoryWorld) -> None:
    await enabled(world)
    before = (await world.state(ORG, "buildium")).last_ran
    await world.pass_time(960)
    after = (await world.state(ORG, "buildium")).last_ran
    assert before is not None
    assert after is not None
    assert after > before


async def test_a_later_sync_that_fails_says_so_and_the_next_one_succeeds(world: MemoryWorld) -> None:
    site = await enabled(world)
    site.buildium.fail(400, times=1, path="/v1/leases")
    await world.pass_time(910)
    state = await world.state(ORG, "buildium")
    assert (state.sync_state, state.last_status) == ("failed", "Failed")
    assert state.sync_detail is not None
    assert "400 Bad Request" in state.sync_detail
    await world.pass_time(900)
    assert (await world.state(ORG, "buildium")).last_status == "Success"


async def test_disabling_keeps_the_configuration_and_what_is_known_of_the_last_sync(world: MemoryWorld) -> None:
    await enabled(world)
    before = await world.state(ORG, "buildium")
    state = await world.disable(ORG, "buildium")
    assert (state.enabled, state.sync_state, state.last_status) == (False, "disabled", "Success")
    assert (state.last_ran, state.settings, state.secrets) == (before.last_ran, before.settings, before.secrets)
    assert state.version == before.version + 1


async def test_deleting_leaves_the_history_and_nothing_else(world: MemoryWorld) -> None:
    """Its secrets and its status are gone; nothing is read or sent any more."""
    site = await enabled(world)
    await world.managed(world.integrations.check(ORG, "buildium"))
    await world.delete(ORG, "buildium")
    await world.delete(ORG, "rentsync")
    with pytest.raises(NotFound):
        await world.state(ORG, "buildium")
    calls, sent = len(site.buildium.calls), len(site.rentsync.accepted)
    site.portfolio.set_rent(100104, 2950)
    await world.pass_time(1900)
    await world.rest()
    assert (len(site.buildium.calls), len(site.rentsync.accepted)) == (calls, sent)
    assert listed_rent(site, 100104) != 2950.0

    kept: dict[tuple[str, bytes | None], bytes | None] = {}
    for topic in (topics.INTEGRATIONS, topics.INTEGRATION_STATUS):
        kept |= {(topic.name, record.key): record.value for record in of_org(world, topic)}
    assert set(kept.values()) == {None}, "compaction leaves nothing"
    history = [decode_as(IntegrationChange, one.value) for one in of_org(world, topics.INTEGRATION_HISTORY)]
    assert [one.action for one in history if one.name == "buildium"] == [
        ChangeAction.CREATED,
        ChangeAction.ENABLED,
        ChangeAction.DELETED,
    ]


async def test_an_integration_of_the_environment_cannot_be_changed_here_and_says_how(world: MemoryWorld) -> None:
    async with MemoryWorld() as other:
        with pytest.raises(Conflict, match="described by the environment"):
            await other.disable("default", "buildium")
        await other.until(lambda: receiver_matches(other))
        await other.rest()
        state = await other.state("default", "buildium")
        assert (state.origin, state.enabled, state.sync_state, state.version) == ("environment", True, "synced", 0)
