"""A worker that cannot start exits with code 1 and one sentence with what to do, without a stack trace."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from schemas import topics
from streams.local.demo import demo_env
from tests.world.cluster import ClusterWorld, Process, free_port


def run_worker(env: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Run a worker until it exits; return its exit code and output."""
    worker = Process("w1", ["worker", "--name", "w1"], env, folder)
    code = worker.wait(60)
    return code, worker.output().decode()


def test_an_unreachable_kafka_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {
        **demo_env("http://127.0.0.1:9", "http://127.0.0.1:9"),
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "RENTSTREAM_DATA": str(tmp_path / "data"),
    }
    code, output = run_worker(env, tmp_path)
    assert code == 1
    assert "Traceback" not in output
    assert f"rentstream: Kafka does not answer on {address}" in output
    assert "KAFKA_BOOTSTRAP_SERVERS" in output


async def test_missing_topics_are_named(cluster_world: ClusterWorld, tmp_path: Path) -> None:
    env = {**cluster_world.env, "RENTSTREAM_TOPIC_PREFIX": "missing."}
    code, output = await asyncio.to_thread(run_worker, env, tmp_path)
    assert code == 1, output
    assert "Traceback" not in output
    assert f"missing.{topics.TOPICS[0].name}" in output
    assert "rentstream topics --apply" in output
