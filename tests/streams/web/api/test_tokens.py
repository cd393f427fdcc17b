"""Tests of bearer tokens: verification, keys of a JWKS, and the command that issues a token."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from connectors.http import open_client
from connectors.serving import running
from connectors.settings import SettingsError
from streams.cli import cli
from streams.web.api.tokens import (
    Caller,
    InvalidToken,
    Jwks,
    KeysUnavailable,
    SharedSecret,
    TokenVerifier,
    caller,
    from_file,
    issue,
    jwks,
    read_jwks,
)
from tests.streams.web.api.parts import NOON, SIGNING, MovableClock, is_problem, site

AT = int(NOON.timestamp())
CLAIMS: dict[str, Any] = {"sub": "ann", "exp": AT + 60}


def shared() -> TokenVerifier:
    return TokenVerifier(SharedSecret(SIGNING), MovableClock())


def signed(claims: dict[str, Any], secret: str = SIGNING.get_secret_value(), algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


async def refusal(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(token)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------- claims


async def test_a_token_identifies_its_caller() -> None:
    """The org is `default` where it is not named; without scopes it has all."""
    verifier = shared()

    plain = await verifier.verify(signed(CLAIMS))
    full = await verifier.verify(signed({**CLAIMS, "org": "acme", "scope": "a:read  b:write"}))

    assert plain == Caller("ann", "default", None)
    assert plain.may("anything")
    assert full == Caller("ann", "acme", frozenset({"a:read", "b:write"}))
    assert full.may("b:write")
    assert not full.may("b:read")


async def test_an_empty_scope_grants_nothing() -> None:
    """It is not the same as a token without scopes."""
    assert not (await shared().verify(signed({**CLAIMS, "scope": ""}))).may("integrations:read")


WRONG_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"exp": AT}, "expired"),
    ({"exp": AT - 1}, "expired"),
    ({"exp": None}, "exp"),
    ({"exp": "tomorrow"}, "exp"),
    ({"exp": True}, "exp"),
    ({"exp": float("nan")}, "exp"),
    ({"exp": float("inf")}, "exp"),
    ({"exp": 10**400}, "exp"),
    ({"nbf": AT + 61}, "nbf is in the future"),
    ({"iat": AT + 61}, "iat is in the future"),
    ({"nbf": "now"}, "nbf"),
    ({"iat": None}, "iat"),
    ({"sub": None}, "sub"),
    ({"sub": ""}, "sub"),
    ({"sub": 5}, "sub"),
    ({"sub": "a\nb"}, "sub"),
    ({"sub": "x" * 257}, "sub"),
    ({"org": ""}, "org"),
    ({"org": None}, "org"),
    ({"org": "a/b"}, "org"),
    ({"org": "a\n"}, "org"),
    ({"org": "x" * 65}, "org"),
    ({"org": ["default"]}, "org"),
    ({"scope": None}, "scope"),
    ({"scope": ["integrations:read"]}, "scope"),
]


@pytest.mark.parametrize(("claims", "words"), WRONG_CLAIMS)
def test_a_wrong_claim_is_refused(claims: dict[str, Any], words: str) -> None:
    """The error names the claim."""
    with pytest.raises(InvalidToken, match=words):
        caller({**CLAIMS, **claims}, NOON)


@pytest.mark.parametrize("claims", [{"nbf": AT + 60}, {"iat": AT + 60}, {"nbf": 0, "iat": 0.5}, {"exp": AT + 0.5}])
def test_a_minute_of_clock_skew_is_tolerated(claims: dict[str, Any]) -> None:
    assert caller({**CLAIMS, **claims}, NOON).subject == "ann"


async def test_a_token_without_an_expiry_is_refused() -> None:
    assert "exp" in await refusal(shared(), signed({"sub": "ann"}))


async def test_a_token_is_valid_until_its_expiry() -> None:
    clock = MovableClock()
    verifier = TokenVerifier(SharedSecret(SIGNING), clock)
    token = signed(CLAIMS)

    clock.move(seconds=59)
    assert (await verifier.verify(token)).subject == "ann"
    clock.move(seconds=1)
    assert "expired" in await refusal(verifier, token)


async def test_the_audience_of_a_token_is_ignored() -> None:
    """Identity providers write one; there is no setting for it."""
    assert (await shared().verify(signed({**CLAIMS, "aud": "others", "iss": "idp", "jti": "1"}))).subject == "ann"


# ----------------------------------------------------------------------------------------------------------- signatures


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    parts = (json.dumps(part).encode() for part in (header, CLAIMS))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "." + signature


FORGED = [
    unsigned({"alg": "none", "typ": "JWT"}),
    unsigned({"alg": "None"}),
    unsigned({"alg": "HS256"}),
    unsigned({"alg": "HS256"}, "AAAA"),
    unsigned({"alg": None}),
    unsigned({}),
    unsigned({"alg": "HS256", "kid": 5}),
    unsigned({"alg": "HS256", "kid": ["a"]}),
    unsigned({"alg": "HS256", "crit": ["exp"]}),
    signed(CLAIMS, "another secret of the tests, long enough too"),
    signed(CLAIMS, "a secret of the tests that is long enough even for the largest of hashes, HS512", "HS512"),
    signed(CLAIMS)[:-4],
    signed(CLAIMS) + "A",
    "",
    "a.b.c",
    "a.b",
    "\xff.\xff.\xff",
    "." * 10,
]


@pytest.mark.parametrize("token", FORGED)
async def test_what_is_not_signed_with_the_secret_is_refused(token: str) -> None:
    """Another algorithm, none, another secret, invalid text; and the error never contains the token."""
    words = await refusal(shared(), token)

    assert not token or token not in words


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"]), st.none() | st.text() | st.integers())
)
def test_no_header_causes_an_exception(header: dict[str, Any]) -> None:
    """For any header the token is refused without an exception."""
    asyncio.run(refusal(shared(), unsigned(header, "AAAA")))


@given(st.text())
def test_no_text_causes_an_exception(text: str) -> None:
    asyncio.run(refusal(shared(), text))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SettingsError, match="32 bytes") as caught:
        SharedSecret(SecretStr("short-secret"))

    assert "short-secret" not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    assert SIGNING.get_secret_value() not in repr(SharedSecret(SIGNING)._key)


# ----------------------------------------------------------------------------------------------------------------- JWKS


@cache
def rsa_key(number: int = 1, bits: int = 2048) -> rsa.RSAPrivateKey:
    del number
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 1) -> ec.EllipticCurvePrivateKey:
    del number
    return ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    named = {} if kid is None else {"kid": kid}
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **named, **members}


def by(key: Any, kid: str | None, algorithm: str | None = None) -> str:
    usual = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    claims = {**CLAIMS, "exp": AT + 3600}
    return jwt.encode(claims, key, algorithm=algorithm or usual, headers={"kid": kid} if kid else None)


@dataclass
class JwksHost:
    """The host of a JWKS: serves its document, counts requests, and may be unavailable or slow."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    asked: int = 0
    hold: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Stage:
    host: JwksHost
    clock: MovableClock
    verifier: TokenVerifier
    keys: Jwks

    async def takes(self, token: str) -> bool:
        try:
            return (await self.verifier.verify(token)).subject == "ann"
        except InvalidToken:
            return False


