"""The server under the ingress: patient for so long, and it ends as it should."""

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
from streams.web.server import MOST_HEAD_BYTES, Connection, WebError, listen
from tests.streams.web.parts import Kept, Reader, StandingClock, connected, post, read_reply, served


class Hasty(Connection):
    """Waits a fifth of a second for a request."""

    within = 0.2


def app() -> ASGIApp:
    return build_ingress({("buildium", None): Reader()}, Kept(), StandingClock())


async def test_a_head_that_does_not_arrive_is_not_waited_for() -> None:
    """A drip-fed head ends with 408; a connection that says nothing just ends."""
    async with served(app(), Hasty) as port:
        async with connected(port) as (reader, writer):
            writer.write(post()[:30])
            reply = await read_reply(reader)
            rest = await asyncio.wait_for(reader.read(), 2)
        async with connected(port) as (reader, _):
            silent = await asyncio.wait_for(reader.read(), 2)

    assert reply.is_problem(408)
    assert rest == silent == b""


async def test_a_second_request_is_not_waited_for_either() -> None:
    """The limit holds for every request of a connection, and pauses between them are none."""
    async with served(app(), Hasty) as port, connected(port) as (reader, writer):
        writer.write(post())
        first = await read_reply(reader)
        await asyncio.sleep(0.4)
        writer.write(post())
        second = await read_reply(reader)
        writer.write(post()[:30])
        third = await read_reply(reader)

    assert (first.status, second.status) == (202, 202)
    assert third.is_problem(408)


async def test_a_body_drip_fed_after_its_refusal_ends() -> None:
    """Who was refused cannot hold the connection with a body without end."""
    head = post(body=b"").replace(b"content-length: 0", b"content-length: 99999999")
    async with served(app(), Hasty) as port, connected(port) as (reader, writer):
        writer.write(head)
        reply = await read_reply(reader)
        began = time.monotonic()
        while time.monotonic() - began < 3 and not reader.at_eof():
            writer.write(b"x")
            await asyncio.sleep(0.05)
            if reader.at_eof() or writer.transport.is_closing():
                break
        took = time.monotonic() - began

    assert reply.is_problem(413)
    assert took < 1.5


async def test_a_head_without_end_is_refused() -> None:
    """Headers are limited."""
    async with served(app()) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * (MOST_HEAD_BYTES + 10))
        reply = await read_reply(reader)

    assert reply.is_problem(431)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_a_problem(garbage: bytes) -> None:
    """Even garbage is answered in the form of all errors."""
    async with served(app()) as port, connected(port) as (reader, writer):
        writer.write(garbage)
        reply = await read_reply(reader)

    assert reply.is_problem(400)


def test_a_taken_port_is_one_clear_sentence() -> None:
    """Whoever starts a second web role learns what to set."""
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
async def parts():
    yield app
    print("closed", flush=True)

async def started():
    print("started", flush=True)

run_http(parts, "127.0.0.1", int(sys.argv[1]), started)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_answers_out_and_closes_the_parts(number: signal.Signals) -> None:
    """A request under way when the signal comes is answered; then the parts are closed, and the exit is clean."""
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
        said = process.stdout.read()
        code = process.wait(10)

    assert answer.startswith(b"HTTP/1.1 200")
    assert said == b"closed\n"
    assert code == 0
