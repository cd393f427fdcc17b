"""A TCP proxy between a worker and the broker, by which a test cuts a network and heals it."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Self

from streams.local.embedded_kafka import EmbeddedKafka

Direction = Literal["both", "requests", "answers"]
HOST = "127.0.0.1"
PIECE = 64 * 1024


class Proxy:
    """Forwards connections to a port. What is sent while a direction is cut arrives once it is healed, as with TCP."""

    def __init__(self, target: int, port: int = 0) -> None:
        """``target``: the port that connections go to; ``port``: the one that they come to, 0 for any."""
        self._target = target
        self._wanted = port
        self._open = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.heal()
        self._server = await asyncio.start_server(self._accept, HOST, self._wanted)
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

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(HOST, self._target)
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


class Link(NamedTuple):
    """A listener of a broker, and the proxy before it."""

    listener: int
    """Port."""
    proxy: int
    """Port that the broker advertises to its clients."""


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


class ProxiedKafka(EmbeddedKafka):
    """A Kafka with more listeners, whose clients connect to a `Proxy` of their own for everything."""

    def __init__(self, data: Path, *links: Link) -> None:
        super().__init__(data)
        self._links = {f"PROXIED{number}": link for number, link in enumerate(links)}

    def _configure(self, port: int, controller: int) -> None:
        super()._configure(port, controller)
        listeners = {"PLAINTEXT": port, **{name: link.listener for name, link in self._links.items()}}
        advertised = {"PLAINTEXT": port, **{name: link.proxy for name, link in self._links.items()}}
        more = {
            "listeners": _addresses(listeners | {"CONTROLLER": controller}),
            "advertised.listeners": _addresses(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*listeners, "CONTROLLER")),
            "inter.broker.listener.name": "PLAINTEXT",
        }
        with (self._folder / "server.properties").open("a") as file:  # of a name that comes twice the last counts
            file.writelines(f"{name}={value}\n" for name, value in more.items())
