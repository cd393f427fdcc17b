"""Download and verify the jars of Apache Kafka.

`kafka.lock` lists every jar with its SHA-256, so that every machine runs the versions that were tested. jgo downloads
them from Maven Central in pure Python. A jar is verified before it enters the cache and again at every start; missing
or damaged files are downloaded again.

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
_CONCURRENCY = 8
_MEGABYTE = 1_000_000


class BrokerError(Exception):
    """The embedded Kafka cannot run; the message is one sentence with the cause and what to do."""


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
    """Return the jars that are listed in `kafka.lock`."""
    rows = (line.replace(":", " ").split() for line in _LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Jar(group, artifact, version, sha256, int(size)) for group, artifact, version, sha256, size in rows]


def jars(folder: Path, echo: Callable[[str], None], repository: str = MAVEN_CENTRAL_URL) -> list[Path]:
    """Return the paths of all jars of the lock in ``folder``; download those that are missing or damaged.

    Safe to call from several processes at the same time. Raise `BrokerError` if a file cannot be read, written or
    downloaded.
    """
    wanted = locked()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [jar for jar in wanted if not _verified(folder / jar.name, jar)]
            if missing:
                size = -(-sum(jar.size for jar in missing) // _MEGABYTE)
                echo(f"downloading Kafka {KAFKA_VERSION} ({size} MB, first start only) to {folder}")
                _download(missing, folder, repository)
    except OSError as error:
        raise BrokerError(_describe(error, folder, repository)) from error
    return [folder / jar.name for jar in wanted]


def _verified(path: Path, jar: Jar) -> bool:
    """Return whether the file exists with the size and the SHA-256 of the lock."""
    try:
        return path.stat().st_size == jar.size and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _download(missing: list[Jar], folder: Path, repository: str) -> None:
    for aborted in folder.glob(".download-*"):
        shutil.rmtree(aborted, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as partial:
        maven = _maven(Path(partial), repository)

        def download(jar: Jar) -> None:
            try:
                path: Path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            except RuntimeError:
                raise BrokerError(
                    f"{repository} has no {jar.name}: use a repository that mirrors Maven Central, "
                    "or set KAFKA_BOOTSTRAP_SERVERS to an existing Kafka."
                ) from None
            if not _verified(path, jar):
                raise BrokerError(
                    f"{jar.name} from {repository} is not the file that this version of RentStream was tested with "
                    "(wrong SHA-256): try again; if it fails again, check the proxy or mirror in between."
                )
            path.replace(folder / jar.name)

        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            try:
                list(pool.map(download, missing))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # after one failure the other downloads would fail too


def _maven(cache: Path, repository: str) -> Any:
    from jgo.maven import MavenContext  # noqa: PLC0415 - slow to import, and needed for a download only

    return MavenContext(repo_cache=cache, remote_repos={"central": repository}, timeout=_TIMEOUT)


def _describe(error: OSError, folder: Path, repository: str) -> str:
    """Return one sentence for an error of the disk or of the network (exceptions of `requests` are OSErrors too)."""
    if message := disk_error(error, folder):
        return message
    return (
        f"Kafka {KAFKA_VERSION} is not downloaded yet and {repository} cannot be reached: connect to the network once "
        "(HTTPS_PROXY is honoured), or set KAFKA_BOOTSTRAP_SERVERS to an existing Kafka."
    )


def disk_error(error: OSError, folder: Path) -> str | None:
    """Return one sentence if ``error`` is about the disk of ``folder``, else None."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space is left on the disk of {folder}: free some space, or set RENTSTREAM_DATA to another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return (
            f"{folder} cannot be written: grant this user write permission, or set RENTSTREAM_DATA to another folder."
        )
    if error.errno in (errno.ENOLCK, errno.ENOTSUP):
        return f"The disk of {folder} cannot lock files: set RENTSTREAM_DATA to a folder on a local disk."
    return None


def _resolve() -> list[str]:
    """Return the lines of a new lock: the transitive dependencies of ``_ROOTS``."""
    with tempfile.TemporaryDirectory() as cache:
        maven = _maven(Path(cache), MAVEN_CENTRAL_URL)
        roots, others = maven.resolver.resolve([maven.create_dependency(root) for root in _ROOTS])
        artifacts = [dependency.artifact for dependency in (*roots, *others)]
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            contents = [path.read_bytes() for path in pool.map(lambda artifact: artifact.resolve(), artifacts)]
    return sorted(
        f"{artifact.component} {hashlib.sha256(content).hexdigest()} {len(content)}"
        for artifact, content in zip(artifacts, contents, strict=True)
    )


if __name__ == "__main__":
    print(
        "# Jars of the embedded Kafka: coordinate, SHA-256, bytes. Generated by `python -m streams.local.kafka_jars`."
    )
    print("\n".join(_resolve()))
