"""A worker that cannot begin ends with 1 and one sentence that says what to do; no stack trace reaches anybody."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from streams.local.demo import demo_env
from tests.world.cluster import ClusterWorld, Process, free_port


def last_words(env: Mapping[str, str], folder: Path) -> tuple[int, str]:
    worker = Process("lost", ["worker", "--name", "lost"], env, folder)
    code = worker.wait(60)
    return code, worker.said().decode()


def test_that_nothing_answers_where_kafka_should_be(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    env = {
        **demo_env("http://127.0.0.1:9", "http://127.0.0.1:9"),
        "KAFKA_BOOTSTRAP_SERVERS": nowhere,
        "RENTSTREAM_DATA": str(tmp_path / "data"),
    }
    code, said = last_words(env, tmp_path)
    assert code == 1
    assert "Traceback" not in said
    assert f"rentstream: Kafka does not answer on {nowhere}" in said
    assert "KAFKA_BOOTSTRAP_SERVERS" in said


async def test_that_its_topics_are_not_there(cluster_world: ClusterWorld, tmp_path: Path) -> None:
    env = {**cluster_world.env, "RENTSTREAM_TOPIC_PREFIX": "nobody-made-these."}
    code, said = await asyncio.to_thread(last_words, env, tmp_path)
    assert code == 1, said
    assert "Traceback" not in said
    assert "nobody-made-these.pms.webhooks" in said
    assert "rentstream topics --apply" in said
