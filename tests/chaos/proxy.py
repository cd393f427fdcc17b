"""A TCP proxy between a worker and the broker, by which a test cuts a network and heals it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Literal, Self

from streams.local.embedded_kafka import EmbeddedKafka

Direction = Literal["both", "requests", "answers"]
HOST = "127.0.0.1"
PIECE = 64 * 1024


class Proxy:
    """Forwards connections to a port. What is sent while a direction is cut arrives once it is healed, as with TCP."""

    def __init__(self, port: int) -> None:
        self._port = port
        """Where connections go to."""
        self._open = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.heal()
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self, direction: Direction = "both") -> None:
        for name, gate in self._open.items():
            if direction in ("both", name):
                gate.clear()

    def heal(self) -> None:
        for gate in self._open.values():
            gate.set()

    def goes_to(self, port: int) -> None:
        """Connect to another port from now on."""
        self._port = port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(HOST, self._port)
        except OSError:
            writer.close()
            return
        for source, target, name in ((reader, requests, "requests"), (answers, writer, "answers")):
            pump = asyncio.create_task(self._pump(source, target, self._open[name]))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    @staticmethod
    async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE):
                await gate.wait()
                target.write(piece)
                await target.drain()
        await gate.wait()
        target.close()


class ProxiedKafka(EmbeddedKafka):
    """A Kafka with a second listener, whose clients connect to a `Proxy` for everything."""

    def __init__(self, data: Path, listener: int, proxy: int) -> None:
        """``listener``: its port; ``proxy``: the port that it tells its clients."""
        super().__init__(data)
        self._listener, self._proxy = listener, proxy

    def _configure(self, port: int, controller: int) -> None:
        super()._configure(port, controller)
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT"
        listeners = f"PLAINTEXT://{HOST}:{port},PROXIED://{HOST}:{self._listener}"
        more = {
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port},PROXIED://{HOST}:{self._proxy}",
            "listener.security.protocol.map": protocols,
            "inter.broker.listener.name": "PLAINTEXT",
        }
        with (self._folder / "server.properties").open("a") as file:  # of a name that comes twice the last counts
            file.writelines(f"{name}={value}\n" for name, value in more.items())
