"""The schemes of RentSync, each against the stand-in, which checks them with code of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from connectors.checks import Fail, Pass
from connectors.clock import SystemClock
from connectors.endpoint import SystemNetwork
from connectors.ports import Accepted, Rejected, Throttled, Unauthorized, Unavailable
from connectors.rentsync.auth import AUTHS, NEEDED, signature, signing_key
from connectors.rentsync.check import _Test
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.rentsync.standin import PATH, TOKEN_PATH, Access, Fault, RentSyncStandIn
from schemas.integrations import AccessLevel
from streams.backends.memory import MovableClock
from tests.connectors.sink_suite import batch

KEY = "canary-key"
WHSEC, PLAIN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a-plain-secret"
ID, SECRET = "canary-client", "canary/secret+of=it"

ACCESS = {
    "api-key": Access(),
    "bearer": Access("bearer", token="canary-token"),
    "static-token": Access("static-token", token="canary-token", token_header="X-Their-Token"),
    "hmac": Access("hmac", hmac_secrets=(WHSEC,)),
    "oauth2": Access("oauth2", client_id=ID, client_secret=SECRET, scope="rolls:write", lifetime=600.0),
}
GIVEN: dict[str, dict[str, Any]] = {
    "api-key": {"RENTSYNC_API_KEY": KEY},
    "bearer": {"RENTSYNC_TOKEN": "canary-token"},
    "static-token": {"RENTSYNC_TOKEN": "canary-token", "RENTSYNC_TOKEN_HEADER": "X-Their-Token"},
    "hmac": {"RENTSYNC_HMAC_SECRET": WHSEC},
    "oauth2": {
        "RENTSYNC_OAUTH_TOKEN_URL": f"http://receiver.test{TOKEN_PATH}",
        "RENTSYNC_OAUTH_CLIENT_ID": ID,
        "RENTSYNC_OAUTH_CLIENT_SECRET": SECRET,
        "RENTSYNC_OAUTH_SCOPE": "rolls:write",
    },
}


@asynccontextmanager
async def pair(scheme: str, **given: str) -> AsyncIterator[tuple[RentSyncStandIn, RentSyncSink, MovableClock]]:
    """Yield a receiver that takes the credentials of a scheme, and a sink that has those that are given."""
    clock = MovableClock()
    standin = RentSyncStandIn(KEY, clock, replace(ACCESS[scheme], issued={}))
    env = {"RENTSYNC_URL": f"http://receiver.test{PATH}", "RENTSYNC_AUTH": scheme, "RENTSTREAM_ALLOW_PRIVATE": "1"}
    settings = RentSyncSettings.read(env | GIVEN[scheme] | given)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(standin.app)) as client:
        yield standin, RentSyncSink(settings, clock, client), clock


@pytest.mark.parametrize("scheme", AUTHS)
async def test_a_batch_is_accepted_with_the_right_credentials_only(scheme: str) -> None:
    wrong = {name: "wrong" for name in GIVEN[scheme] if name.endswith(("KEY", "TOKEN", "SECRET"))}
    async with pair(scheme) as (standin, sink, _):
        assert isinstance(await sink.deliver(batch()), Accepted)
        assert standin.statuses == [200]
    async with pair(scheme, **wrong) as (standin, sink, _):
        refused = await sink.deliver(batch())
        assert isinstance(refused, Unauthorized), refused
        assert refused.status == 401
        assert standin.accepted == []


async def test_a_bearer_without_a_token_is_the_api_key() -> None:
    async with pair("bearer", RENTSYNC_TOKEN="", RENTSYNC_API_KEY=KEY) as (standin, sink, _):
        standin.access.token = ""
        assert isinstance(await sink.deliver(batch()), Accepted)


# ----------------------------------------------------------------------------------------------------------------- hmac


def test_a_signature_is_that_of_the_specification() -> None:
    """Its example: https://github.com/standard-webhooks/standard-webhooks, spec 1.0.0."""
    found = signature(signing_key(WHSEC), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("taken", [WHSEC, PLAIN])
async def test_either_secret_of_a_rotation_is_taken(taken: str) -> None:
    async with pair("hmac", RENTSYNC_HMAC_SECRET=f"{WHSEC},{PLAIN}") as (standin, sink, _):
        standin.access.hmac_secrets = (taken,)
        assert isinstance(await sink.deliver(batch()), Accepted)


async def test_each_attempt_has_its_own_time_and_the_id_of_its_content() -> None:
    """An old signature would be refused."""
    seen = list[httpx.Headers]()
    async with pair("hmac") as (standin, sink, clock):
        send = sink._client._transport.handle_async_request

        async def watch(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers)
            return await send(request)

        sink._client._transport.handle_async_request = watch  # type: ignore[method-assign]
        for _ in range(2):
            assert isinstance(await sink.deliver(batch()), Accepted)
            await clock.advance(400)
        assert standin.statuses == [200, 200]
        assert len(standin.accepted) == 1
    assert [one["webhook-id"] for one in seen] == [one["idempotency-key"].strip('"') for one in seen]
    assert seen[0]["webhook-id"] == seen[1]["webhook-id"]
    assert int(seen[1]["webhook-timestamp"]) - int(seen[0]["webhook-timestamp"]) == 400


# --------------------------------------------------------------------------------------------------------------- oauth2


def numbered(count: int) -> list[Any]:
    return [
        batch(batch_id=f"b{number}", sync_id=f"sync-2025-01-15-02-00-{number:02}") for number in range(1, count + 1)
    ]


async def test_one_token_serves_all_calls_until_shortly_before_its_end() -> None:
    async with pair("oauth2") as (standin, sink, clock):
        answers = await asyncio.gather(*(sink.deliver(one) for one in numbered(9)))
        assert all(isinstance(one, Accepted) for one in answers)
        assert standin.access.asked == 1
        await clock.advance(539)
        await sink.deliver(batch(batch_id="later"))
        assert standin.access.asked == 1
        await clock.advance(2)
        assert isinstance(await sink.deliver(batch(batch_id="last")), Accepted)
        assert standin.access.asked == 2
        assert set(standin.statuses) == {200}


async def test_a_token_that_is_refused_is_renewed_once_for_all() -> None:
    async with pair("oauth2") as (standin, sink, _):
        await sink.deliver(batch(batch_id="first"))
        standin.access.issued.clear()
        answers = await asyncio.gather(*(sink.deliver(one) for one in numbered(9)))
        assert all(isinstance(one, Accepted) for one in answers), answers
        assert standin.access.asked == 2


async def test_a_receiver_that_refuses_every_token_is_called_twice() -> None:
    async with pair("oauth2") as (standin, sink, _):
        standin.access.lifetime = -1.0
        refused = await sink.deliver(batch())
        assert isinstance(refused, Unauthorized)
        assert (standin.access.asked, standin.statuses) == (2, [401, 401])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Unauthorized), (401, Unauthorized), (429, Throttled), (500, Unavailable), (503, Unavailable)],
)
async def test_a_failure_of_the_token_endpoint_is_one_of_the_delivery(status: int, kind: type[Any]) -> None:
    """The receiver is not called, and nothing secret is in the words."""
    async with pair("oauth2") as (standin, sink, _):
        standin.access.token_status = status
        failed = await sink.deliver(batch())
        assert isinstance(failed, kind)
        assert failed.detail.startswith(f"The token endpoint of RentSync answered {status}")
        assert "canary" not in failed.detail
        assert standin.statuses == []
        standin.access.token_status = 200
        assert isinstance(await sink.deliver(batch()), Accepted)


