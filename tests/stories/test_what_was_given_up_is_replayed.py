"""A person sees what a replay would do, approves it, and exactly that is done, beside live traffic and over crashes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.replay import ReplayWish
from streams.core.replays import ReplayState
from streams.directory.model import Conflict, Invalid, NotFound
from streams.replays.book import Replay
from streams.replays.planner import ReplayRequest
from streams.view.queries import LetterFilter
from tests.world import listed_rent, pick, receiver_matches
from tests.world.cluster import ClusterWorld
from tests.world.memory import STORY, MemoryWorld

OPEN = LetterFilter(open=True)


async def give_up(world: MemoryWorld, count: int, rent: int = 2000) -> dict[int, int]:
    """Let the receiver refuse the batches of units of different properties; return their rents, as they are now."""
    rents: dict[int, int] = {}
    homes: set[int] = set()
    for unit in world.portfolio.units.values():
        if unit.property_id not in homes and len(rents) < count:
            homes.add(unit.property_id)
            rents[unit.id] = rent + len(rents)
    before = len(world.read(topics.DEAD_LETTERS.name))
    world.rentsync.answer_next(400, times=100_000)
    for unit_id, amount in rents.items():
        await world.send_webhooks(world.portfolio.set_rent(unit_id, amount))
    await world.until(lambda: len(world.read(topics.DEAD_LETTERS.name)) >= before + len(rents), within=600)
    world.rentsync.recover()
    return rents


async def plan(world: MemoryWorld, wanted: LetterFilter = OPEN, **more: Any) -> Replay:
    assert world.web is not None
    return await world.web.replays.plan(ReplayRequest("default", wanted, **more), STORY)


async def order(world: MemoryWorld, replay: Replay, wish: ReplayWish) -> Replay:
    assert world.web is not None
    return await world.web.replays.order("default", replay.plan.id, wish, STORY)


async def look(world: MemoryWorld, replay: Replay) -> Replay:
    assert world.web is not None
    return await world.web.replays.get("default", replay.plan.id)


async def done(world: MemoryWorld, replay: Replay, within: float = 120) -> Replay:
    """Wait for the end of a replay; return it."""
    began = world.clock.monotonic()
    while (found := await look(world, replay)).state is not ReplayState.DONE:
        assert world.clock.monotonic() - began < within, found
        await world.pass_time(0.5)
    return found


def adds_up(replay: Replay) -> bool:
    """Return whether plan and result of a replay that has ended are the same, line by line."""
    plan, progress = replay.plan, replay.progress
    assert progress is not None
    return (
        plan.matched == plan.replayed + plan.superseded + plan.exhausted + plan.unsuitable
        and plan.replayed == progress.position
        and progress.position == progress.replayed + progress.gone + progress.unreadable + progress.refused
    )


def arrived(world: MemoryWorld, rents: Mapping[int, int]) -> bool:
    return all(listed_rent(world, unit) == rent for unit, rent in rents.items())


async def test_what_a_receiver_refused_goes_out_after_the_approval(memory_world: MemoryWorld) -> None:
    """In the state of that moment, once for each property, and nothing before."""
    world = memory_world
    rents = await give_up(world, 3)
    planned = await plan(world)
    assert (planned.state, planned.plan.replayed, planned.plan.superseded) == (ReplayState.PLANNED, 3, 0)
    assert {one.integration for one in planned.plan.keys} == {"rentsync"}
    learned = {(one.unit_id, one.field): (one.known, one.now) for one in planned.plan.differences}
    assert planned.plan.compared == 3
    assert {key: now for key, (_, now) in learned.items()} == {(unit, "rent"): str(rents[unit]) for unit in rents}
    assert {key[0]: float(known or 0) for key, (known, _) in learned.items()} == {
        unit: listed_rent(world, unit) for unit in rents
    }
    await world.pass_time(30)
    assert not arrived(world, rents)

    accepted = len(world.rentsync.accepted)
    await order(world, planned, ReplayWish.RUN)
    await world.until(lambda: arrived(world, rents), within=20)
    ended = await done(world, planned)
    await world.rest()
    assert adds_up(ended)
    assert ended.progress is not None
    assert (ended.progress.replayed, ended.plan.parts) == (3, ())
    assert len(world.rentsync.accepted) == accepted + 3
    again = await plan(world)
    assert again.plan.matched == 0


async def test_several_failures_of_one_property_are_one_replay(memory_world: MemoryWorld) -> None:
    """The last one makes up for those before; what was acknowledged since is superseded."""
    world = memory_world
    await give_up(world, 2, 2100)
    rents = await give_up(world, 2, 2200)
    planned = await plan(world)
    letters = len(world.read(topics.DEAD_LETTERS.name))
    assert (planned.plan.matched, planned.plan.replayed) == (letters, 2)
    assert planned.plan.superseded == letters - 2 > 0

    await order(world, planned, ReplayWish.RUN)
    assert adds_up(await done(world, planned))
    await world.until(lambda: arrived(world, rents), within=20)
    everything = await plan(world, LetterFilter(origin=topics.BATCHES.name))
    assert (everything.plan.matched, everything.plan.superseded) == (letters, letters)


async def test_a_replay_can_be_paused_resumed_and_cancelled(memory_world: MemoryWorld) -> None:
    world = memory_world
    await give_up(world, 4)
    planned = await plan(world, rate=1)
    await order(world, planned, ReplayWish.RUN)
    while (running := await look(world, planned)).position < 1:
        await world.pass_time(0.5)
    assert running.state is ReplayState.RUNNING
    paused = await order(world, planned, ReplayWish.PAUSE)
    assert paused.state is ReplayState.PAUSED
    await world.pass_time(3)
    position = (await look(world, planned)).position
    assert 1 <= position < 4
    await world.pass_time(300)
    assert (await look(world, planned)).position == position

    await order(world, planned, ReplayWish.RUN)
    while (await look(world, planned)).position == position:
        await world.pass_time(0.5)
    cancelled = await order(world, planned, ReplayWish.CANCEL)
    await world.pass_time(10)
    position = (await look(world, planned)).position
    await world.pass_time(300)
    assert (cancelled.state, (await look(world, planned)).position) == (ReplayState.CANCELLED, position)
    assert position < 4
    with pytest.raises(Conflict, match="cancelled already"):
        await order(world, planned, ReplayWish.RUN)


async def test_a_replay_goes_on_after_a_crash(memory_world: MemoryWorld) -> None:
    """Exactly the plan is carried out: no record is left out, whenever the worker dies."""
    world = memory_world
    rents = await give_up(world, 4)
    planned = await plan(world, rate=1)
    await order(world, planned, ReplayWish.RUN)
    for _ in range(3):
        await world.pass_time(1.5)
        await world.kill_worker()
        world.start_workers()
    ended = await done(world, planned, within=300)
    assert adds_up(ended)
    await world.until(lambda: arrived(world, rents), within=20)
    await world.rest()


async def test_a_restart_of_everything_forgets_no_replay(memory_world: MemoryWorld) -> None:
    world = memory_world
    rents = await give_up(world, 3)
    waiting, planned = await plan(world), await plan(world, rate=1)
    await order(world, planned, ReplayWish.RUN)
    await world.pass_time(1.2)
    await world.restart()
    assert adds_up(await done(world, planned, within=300))
    await world.until(lambda: arrived(world, rents), within=20)
    assert (await look(world, waiting)).state is ReplayState.PLANNED


async def test_live_changes_do_not_wait_for_a_replay(memory_world: MemoryWorld) -> None:
    """Webhooks are replayed; a change meanwhile arrives as it does without."""
    world = memory_world
    since = world.clock.now()
    for unit in list(world.portfolio.units):
        await world.send_webhooks(world.portfolio.set_rent(unit, 2300))
        await world.send_webhooks(world.portfolio.set_rent(unit, 2301))
    await world.until(lambda: receiver_matches(world), within=300)
    await world.rest()
    unit = pick(world, "Available")
    world.portfolio.set_rent(unit, 2400)
    alone = await _arrival(world, unit, 2402)
    planned = await plan(world, LetterFilter(since=since), source=topics.WEBHOOKS.name, rate=20)
    assert planned.plan.replayed >= len(world.portfolio.units)
    assert planned.plan.superseded >= planned.plan.replayed
    await order(world, planned, ReplayWish.RUN)
    await world.pass_time(2)
    running = await _arrival(world, unit, 2403)
    assert running <= alone * 1.5 + 0.2
    assert adds_up(await done(world, planned))
    again = await plan(world, LetterFilter(since=since, until=planned.plan.at), source=topics.WEBHOOKS.name)
    more = await plan(world, LetterFilter(since=planned.plan.at), source=topics.WEBHOOKS.name)
    assert (again.plan.matched, again.plan.replayed) == (planned.plan.matched, planned.plan.replayed)
    assert more.plan.matched == more.plan.replayed + more.plan.superseded < planned.plan.replayed


async def _arrival(world: MemoryWorld, unit: int, rent: int) -> float:
    await world.send_webhooks(world.portfolio.set_rent(unit, rent))
    return await world.until(lambda: listed_rent(world, unit) == rent)


async def test_a_record_is_not_replayed_in_circles(memory_world: MemoryWorld) -> None:
    """After three replays it is left out, until a person names it."""
    world = memory_world
    unit = pick(world, "Available")
    world.buildium.fail(400, times=100_000, path=rf"/v1/rentals/units/{unit}")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2500))
    webhooks = LetterFilter(origin=topics.WEBHOOKS.name)
    for number in range(4):
        await world.until(lambda: len(world.read(topics.DEAD_LETTERS.name)) > number, within=600)  # noqa: B023
        planned = await plan(world, webhooks)
        assert (planned.plan.replayed, planned.plan.exhausted) == ((1, 0) if number < 3 else (0, 1)), number
        await order(world, planned, ReplayWish.RUN)
        assert adds_up(await done(world, planned))
    letter = world.read(topics.DEAD_LETTERS.name)[-1]
    named = await plan(world, LetterFilter(place=(letter.partition, letter.offset)))
    assert named.plan.replayed == 1
    assert world.web is not None


async def test_a_replay_that_fails_again_says_so(memory_world: MemoryWorld) -> None:
    world = memory_world
    unit = pick(world, "Available")
    world.buildium.fail(400, times=100_000, path=rf"/v1/rentals/units/{unit}")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2600))
    await world.until(lambda: bool(world.read(topics.DEAD_LETTERS.name)), within=600)
    planned = await plan(world)
    await order(world, planned, ReplayWish.RUN)
    await done(world, planned)
    await world.until(lambda: len(world.read(topics.DEAD_LETTERS.name)) == 2, within=600)
    assert world.web is not None
    queries = world.web.view
    assert queries.given_up_again("default", planned.plan.id) == 1


async def test_a_command_that_failed_is_made_after_a_replay(memory_world: MemoryWorld) -> None:
    world = memory_world
    world.buildium.fail(500, times=100_000, path="/v1/rentals", method="POST")
    body = {"name": "Annex", "addressLine1": "1 Main St", "postalCode": "T2P 1A1", "country": "CA", "state": "AB"}
    answer = await world.ask("POST", "/api/properties", {**body, "city": "Calgary", "rentalSubType": "Office"})
    assert answer.status_code == 202, answer.text
    await world.until(lambda: bool(world.read(topics.DEAD_LETTERS.name)), within=3600)
    world.buildium.faults.clear()
    planned = await plan(world)
    assert planned.plan.replayed == 1
    await order(world, planned, ReplayWish.RUN)
    await done(world, planned)
    await world.until(lambda: any(one.name == "Annex" for one in world.portfolio.properties.values()), within=900)
    await world.rest()
    assert [one.name for one in world.portfolio.properties.values()].count("Annex") == 1


async def test_bad_requests_and_unknown_replays_are_refused(memory_world: MemoryWorld) -> None:
    world = memory_world
    hour = world.clock.now() - timedelta(hours=1)
    for wrong, pointer in (
        (ReplayRequest("default", LetterFilter(), "nope"), "/topic"),
        (ReplayRequest("default", LetterFilter(since=hour), topics.SWEEPS.name), "/topic"),
        (ReplayRequest("default", LetterFilter(), topics.WEBHOOKS.name), "/since"),
        (ReplayRequest("default", LetterFilter(since=hour, reason="bug"), topics.WEBHOOKS.name), "/reason"),
        (ReplayRequest("default", rate=0), "/rate"),
    ):
        assert world.web is not None
        with pytest.raises(Invalid) as caught:
            await world.web.replays.plan(wrong, STORY)
        assert pointer in {one.pointer for one in caught.value.errors}
    assert world.web is not None
    with pytest.raises(NotFound):
        await world.web.replays.get("default", "nope")
    others = await world.web.replays.plan(ReplayRequest("another"), STORY)
    with pytest.raises(NotFound):
        await world.web.replays.order("default", others.plan.id, ReplayWish.RUN, STORY)


# ------------------------------------------------------------------------------------------------- on a real cluster


async def ask(world: ClusterWorld, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = await world.call_api(method, path, "default", body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_replay_over_the_api_of_a_real_cluster(cluster_world: ClusterWorld) -> None:
    """Refused batches, then webhooks of the last minutes; plan and report add up, and a change meanwhile arrives."""
    world = cluster_world
    began = world.clock.now()
    unit = pick(world, "Available")
    world.rentsync.answer_next(400, times=100_000)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2701))
    await world.until(lambda: 400 in world.rentsync.statuses)
    entity = f"property:{world.portfolio.units[unit].property_id}"
    wanted = {"entity": entity, "since": began.isoformat()}
    planned: dict[str, Any] = {}

    async def is_planned() -> bool:
        planned.update(await ask(world, "POST", "/api/replays", wanted))
        return bool(planned["planned"]["replayed"] == 1)

    await world.eventually(is_planned, "the dead letter in a plan", every=0.5)
    world.rentsync.recover()
    assert listed_rent(world, unit) != 2701.0
    await ask(world, "POST", f"/api/replays/{planned['id']}/approve")
    await world.until(lambda: listed_rent(world, unit) == 2701.0)
    await report(world, planned["id"])

    topic = {"topic": topics.WEBHOOKS.name, "since": (began - timedelta(minutes=30)).isoformat(), "rate": 10}
    planned = await ask(world, "POST", "/api/replays", topic)
    assert planned["planned"]["replayed"] > 0
    await ask(world, "POST", f"/api/replays/{planned['id']}/approve")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2702))
    await world.until(lambda: listed_rent(world, unit) == 2702.0)
    await report(world, planned["id"])
    await world.rest()


async def report(world: ClusterWorld, replay: str) -> None:
    """Wait for the end of a replay; check that its report adds up to its plan.

    Other stories have written records that are not readable.
    """
    found: dict[str, Any] = {}

    async def is_done() -> bool:
        found.update(await ask(world, "GET", f"/api/replays/{replay}"))
        return bool(found["state"] == "done")

    await world.eventually(is_done, "the end of the replay", within=300, every=0.5)
    numbers, planned = dict(found["report"]), found["planned"]
    assert numbers.pop("givenUpAgain") == 0
    assert sum(numbers.values()) == planned["replayed"]
    assert numbers["replayed"] + numbers["unreadable"] == planned["replayed"]
    assert numbers["replayed"] > 0
    assert planned.pop("matched") == sum(planned.values())


async def test_a_replay_goes_on_when_its_worker_is_killed(cluster_world: ClusterWorld) -> None:
    """The worker that carries the plan out is killed, another one ends it."""
    world = cluster_world
    began = world.clock.now() - timedelta(seconds=1)
    for unit in sorted(world.portfolio.units)[:12]:
        await world.send_webhooks(world.portfolio.set_rent(unit, 2800))
    await world.until(lambda: receiver_matches(world), within=300)
    begin = {"topic": topics.WEBHOOKS.name, "since": began.isoformat(), "rate": 2}
    planned = await ask(world, "POST", "/api/replays", begin)
    assert planned["planned"]["replayed"] >= 12
    await ask(world, "POST", f"/api/replays/{planned['id']}/approve")

    async def is_under_way() -> bool:
        found = await ask(world, "GET", f"/api/replays/{planned['id']}")
        return bool(found["report"]["replayed"])

    await world.eventually(is_under_way, "the first step", every=0.2)
    await world.kill(await world.owner("readers"))
    await world.start(1)
    await report(world, planned["id"])
    await world.rest()
