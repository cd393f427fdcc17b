"""Which addresses are connected to, whatever a name server answers at that moment."""

from collections.abc import Iterable, Sequence
from typing import Any

import httpcore
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from connectors.addresses import is_private_address
from connectors.guard import GuardedBackend, GuardedTransport
from connectors.http import open_client
from connectors.serving import running

PUBLIC, OTHER = "93.184.216.34", "2606:4700::1111"


class Network(httpcore.AsyncNetworkBackend):
    """A network in which some addresses do not answer; records the connections."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if host in self.silent:
            raise httpcore.ConnectTimeout("silent")
        return httpcore.AsyncMockStream([b"HTTP/1.1 204 No Content\r\n\r\n"])


def answers(*addresses: str) -> Any:
    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return addresses

    return resolve


async def test_a_connection_goes_to_an_address_that_was_judged() -> None:
    """Not to the name, which may have another address by then; the second one is tried if the first is silent."""
    network = Network(PUBLIC)
    await GuardedBackend(network, answers(PUBLIC, OTHER)).connect_tcp("api.example.com", 443, timeout=4.0)

    assert network.connected == [(PUBLIC, 443), (OTHER, 443)]


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fec0::1", "fd00::1", "fe80::1%eth0",
     "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1", "ff02::1", "no address"],
)  # fmt: skip
async def test_a_name_with_a_private_address_is_refused(address: str) -> None:
    """Also if it has public ones as well: that is no ordinary setup."""
    network = Network()
    with pytest.raises(httpcore.ConnectError, match="RENTSTREAM_ALLOW_PRIVATE=1"):
        await GuardedBackend(network, answers(PUBLIC, address)).connect_tcp("api.example.com", 443)

    assert network.connected == []
    assert is_private_address(address)


async def test_a_name_that_cannot_be_resolved_or_reached_is_a_network_error() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(httpcore.ConnectError, match="no such name"):
        await GuardedBackend(Network(), unknown).connect_tcp("nowhere.example.com", 443)
    with pytest.raises(httpcore.ConnectTimeout):
        await GuardedBackend(Network(PUBLIC), answers(PUBLIC)).connect_tcp("api.example.com", 443)
    with pytest.raises(httpcore.ConnectError, match="no address"):
        await GuardedBackend(Network(), answers()).connect_tcp("api.example.com", 443)


async def test_requests_of_a_client_are_guarded_and_name_the_host() -> None:
    network = Network()
    transport = GuardedTransport(httpx.create_ssl_context(), 2, GuardedBackend(network, answers(PUBLIC)))
    async with httpx.AsyncClient(transport=transport) as client:
        response = await client.get("http://api.example.com/v1")

    assert response.status_code == 204
    assert network.connected == [(PUBLIC, 80)]


async def test_a_client_refuses_the_addresses_of_this_machine_unless_they_are_allowed() -> None:
    """By name, too: it is the connection that is judged."""
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))])
    async with running(app) as url:
        async with open_client() as client:
            for host in ("127.0.0.1", "localhost"):
                with pytest.raises(httpx.ConnectError, match="private address"):
                    await client.get(url.replace("127.0.0.1", host))
        for allowed in (open_client(allow_private=True), open_client(any_address=True)):
            async with allowed as client:
                assert (await client.get(url)).text == "hello"


async def test_a_proxy_of_the_environment_is_used_and_may_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """It resolves the name itself."""
    asked: list[str] = []

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await PlainTextResponse("by proxy")(scope, receive, send)

    async with running(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        async with open_client() as client:
            response = await client.get("http://api.example.com/v1")

    assert response.text == "by proxy"
    assert len(asked) == 1