@asynccontextmanager
async def hosted(*keys: dict[str, Any]) -> AsyncIterator[Stage]:
    host, clock = JwksHost(list(keys)), MovableClock()
    async with running(host) as url, open_client(allow_private=True) as client:
        source = jwks(f"{url}/jwks", client, clock, allow_private=True)
        yield Stage(host, clock, TokenVerifier(source, clock), source)
        await source.aclose()


async def test_keys_of_a_jwks_verify() -> None:
    """RS256 and ES256, by key id; they are fetched once."""
    async with hosted(jwk(rsa_key(), "r"), jwk(ec_key(), "e")) as stage:
        assert await stage.takes(by(rsa_key(), "r"))
        assert await stage.takes(by(ec_key(), "e"))
        assert await stage.takes(by(ec_key(), None))
        assert stage.host.asked == 1


async def test_a_key_verifies_its_own_algorithm_only() -> None:
    """Neither another id, nor another hash, nor the public key taken for a shared secret."""
    public = rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    entry = jwk(rsa_key(), "r")
    confused = [
        _hmac({"alg": "HS256", "kid": "r"}, secret)
        for secret in (public, entry["n"].encode(), json.dumps(entry).encode())
    ]
    async with hosted(entry, jwk(ec_key(), "e")) as stage:
        assert await stage.takes(by(rsa_key(), "r"))
        for token in (
            *confused,
            by(rsa_key(), "r", "RS512"),
            by(rsa_key(), "r", "PS256"),
            by(rsa_key(2), "r"),
            by(ec_key(), "r"),
            unsigned({"alg": "none", "kid": "r"}),
        ):
            assert not await stage.takes(token)


