"""The jars: the ones of the lock or none, and one sentence for whatever prevents them."""

import errno
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.local.kafka_jars import KAFKA_VERSION, BrokerError, disk_refuses, jars, locked

pytestmark = pytest.mark.broker
NOWHERE = "http://127.0.0.1:1"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def whole() -> list[Path]:
    """The cache of this machine, filled if it is not."""
    return jars(Path.home() / ".cache" / "rentstream" / f"kafka-{KAFKA_VERSION}", print)


@pytest.fixture
def cache(tmp_path: Path, whole: list[Path]) -> Path:
    """A copy that may be damaged: a file is replaced, never written to."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in whole:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def mirror(tmp_path: Path, whole: list[Path]) -> Iterator[tuple[str, Path]]:
    """A Maven repository on this machine, and its folder."""
    root = tmp_path / "mirror"
    for jar, path in zip(locked(), whole, strict=True):
        place = root.joinpath(*jar.group.split("."), jar.artifact, jar.version)
        place.mkdir(parents=True)
        (place / jar.name).symlink_to(path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()
        serving.join()


def _damage(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_damaged_cache_heals_itself(cache: Path, mirror: tuple[str, Path]) -> None:
    """What is gone, cut short or altered is fetched again, what an aborted fetch left is swept away."""
    gone, short, altered = (cache / jar.name for jar in locked()[:3])
    gone.unlink()
    _damage(short, short.read_bytes()[:-1])
    _damage(altered, bytes(altered.stat().st_size))
    (cache / ".fetch-aborted").mkdir()
    said: list[str] = []
    jars(cache, said.append, mirror[0])
    assert len(said) == 1
    assert said[0].startswith(f"fetching Kafka {KAFKA_VERSION} (once, 2 MB)")
    assert not list(cache.glob(".fetch-*"))
    assert jars(cache, said.append, NOWHERE) == [cache / jar.name for jar in locked()]
    assert len(said) == 1


def test_a_file_that_is_not_the_tested_one(cache: Path, mirror: tuple[str, Path]) -> None:
    """A page of a proxy in place of a jar never reaches the cache."""
    jar = locked()[0]
    (cache / jar.name).unlink()
    _damage(next(mirror[1].rglob(jar.name)), b"<html>please log in</html>")
    with pytest.raises(BrokerError, match=f"{jar.name} from {mirror[0]} is not the file"):
        jars(cache, print, mirror[0])
    assert not (cache / jar.name).exists()


def test_a_mirror_without_the_file(cache: Path, mirror: tuple[str, Path]) -> None:
    """The sentence names the file and the way out."""
    jar = locked()[0]
    (cache / jar.name).unlink()
    next(mirror[1].rglob(jar.name)).unlink()
    with pytest.raises(BrokerError, match=rf"has no {jar.name}: .*KAFKA_BOOTSTRAP_SERVERS"):
        jars(cache, print, mirror[0])


def test_no_network(tmp_path: Path) -> None:
    """Without the jars and without a network there is one sentence with the ways out."""
    with pytest.raises(BrokerError, match=r"cannot be reached: connect .*KAFKA_BOOTSTRAP_SERVERS") as refused:
        jars(tmp_path, print, NOWHERE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space is left"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOLCK, "cannot lock"),
        (errno.ECONNREFUSED, None),
    ],
)
def test_a_disk_that_refuses(tmp_path: Path, number: int, says: str | None) -> None:
    """Each way a disk refuses has its sentence; an error of the network has none here."""
    said = disk_refuses(OSError(number, os.strerror(number)), tmp_path)
    assert (said is None) if says is None else (said is not None and says in said and str(tmp_path) in said)
