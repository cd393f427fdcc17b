"""Serves an ASGI app to the outside: uvicorn on uvloop, made patient for so long and no longer.

uvicorn waits for ever for the rest of a request's head, and answers what is no HTTP in plain text. `Connection` bounds
how long and how large a request may come in, and lets every answer be a problem with an ``X-Request-ID``.
"""

import asyncio
import logging
import signal
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streams.web.answers import Answer, problem, request_id

log = logging.getLogger("streams.web.server")

WHOLE_WITHIN: Final = 15.0
"""Seconds from the first byte of a request to its last; the app's own limit on bodies is shorter."""
MOST_HEAD_BYTES: Final = 64 * 1024
KEEP_ALIVE: Final = 75
STOP_WITHIN: Final = 10
"""Seconds that answers under way have when the process is to stop."""


Started = Callable[[], Awaitable[None]]
"""Is called once requests are answered."""


class WebError(RuntimeError):
    """The app cannot be served; the sentence says why and what to do."""


class Connection(HttpToolsProtocol):
    """One connection. A timer runs only while a request is under way, so the usual request costs none."""

    within = WHOLE_WITHIN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: TimerHandle | None = None
        self._begun = False
        self._in_head = False
        self._head = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.within, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._begun:
            self._disarm()
            return
        if self._timer is None:
            self._timer = self.loop.call_later(self.within, self._too_slow)
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD_BYTES:
                self._refuse(problem(431, f"The head of a request has at most {MOST_HEAD_BYTES // 1024} KiB."))

    def on_message_begin(self) -> None:
        self._begun, self._in_head, self._head = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begun = False
        super().on_message_complete()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        under_way = bool(self.cycle) and not self.cycle.response_complete
        if self._in_head and not under_way:
            self._refuse(problem(408, f"The request did not arrive within {self.within:g} s."))
        elif not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        del msg
        self._refuse(problem(400, "This is no HTTP request."))

    def _refuse(self, answer: Answer) -> None:
        if self.transport.is_closing():
            return
        headers = [
            *answer.headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id(())),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        reason = b"HTTP/1.1 %d \r\n" % answer.status
        self.transport.write(reason + lines + b"\r\n" + answer.body)
        self.transport.close()


class Server(uvicorn.Server):
    """Leaves the signals to `serve`: uvicorn would raise them again before the parts are closed."""

    def __init__(self, config: uvicorn.Config, on_started: Started | None) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_started is not None:
            await self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def config(app: ASGIApp, connection: type[Connection] = Connection) -> uvicorn.Config:
    """Give the settings with which every app is served here (the benchmark's reference too)."""
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        loop="none",
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_WITHIN,
    )


def listen(host: str, port: int) -> socket.socket:
    """Take an address at once, so that a taken one is known before anything else starts. Raises `WebError`."""
    bare = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer in two writes takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((bare, port))
        sock.listen(2048)
    except (OSError, OverflowError) as error:
        sock.close()
        why = getattr(error, "strerror", None) or error
        raise WebError(
            f"the web role cannot listen on {host}:{port}: {why}; "
            "give RENTSTREAM_HTTP an address that is free, host:port"
        ) from None
    return sock


async def serve(app: ASGIApp, sock: socket.socket, started: Started | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then let the answers under way go out."""
    server = Server(config(app), started)
    loop = asyncio.get_running_loop()
    heard = [signal.SIGTERM, signal.SIGINT]
    for number in heard:
        loop.add_signal_handler(number, _stop, server)
    try:
        await server.serve(sockets=[sock])
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _stop(server: uvicorn.Server) -> None:
    """The first signal asks, the second insists."""
    server.force_exit = server.should_exit
    server.should_exit = True


def run_http(
    parts: Callable[[], AbstractAsyncContextManager[ASGIApp]],
    host: str,
    port: int,
    started: Started | None = None,
) -> None:
    """Run the web role until it is told to stop.

    ``parts`` opens what the app needs on the loop and gives the app; it is left after the last answer went out. Raises
    `WebError`.
    """
    sock = listen(host, port)

    async def run() -> None:
        async with parts() as app:
            await serve(app, sock, started)

    try:
        uvloop.run(run())
    finally:
        sock.close()
