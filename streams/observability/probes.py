"""``/metrics``, ``/healthz`` and ``/readyz`` of a process, from a thread of their own.

A thread, because these have to answer while the event loop is busy, stuck, or waits for tables to recover: that is when
they are asked. Hence everything that they call must be safe to call from another thread.
"""

import asyncio
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streams.observability.metrics import Metrics

log = logging.getLogger("streams.observability.probes")

Check = Callable[[], tuple[bool, str]]
"""Whether all is well, and a sentence that says why (not). Called on a thread of the pages."""


class ProbesError(RuntimeError):
    """The pages cannot be served; the sentence says why and what to do."""


class Heartbeat:
    """Shows that an event loop still runs: a task of it notes the time, and `check` looks how long ago that was."""

    def __init__(self, within: float = 10.0, every: float = 0.5) -> None:
        self._within = within
        self._every = every
        self._beat = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the loop last ran."""
        return time.monotonic() - self._beat

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._every)

    def check(self) -> tuple[bool, str]:
        """A `Check` of the loop."""
        return self.age < self._within, f"the event loop ran {self.age:.1f} s ago"


class Probes:
    """The pages; `start` once, `stop` at the end."""

    def __init__(self, host: str, port: int, metrics: Metrics, alive: Check, ready: Check) -> None:
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._metrics = metrics
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port that is served; useful where 0 was asked for."""
        assert self._server is not None, "not started"
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from now on. Raises `ProbesError`."""
        try:
            self._server = _Server(self)
        except OSError as error:
            address = f"{self._host}:{self._port}"
            raise ProbesError(
                f"metrics and health cannot be served on {address}: {error.strerror or error}; "
                "give RENTSTREAM_ADMIN an address that is free, host:port"
            ) from None
        except OverflowError:
            raise ProbesError(f"RENTSTREAM_ADMIN: {self._port} is no port, 0 to 65535 is") from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="admin-pages", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, self._metrics.text()
        check = self._checks.get(path)
        if check is None:
            detail = f"{path[:100]} is not here; /metrics, /healthz and /readyz are"
            problem = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": detail}
            return 404, "application/problem+json", json.dumps(problem).encode()
        try:
            well, detail = check()
        except Exception as error:
            log.exception("a check of %s raised", path)
            well, detail = False, f"the check itself failed ({type(error).__name__})"
        return 200 if well else 503, "application/json", json.dumps({"ok": well, "detail": detail}).encode()


class _Server(ThreadingHTTPServer):
    """Binds at once, so that a taken port is known before anything else starts."""

    daemon_threads = True

    def __init__(self, pages: Probes) -> None:
        self.pages = pages
        self.address_family = socket.AF_INET6 if ":" in pages._host else socket.AF_INET  # noqa: SLF001
        super().__init__((pages._host, pages._port), _Handler)  # noqa: SLF001

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may go away in the middle; that is no news."""
        del request, client_address
        log.debug("a request of the pages broke off")


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = 5.0
    server_version = "RentStream"
    sys_version = ""

    def do_GET(self) -> None:
        status, kind, body = self.server.pages.page(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the signature of http.server
        """Requests are not logged: a scrape every few seconds says nothing."""