def _hmac(header: dict[str, Any], secret: bytes) -> str:
    import hashlib
    import hmac

    start = unsigned(header).removesuffix(".")
    return (
        start + "." + base64.urlsafe_b64encode(hmac.digest(secret, start.encode(), hashlib.sha256)).decode().rstrip("=")
    )


async def test_a_symmetric_key_of_a_jwks_is_ignored() -> None:
    """Its host is public: everybody could sign with it."""
    value = base64.urlsafe_b64encode(SIGNING.get_secret_value().encode()).decode().rstrip("=")
    async with hosted({"kty": "oct", "k": value, "kid": "o", "alg": "HS256"}) as stage:
        assert not await stage.takes(signed(CLAIMS))
        assert not await stage.takes(jwt.encode(CLAIMS, SIGNING.get_secret_value(), "HS256", {"kid": "o"}))


def test_only_usable_keys_of_a_jwks_are_read() -> None:
    """Those for encryption, of other curves and algorithms, and broken ones are left out; the others stay."""
    good = jwk(rsa_key(), "r", alg="RS256", use="sig")
    entries = [
        jwk(rsa_key(), "enc", use="enc"),
        jwk(rsa_key(), "other", alg="RS512"),
        jwk(ec_key(), "curve") | {"crv": "P-521"},
        jwk(ec_key(), "list") | {"crv": ["P-256"]},
        {"kty": "RSA", "kid": "broken", "n": 5},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        {},
        "text",
        good,
    ]

    assert [key.id for key in read_jwks(json.dumps({"keys": entries}).encode())] == ["r"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b"<html>", b"\xff", b"[" * 100_000])
def test_an_invalid_jwks_is_refused(body: bytes) -> None:
    with pytest.raises(KeysUnavailable, match="is none"):
        read_jwks(body)


async def test_a_weak_key_verifies_nothing() -> None:
    async with hosted(jwk(rsa_key(bits=1024), "w")) as stage:
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            token = by(rsa_key(bits=1024), "w")
        assert not await stage.takes(token)


async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    """It is fetched at most once in thirty seconds, for any key ids."""
    async with hosted(jwk(rsa_key(1), "one")) as stage:
        assert await stage.takes(by(rsa_key(1), "one"))
        stage.host.keys = [jwk(rsa_key(2), "two")]
        for number in range(20):
            assert not await stage.takes(by(rsa_key(3), f"made-up-{number}"))
        assert not await stage.takes(by(rsa_key(2), "two"))
        assert stage.host.asked == 1

        stage.clock.move(seconds=30)
        assert await stage.takes(by(rsa_key(2), "two"))
        assert not await stage.takes(by(rsa_key(1), "one"))
        assert stage.host.asked == 2


