"""What fails is parked, comes back with the state of that moment, and is never lost."""

from collections.abc import Sequence

from schemas import retry as header
from schemas import topics
from streams.core.flows import Record
from tests.world import Since, World, pick, receiver_is_equal, rent_of, rent_told, sweep
from tests.world.memory import MemoryWorld

BATCHES = topics.BATCHES.name


def said(letter: Record, name: str) -> str:
    return dict(letter.headers)[name].decode()


def reasons(letters: Sequence[Record]) -> set[tuple[str, str]]:
    """Where dead letters come from, and why."""
    return {(said(one, header.ORIGIN), said(one, header.REASON)) for one in letters}


async def test_a_receiver_that_is_away_gets_the_state_of_the_moment_when_it_is_back(memory_world: MemoryWorld) -> None:
    """A retry carries the wish to deliver, never an old payload; and it waits as long as the first rung says."""
    world = memory_world
    unit = pick(world, "Available")
    before = len(world.rentsync.accepted)
    world.rentsync.answer_next(503)
    await world.tell(world.portfolio.set_rent(unit, 1801))
    await world.until(lambda: 503 in world.rentsync.statuses)
    await world.tell(world.portfolio.set_rent(unit, 1802))
    await world.pass_time(30)
    assert len(world.rentsync.accepted) == before

    took = await world.until(lambda: rent_told(world, unit) == 1802.0, within=120)

    assert 25 < took < 35
    assert len(world.rentsync.accepted) == before + 1


async def test_changes_while_a_receiver_is_away_arrive_when_it_is_back(world: World) -> None:
    """Each of them costs at most one batch, and the last word is the receiver's."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.answer_next(503, times=3)
    for rent in (1811, 1812, 1813):
        await world.tell(world.portfolio.set_rent(unit, rent))
    await world.until(lambda: rent_told(world, unit) == 1813.0, within=600)
    await world.rest()
    assert rent_told(world, unit) == 1813.0
    assert since.answers()[:3] == [503, 503, 503]
    assert 1 <= len(since.batches()) <= 3
    assert since.dead() == []


async def test_a_retry_with_nothing_changed_repeats_its_bytes(world: World) -> None:
    """The answer was lost, not the batch: the receiver replays its first answer, and refuses nothing."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.drop_next()
    await world.tell(world.portfolio.set_rent(unit, 1803))
    await world.rest()
    assert rent_told(world, unit) == 1803.0
    assert len(since.batches()) == 1
    assert since.answers() == [0, 200]


async def test_the_ladder_ends_in_a_dead_letter_and_the_next_change_tries_anew(world: World) -> None:
    """Five attempts in all."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.answer_next(503, times=5)
    await world.tell(world.portfolio.set_rent(unit, 1804))
    await world.until(lambda: bool(since.dead()), within=1200)
    await world.rest()
    assert since.answers() == [503] * 5
    assert reasons(since.dead()) == {(BATCHES, "exhausted")}

    await world.tell(world.portfolio.set_rent(unit, 1805))
    await world.until(lambda: rent_told(world, unit) == 1805.0)


async def test_what_is_refused_is_a_dead_letter_and_the_other_properties_go_on(world: World) -> None:
    """A 400 is not retried."""
    since, one, other = Since(world), pick(world, "Available"), pick(world, "Available")
    world.rentsync.answer_next(400)
    await world.tell(world.portfolio.set_rent(one, 1806))
    await world.until(lambda: bool(since.dead()))
    await world.tell(world.portfolio.set_rent(other, 1807))
    await world.until(lambda: rent_told(world, other) == 1807.0)
    (letter,) = since.dead()
    assert reasons([letter]) == {(BATCHES, "rejected")}
    assert said(letter, header.FLOW) == "deliver_batches"


async def test_a_pms_that_is_away_is_asked_again_from_the_first_rung(world: World) -> None:
    """Patience first: three calls for an attempt. Then the ladder, and every rung has its three again."""
    since, unit = Since(world), pick(world, "Available")
    world.buildium.fail(503, times=7, path=rf"/v1/rentals/units/{unit}")
    await world.tell(world.portfolio.edit_unit(unit, number="77"))
    await world.rest()
    calls = [one.status for one in list(world.buildium.calls)[since.calls :] if one.path.endswith(f"/units/{unit}")]
    assert calls == [503] * 7 + [200]
    assert [list(batch) for batch in since.batches()] == [[unit]]
    assert since.dead() == []


async def test_a_fetch_that_never_succeeds_is_given_up_with_its_notice(world: World) -> None:
    """Five attempts of three calls each. The letter holds the notice's own bytes, and the next sweep heals."""
    since, unit = Since(world), pick(world, "Available")
    world.buildium.fail(503, times=15, path=rf"/v1/rentals/units/{unit}")
    await world.tell(world.portfolio.edit_unit(unit, number="78"))
    await world.rest()
    assert since.asked(f"/units/{unit}") == 15
    (letter,) = since.dead()
    assert reasons([letter]) == {(topics.WEBHOOKS.name, "exhausted")}
    assert letter.value in {one.value for one in world.read(topics.WEBHOOKS.name)}

    await sweep(world)
    await world.until(lambda: world.rentsync.state[unit].unit_code == "78")


async def test_a_throttled_pms_is_given_time(world: World) -> None:
    unit = pick(world, "Available")
    world.buildium.fail(429, times=2)
    await world.tell(world.portfolio.set_rent(unit, 1809))
    await world.until(lambda: rent_told(world, unit) == 1809.0, within=180)


async def test_a_poison_record_dies_alone(world: World) -> None:
    """On every topic: it is a dead letter with its bytes, and the records around it go on."""
    since, unit = Since(world), pick(world, "Available")
    poisoned = (topics.WEBHOOKS, topics.SWEEPS, topics.CHANGES, topics.DUE, topics.BATCHES, topics.OUTCOMES)
    for topic in poisoned:
        await world.put(topic.name, b"\x00poison")
    await world.tell(world.portfolio.set_rent(unit, 1810))
    await world.until(lambda: rent_told(world, unit) == 1810.0)
    await world.rest()

    letters = since.dead()

    assert reasons(letters) == {(one.name, "malformed") for one in poisoned}
    assert {letter.value for letter in letters} == {b"\x00poison"}
    assert len(letters) == len(poisoned)


async def test_a_worker_killed_at_any_moment_loses_nothing(memory_world: MemoryWorld) -> None:
    """Two workers; one dies again and again while changes come."""
    world = memory_world
    units = sorted(world.rentsync.state)
    for turn, unit in enumerate(units * 3):
        await world.tell(world.portfolio.set_rent(unit, 2000 + turn))
        if turn % 7 == 3:
            await world.start(1)
            await world.pass_time(0.1 * (turn % 5))
            await world.kill_worker()
    await world.until(lambda: all(rent_told(world, unit) == rent_of(world, unit) for unit in units), within=300)
    await world.rest()
    assert receiver_is_equal(world)
