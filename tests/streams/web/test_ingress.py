"""The ingress over a real server: what is answered, and when."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from streams.web.ingress import MOST_BYTES
from tests.streams.web.parts import NOON, connected, post, read_reply, site

EVENT = b'{"EventName":"Rental.Updated"}'


async def test_a_webhook_is_answered_once_it_is_durable() -> None:
    """No 202 leaves before the publisher has confirmed."""
    async with site() as here:
        here.publisher.hold = asyncio.Event()
        asking = asyncio.create_task(here.ask(post()))
        await asyncio.sleep(0.1)
        early = asking.done()
        here.publisher.hold.set()
        reply = await asking

    assert not early
    assert reply.status == 202
    assert reply.json == {"received": True, "event": "Rental.Updated"}
    assert reply.headers["content-type"] == "application/json"
    assert [(one.body, one.received_at) for one in here.publisher.notices] == [(EVENT, NOON)]
    assert here.counts == [("buildium", "accepted")]


async def test_a_duplicate_is_answered_like_the_first() -> None:
    """The same bytes twice are the same answer twice."""
    async with site() as here:
        first, again = await here.ask(post()), await here.ask(post())

    assert (first.status, first.body) == (again.status, again.body)


@pytest.mark.parametrize("path", ["/api/webhooks/buildium/main", "/api/webhooks/buildium/", "/api/webhooks/%62uildium"])
async def test_a_connection_has_a_route_of_its_own(path: str) -> None:
    """The system alone stands for its first connection; a blank end of the path changes nothing."""
    async with site() as here:
        reply = await here.ask(post(path))

    assert reply.status == 202


async def test_a_disabled_connection_is_answered_too() -> None:
    """It is written down and counted as ignored."""
    async with site() as here:
        reply = await here.ask(post("/api/webhooks/buildium/off"))

    assert reply.status == 202
    assert here.publisher.notices[0].ignored == "disabled"
    assert here.counts == [("buildium", "ignored")]


REFUSALS = [
    (post().replace(b"signature: yes", b"signature: no"), 401, "unsigned", "not signed"),
    (post(body=b"not json"), 400, "malformed", "not an event"),
    (post(body=b""), 400, "malformed", "not an event"),
    (post(body=b"bug"), 500, "error", "mistake of ours"),
    (post("/api/webhooks/yardi"), 404, "unknown", "No system is called 'yardi'; webhooks are taken from: buildium."),
    (post("/api/webhooks/buildium/other"), 404, "unknown", "buildium has no connection that is called 'other'"),
    (post("/api/webhooks/buildium/a/b"), 404, "unknown", "nothing at"),
    (post("/api/webhooks/"), 404, "unknown", "nothing at"),
    (post().replace(b"POST", b"PUT"), 405, "refused", "POST"),
    (post().replace(b"POST", b"GET"), 405, "refused", "POST"),
    (post().replace(b"POST", b"DELETE"), 405, "refused", "POST"),
    (post(body=b"x" * (MOST_BYTES + 1)), 413, "too_large", "256 KiB"),
]


@pytest.mark.parametrize(("request_bytes", "status", "result", "words"), REFUSALS)
async def test_a_refusal_says_why(request_bytes: bytes, status: int, result: str, words: str) -> None:
    """What is not taken is a problem in words, counted, and never written down."""
    async with site() as here:
        reply = await here.ask(request_bytes)

    assert reply.is_problem(status)
    assert words in reply.json["detail"]
    assert here.counts[0][1] == result
    assert here.publisher.notices == []
    if status == 405:
        assert reply.headers["allow"] == "POST"


async def test_an_unknown_system_is_no_label() -> None:
    """A made-up system is counted as other."""
    async with site() as here:
        await here.ask(post("/api/webhooks/made-up"))

    assert here.counts == [("other", "unknown")]


async def test_other_paths_are_not_found_in_words() -> None:
    """There is nothing else here, whatever is in its name."""
    async with site() as here:
        replies = [await here.ask(post(path)) for path in ("/", "/api/webhooks", "/api/%0d%0ax", "/%ff")]

    assert all(reply.is_problem(404) for reply in replies)
    assert here.counts == []


async def test_exactly_the_limit_is_taken() -> None:
    """256 KiB are not too much, whether their length is announced or not."""
    body = b'{"EventName":"x","more":"' + b"." * (MOST_BYTES - 27) + b'"}'
    assert len(body) == MOST_BYTES
    chunked = post(body=b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with site() as here:
        plain = await here.ask(post(body=body))
        in_chunks = await here.ask(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    assert (plain.status, in_chunks.status) == (202, 202)
    assert [one.body for one in here.publisher.notices] == [body, body]


async def test_a_body_without_a_length_is_limited_as_well() -> None:
    """Chunks are counted as they come: the answer does not wait for their end."""
    head = post(body=b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(head + chunk * 65)
        reply = await read_reply(reader)

    assert reply.is_problem(413)
    assert here.counts == [("buildium", "too_large")]


async def test_an_announced_length_is_refused_before_the_body_comes() -> None:
    """Who announces too much need not send it."""
    head = post(body=b"").replace(b"content-length: 0", b"content-length: 99999999999")
    async with site() as here:
        reply = await here.ask(head)

    assert reply.is_problem(413)


async def test_a_body_in_many_pieces_is_put_together() -> None:
    """However slowly a body comes, if in time, its bytes stay what they are."""
    request = post()
    async with site() as here, connected(here.port) as (reader, writer):
        for at in range(0, len(request), 7):
            writer.write(request[at : at + 7])
            await asyncio.sleep(0.001)
        reply = await read_reply(reader)

    assert reply.status == 202
    assert here.publisher.notices[0].body == EVENT


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    """A drip-fed body ends with 408 and a closed connection."""
    async with site(within=0.2) as here, connected(here.port) as (reader, writer):
        writer.write(post()[:-5])
        reply = await read_reply(reader)
        rest = await asyncio.wait_for(reader.read(), 2)

    assert reply.is_problem(408)
    assert rest == b""
    assert here.counts == [("buildium", "too_slow")]


async def test_who_goes_away_is_not_answered() -> None:
    """A client that breaks off leaves nothing behind."""
    async with site() as here:
        async with connected(here.port) as (_, writer):
            writer.write(post()[:-5])
            await writer.drain()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)

        assert here.counts == [("buildium", "too_slow")]
        assert here.publisher.notices == []


async def test_not_durable_is_unavailable() -> None:
    """While the log does not confirm, the sender is told to come again; then all is well."""
    async with site() as here:
        here.publisher.away = True
        refused = await here.ask(post())
        here.publisher.away = False
        taken = await here.ask(post())

    assert refused.is_problem(503)
    assert int(refused.headers["retry-after"]) > 0
    assert "send it again" in refused.json["detail"]
    assert taken.status == 202
    assert here.counts == [("buildium", "not_durable"), ("buildium", "accepted")]


async def test_a_silent_log_is_unavailable_in_time() -> None:
    """A confirmation that does not come is not waited for longer than the sender waits."""
    async with site(within=0.2) as here:
        here.publisher.hold = asyncio.Event()
        reply = await here.ask(post())

    assert reply.is_problem(503)
    assert "retry-after" in reply.headers


async def test_many_at_once_are_all_answered() -> None:
    """Two hundred connections, each with its own id back."""
    async with site() as here:
        asked = (here.ask(post("/api/webhooks/buildium", EVENT, f"x-request-id: r{number}")) for number in range(200))
        replies = await asyncio.gather(*asked)

    assert {reply.status for reply in replies} == {202}
    assert [reply.headers["x-request-id"] for reply in replies] == [f"r{number}" for number in range(200)]
    assert len(here.publisher.notices) == 200


@pytest.mark.parametrize("given", ["", "two words", "x" * 200, "<script>", "-dash", "\t"])
async def test_an_unfit_request_id_is_replaced(given: str) -> None:
    """Only what is fit to be logged is taken over; every request gets an id of its own."""
    async with site() as here:
        ids = [
            (await here.ask(post("/api/webhooks/buildium", EVENT, f"x-request-id: {given}"))).headers["x-request-id"]
            for _ in range(2)
        ]

    assert given not in ids
    assert len(set(ids)) == 2
    assert all(len(one) == 32 for one in ids)


async def test_requests_of_one_connection_follow_each_other() -> None:
    """A refusal leaves the connection usable, pipelined requests are answered in order."""
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(post(body=b"no") + post() + post("/api/webhooks/yardi") + post())
        statuses = [(await read_reply(reader)).status for _ in range(4)]

    assert statuses == [400, 202, 404, 202]


async def test_after_a_body_that_was_too_large_the_connection_goes_on() -> None:
    """The rest of the body is read and dropped, so that its sender can read the answer."""
    async with site() as here, connected(here.port) as (reader, writer):
        writer.write(post(body=b"x" * (MOST_BYTES * 3)) + post())
        statuses = [(await read_reply(reader)).status for _ in range(2)]

    assert statuses == [413, 202]


# ------------------------------------------------------------------------------------------------------------- the rest


async def test_the_rest_of_the_web_role_is_reached() -> None:
    """What the ingress does not know goes to the other parts, with an id as well."""
    console = Starlette(routes=[Route("/units", lambda _: PlainTextResponse("page"))])
    async with site(others=console) as here:
        page = await here.ask(b"GET /units HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n\r\n")
        webhook = await here.ask(post())

    assert (page.status, page.body) == (200, b"page")
    assert page.headers["x-request-id"] == "mine"
    assert webhook.status == 202
