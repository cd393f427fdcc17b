"""No secret appears in a topic, a table, the output or the arguments of a process, a metric, a file or an answer.

Runs on the cluster that the other stories share, so that their records and logs are searched too.
"""

import sys
from datetime import timedelta

import httpx

from connectors.buildium.standin import Webhooks
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.pms import PulseStep, RecheckStep
from streams import topology
from tests.world import listed_rent, pick, receiver_matches
from tests.world.cluster import DELAYS, ENCRYPTION_KEY, SECRETS, ClusterWorld, Org

WRONG_SECRET = "canary-of-a-wrong-sender-0d8a"
"""The secret of a sender that is not Buildium."""
WRONG_TOKEN = "canary-header.canary-payload-4f0b.canary-signature"
PASSWORD = "canary-password-in-an-address-6c21"
REFUSED = "canary-secret-that-is-refused-e07d"
ADDED = "canary-added-webhook-secret-18bb"


async def test_no_secret_is_in_any_topic_log_metric_file_or_answer(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    await cause_errors_of_the_environment(world)
    async with world.org("secretive") as org:
        sender = await org.enable()
        await world.until(lambda: receiver_matches(org))
        await cause_refused_requests(org)
        await replace_credentials(world, org, sender)
        await sender.aclose()
        await world.rest()
        searched = await everything(world)
        searched += [("answers of the API", answer) for answer in org.answers]
    secrets = {*SECRETS.values(), ENCRYPTION_KEY, WRONG_SECRET, WRONG_TOKEN, PASSWORD, REFUSED, ADDED}
    secrets |= set(org.secrets.values())

    found = {name for name, content in searched if content}
    rungs = {f"topic retry.{delay}" for delay in DELAYS[:1]}
    assert found >= {f"topic {topic.name}" for topic in topics.TOPICS} | rungs
    assert found >= {f"topic {topics.changelog(topology.APP, table).name}" for table in topology.tables()}
    assert any(b"buildium" in content for _, content in searched), "the search itself works"
    assert any(b"clientSecret" in content for name, content in searched if name == "topic integrations")
    assert any(b"e8d" in content for name, content in searched if name == "answers of the API"), "the last four"
    assert [(name, secret) for name, content in searched for secret in secrets if secret.encode() in content] == []


async def cause_errors_of_the_environment(world: ClusterWorld) -> None:
    """Errors are the most likely to leak: wrong signatures, refused credentials, malformed records."""
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 5001))
    await world.until(lambda: listed_rent(world, unit) == 5001.0)
    wrong_sender = Webhooks(world.senders[0].url, WRONG_SECRET, world.clock, schedule=())
    await wrong_sender.send(world.portfolio.set_rent(unit, 5002))
    await wrong_sender.aclose()
    assert set(wrong_sender.statuses) == {401}
    world.buildium.fail(403, times=1, path=rf"/v1/rentals/units/{unit}")
    world.rentsync.answer_next(503)
    await world.put(topics.WEBHOOKS.name, b"\x00poison")
    now = world.clock.now()
    pulse = PulseStep(org="default", connection="buildium", since=now - timedelta(minutes=1), started_at=now)
    await world.put(topics.PULSES.name, encode(pulse))
    recheck = RecheckStep(org="default", connection="buildium", sweep="s", kind=EntityKind.UNIT, ids=(1,))
    await world.put(topics.RECHECKS.name, encode(recheck))
    await world.send_webhooks(world.portfolio.set_rent(unit, 5003))
    since = {"topic": topics.WEBHOOKS.name, "since": (now - timedelta(minutes=1)).isoformat()}
    planned = await world.call_api("POST", "/api/replays", "default", since)
    assert planned.status_code == 201, planned.text
    approved = await world.call_api("POST", f"{planned.headers['location']}/approve", "default")
    assert approved.status_code == 200, approved.text
    home = {"addressLine1": "1 Main St", "postalCode": "T2P", "country": "CA", "state": "ZZ"}
    refused = await world.ask("POST", "/api/properties", {"name": "Annex", "rentalSubType": "Office", **home})
    assert refused.status_code == 202, refused.text
    await world.rest()


async def cause_refused_requests(org: Org) -> None:
    """Refused requests hold secrets in the right place, in the wrong one, and in what is no JSON."""
    body = org.body("buildium")
    with_password = {**body["settings"], "baseUrl": f"http://user:{PASSWORD}@127.0.0.1/v1"}
    refused: list[tuple[object, int]] = [
        ({**body, "secrets": {"clientId": REFUSED, "nope": REFUSED}}, 422),
        ({**body, "secrets": {"clientId": f"{REFUSED}\nof two lines"}}, 422),
        ({**body, "secrets": {"clientId": [REFUSED, REFUSED]}}, 422),
        ({**body, "secrets": REFUSED}, 422),
        ({**body, "settings": {**body["settings"], "clientSecret": REFUSED}}, 422),
        ({**body, "settings": with_password}, 422),
        ({**body, "nope": REFUSED}, 422),
        (f'{{"secrets":{{"clientId":"{REFUSED}'.encode(), 400),
    ]
    for wrong, status in refused:
        answer = await org.call("PUT", "/buildium", wrong)
        assert answer.status_code == status, answer.text
    assert (await org.call("PUT", "/other", {**org.body("rentsync"), "system": "nope"})).status_code == 422
    assert (await org.call("GET", "/buildium", token=WRONG_TOKEN)).status_code == 401


async def replace_credentials(world: ClusterWorld, org: Org, sender: Webhooks) -> None:
    """Let the account and the receiver refuse their keys for a while; add a webhook secret."""
    org.buildium.client_secret = org.secrets["newClientSecret"]
    org.rentsync.api_key = org.secrets["newApiKey"]
    await sender.send(org.portfolio.set_rent(100104, 5101))
    await world.until(lambda: any(call.status == 401 for call in org.buildium.calls))
    for name in ("buildium", "rentsync"):
        assert (await org.call("POST", f"/{name}/check")).json()["ok"] is False
    secret = {"clientSecret": org.secrets["newClientSecret"]}
    assert (await org.call("PUT", "/buildium", org.body("buildium", **secret))).status_code == 200
    await world.until(lambda: 401 in org.rentsync.statuses)
    body = org.body("rentsync", apiKey=org.secrets["newApiKey"])
    assert (await org.call("PUT", "/rentsync", body)).status_code == 200
    rotated = await org.call("POST", "/buildium/rotate-webhook-secret", {"secret": ADDED})
    assert (rotated.status_code, rotated.json()["newSecret"]) == (200, None)
    await world.until(lambda: listed_rent(org, 100104) == 5101.0)


async def everything(world: ClusterWorld) -> list[tuple[str, bytes]]:
    """Return all that this world shows or keeps, each part with a name."""
    running = (*world.workers, *world.webs)
    searched = [(process.name, process.output()) for process in (*world.ended, *running)]
    if sys.platform == "linux":
        searched += [(f"arguments of {process.name}", process.arguments) for process in running]
    for process in running:
        metrics = await world.probe(process, "/metrics")
        assert isinstance(metrics, httpx.Response)
        searched.append((f"/metrics of {process.name}", metrics.content))
    for name, records in world.topics.records.items():
        parts = [
            (record.key or b"", record.value or b"", *(value for _, value in record.headers)) for record in records
        ]
        searched.append((f"topic {name}", b"\n".join(part for record in parts for part in record)))
    files = [path for path in (world.folder / "data").rglob("*") if path.is_file()]
    return searched + [(str(path), path.read_bytes()) for path in files]