async def test_a_token_that_a_receiver_repeats_is_masked() -> None:
    async with pair("oauth2") as (standin, sink, _):
        await sink.deliver(batch(batch_id="first"))
        (token,) = standin.access.issued
        standin.plan(Fault(422, body=json.dumps({"detail": f"bad token {token} of {SECRET}"}).encode()))
        rejected = await sink.deliver(batch(batch_id="second"))
        assert isinstance(rejected, Rejected)
        assert rejected.detail.endswith("bad token … of …")


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("scheme", AUTHS)
def test_every_scheme_names_the_settings_that_it_lacks(scheme: str) -> None:
    env = {"RENTSYNC_URL": "https://api.rentsync.com/x", "RENTSYNC_AUTH": scheme}
    try:
        RentSyncSettings.read(env)
    except ValueError as error:
        lacking = [line.partition(" is not set")[0] for line in str(error).splitlines()]
    fields = RentSyncSettings.model_fields
    assert lacking == [fields[name].validation_alias for name in NEEDED[scheme]]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RENTSYNC_HMAC_SECRET", "whsec_not base64!", "more than two|not base64"),
        ("RENTSYNC_HMAC_SECRET", "whsec_%%%", "what follows whsec_ is not base64"),
        ("RENTSYNC_HMAC_SECRET", "a,b,c", "more than two secrets"),
        ("RENTSYNC_TOKEN", "two words", "a secret, not shown"),
        ("RENTSYNC_TOKEN_HEADER", "X Token", "RENTSYNC_TOKEN_HEADER = 'X Token'"),
        ("RENTSYNC_OAUTH_TOKEN_URL", "http://auth.example.com/token", "plain http"),
        ("RENTSYNC_OAUTH_TOKEN_URL", "https://10.0.0.9/token", "a private or local address"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(name: str, value: str, words: str) -> None:
    env = {"RENTSYNC_URL": "https://api.rentsync.com/x", "RENTSYNC_API_KEY": "k", name: value}
    with pytest.raises(ValueError, match=words) as refused:
        RentSyncSettings.read(env)
    assert "base64!" not in str(refused.value)


async def test_the_connection_test_names_a_client_that_is_refused() -> None:
    """With the settings to look at."""
    for status, passes in ((200, True), (401, False)):
        async with pair("oauth2") as (standin, sink, _):
            standin.access.token_status = status
            one = _Test(sink._settings, SystemClock(), sink._client, SystemNetwork())
            assert isinstance(await one._reachable(), Pass)
            found = await one._auth()
        assert isinstance(found, Pass) is passes, found
        if isinstance(found, Fail):
            assert "oauthClientSecret" in found.fix
            assert one.access is AccessLevel.DENIED
