"""Serve an ASGI app with uvicorn on uvloop, with limits on the time and the size of a request.

uvicorn waits without a timeout for the rest of a request head, and answers invalid HTTP in plain text. `Connection`
limits how long a request may take to arrive and how large its head may be, and makes every error a problem document
with an ``X-Request-ID``.
"""

import asyncio
import gc
import logging
import re
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

REQUEST_TIMEOUT: Final = 15.0
"""Seconds from the first byte of a request to its last; the ingress has a shorter timeout for bodies."""
MAX_HEAD_BYTES: Final = 64 * 1024
KEEP_ALIVE: Final = 75
"""Seconds until an idle connection is closed."""
SHUTDOWN_TIMEOUT: Final = 10
"""Seconds that requests in progress have to finish when the process stops."""


Started = Callable[[], Awaitable[None]]
"""Called when the server accepts requests."""


class WebError(RuntimeError):
    """The app cannot be served; the message is one sentence with the cause and what to do."""


class Connection(HttpToolsProtocol):
    """One connection; closes it if a request does not arrive in time.

    The timer starts only if a request does not arrive in one piece, so that most requests need none.
    """

    timeout = REQUEST_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: TimerHandle | None = None
        self._in_request = False
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.timeout, self._timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if b"h2c" in data and (self._in_head or not self._in_request):
            data = without_h2c(data)
        super().data_received(data)
        if not self._in_request:
            self._cancel_timer()
            return
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout, self._timed_out)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._reject(problem(431, f"The head of a request must not exceed {MAX_HEAD_BYTES // 1024} KiB."))

    def on_message_begin(self) -> None:
        self._in_request, self._in_head, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_request = False
        super().on_message_complete()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        responding = bool(self.cycle) and not self.cycle.response_complete
        if self._in_head and not responding:
            self._reject(problem(408, f"The request did not arrive within {self.timeout:g} s."))
        elif not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP with a problem document."""
        del msg
        self._reject(problem(400, "This is not a valid HTTP request."))

    def _reject(self, answer: Answer) -> None:
        """Send an answer that does not come from the app, and close the connection."""
        if self.transport.is_closing():
            return
        headers = [
            *answer.headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id(())),
        ]
        status_line = b"HTTP/1.1 %d \r\n" % answer.status
        header_lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(status_line + header_lines + b"\r\n" + answer.body)
        self.transport.close()


_H2C: Final = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:[ \t]*h2c)", re.IGNORECASE)


def without_h2c(data: bytes) -> bytes:
    """Return the start of a request in which an offer to upgrade to HTTP/2 has another name, of the same length.

    Java's HTTP client and gateways add the offer to ordinary requests. A server may ignore it (RFC 9110, 7.8), but the
    parser takes what follows the head of such a request for another protocol, so that its body would be lost.
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    return _H2C.sub(b"ignored", head) + separator + body


class Server(uvicorn.Server):
    """A uvicorn server without signal handlers: uvicorn would raise the signal again before resources are closed."""

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
    """Return the uvicorn configuration of every server (also of the reference in the benchmark)."""
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
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen, so that an address in use is detected before anything else starts. Raise `WebError` if it is."""
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
        reason = getattr(error, "strerror", None) or error
        raise WebError(
            f"the web role cannot listen on {host}:{port}: {reason}; set RENTSTREAM_HTTP to a free address, host:port"
        ) from None
    return sock


async def serve(app: ASGIApp, sock: socket.socket, started: Started | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress."""
    server = Server(config(app), started)
    loop = asyncio.get_running_loop()
    signals = [signal.SIGTERM, signal.SIGINT]
    for number in signals:
        loop.add_signal_handler(number, _stop, server)
    try:
        await server.serve(sockets=[sock])
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _stop(server: uvicorn.Server) -> None:
    """Stop gracefully at the first signal, at once at the second."""
    server.force_exit = server.should_exit
    server.should_exit = True


def run_http(
    open_app: Callable[[], AbstractAsyncContextManager[ASGIApp]],
    host: str,
    port: int,
    started: Started | None = None,
) -> None:
    """Run an app until SIGTERM or SIGINT.

    ``open_app`` is an async context manager that opens the resources of the app and returns the app; it exits after
    the last response was sent. Raise `WebError` if the address cannot be used.
    """
    sock = listen(host, port)

    async def run() -> None:
        async with open_app() as app:
            # What exists by now stays until the end: no collection has to look through it again.
            gc.collect()
            gc.freeze()
            await serve(app, sock, started)

    try:
        uvloop.run(run())
    finally:
        sock.close()
