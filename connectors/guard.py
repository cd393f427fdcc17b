"""Connections to public addresses only, decided when they are made: a name may have another address by then.

A name is resolved once, every address is judged, and the connection goes to an address that was judged, so that a name
server cannot pass a public address to the check and a private one to the connection. TLS still verifies the name.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import httpcore
import httpx

from connectors.addresses import is_private_address

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a name. Raises `OSError` if it has none."""

KEEP_ALIVE: Final = 5.0
"""Seconds that an idle connection is kept, as by default in httpx."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a name, in the order of the resolver of this machine. Raise `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to public addresses only."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None, resolve: Resolve = resolve) -> None:
        self._inner = inner or httpcore.AnyIOBackend()
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raise `httpcore.ConnectError` if one of them is not public."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        private = next((one for one in addresses if is_private_address(one)), None)
        if private is not None:
            raise httpcore.ConnectError(
                f"{host} has the private address {private}, which is refused: "
                "RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests"
            )
        failure: httpcore.NetworkError | httpcore.TimeoutException = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=None if timeout is None else timeout / len(addresses),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class GuardedTransport(httpx.AsyncHTTPTransport):
    """The transport of httpx over `GuardedBackend`."""

    def __init__(
        self, certificates: ssl.SSLContext, connections: int, backend: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        super().__init__(verify=certificates, trust_env=False)
        # httpx has no parameter for the network backend of its pool.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=certificates,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=backend or GuardedBackend(),
        )
