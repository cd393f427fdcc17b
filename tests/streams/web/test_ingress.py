"""The ingress behind a real HTTP server: its answers and their order relative to durability."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from connectors.ports import Refused
from schemas.pms import FetchRequest
from streams.web.ingress import MAX_BODY_BYTES, build_ingress
from tests.streams.web.parts import (
    NOON,
    FixedClock,
    MemoryPublisher,
    Reader,
    Readers,
    connected,
    post,
    read_reply,
    served,
    site,
)

EVENT = b'{"EventName":"Rental.Updated"}'


async def test_a_webhook_is_answered_after_it_is_durable() -> None:
    """No 202 is sent before the publisher has confirmed."""
    async with site() as here:
        here.publisher.hold = asyncio.Event()
        request = asyncio.create_task(here.ask(post()))
        await asyncio.sleep(0.1)
        answered_early = request.done()
        here.publisher.hold.set()
        reply = await request

    assert not answered_early
    assert reply.status == 202
    assert reply.json == {"received": True, "event": "Rental.Updated"}
    assert reply.headers["content-type"] == "application/json"
    assert [(webhook.body, webhook.received_at) for webhook in here.publisher.webhooks] == [(EVENT, NOON)]
    assert here.counts == [("buildium", "accepted")]


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
async def test_an_offer_to_upgrade_to_http_2_is_ignored(name: str) -> None:
    """Java clients make it with every request; the body arrives, also if it mentions an upgrade itself."""
    body = b'{"EventName":"Rental.Updated","text":"\\r\\nupgrade: h2c"}'
    more = ("Connection: Upgrade, HTTP2-Settings", f"{name}: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    async with site() as here:
        reply = await here.ask(post("/api/webhooks/buildium", body, *more))

    assert reply.status == 202
    assert here.publisher.webhooks[0].body == body


async def test_a_duplicate_is_answered_like_the_original() -> None:
    """The same bytes get the same answer."""
    async with site() as here:
        first, second = await here.ask(post()), await here.ask(post())

    assert (first.status, first.body) == (second.status, second.body)


@pytest.mark.parametrize("path", ["/api/webhooks/buildium/main", "/api/webhooks/buildium/", "/api/webhooks/%62uildium"])
async def test_a_connection_has_its_own_route(path: str) -> None:
    """A trailing slash and percent-encoding make no difference."""
    async with site() as here:
        reply = await here.ask(post(path))

    assert reply.status == 202


async def test_a_webhook_of_a_disabled_connection_is_accepted_and_ignored() -> None:
    """It is published as ignored, and counted as ignored."""
    async with site() as here:
        reply = await here.ask(post("/api/webhooks/buildium/off"))

    assert reply.status == 202
    assert here.publisher.webhooks[0].ignored == "disabled"
    assert here.counts == [("buildium", "ignored")]


REFUSALS = [
    (post().replace(b"signature: yes", b"signature: no"), 401, "unsigned", "not signed"),
    (post(body=b"not json"), 400, "malformed", "not an event"),
    (post(body=b""), 400, "malformed", "not an event"),
    (post(body=b"bug"), 500, "error", "Internal error"),
    (post("/api/webhooks/yardi"), 404, "unknown", "Unknown system 'yardi'; webhooks are accepted from: buildium."),
    (post("/api/webhooks/buildium/other"), 404, "unknown", "buildium has no integration at this address"),
    (post("/api/webhooks/buildium/a/b"), 404, "unknown", "does not exist"),
    (post("/api/webhooks/"), 404, "unknown", "does not exist"),
    (post().replace(b"POST", b"PUT"), 405, "refused", "POST"),
    (post().replace(b"POST", b"GET"), 405, "refused", "POST"),
    (post().replace(b"POST", b"DELETE"), 405, "refused", "POST"),
    (post(body=b"x" * (MAX_BODY_BYTES + 1)), 413, "too_large", "256 KiB"),
]


@pytest.mark.parametrize(("request_bytes", "status", "result", "detail"), REFUSALS)
async def test_a_refused_request_gets_a_reason(request_bytes: bytes, status: int, result: str, detail: str) -> None:
    """It is a problem document, is counted, and is not published."""
    async with site() as here:
        reply = await here.ask(request_bytes)

    assert reply.is_problem(status)
    assert detail in reply.json["detail"]
    assert here.counts[0][1] == result
    assert here.publisher.webhooks == []
    if status == 405:
        assert reply.headers["allow"] == "POST"


async def test_an_unknown_system_is_counted_as_other() -> None:
    """The name of an unknown system never becomes a label."""
    async with site() as here:
        await here.ask(post("/api/webhooks/made-up"))

    assert here.counts == [("other", "unknown")]


async def test_other_paths_are_not_found() -> None:
    """Unknown and malformed paths get a problem document and are not counted."""
    async with site() as here:
        replies = [await here.ask(post(path)) for path in ("/", "/api/webhooks", "/api/%0d%0ax", "/%ff")]

    assert all(reply.is_problem(404) for reply in replies)
    assert here.counts == []


async def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    """256 KiB are accepted with a Content-Length and chunked."""
    body = b'{"EventName":"x","more":"' + b"." * (MAX_BODY_BYTES - 27) + b'"}'
    assert len(body) == MAX_BODY_BYTES
    chunked = post(body=b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with site() as here:
        plain = await here.ask(post(body=body))
        in_chunks = await here.ask(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    assert (plain.status, in_chunks.status) == (202, 202)
    assert [webhook.body for webhook in here.publisher.webhooks] == [body, body]


async def test_a_chunked_body_is_limited() -> None:
    """Chunks are counted as they arrive; the answer does not wait for the last one."""
    head = post(body=b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(head + chunk * 65)
        reply = await read_reply(reader)

    assert reply.is_problem(413)
    assert here.counts == [("buildium", "too_large")]


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_arrives() -> None:
    """The answer does not wait for the body."""
    head = post(body=b"").replace(b"content-length: 0", b"content-length: 99999999999")
    async with site() as here:
        reply = await here.ask(head)

    assert reply.is_problem(413)


async def test_a_fragmented_body_is_reassembled() -> None:
    """A body that arrives in small pieces is published unchanged."""
    request = post()
    async with site() as here, connected(here.port) as (reader, writer):
        for start in range(0, len(request), 7):
            writer.write(request[start : start + 7])
            await asyncio.sleep(0.001)
        reply = await read_reply(reader)

    assert reply.status == 202
    assert here.publisher.webhooks[0].body == EVENT


async def test_an_incomplete_body_times_out() -> None:
    """It gets a 408, and the connection is closed."""
    async with site(within=0.2) as here, connected(here.port) as (reader, writer):
        writer.write(post()[:-5])
        reply = await read_reply(reader)
        rest = await asyncio.wait_for(reader.read(), 2)

    assert reply.is_problem(408)
    assert rest == b""
    assert here.counts == [("buildium", "too_slow")]


async def test_a_client_that_disconnects_publishes_nothing() -> None:
    """An incomplete request is counted and dropped."""
    async with site() as here:
        async with connected(here.port) as (_, writer):
            writer.write(post()[:-5])
            await writer.drain()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)

        assert here.counts == [("buildium", "too_slow")]
        assert here.publisher.webhooks == []


async def test_a_webhook_that_is_not_durable_gets_503() -> None:
    """While Kafka is unreachable the sender must retry, and a retry succeeds afterwards."""
    async with site() as here:
        here.publisher.away = True
        refused = await here.ask(post())
        here.publisher.away = False
        accepted = await here.ask(post())

    assert refused.is_problem(503)
    assert int(refused.headers["retry-after"]) > 0
    assert "send it again" in refused.json["detail"]
    assert accepted.status == 202
    assert here.counts == [("buildium", "not_durable"), ("buildium", "accepted")]


async def test_a_missing_confirmation_times_out_with_503() -> None:
    """The ingress answers before the sender gives up."""
    async with site(within=0.2) as here:
        here.publisher.hold = asyncio.Event()
        reply = await here.ask(post())

    assert reply.is_problem(503)
    assert "retry-after" in reply.headers


async def test_concurrent_requests_are_all_answered() -> None:
    """Two hundred connections each get their own request id back."""
    async with site() as here:
        requests = (
            here.ask(post("/api/webhooks/buildium", EVENT, f"x-request-id: r{number}")) for number in range(200)
        )
        replies = await asyncio.gather(*requests)

    assert {reply.status for reply in replies} == {202}
    assert [reply.headers["x-request-id"] for reply in replies] == [f"r{number}" for number in range(200)]
    assert len(here.publisher.webhooks) == 200


@pytest.mark.parametrize("given", ["", "two words", "x" * 200, "<script>", "-dash", "\t"])
async def test_an_unsafe_request_id_is_replaced(given: str) -> None:
    """An id that is not safe to log is replaced by a unique one."""
    async with site() as here:
        ids = [
            (await here.ask(post("/api/webhooks/buildium", EVENT, f"x-request-id: {given}"))).headers["x-request-id"]
            for _ in range(2)
        ]

    assert given not in ids
    assert len(set(ids)) == 2
    assert all(len(one) == 32 for one in ids)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A refused request leaves the connection usable."""
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(post(body=b"no") + post() + post("/api/webhooks/yardi") + post())
        statuses = [(await read_reply(reader)).status for _ in range(4)]

    assert statuses == [400, 202, 404, 202]


