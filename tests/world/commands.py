"""Commands of upstream apps in stories: bodies, sending one, and waiting for what becomes of it."""

from typing import Any

from tests.world import World
from tests.world.cluster import ClusterWorld
from tests.world.memory import MemoryWorld

HOME = {"addressLine1": "1 Main St", "city": "Calgary", "state": "AB", "postalCode": "T2P 0A1", "country": "CA"}


def office(name: str, **more: Any) -> dict[str, Any]:
    """Return a property that no receiver gets, so that other stories are not affected."""
    return {"name": name, "rentalSubType": "Office", **HOME, **more}


def owner(*properties: str, last_name: str = "Lee") -> dict[str, Any]:
    return {"firstName": "Ada", "lastName": last_name, "propertyIds": list(properties), **HOME}


async def accepted(world: World, path: str, body: object, method: str = "POST", **more: Any) -> tuple[str, str]:
    """Send a command; return the id of its entity, and where to ask for it."""
    answer = await world.ask(method, path, body, **more)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], answer.json()["sync"]["href"]


async def sync_of(world: World, href: str) -> dict[str, Any]:
    answer = await world.ask("GET", href)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until_it_is(world: World, href: str, *statuses: str) -> dict[str, Any]:
    """Wait until the sync of an entity has one of these statuses; return it."""
    for _ in range(4000):
        found = await sync_of(world, href)
        if found["status"] in statuses:
            return found
        await pass_time(world)
    raise TimeoutError(f"{href} is {found['status']}, not {' or '.join(statuses)}: {found}")


async def pass_time(world: World) -> None:
    if isinstance(world, MemoryWorld):
        await world.pass_time(0.5)
    else:
        assert isinstance(world, ClusterWorld)
        await world.clock.sleep(0.05)
