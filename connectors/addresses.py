"""The check of URLs that are to be called: plain http and private networks are refused unless allowed explicitly."""

import ipaddress
import re
import socket
import unicodedata
from typing import Final
from urllib.parse import urlsplit

import httpx

_LOCAL_NAMES: Final = re.compile(
    r"(^|\.)(localhost|localdomain|local|internal|intranet|lan|corp|home|home\.arpa|svc|cluster\.local)$"
)
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")
"""Characters that IDNA (RFC 3490, 3.1) takes for a dot."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def check_url(url: str, allow_private: bool) -> str | None:
    """Return why a URL must not be called, as the end of a sentence; null if it may be called.

    ``allow_private`` (``RENTSTREAM_ALLOW_PRIVATE=1``, for tests and the demo) allows plain ``http`` and private
    addresses. Names are not resolved here: `connectors.guard` judges their addresses when a connection is made.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        return "it is not a valid URL"
    if parts.scheme not in {"http", "https"} or not host or re.search(r"[\s\x00-\x1f\\]", url):
        return "it must be a full URL such as https://api.example.com/v1"
    if parts.username is not None or parts.password is not None:
        return "it must not carry a user name or password"
    if parts.scheme == "http" and not allow_private:
        return "plain http is refused, use https (RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests)"
    if not allow_private and _is_private(host):
        return "a private or local address is refused (RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests)"
    return None


def _is_private(host: str) -> bool:
    name = unicodedata.normalize("NFKC", host).translate(_DOTS).lower().rstrip(".")
    address = _address(name)
    if address is None:
        return "." not in name or bool(_LOCAL_NAMES.search(name))
    return _is_not_public(address)


def is_private_address(address: str) -> bool:
    """Return whether an IP address, with or without a scope, is not a public one; also if it is not an address."""
    found = _address(address)
    return found is None or _is_not_public(found)


def _is_not_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return not address.is_global or address.is_multicast or site_local


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host denotes, in any form that resolvers accept (``127.1``, ``0x7f000001``)."""
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
