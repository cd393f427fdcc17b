"""What fails is parked, comes back with the state of that moment, and is never lost."""

from schemas import retry as header
from schemas import topics
from streams.core.flows import Outgoing
from tests.stories.test_a_change_reaches_the_receiver import first
from tests.world.memory import MemoryWorld


async def test_a_receiver_that_is_away_gets_the_state_of_the_moment_when_it_is_back(world: MemoryWorld) -> None:
    """A retry carries the wish to deliver, never an old payload."""
    unit = first(world, "Available")
    before = len(world.rentsync.accepted)
    world.rentsync.answer_next(503)
    await world.tell(world.portfolio.set_rent(unit, 1801))
    await world.until(lambda: 503 in world.rentsync.statuses)
    await world.tell(world.portfolio.set_rent(unit, 1802))
    await world.pass_time(30)
    assert len(world.rentsync.accepted) == before

    took = await world.until(lambda: world.rentsync.state[unit].base_rent == 1802.0, within=120)

    assert 25 < took < 35
    assert len(world.rentsync.accepted) == before + 1


async def test_a_retry_with_nothing_changed_repeats_its_bytes(world: MemoryWorld) -> None:
    """The answer was lost, not the batch: the receiver replays its first answer, and refuses nothing."""
    unit = first(world, "Available")
    before = len(world.rentsync.accepted)
    world.rentsync.drop_next()
    await world.tell(world.portfolio.set_rent(unit, 1803))
    await world.until(lambda: world.rentsync.state[unit].base_rent == 1803.0)
    await world.pass_time(120)
    assert len(world.rentsync.accepted) == before + 1
    assert world.rentsync.statuses[-2:] == [0, 200]


async def test_the_ladder_ends_in_a_dead_letter_and_the_next_change_tries_anew(world: MemoryWorld) -> None:
    """Five attempts in all, over eighteen minutes."""
    unit = first(world, "Available")
    tried = len(world.rentsync.statuses)
    world.rentsync.answer_next(503, times=5)
    await world.tell(world.portfolio.set_rent(unit, 1804))
    await world.until(lambda: bool(world.broker.read(topics.DEAD_LETTERS.name)), within=1200)
    assert world.rentsync.statuses[tried:] == [503] * 5
    assert ("deliveries.batches", "exhausted") in world.hooks.letters

    await world.tell(world.portfolio.set_rent(unit, 1805))
    await world.until(lambda: world.rentsync.state[unit].base_rent == 1805.0)


async def test_what_is_refused_is_a_dead_letter_and_the_other_properties_go_on(world: MemoryWorld) -> None:
    """A 400 is not retried."""
    one, other = first(world, "Available"), first(world, "Available", -1)
    world.rentsync.answer_next(400)
    await world.tell(world.portfolio.set_rent(one, 1806))
    await world.until(lambda: ("deliveries.batches", "rejected") in world.hooks.letters)
    await world.tell(world.portfolio.set_rent(other, 1807))
    await world.until(lambda: world.rentsync.state[other].base_rent == 1807.0)
    (letter,) = world.broker.read(topics.DEAD_LETTERS.name)
    said = dict(letter.headers)
    assert (said[header.ORIGIN], said[header.REASON], said[header.FLOW]) == (
        b"deliveries.batches",
        b"rejected",
        b"deliver_batches",
    )


async def test_a_pms_that_is_away_is_asked_again_from_the_first_rung(world: MemoryWorld) -> None:
    """Patience first (three calls), then a minute."""
    unit = first(world, "Available")
    world.buildium.fail(503, times=3, path=r"/v1/rentals/units/\d+.*")
    await world.tell(world.portfolio.edit_unit(unit, market_rent=None) + world.portfolio.set_rent(unit, 1808))
    took = await world.until(lambda: world.rentsync.state[unit].base_rent == 1808.0, within=180)
    assert took > 0


async def test_a_throttled_pms_is_given_time(world: MemoryWorld) -> None:
    unit = first(world, "Available")
    world.buildium.fail(429, times=2)
    await world.tell(world.portfolio.set_rent(unit, 1809))
    await world.until(lambda: world.rentsync.state[unit].base_rent == 1809.0, within=180)


async def test_a_poison_record_dies_alone(world: MemoryWorld) -> None:
    """On every topic: it is a dead letter with its bytes, and the records around it go on."""
    unit = first(world, "Available")
    poisoned = (topics.WEBHOOKS, topics.SWEEPS, topics.CHANGES, topics.DUE, topics.BATCHES, topics.OUTCOMES)
    for topic in poisoned:
        world.broker.append(Outgoing(topic.name, b"default", b"\x00poison"))
    await world.tell(world.portfolio.set_rent(unit, 1810))
    await world.until(lambda: world.rentsync.state[unit].base_rent == 1810.0)

    letters = world.broker.read(topics.DEAD_LETTERS.name)

    assert {dict(letter.headers)[header.ORIGIN].decode() for letter in letters} == {one.name for one in poisoned}
    assert {letter.value for letter in letters} == {b"\x00poison"}
    assert {dict(letter.headers)[header.REASON] for letter in letters} == {b"malformed"}


async def test_a_worker_killed_at_any_moment_loses_nothing(world: MemoryWorld) -> None:
    """Two workers; one dies again and again while changes come."""
    units = sorted(world.rentsync.state)
    for turn, unit in enumerate(units * 3):
        await world.tell(world.portfolio.set_rent(unit, 2000 + turn))
        if turn % 7 == 3:
            await world.start(1)
            await world.pass_time(0.1 * (turn % 5))
            await world.kill_worker()
    await world.until(
        lambda: all(
            world.rentsync.state[unit].base_rent
            == float(
                world.portfolio.listings[unit].rent
                if unit in world.portfolio.listings
                else world.portfolio.units[unit].market_rent or 0
            )
            for unit in units
        ),
        within=300,
    )
