"""The settings of proxies and certificates that the HTTP client reads from the environment by itself.

httpx raises an exception of its own for each wrong value, some with the value and its password in the text. They are
checked at the start instead, one line each.
"""

import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from connectors.settings import mask

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_PROXY_SCHEMES: Final = frozenset({"http", "https"})


def network_problems(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return one line for each setting of the network that cannot be used: the setting, its value, and what to do."""
    return (*_proxies(env), *_exceptions(env), *_certificates(env))


def _given(env: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Yield the setting in upper and lower case, as far as it has a value."""
    for spelled in (name, name.lower()):
        if value := env.get(spelled, "").strip():
            yield spelled, value


def _proxies(env: Mapping[str, str]) -> Iterator[str]:
    for name in _PROXIES:
        for spelled, value in _given(env, name):
            url = value if "://" in value else f"http://{value}"
            if (wrong := _wrong_proxy(url)) is not None:
                yield f"{spelled} = {mask(value)!r}: {wrong}"


def _wrong_proxy(url: str) -> str | None:
    scheme = url.partition("://")[0].lower()
    if scheme not in _PROXY_SCHEMES:
        return f"a proxy with the scheme {scheme} is not supported; allowed: http and https"
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
        httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL):
        host = None
    if host:
        return None
    return (
        "it is not the URL of a proxy, such as http://user:password@proxy.example.com:3128; "
        "characters of a password such as # / ? @ have to be percent-encoded"
    )


def _exceptions(env: Mapping[str, str]) -> Iterator[str]:
    for spelled, value in _given(env, "NO_PROXY"):
        for part in (one.strip() for one in value.split(",")):
            bare = part.strip("[]")
            if bare != part and _is_ip(bare):
                yield f"{spelled} contains {part!r}: write the address without brackets, {bare}"
            elif part and part != "*" and not _is_host(part):
                yield f"{spelled} contains {part!r}: it is not a host name, an address or a domain such as .example.com"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    if _is_ip(text):
        return True
    try:
        httpx.URL(text if "://" in text else f"all://*{text}")
    except httpx.InvalidURL:
        return False
    return True


def _certificates(env: Mapping[str, str]) -> Iterator[str]:
    if file := env.get("SSL_CERT_FILE", ""):
        try:
            ssl.create_default_context(cafile=file)
        except (OSError, ssl.SSLError) as error:
            reason = os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else "no PEM file"
            yield f"SSL_CERT_FILE = {file!r}: it cannot be used ({reason}); allowed: a file of certificates in PEM"
    if (folder := env.get("SSL_CERT_DIR", "")) and not Path(folder).is_dir():
        yield f"SSL_CERT_DIR = {folder!r}: it is not a folder; allowed: a folder of certificates in PEM"
