"""Which addresses may be called: no plain http, no private network, unless a person allowed it."""

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urlsplit

import httpx

_NEAR: Final = re.compile(r"(^|\.)(localhost|local|internal|intranet|lan|corp|home|home\.arpa)$")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def check_url(url: str, allow_private: bool) -> str | None:
    """What is wrong with an address that we are to call, as a sentence's end; null if nothing is.

    Plain ``http`` and addresses of a private network are for tests and the demo (``RENTSTREAM_ALLOW_PRIVATE=1``).
    A public name that leads to a private address is not seen here: names are not looked up.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        return "it is not a valid address"
    if parts.scheme not in {"http", "https"} or not host or re.search(r"[\s\x00-\x1f\\]", url):
        return "it must be a full address such as https://api.example.com/v1"
    if parts.username is not None or parts.password is not None:
        return "it must not carry a user name or password"
    if parts.scheme == "http" and not allow_private:
        return "plain http is refused, use https (RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests)"
    if not allow_private and _is_private(host):
        return "a private or local address is refused (RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests)"
    return None


def _is_private(host: str) -> bool:
    name = host.lower().rstrip(".")
    address = _address(name)
    if address is None:
        return "." not in name or bool(_NEAR.search(name))
    return not address.is_global or address.is_multicast


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, in any form that a resolver takes (``127.1``, ``0x7f000001``, mapped IPv6)."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return found.ipv4_mapped
        if found.sixtofour:
            return found.sixtofour
        if found in _NAT64:
            return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found
