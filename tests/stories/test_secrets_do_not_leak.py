"""No secret appears in a topic, a table, the output of a process, a metric or a file.

Runs on the cluster that the other stories share, so that their records and logs are searched too.
"""

import httpx

from connectors.buildium.standin import Webhooks
from schemas import topics
from streams import topology
from tests.world import listed_rent, pick
from tests.world.cluster import DELAYS, SECRETS, ClusterWorld

WRONG_SECRET = "canary-of-a-wrong-sender-0d8a"
"""The secret of a sender that is not Buildium."""


async def test_no_secret_is_in_any_topic_log_metric_or_file(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 5001))
    await world.until(lambda: listed_rent(world, unit) == 5001.0)

    # Errors are the most likely to leak: wrong signatures, rejected credentials, malformed records.
    wrong_sender = Webhooks(world.senders[0].url, WRONG_SECRET, world.clock, schedule=())
    await wrong_sender.send(world.portfolio.set_rent(unit, 5002))
    await wrong_sender.aclose()
    assert set(wrong_sender.statuses) == {401}
    world.buildium.fail(401, times=1, path=rf"/v1/rentals/units/{unit}")
    world.rentsync.answer_next(503)
    await world.put(topics.WEBHOOKS.name, b"\x00poison")
    await world.send_webhooks(world.portfolio.set_rent(unit, 5003))
    await world.rest()

    searched = [(process.name, process.output()) for process in (*world.ended, *world.workers, *world.webs)]
    for process in (*world.workers, *world.webs):
        metrics = await world.probe(process, "/metrics")
        assert isinstance(metrics, httpx.Response)
        searched.append((f"/metrics of {process.name}", metrics.content))
    for name, records in world.topics.records.items():
        parts = [
            (record.key or b"", record.value or b"", *(value for _, value in record.headers)) for record in records
        ]
        searched.append((f"topic {name}", b"\n".join(part for record in parts for part in record)))
    files = [path for path in (world.folder / "data").rglob("*") if path.is_file()]
    searched += [(str(path), path.read_bytes()) for path in files]

    found = {name for name, content in searched if content}
    rungs = {f"topic retry.{delay}" for delay in DELAYS[:1]}
    assert found >= {f"topic {topic.name}" for topic in topics.TOPICS} | rungs
    assert found >= {f"topic {topics.changelog(topology.APP, table).name}" for table in topology.tables()}
    assert any(b"buildium" in content for _, content in searched), "the search itself works"
    secrets = [*SECRETS.values(), WRONG_SECRET]
    assert [(name, secret) for name, content in searched for secret in secrets if secret.encode() in content] == []