async def test_a_connection_survives_a_body_that_is_too_large() -> None:
    """The rest of the body is read and discarded, so that the sender can read the answer."""
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(post(body=b"x" * (MAX_BODY_BYTES * 3)) + post())
        statuses = [(await read_reply(reader)).status for _ in range(2)]

    assert statuses == [413, 202]


# ------------------------------------------------------------------------------------------- several integrations


@dataclass(frozen=True)
class Answering:
    """A reader that answers every webhook alike."""

    answer: Refused

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        del headers, body, now
        return self.answer


NOT_SIGNED, HELD, MALFORMED = Refused(401, "not signed"), Refused(503, "held"), Refused(400, "not an event")


async def test_the_shared_path_is_of_the_first_integration_whose_secret_verifies() -> None:
    """The others refuse the signature."""
    candidates = (Answering(NOT_SIGNED), Reader(org="second"), Reader(org="third"))
    async with site(tokens={None: candidates}) as here:
        reply = await here.ask(post())

    assert reply.status == 202
    assert [one.org for one in here.publisher.webhooks] == ["second"]


@pytest.mark.parametrize(
    ("answers", "status", "result"),
    [
        ((NOT_SIGNED, NOT_SIGNED), 401, "unsigned"),
        ((NOT_SIGNED, HELD), 503, "held"),
        ((NOT_SIGNED, MALFORMED, NOT_SIGNED), 400, "malformed"),
        ((HELD, MALFORMED), 400, "malformed"),
    ],
)
async def test_a_webhook_that_no_integration_takes_is_refused_with_the_best_reason(
    answers: Sequence[Refused], status: int, result: str
) -> None:
    """One whose secrets cannot be read at the moment is answered with 503, so that it is sent again."""
    async with site(tokens={None: [Answering(one) for one in answers]}) as here:
        reply = await here.ask(post())

    assert reply.is_problem(status)
    assert ("retry-after" in reply.headers) is (status == 503)
    assert here.counts == [("buildium", result)]


async def test_without_any_integration_the_shared_path_is_not_found() -> None:
    async with site(tokens={None: ()}) as here:
        reply = await here.ask(post())

    assert reply.is_problem(404)
    assert here.counts == [("buildium", "unknown")]


async def test_before_all_integrations_are_read_every_webhook_is_to_be_sent_again() -> None:
    """A stored integration may replace the one that is known already."""
    publisher = MemoryPublisher()
    app = build_ingress(Readers(caught_up=False), publisher, FixedClock())
    async with served(app) as port, connected(port) as (reader, writer):
        writer.write(post())
        reply = await read_reply(reader)

    assert reply.is_problem(503)
    assert reply.headers["retry-after"] == "5"
    assert publisher.webhooks == []


# --------------------------------------------------------------------------------------------------------- other routes


async def test_other_paths_reach_the_rest_of_the_web_role() -> None:
    """Their responses have a request id too."""
    console = Starlette(routes=[Route("/units", lambda _: PlainTextResponse("page"))])
    async with site(others=console) as here:
        page = await here.ask(b"GET /units HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n\r\n")
        webhook = await here.ask(post())

    assert (page.status, page.body) == (200, b"page")
    assert page.headers["x-request-id"] == "mine"
    assert webhook.status == 202