async def test_a_revoked_key_is_removed_after_a_while() -> None:
    """Though every id is known, the JWKS is fetched again, and no request waits for that."""
    async with hosted(jwk(rsa_key(1), "one"), jwk(rsa_key(2), "two")) as stage:
        assert await stage.takes(by(rsa_key(1), "one"))
        stage.host.keys = [jwk(rsa_key(2), "two")]
        stage.host.hold = asyncio.Event()
        stage.clock.move(minutes=5)
        assert await stage.takes(by(rsa_key(1), "one"))
        stage.host.hold.set()
        await _fetched(stage.keys)
        assert not await stage.takes(by(rsa_key(1), "one"))
        assert await stage.takes(by(rsa_key(2), "two"))


async def _fetched(keys: Jwks) -> None:
    assert keys._fetching is not None
    await keys._fetching


@pytest.mark.parametrize(("status", "body"), [(503, None), (200, b"<html>"), (302, None)])
async def test_old_keys_are_kept_while_their_host_is_unavailable(status: int, body: bytes | None) -> None:
    """It is asked again every thirty seconds; a token with an unknown id cannot be judged meanwhile."""
    async with hosted(jwk(rsa_key(), "r")) as stage:
        assert await stage.takes(by(rsa_key(), "r"))
        stage.host.status, stage.host.body = status, body
        stage.clock.move(minutes=6)
        for _ in range(3):
            assert await stage.takes(by(rsa_key(), "r"))
            await _fetched(stage.keys)
        assert stage.host.asked == 2
        with pytest.raises(KeysUnavailable):
            await stage.verifier.verify(by(rsa_key(2), "new"))

        stage.host.status, stage.host.body = 200, None
        stage.host.keys.append(jwk(rsa_key(2), "new"))
        stage.clock.move(seconds=30)
        assert await stage.takes(by(rsa_key(2), "new"))
        assert await stage.takes(by(rsa_key(), "r"))


async def test_many_tokens_at_once_wait_for_one_fetch() -> None:
    async with hosted(jwk(rsa_key(), "r")) as stage:
        stage.host.hold = asyncio.Event()
        asked = [asyncio.create_task(stage.takes(by(rsa_key(), "r"))) for _ in range(20)]
        while not stage.host.asked:
            await asyncio.sleep(0)
        asked[0].cancel()
        stage.host.hold.set()
        taken = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(taken[0], asyncio.CancelledError)
    assert taken[1:] == [True] * 19
    assert stage.host.asked == 1


async def test_a_host_that_was_never_reached_makes_the_api_unavailable() -> None:
    """503 over HTTP, since the token may well be good."""
    clock = MovableClock()
    async with open_client(allow_private=True) as client:
        keys = jwks("http://127.0.0.1:1/jwks", client, clock, allow_private=True)
        async with site(TokenVerifier(keys, clock)) as here:
            headers = {"authorization": f"Bearer {by(rsa_key(), 'r')}"}
            answer = await here.client.get("/api/integrations", headers=headers)

    assert is_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert "RENTSTREAM_JWT_JWKS" in answer.json()["detail"]


async def test_a_jwks_may_be_a_file(tmp_path: Path) -> None:
    """A missing file is named as the reason, and read once it is there."""
    path = tmp_path / "jwks.json"
    clock = MovableClock()
    async with open_client() as client:
        verifier = TokenVerifier(jwks(str(path), client, clock), clock)
        with pytest.raises(KeysUnavailable, match="No such file"):
            await verifier.verify(by(rsa_key(), "r"))
        path.write_text(json.dumps({"keys": [jwk(rsa_key(), "r")]}))
        clock.move(seconds=30)
        assert (await verifier.verify(by(rsa_key(), "r"))).subject == "ann"
    assert await from_file(path)() == path.read_bytes()


@pytest.mark.parametrize(
    "location", ["http://idp.example.com/jwks", "ftp://idp.example.com/", "https://a:b@idp.example.com/"]
)
async def test_a_location_that_cannot_be_trusted_is_refused(location: str) -> None:
    """Plain http has to be allowed explicitly."""
    async with open_client() as client:
        with pytest.raises(SettingsError, match="RENTSTREAM_JWT_JWKS"):
            jwks(location, client, MovableClock())


