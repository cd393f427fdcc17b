"""A process that runs the runners on Kafka until it is killed; its arguments are the servers and the prefix."""

import asyncio
import random
import sys
from collections.abc import Sequence

from connectors.clock import SystemClock
from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.ports import Backend
from streams.core.flows import Record
from streams.core.retry import Outcome, ladder
from streams.runners.call import Call, CallFlow
from streams.runners.redeliver import Redeliver, Wait
from tests.streams.runners.stage import echo

LINGER = Wait("lingering", 0.5, "due")


def settings(servers: str, prefix: str) -> KafkaBackendSettings:
    return KafkaBackendSettings(bootstrap_servers=servers, prefix=prefix, session_timeout=6, heartbeat_interval=0.5)


def linger(backend: Backend) -> Redeliver:
    return Redeliver("linger", "linger", [LINGER], (), backend, SystemClock())


def call(backend: Backend) -> Call:
    async def perform(records: Sequence[Record]) -> Outcome:
        await asyncio.sleep(random.uniform(0.001, 0.02))
        return echo(records)

    flow = CallFlow("copy", ("in",), lambda record: record.key, perform, max_in_flight=8)
    return Call("copy", [flow], backend, SystemClock(), ladder("1m"))


async def main(servers: str, prefix: str) -> None:
    backend = KafkaBackend(settings(servers, prefix))
    await asyncio.gather(linger(backend).run(), call(backend).run())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
