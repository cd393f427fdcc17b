"""Some schedules on a real cluster; ``python -m tests.chaos.real_histories`` runs more of them."""

from pathlib import Path

import pytest

from tests.chaos.histories import schedule
from tests.chaos.real_histories import PAUSES, STEPS, check

pytestmark = [pytest.mark.broker, pytest.mark.chaos]

SEEDS = range(20, 22)


async def test_schedules_keep_the_laws_on_a_real_cluster(kafka: str, tmp_path: Path) -> None:
    found, killed = await check(kafka, tmp_path, SEEDS)

    assert found == []
    assert killed >= 1


def test_the_seeds_have_kills() -> None:
    assert "kill_worker" in {step.name for seed in SEEDS for step in schedule(seed, STEPS, PAUSES)}
