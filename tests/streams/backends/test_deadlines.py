"""Tests of deadlines with a shared timer, and of the limited wait for a client that stops."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer

from streams.backends.deadlines import Deadlines, stop_client


async def test_a_block_that_takes_too_long_is_cancelled() -> None:
    """Each of many blocks is cancelled soon after its own deadline and not before."""
    deadlines = Deadlines(0.2)

    async def late(start: float) -> float:
        await asyncio.sleep(start)
        began = time.monotonic()
        with pytest.raises(TimeoutError), deadlines.one():
            await asyncio.sleep(30)
        return time.monotonic() - began

    took = await asyncio.gather(*(late(number / 100) for number in range(20)))

    assert all(0.19 < one < 0.6 for one in took)


async def test_a_block_that_ends_in_time_is_not_cancelled() -> None:
    """No timer remains, and nothing is cancelled later."""
    deadlines = Deadlines(0.1)
    for _ in range(3):
        with deadlines.one():
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.3)
    task = asyncio.current_task()

    assert task is not None
    assert task.cancelling() == 0
    assert deadlines._timer is None
    assert deadlines._under_way == {}


async def test_a_cancellation_from_outside_is_not_a_timeout() -> None:
    """Only the deadline of the block raises `TimeoutError`."""
    deadlines = Deadlines(10)

    async def work() -> None:
        with deadlines.one():
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert deadlines._under_way == {}
    assert deadlines._timer is not None
    deadlines._timer.cancel()


async def test_an_error_of_the_block_is_raised() -> None:
    """The deadline does not replace the error."""
    with pytest.raises(KeyError), Deadlines(10).one():
        raise KeyError


async def test_waiting_for_a_client_that_does_not_stop_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    """The wait is limited, and a timeout is logged."""

    class Stuck:
        async def stop(self) -> None:
            await asyncio.get_running_loop().create_future()

    assert not await stop_client(Stuck(), 0.01)
    assert "did not stop within 0.01 s" in caplog.text


async def test_a_client_cancelled_while_it_stops_does_not_cancel_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stop of aiokafka may raise the cancellation of an inner task."""

    class Interrupted:
        async def stop(self) -> None:
            raise asyncio.CancelledError

    with caplog.at_level("INFO"):
        assert await stop_client(Interrupted())
    assert "interrupted" in caplog.text


@pytest.mark.parametrize("error", [None, asyncio.CancelledError(), ConnectionError("gone")])
async def test_the_connections_of_a_client_that_does_not_stop_cleanly_are_closed(error: BaseException | None) -> None:
    closed: list[bool] = []

    class Inner:
        async def close(self) -> None:
            closed.append(True)

    class Client:
        _client = Inner()

        async def stop(self) -> None:
            if error is not None:
                raise error
            await asyncio.get_running_loop().create_future()

    await stop_client(Client(), 0.01)
    assert closed == [True]


@pytest.mark.broker
async def test_a_consumer_that_connects_when_it_is_stopped_leaves_no_connection(kafka: str) -> None:
    """The fetcher of aiokafka raises the cancellation of such a fetch, and the consumer's connections stay open."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    await consumer.topics()
    connections = list(consumer._client._conns.values())
    consumer._fetcher._pending_tasks.add(asyncio.ensure_future(asyncio.sleep(60)))

    assert await stop_client(consumer)
    assert connections
    assert not any(one.connected() for one in connections)


async def test_an_error_of_a_client_that_stops_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    """An error of a client that is no longer needed is not raised."""

    class Broken:
        async def stop(self) -> None:
            raise ConnectionError("gone")

    assert await stop_client(Broken())
    assert "did not stop cleanly: ConnectionError('gone')" in caplog.text