async def test_closing_ends_a_fetch_under_way() -> None:
    async with hosted() as stage:
        stage.host.hold = asyncio.Event()
        asking = asyncio.create_task(stage.takes(by(rsa_key(), "r")))
        while not stage.host.asked:
            await asyncio.sleep(0)
        await stage.keys.aclose()
        ended = await asyncio.gather(asking, return_exceptions=True)
        stage.host.hold.set()

    assert isinstance(ended[0], asyncio.CancelledError)


async def test_closing_before_any_token_has_no_effect() -> None:
    async def never() -> bytes:
        raise KeysUnavailable("never")

    await Jwks(never, MovableClock()).aclose()


# ------------------------------------------------------------------------------------------------------------- issuance


HOUR = timedelta(hours=1)


async def test_an_issued_token_is_accepted() -> None:
    limited = issue(SIGNING, "ann", "acme", ["integrations:read", "sync:read"], HOUR, NOON)
    whole = issue(SIGNING, "ann", "default", None, HOUR, NOON)

    assert await shared().verify(limited) == Caller("ann", "acme", frozenset({"integrations:read", "sync:read"}))
    assert await shared().verify(whole) == Caller("ann", "default", None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: issue(SIGNING, "", "default", None, HOUR, NOON),
        lambda: issue(SIGNING, "ann", "a b", None, HOUR, NOON),
        lambda: issue(SIGNING, "ann", "default", ["a b"], HOUR, NOON),
        lambda: issue(SIGNING, "ann", "default", [""], HOUR, NOON),
        lambda: issue(SIGNING, "ann", "default", None, timedelta(0), NOON),
        lambda: issue(SIGNING, "ann", "default", None, timedelta.max, NOON),
    ],
)
def test_a_token_that_would_be_refused_is_not_issued(wrong: Callable[[], str]) -> None:
    with pytest.raises(InvalidToken):
        wrong()


def token(*arguments: str, secret: str = SIGNING.get_secret_value()) -> Any:
    return CliRunner(env={"RENTSTREAM_JWT_SECRET": secret}).invoke(cli, ["token", *arguments])


def test_the_command_prints_a_token() -> None:
    """Nothing but the token, so that a script can take it."""
    printed = token(
        "--org", "acme", "--scope", "sync:read", "--scope", "roll:read", "--subject", "bob", "--expires", "2h"
    )
    claims = jwt.decode(printed.stdout.strip(), SIGNING.get_secret_value(), algorithms=["HS256"])

    assert printed.exit_code == 0
    assert printed.stdout.count("\n") == 1
    assert (claims["sub"], claims["org"], claims["scope"]) == ("bob", "acme", "sync:read roll:read")
    assert 7199 <= claims["exp"] - claims["iat"] <= 7201


def test_without_a_secret_the_command_signs_with_the_stored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The web role of the same data folder verifies with it."""
    monkeypatch.chdir(tmp_path)
    printed = token(secret="")
    kept = (tmp_path / ".rentstream" / "jwt-secret").read_text().strip()

    assert jwt.decode(printed.stdout.strip(), kept, algorithms=["HS256"])["org"] == "default"


@pytest.mark.parametrize(
    ("arguments", "secret", "words"),
    [
        ([], "short-secret", "at least 32 bytes"),
        (["--expires", "soon"], SIGNING.get_secret_value(), "--expires"),
        (["--expires", "0s"], SIGNING.get_secret_value(), "expired"),
        (["--expires", "99999999999d"], SIGNING.get_secret_value(), "--expires"),
        (["--org", "a/b"], SIGNING.get_secret_value(), "org"),
        (["--scope", "a b"], SIGNING.get_secret_value(), "scope"),
    ],
)
def test_the_command_reports_invalid_arguments(arguments: list[str], secret: str, words: str) -> None:
    """Exit code 2, and the secret is not shown."""
    refused = token(*arguments, secret=secret)

    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not secret or secret not in refused.output
