"""Secrets stay where they are needed: in no topic, no row, no output of a process, no metric and no file.

Told on the cluster of all the other stories, so whatever happened in them is searched too.
"""

import httpx

from connectors.buildium.standin import Webhooks
from schemas import topics
from streams import topology
from tests.world import pick, rent_told
from tests.world.cluster import DELAYS, SECRETS, ClusterWorld

MADE_IN_VAIN = "canary-of-a-stranger-0d8a"
"""The secret with which somebody else signs."""


async def test_no_secret_is_in_any_topic_log_metric_or_file(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    unit = pick(world, "Available")
    await world.tell(world.portfolio.set_rent(unit, 5001))
    await world.until(lambda: rent_told(world, unit) == 5001.0)

    # What fails says most: refused webhooks and calls, credentials that are suddenly wrong, bytes that mean nothing.
    stranger = Webhooks(world.senders[0].url, MADE_IN_VAIN, world.clock, schedule=())
    await stranger.send(world.portfolio.set_rent(unit, 5002))
    await stranger.aclose()
    assert set(stranger.statuses) == {401}
    world.buildium.fail(401, times=1, path=rf"/v1/rentals/units/{unit}")
    world.rentsync.answer_next(503)
    await world.put(topics.WEBHOOKS.name, b"\x00poison")
    await world.tell(world.portfolio.set_rent(unit, 5003))
    await world.rest()

    spoken = [(one.name, one.said()) for one in (*world.past, *world.workers, *world.webs)]
    for process in (*world.workers, *world.webs):
        metrics = await world.page(process, "/metrics")
        assert isinstance(metrics, httpx.Response)
        spoken.append((f"/metrics of {process.name}", metrics.content))
    for name, records in world.tap.records.items():
        said = [(one.key or b"", one.value or b"", *(value for _, value in one.headers)) for one in records]
        spoken.append((f"topic {name}", b"\n".join(part for parts in said for part in parts)))
    files = [path for path in (world.folder / "data").rglob("*") if path.is_file()]
    spoken += [(str(path), path.read_bytes()) for path in files]

    read = {name for name, said in spoken if said}
    rungs = {f"topic retry.{delay}" for delay in DELAYS[:1]}
    assert read >= {f"topic {one.name}" for one in topics.TOPICS} | rungs
    assert read >= {f"topic {topics.changelog(topology.APP, table).name}" for table in topology.tables()}
    assert any(b"buildium" in said for _, said in spoken), "the search finds what is there"
    secrets = [*SECRETS.values(), MADE_IN_VAIN]
    assert [(name, secret) for name, said in spoken for secret in secrets if secret.encode() in said] == []
