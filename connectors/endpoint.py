"""Checks of an HTTP endpoint that every connection test shares: name resolution, TLS and clock skew."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from connectors.addresses import check_url
from connectors.checks import Fail, Finding, Pass
from connectors.http import read_date
from connectors.ports import Clock

MOST_SKEW_SECONDS: Final = 120.0
"""Webhooks and signatures are accepted within 300 s; the check has to fail before that limit is reached."""

ADDRESSES_SHOWN: Final = 3

NETWORK_FIX: Final = "Check the address, and that the firewall and the proxy of this machine allow the connection."


class Network(Protocol):
    """The network functions of the machine that a check needs."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the IP addresses of a name. Raise `OSError` if it has none."""
        ...

    def proxied(self, url: str) -> bool:
        """Return whether requests to the URL go through a proxy."""
        ...


class SystemNetwork:
    """The resolver and the proxy settings of this machine."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def proxied(self, url: str) -> bool:
        parts = urlsplit(url)
        proxies = getproxies()
        return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or "")


def origin(url: str) -> tuple[str, int]:
    """Return host and port of a URL that `connectors.addresses.check_url` accepted."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


# ------------------------------------------------------------------------------------------------------------- address


async def check_address(url: str, network: Network, *, allow_private: bool) -> Finding:
    """Resolve the host. Fail also for a public name with a private address, which `check_url` cannot see."""
    host, port = origin(url)
    if _is_ip(host):
        return Pass(f"{host} is an IP address, no name has to be resolved")
    if not allow_private and network.proxied(url):  # as in `open_client`: private addresses are called directly
        return Pass(f"requests to {host} go through the proxy of this machine, which resolves the name")
    try:
        found = await network.resolve(host, port)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        return Fail(
            f"the name {host} cannot be resolved ({words})",
            "Check the host name for typing errors, and the DNS settings of this machine.",
        )
    return _resolved(host, found, allow_private=allow_private)


def _resolved(host: str, found: Sequence[str], *, allow_private: bool) -> Finding:
    refused = [] if allow_private else [one for one in found if check_url(_url(one), allow_private=False)]
    if refused:
        return Fail(
            f"the name {host} resolves to the private address {refused[0]}",
            "Use a host with a public address; RENTSTREAM_ALLOW_PRIVATE=1 allows private ones for tests.",
        )
    more = len(found) - ADDRESSES_SHOWN
    return Pass(f"{host} resolves to {', '.join(found[:ADDRESSES_SHOWN])}" + (f" and {more} more" if more > 0 else ""))


def _url(address: str) -> str:
    return f"https://[{address}]" if ":" in address else f"https://{address}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------------------- TLS


async def check_tls(url: str, client: httpx.AsyncClient, clock: Clock) -> Finding:
    """Connect with the proxy and the certificates of the client, and check the server's certificate.

    The request contains no credentials: they are sent only after the certificate has been verified.
    """
    host, port = origin(url)
    if urlsplit(url).scheme == "http":
        return Pass("not used: plain http, which RENTSTREAM_ALLOW_PRIVATE=1 allows for tests")
    try:
        response = await client.send(client.build_request("GET", url), stream=True, auth=None, follow_redirects=False)
    except httpx.HTTPError as error:
        return tls_failure(error, host, port)
    try:
        stream = response.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream else None
        return describe_certificate(tls.getpeercert() if tls else None, host, clock.now())
    finally:
        await response.aclose()


def describe_certificate(certificate: Mapping[str, Any] | None, host: str, now: datetime) -> Finding:
    """Return a finding about the expiry of a verified certificate (in the form of `ssl.SSLSocket.getpeercert`)."""
    not_after = (certificate or {}).get("notAfter")
    if not isinstance(not_after, str):
        return Pass(f"{host} was reached over TLS; the expiry of its certificate cannot be read here")
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(not_after), UTC)
    days = (expires - now).days
    if expires <= now:
        return Fail(
            f"the certificate of {host} expired on {expires:%Y-%m-%d}",
            "Check the clock of this machine; if it is right, the operator of the server has to renew the certificate.",
        )
    return Pass(f"the certificate of {host} is valid until {expires:%Y-%m-%d} ({days} days left)")


def tls_failure(error: httpx.HTTPError, host: str, port: int) -> Fail:
    """Return the reason why a TLS connection failed: the certificate, a port without TLS, or the network."""
    cause = _ssl_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Fail(
            f"the certificate of {host} cannot be trusted: {cause.verify_message}",
            "Check the host name. If a proxy of your network replaces certificates, set SSL_CERT_FILE to its "
            "authority; otherwise the operator of the server has to correct the certificate.",
        )
    if cause is not None:
        return Fail(
            f"the TLS handshake with {host}:{port} failed ({cause.reason or 'no reason was given'})",
            "Check scheme and port of the address: this port does not seem to speak TLS.",
        )
    if isinstance(error, httpx.ProxyError):
        return Fail(f"the proxy of this machine did not connect to {host}:{port}", NETWORK_FIX)
    if isinstance(error, httpx.TimeoutException):
        return Fail(f"{host}:{port} did not answer in time", NETWORK_FIX)
    return Fail(f"no TLS connection to {host}:{port} ({type(error).__name__})", NETWORK_FIX)


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


# --------------------------------------------------------------------------------------------------------------- clock


def check_clock(date: str | None, received_at: datetime, system: str) -> Finding:
    """Compare the ``Date`` header of a response with the time of this machine when it was received."""
    theirs = read_date(date)
    if theirs is None:
        return Pass(f"{system} sends no usable Date header, so the clocks could not be compared")
    ahead = (received_at - theirs).total_seconds()
    if abs(ahead) <= MOST_SKEW_SECONDS:
        return Pass(f"the clocks of this machine and of {system} differ by {abs(ahead):.0f} s")
    direction = "ahead of" if ahead > 0 else "behind"
    return Fail(
        f"the clock of this machine is {abs(ahead):.0f} s {direction} that of {system}",
        "Synchronise the clock of this machine (NTP): webhooks and signatures are accepted within 300 s only.",
    )
