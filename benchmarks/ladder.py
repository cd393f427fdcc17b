"""A rung of the retry ladder with 100,000 parked records: how late they come back, and what the wait costs.

The records are parked over some seconds and are due after a minute. Nothing may come back early; what is printed is how
late it comes back, the processor that the runner needs while all wait, and how long it takes to stop.

    python -m benchmarks.ladder [--records 100000] [--seconds 10]
"""

import argparse
import asyncio
import time

import aiokafka

from benchmarks.kit import broker, make_topics
from benchmarks.latency import percentile
from connectors.clock import SystemClock
from schemas import topics
from schemas.retry import History
from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.core.retry import ladder
from streams.runners.redeliver import Redeliver, Wait

RUNG = "1m"
PARTITIONS = 12
VALUE = b"v" * 400
AT_ONCE = 1000
"""Records that are parked together."""
REST = 5.0
"""Seconds before the first record is due in which no processor time is counted."""


async def park(bootstrap: str, records: int, seconds: float) -> tuple[int, int]:
    """Park records over some seconds; return when the first and the last one are due, in milliseconds."""
    (rung,) = ladder(RUNG)
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=512 * 1024)
    await producer.start()
    began, dues = time.time(), []
    for begin in range(0, records, AT_ONCE):
        due = round((time.time() + rung.seconds) * 1000)
        dues.append(due)
        history = History(attempt=1, origin=topics.WEBHOOKS.name, due_at=due, reason="unavailable", flow="f")
        headers = list(history.headers())
        for number in range(begin, min(begin + AT_ONCE, records)):
            await producer.send(rung.topic, VALUE, b"org", partition=number % PARTITIONS, headers=headers)
        await asyncio.sleep(max(0.0, began + seconds * (begin + AT_ONCE) / records - time.time()))
    await producer.stop()
    return dues[0], dues[-1]


async def lateness(bootstrap: str, records: int) -> list[float]:
    """Return the seconds by which each record came back late, from the time of its write; negative: early."""
    consumer = aiokafka.AIOKafkaConsumer(
        topics.WEBHOOKS.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    found: list[float] = []
    while len(found) < records:
        for some in (await consumer.getmany(timeout_ms=1000, max_records=5000)).values():
            found += [(record.timestamp - (History.read(record.headers).due_at or 0)) / 1000 for record in some]
    await consumer.stop()
    return found


async def measure(bootstrap: str, records: int, seconds: float) -> None:
    """Print the result."""
    (rung,) = ladder(RUNG)
    backend = KafkaBackend(KafkaBackendSettings(bootstrap_servers=bootstrap))
    runner = Redeliver("redeliver", "redeliver", (Wait.on(rung),), (topics.WEBHOOKS.name,), backend, SystemClock())
    running = asyncio.create_task(runner.run())
    first, last = await park(bootstrap, records, seconds)
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(first / 1000 - time.time() - REST)
    at_rest = (time.process_time() - used) / (time.monotonic() - began)
    found = await lateness(bootstrap, records)
    began = time.monotonic()
    await runner.stop()
    stopped = time.monotonic() - began
    await running
    print(f"{records:,} records, due within {(last - first) / 1000:.1f} s, on {PARTITIONS} partitions")
    print(f"earliest {min(found):+.3f} s, p50 {percentile(found, 50):.3f} s, p99 {percentile(found, 99):.3f} s late")
    print(f"while all wait: {at_rest:.1%} of a core; stopped within {stopped:.2f} s")


def main() -> None:
    """Run on an embedded Kafka."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="over which the records are parked")
    options = parser.parse_args()
    with broker(None) as bootstrap:
        make_topics(bootstrap, PARTITIONS, [topics.rung(RUNG).name, topics.WEBHOOKS.name])
        asyncio.run(measure(bootstrap, options.records, options.seconds))


if __name__ == "__main__":
    main()
