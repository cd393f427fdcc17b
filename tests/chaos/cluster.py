"""Three Kafka brokers on this machine: topics have three replicas, two of which have to have a record."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from streams.local.embedded_kafka import EmbeddedKafka
from tests.world.cluster import free_port

CLUSTER_ID = "UmVudFN0cmVhbSBUZXN0cw"
NODES = 3
REPLICATION = {
    "default.replication.factor": NODES,
    "offsets.topic.replication.factor": NODES,
    "transaction.state.log.replication.factor": NODES,
    "transaction.state.log.min.isr": 2,
    "min.insync.replicas": 2,
}


class Node(EmbeddedKafka):
    """One broker, which is a controller too."""

    def __init__(self, data: Path, number: int, controllers: Sequence[int]) -> None:
        super().__init__(data / f"node-{number}", port=free_port())
        self._number, self._controllers = number, controllers

    def _cluster_id(self) -> str:
        return CLUSTER_ID

    def _configure(self, port: int, controller: int) -> None:
        del controller  # the others have to know it
        super()._configure(port, self._controllers[self._number])
        voters = ",".join(f"{number + 1}@127.0.0.1:{port}" for number, port in enumerate(self._controllers))
        more = {"node.id": self._number + 1, "controller.quorum.voters": voters, **REPLICATION}
        with (self._folder / "server.properties").open("a") as file:  # of a name that comes twice the last counts
            file.writelines(f"{name}={value}\n" for name, value in more.items())


class Cluster:
    """Three brokers, each of which can be killed and started again; an async context manager."""

    def __init__(self, data: Path) -> None:
        controllers = [free_port() for _ in range(NODES)]
        self.nodes = [Node(data, number, controllers) for number in range(NODES)]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(node.bootstrap_servers for node in self.nodes)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start all brokers: none answers before two of them run."""
        try:
            await asyncio.gather(*(node.start_async() for node in self.nodes))
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        """Kill all brokers."""
        # Two of three have to agree on the end of a broker: the last ones could not end gracefully.
        await asyncio.gather(*(asyncio.to_thread(node.kill) for node in self.nodes))
