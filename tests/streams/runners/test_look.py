"""When the numbers of what is read from a PMS are taken."""

import asyncio
from datetime import UTC, datetime

from connectors.ports import MAY_CALL, may_call
from streams.backends.memory import MovableClock
from streams.core.sequence import FetchSequence
from streams.runners.look import Look

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_the_number_of_a_look_is_taken_when_its_first_request_is_sent() -> None:
    """What another request brought while it waited for its turn counts as older."""
    sequence, clock, turn = FetchSequence(), MovableClock(NOW), asyncio.Event()

    async def fetch() -> int:
        with Look(sequence, 0, clock) as look:
            await turn.wait()
            await may_call()
            await may_call()
        return look.first

    waiting = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    await clock.advance(60)
    other = sequence.take(0, clock.now())
    turn.set()

    assert await waiting == other + 1
    assert sequence.take(0, clock.now()) == other + 2


async def test_a_look_takes_numbers_for_all_of_its_records_and_keeps_the_permission_of_the_runner() -> None:
    sequence, clock, asked = FetchSequence(), MovableClock(NOW), []

    async def permission() -> None:
        asked.append(clock.now())

    outer = MAY_CALL.set(permission)
    try:
        with Look(sequence, 0, clock, 3) as look:
            await asyncio.gather(may_call(), may_call())
        await may_call()
    finally:
        MAY_CALL.reset(outer)

    assert len(asked) == 3
    assert sequence.take(0, clock.now()) == look.first + 3


def test_a_look_without_a_request_has_the_number_of_its_beginning() -> None:
    sequence, clock = FetchSequence(), MovableClock(NOW)
    with Look(sequence, 0, clock) as look:
        pass

    assert look.first == sequence.take(0, NOW) - 1
