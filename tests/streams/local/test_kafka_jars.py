"""The jars of Kafka are those of the lock, and every failure is one sentence with what to do."""

import errno
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.local.kafka_jars import KAFKA_VERSION, BrokerError, disk_error, jars, locked

pytestmark = pytest.mark.broker
UNREACHABLE = "http://127.0.0.1:1"


class QuietHandler(SimpleHTTPRequestHandler):
    """A file server without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def jar_paths() -> list[Path]:
    """The jars in the cache of this machine, downloaded if necessary."""
    return jars(Path.home() / ".cache" / "rentstream" / f"kafka-{KAFKA_VERSION}", print)


@pytest.fixture
def cache(tmp_path: Path, jar_paths: list[Path]) -> Path:
    """A cache of symbolic links that a test can damage by replacing links."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in jar_paths:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def mirror(tmp_path: Path, jar_paths: list[Path]) -> Iterator[tuple[str, Path]]:
    """The URL of a local Maven repository, and its folder."""
    root = tmp_path / "mirror"
    for jar, path in zip(locked(), jar_paths, strict=True):
        folder = root.joinpath(*jar.group.split("."), jar.artifact, jar.version)
        folder.mkdir(parents=True)
        (folder / jar.name).symlink_to(path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(root))) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()
        serving.join()


def _damage(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_damaged_cache_is_repaired(cache: Path, mirror: tuple[str, Path]) -> None:
    """Missing, truncated and altered jars are downloaded again; leftovers of an aborted download are deleted."""
    missing, truncated, altered = (cache / jar.name for jar in locked()[:3])
    missing.unlink()
    _damage(truncated, truncated.read_bytes()[:-1])
    _damage(altered, bytes(altered.stat().st_size))
    (cache / ".download-aborted").mkdir()
    lines: list[str] = []
    jars(cache, lines.append, mirror[0])
    assert len(lines) == 1
    assert lines[0].startswith(f"downloading Kafka {KAFKA_VERSION} (2 MB, first start only)")
    assert not list(cache.glob(".download-*"))
    assert jars(cache, lines.append, UNREACHABLE) == [cache / jar.name for jar in locked()]
    assert len(lines) == 1


def test_a_file_with_the_wrong_hash_is_refused(cache: Path, mirror: tuple[str, Path]) -> None:
    """A login page of a proxy in place of a jar does not enter the cache."""
    jar = locked()[0]
    (cache / jar.name).unlink()
    _damage(next(mirror[1].rglob(jar.name)), b"<html>please log in</html>")
    with pytest.raises(BrokerError, match=f"{jar.name} from {mirror[0]} is not the file"):
        jars(cache, print, mirror[0])
    assert not (cache / jar.name).exists()


def test_a_mirror_without_the_file_is_named(cache: Path, mirror: tuple[str, Path]) -> None:
    """The error names the file and the setting that helps."""
    jar = locked()[0]
    (cache / jar.name).unlink()
    next(mirror[1].rglob(jar.name)).unlink()
    with pytest.raises(BrokerError, match=rf"has no {jar.name}: .*KAFKA_BOOTSTRAP_SERVERS"):
        jars(cache, print, mirror[0])


def test_a_missing_network_is_one_sentence(tmp_path: Path) -> None:
    """Without a cache and without a network the error names the way out."""
    with pytest.raises(BrokerError, match=r"cannot be reached: connect .*KAFKA_BOOTSTRAP_SERVERS") as error:
        jars(tmp_path, print, UNREACHABLE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "No space is left"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOLCK, "cannot lock"),
        (errno.ECONNREFUSED, None),
    ],
)
def test_an_error_of_the_disk_is_described(tmp_path: Path, number: int, expected: str | None) -> None:
    """Every disk error has a sentence that names the folder; an error of the network has none."""
    message = disk_error(OSError(number, os.strerror(number)), tmp_path)
    if expected is None:
        assert message is None
    else:
        assert message is not None
        assert expected in message
        assert str(tmp_path) in message
