"""A local HTTP server for an ASGI app, such as a stand-in, for the demo, the tests and the benchmarks."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn


class PromptServer(uvicorn.Server):
    """A server that installs no signal handlers and stops without delay; the code that started it calls `stop`.

    uvicorn itself notices a stop after up to 100 ms, and then sleeps for another 100 ms.
    """

    _stopped: asyncio.Event | None = None

    def stop(self) -> None:
        """Stop accepting connections, and let `serve` return once the responses in progress were sent."""
        self.should_exit = True
        if self._stopped:
            self._stopped.set()

    async def main_loop(self) -> None:
        self._stopped = asyncio.Event()
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864_000
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - sets, no events
                    await asyncio.sleep(0.001)
                for server in self.servers:
                    await server.wait_closed()
        for task in self.server_state.tasks:
            task.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any) -> PromptServer:
    return PromptServer(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            http="httptools",
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
            backlog=512,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only if the protocol is named; without it responses wait for delayed ACKs.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _url(host: str, sock: socket.socket) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - an address to call, not to bind
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{sock.getsockname()[1]}"


@asynccontextmanager
async def running(app: Any, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve ``app`` in the running event loop and yield its URL; port 0 selects a free port.

    Raise `OSError` if the port is in use.
    """
    sock = _listen(host, port)
    server = _server(app)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn signals the start by this flag only
            await asyncio.sleep(0.005)
        if serving.done():
            await serving
            raise RuntimeError("the stand-in's server did not start")
        yield _url(host, sock)
    finally:
        server.stop()
        await asyncio.gather(serving, return_exceptions=True)
        sock.close()


@contextmanager
def running_aside(app: Any, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve ``app`` in a thread with its own event loop, so that it does not share the loop of a benchmark."""
    sock = _listen(host, port)
    server = _server(app)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), name="stand-in", daemon=True)
    thread.start()
    try:
        waited = threading.Event()
        while not server.started and thread.is_alive():
            waited.wait(0.005)
        if not thread.is_alive():
            raise RuntimeError("the stand-in's server did not start")
        yield _url(host, sock)
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        sock.close()
