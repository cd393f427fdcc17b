"""The jars of Apache Kafka: which ones, where they lie, how they come.

`kafka.lock` names every jar with its SHA-256, so what runs is what was tested, on every machine. jgo brings them from
Maven Central in pure Python; each is checked before it gets its name in the cache, and again at every start. So a
half-made or damaged cache heals itself: only what is missing or wrong is fetched.

`python -m streams.local.kafka_jars` resolves the versions below and prints a new lock.
"""

import errno
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from jgo.constants import MAVEN_CENTRAL_URL

KAFKA_VERSION = "4.1.2"
_ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_LOCK = Path(__file__).with_name("kafka.lock")
_TIMEOUT = 15
_AT_ONCE = 8
_MEGABYTE = 1_000_000


class BrokerError(Exception):
    """The embedded Kafka cannot run: one sentence, with what to do about it."""


class Jar(NamedTuple):
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def locked() -> list[Jar]:
    """What the lock says."""
    rows = (line.replace(":", " ").split() for line in _LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Jar(group, artifact, version, sha256, int(size)) for group, artifact, version, sha256, size in rows]


def jars(folder: Path, say: Callable[[str], None], repository: str = MAVEN_CENTRAL_URL) -> list[Path]:
    """Every jar of the lock, whole, in ``folder``; fetches what is not. Several processes may call it at once."""
    wanted = locked()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [jar for jar in wanted if not _whole(folder / jar.name, jar)]
            if missing:
                size = -(-sum(jar.size for jar in missing) // _MEGABYTE)
                say(f"fetching Kafka {KAFKA_VERSION} (once, {size} MB) into {folder}")
                _fetch(missing, folder, repository)
    except OSError as error:
        raise BrokerError(_why(error, folder, repository)) from error
    return [folder / jar.name for jar in wanted]


def _whole(path: Path, jar: Jar) -> bool:
    try:
        return path.stat().st_size == jar.size and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _fetch(missing: list[Jar], folder: Path, repository: str) -> None:
    for left_over in folder.glob(".fetch-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as part:
        maven = _maven(Path(part), repository)

        def fetch(jar: Jar) -> None:
            try:
                path: Path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            except RuntimeError:
                raise BrokerError(
                    f"{repository} has no {jar.name}: let it mirror Maven Central, "
                    "or set KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own."
                ) from None
            if not _whole(path, jar):
                raise BrokerError(
                    f"{jar.name} from {repository} is not the file that this version of RentStream was tested with: "
                    "try again, and look at the proxy or mirror in between if it stays so."
                )
            path.replace(folder / jar.name)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                list(pool.map(fetch, missing))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # after a failure the others would fail, one by one


def _maven(cache: Path, repository: str) -> Any:
    from jgo.maven import MavenContext  # noqa: PLC0415 - needed once in a machine's life, and slow to import

    return MavenContext(repo_cache=cache, remote_repos={"central": repository}, timeout=_TIMEOUT)


def _why(error: OSError, folder: Path, repository: str) -> str:
    """One sentence for what the disk or the network refused (the errors of requests are OSErrors, too)."""
    if said := disk_refuses(error, folder):
        return said
    return (
        f"Kafka {KAFKA_VERSION} is not on this machine yet and {repository} cannot be reached: connect to the network "
        "once (HTTPS_PROXY is honoured), or set KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own."
    )


def disk_refuses(error: OSError, folder: Path) -> str | None:
    """One sentence if ``error`` is about the disk, else nothing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space is left on the disk of {folder}: make room there, or set RENTSTREAM_DATA to another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"{folder} cannot be written: give this user the right to, or set RENTSTREAM_DATA to another folder."
    if error.errno in (errno.ENOLCK, errno.ENOTSUP):
        return f"The disk of {folder} cannot lock files: set RENTSTREAM_DATA to a folder on a local disk."
    return None


def _resolve() -> list[str]:
    """A new lock, from the poms of ``_ROOTS``."""
    with tempfile.TemporaryDirectory() as part:
        maven = _maven(Path(part), MAVEN_CENTRAL_URL)
        roots, others = maven.resolver.resolve([maven.create_dependency(root) for root in _ROOTS])
        artifacts = [dependency.artifact for dependency in (*roots, *others)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            contents = [path.read_bytes() for path in pool.map(lambda artifact: artifact.resolve(), artifacts)]
    return sorted(
        f"{artifact.component} {hashlib.sha256(content).hexdigest()} {len(content)}"
        for artifact, content in zip(artifacts, contents, strict=True)
    )


if __name__ == "__main__":
    print(
        "# Every jar of the embedded Kafka: coordinate, SHA-256, bytes. Made by `python -m streams.local.kafka_jars`."
    )
    print("\n".join(_resolve()))
