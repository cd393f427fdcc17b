"""Serve ``/metrics``, ``/healthz`` and ``/readyz`` of a process from a separate thread.

A thread, because the endpoints must answer while the event loop is busy, blocked, or waits for tables to recover.
Therefore every callback that they use must be thread-safe.
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
"""Returns whether the process is healthy (or ready), and one sentence with the reason. Called on another thread."""


class ProbesError(RuntimeError):
    """The endpoints cannot be served; the message is one sentence with the cause and what to do."""


class Heartbeat:
    """Detects a blocked event loop: a task of the loop records the time, and `check` compares its age with a limit."""

    def __init__(self, within: float = 10.0, every: float = 0.5) -> None:
        self._within = within
        self._every = every
        self._beat = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the loop last ran."""
        return time.monotonic() - self._beat

    async def run(self) -> None:
        """Record the time every few hundred milliseconds until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._every)

    def check(self) -> tuple[bool, str]:
        """Return whether the event loop ran within the limit (a `Check`)."""
        return self.age < self._within, f"the event loop last ran {self.age:.1f} s ago"


class Probes:
    """HTTP server of the endpoints; a context manager."""

    def __init__(self, host: str, port: int, metrics: Metrics, alive: Check, ready: Check) -> None:
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._metrics = metrics
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port of the server, also if it was configured as 0."""
        assert self._server is not None, "not started"
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to serve. Raise `ProbesError` if the address cannot be used."""
        try:
            self._server = _Server(self)
        except OSError as error:
            address = f"{self._host}:{self._port}"
            raise ProbesError(
                f"metrics and health cannot be served on {address}: {error.strerror or error}; "
                "set RENTSTREAM_ADMIN to a free address, host:port"
            ) from None
        except OverflowError:
            raise ProbesError(f"RENTSTREAM_ADMIN: {self._port} is not a port; use 0 to 65535") from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True).start()

    def stop(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, self._metrics.text()
        check = self._checks.get(path)
        if check is None:
            detail = f"{path[:100]} does not exist; use /metrics, /healthz or /readyz"
            problem = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": detail}
            return 404, "application/problem+json", json.dumps(problem).encode()
        try:
            ok, detail = check()
        except Exception as error:
            log.exception("the check of %s raised", path)
            ok, detail = False, f"the check itself failed ({type(error).__name__})"
        return 200 if ok else 503, "application/json", json.dumps({"ok": ok, "detail": detail}).encode()


class _Server(ThreadingHTTPServer):
    """Binds in its constructor, so that a port in use is detected before anything else starts."""

    daemon_threads = True

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.address_family = socket.AF_INET6 if ":" in probes._host else socket.AF_INET  # noqa: SLF001
        super().__init__((probes._host, probes._port), _Handler)  # noqa: SLF001

    def server_bind(self) -> None:
        """Bind without the reverse DNS lookup of the base class, which can block."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log at debug level only: a client may disconnect at any time."""
        del request, client_address
        log.debug("a client disconnected")


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = 5.0
    server_version = "RentStream"
    sys_version = ""

    def do_GET(self) -> None:
        status, content_type, body = self.server.probes.respond(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the signature of http.server
        """Do nothing: a scrape every few seconds is not worth a log line."""
