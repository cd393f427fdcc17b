"""Tests of the local server, in the event loop of the test and in a thread."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from connectors.serving import running, running_aside


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_an_app_is_served_until_the_context_ends() -> None:
    async with running(APP) as url, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(url)).text == "hello"

    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_port_in_use_raises_an_error() -> None:
    async with running(APP) as url:
        with pytest.raises(OSError, match="in use"):
            async with running(APP, port=int(url.rsplit(":", 1)[1])):
                pass


async def test_the_url_of_a_wildcard_address_is_that_of_the_loopback_interface() -> None:
    async with running(APP, host="0.0.0.0") as url, httpx.AsyncClient(trust_env=False) as client:
        assert url.startswith("http://127.0.0.1:")
        assert (await client.get(url)).text == "hello"


def test_an_app_can_be_served_in_a_thread() -> None:
    with running_aside(APP) as url:
        assert httpx.get(url, trust_env=False).text == "hello"
