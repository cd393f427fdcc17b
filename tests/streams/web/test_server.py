"""The HTTP server of the ingress: its limits and its shutdown."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from starlette.types import ASGIApp

from streams.web.ingress import build_ingress
from streams.web.server import MAX_HEAD_BYTES, Connection, WebError, listen, without_h2c
from tests.streams.web.parts import FixedClock, MemoryPublisher, Readers, connected, post, read_reply, served


class ImpatientConnection(Connection):
    """A connection with a short request timeout."""

    timeout = 0.2


def app() -> ASGIApp:
    return build_ingress(Readers(), MemoryPublisher(), FixedClock())


async def test_an_incomplete_head_times_out() -> None:
    """It gets a 408; a connection without any bytes is closed."""
    async with served(app(), ImpatientConnection) as port:
        async with connected(port) as (reader, writer):
            writer.write(post()[:30])
            reply = await read_reply(reader)
            rest = await asyncio.wait_for(reader.read(), 2)
        async with connected(port) as (reader, _):
            silent = await asyncio.wait_for(reader.read(), 2)

    assert reply.is_problem(408)
    assert rest == silent == b""


async def test_the_timeout_applies_to_every_request_of_a_connection() -> None:
    """The pause between two requests does not count."""
    async with served(app(), ImpatientConnection) as port, connected(port) as (reader, writer):
        writer.write(post())
        first = await read_reply(reader)
        await asyncio.sleep(0.4)
        writer.write(post())
        second = await read_reply(reader)
        writer.write(post()[:30])
        third = await read_reply(reader)

    assert (first.status, second.status) == (202, 202)
    assert third.is_problem(408)


async def test_an_endless_body_after_a_refusal_is_cut_off() -> None:
    """A refused client cannot keep the connection open by sending more bytes."""
    head = post(body=b"").replace(b"content-length: 0", b"content-length: 99999999")
    async with served(app(), ImpatientConnection) as port, connected(port) as (reader, writer):
        writer.write(head)
        reply = await read_reply(reader)
        started = time.monotonic()
        while time.monotonic() - started < 3 and not reader.at_eof():
            writer.write(b"x")
            await asyncio.sleep(0.05)
            if reader.at_eof() or writer.transport.is_closing():
                break
        elapsed = time.monotonic() - started

    assert reply.is_problem(413)
    assert elapsed < 1.5


async def test_a_head_over_the_limit_is_refused() -> None:
    """It gets a 431."""
    async with served(app()) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * (MAX_HEAD_BYTES + 10))
        reply = await read_reply(reader)

    assert reply.is_problem(431)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_invalid_http_gets_a_problem_document(garbage: bytes) -> None:
    """It gets a 400 in the form of all errors."""
    async with served(app()) as port, connected(port) as (reader, writer):
        writer.write(garbage)
        reply = await read_reply(reader)

    assert reply.is_problem(400)


def test_only_the_head_of_a_request_is_searched_for_an_upgrade() -> None:
    """A body is left as it is, and so is an upgrade to another protocol."""
    head = b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nhost: x"
    assert without_h2c(head + b"\r\n\r\na\r\nupgrade: h2c") == (
        b"POST / HTTP/1.1\r\nignored: h2c\r\nhost: x\r\n\r\na\r\nupgrade: h2c"
    )
    websocket = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nx: h2c\r\n\r\n"
    assert without_h2c(websocket) == websocket


def test_a_port_in_use_is_one_sentence() -> None:
    """The error names the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WebError, match=r"cannot listen on 127.0.0.1:\d+: .*RENTSTREAM_HTTP"):
            listen("127.0.0.1", taken.getsockname()[1])


PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from streams.web.server import run_http

async def app(scope, receive, send):
    await receive()
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

@asynccontextmanager
async def open_app():
    yield app
    print("closed", flush=True)

async def started():
    print("started", flush=True)

run_http(open_app, "127.0.0.1", int(sys.argv[1]), started)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_gracefully(number: signal.Signals) -> None:
    """A request in progress is answered, then the resources are closed, and the exit code is 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            time.sleep(0.1)
            os.kill(process.pid, number)
            answer = client.recv(1000)
            while b"ok" not in answer:
                answer += client.recv(1000)
        output = process.stdout.read()
        code = process.wait(10)

    assert answer.startswith(b"HTTP/1.1 200")
    assert output == b"closed\n"
    assert code == 0
