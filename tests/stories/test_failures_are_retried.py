"""A failed delivery or fetch is parked, retried with the current state, and never lost."""

from collections.abc import Sequence

from schemas import topics
from streams.core.flows import Record
from tests.world import Since, World, asking_rent, listed_rent, pick, receiver_matches, start_sweep
from tests.world.memory import MemoryWorld

BATCHES = topics.BATCHES.name


def header_of(letter: Record, name: str) -> str:
    return dict(letter.headers)[name].decode()


def reasons(letters: Sequence[Record]) -> set[tuple[str, str]]:
    """Return the original topic and the reason of dead letters."""
    return {(header_of(letter, "rent-origin"), header_of(letter, "rent-reason")) for letter in letters}


async def test_a_retried_delivery_sends_the_current_state(memory_world: MemoryWorld) -> None:
    """A retry waits for the delay of its rung and carries no payload, so that it cannot send outdated content."""
    world = memory_world
    unit = pick(world, "Available")
    before = len(world.rentsync.accepted)
    world.rentsync.answer_next(503)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1801))
    await world.until(lambda: 503 in world.rentsync.statuses)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1802))
    await world.pass_time(30)
    assert len(world.rentsync.accepted) == before

    elapsed = await world.until(lambda: listed_rent(world, unit) == 1802.0, within=120)

    assert 25 < elapsed < 35
    assert len(world.rentsync.accepted) == before + 1


async def test_changes_during_an_outage_of_the_receiver_are_delivered_afterwards(world: World) -> None:
    """Each change leads to at most one batch, and the receiver ends with the latest state."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.answer_next(503, times=3)
    for rent in (1811, 1812, 1813):
        await world.send_webhooks(world.portfolio.set_rent(unit, rent))
    await world.until(lambda: listed_rent(world, unit) == 1813.0, within=600)
    await world.rest()
    assert listed_rent(world, unit) == 1813.0
    assert since.answers()[:3] == [503, 503, 503]
    assert 1 <= len(since.batches()) <= 3
    assert since.dead() == []


async def test_a_retry_of_unchanged_content_repeats_the_same_bytes(world: World) -> None:
    """The receiver accepted the batch but its answer was lost: it recognizes the Idempotency-Key of the retry."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.drop_next()
    await world.send_webhooks(world.portfolio.set_rent(unit, 1803))
    await world.rest()
    assert listed_rent(world, unit) == 1803.0
    assert len(since.batches()) == 1
    assert since.answers() == [0, 200]


async def test_the_ladder_ends_in_a_dead_letter_and_the_next_change_is_delivered(world: World) -> None:
    """The ladder has five attempts."""
    since, unit = Since(world), pick(world, "Available")
    world.rentsync.answer_next(503, times=5)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1804))
    await world.until(lambda: bool(since.dead()), within=1200)
    await world.rest()
    assert since.answers() == [503] * 5
    assert reasons(since.dead()) == {(BATCHES, "exhausted")}

    await world.send_webhooks(world.portfolio.set_rent(unit, 1805))
    await world.until(lambda: listed_rent(world, unit) == 1805.0)


async def test_a_rejected_batch_is_a_dead_letter_and_other_properties_continue(world: World) -> None:
    """A 400 is not retried."""
    since, one, other = Since(world), pick(world, "Available"), pick(world, "Available")
    world.rentsync.answer_next(400)
    await world.send_webhooks(world.portfolio.set_rent(one, 1806))
    await world.until(lambda: bool(since.dead()))
    await world.send_webhooks(world.portfolio.set_rent(other, 1807))
    await world.until(lambda: listed_rent(world, other) == 1807.0)
    (letter,) = since.dead()
    assert reasons([letter]) == {(BATCHES, "rejected")}
    assert header_of(letter, "rent-flow") == "deliver_batches"


async def test_a_failed_fetch_climbs_the_ladder(world: World) -> None:
    """An attempt makes up to three calls; so does the attempt after every rung."""
    since, unit = Since(world), pick(world, "Available")
    world.buildium.fail(503, times=7, path=rf"/v1/rentals/units/{unit}")
    await world.send_webhooks(world.portfolio.edit_unit(unit, number="77"))
    await world.rest()
    calls = list(world.buildium.calls)[since.calls :]
    statuses = [call.status for call in calls if call.path.endswith(f"/units/{unit}")]
    assert statuses == [503] * 7 + [200]
    assert [list(batch) for batch in since.batches()] == [[unit]]
    assert since.dead() == []


async def test_an_exhausted_fetch_is_a_dead_letter_with_its_webhook(world: World) -> None:
    """After five attempts with three calls each it is a dead letter; the next sweep finds the change."""
    since, unit = Since(world), pick(world, "Available")
    world.buildium.fail(503, times=15, path=rf"/v1/rentals/units/{unit}")
    await world.send_webhooks(world.portfolio.edit_unit(unit, number="78"))
    await world.rest()
    assert since.asked(f"/units/{unit}") == 15
    (letter,) = since.dead()
    assert reasons([letter]) == {(topics.WEBHOOKS.name, "exhausted")}
    assert letter.value in {record.value for record in world.read(topics.WEBHOOKS.name)}

    await start_sweep(world)
    await world.until(lambda: world.rentsync.state[unit].unit_code == "78")


async def test_a_throttled_fetch_succeeds_later(world: World) -> None:
    unit = pick(world, "Available")
    world.buildium.fail(429, times=2)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1809))
    await world.until(lambda: listed_rent(world, unit) == 1809.0, within=180)


async def test_a_malformed_record_is_a_dead_letter_on_every_topic(world: World) -> None:
    """The dead letter keeps its bytes, and the records around it are processed."""
    since, unit = Since(world), pick(world, "Available")
    poisoned = (topics.WEBHOOKS, topics.SWEEPS, topics.CHANGES, topics.DUE, topics.BATCHES, topics.OUTCOMES)
    for topic in poisoned:
        await world.put(topic.name, b"\x00poison")
    await world.send_webhooks(world.portfolio.set_rent(unit, 1810))
    await world.until(lambda: listed_rent(world, unit) == 1810.0)
    await world.rest()

    letters = since.dead()

    assert reasons(letters) == {(topic.name, "malformed") for topic in poisoned}
    assert {letter.value for letter in letters} == {b"\x00poison"}
    assert len(letters) == len(poisoned)


async def test_a_worker_killed_at_any_moment_loses_nothing(memory_world: MemoryWorld) -> None:
    """One of two workers is killed repeatedly while changes arrive."""
    world = memory_world
    units = sorted(world.rentsync.state)
    for turn, unit in enumerate(units * 3):
        await world.send_webhooks(world.portfolio.set_rent(unit, 2000 + turn))
        if turn % 7 == 3:
            await world.start(1)
            await world.pass_time(0.1 * (turn % 5))
            await world.kill_worker()
    await world.until(lambda: all(listed_rent(world, unit) == asking_rent(world, unit) for unit in units), within=300)
    await world.rest()
    assert receiver_matches(world)
