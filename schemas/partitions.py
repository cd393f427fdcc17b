"""Which partition a record belongs to: that of its org, by the rule of Kafka's default partitioner."""

from functools import lru_cache


@lru_cache(maxsize=1 << 17)  # the scans ask for every org, some each second
def partition_for(org: str, partitions: int) -> int:
    """Return the partition of an org, the same for every topic; ``partitions`` is the number that every topic has."""
    return partition_of(org.encode(), partitions)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key as Kafka's default partitioner (murmur2) computes it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


_SEED, _M, _R, _32 = 0x9747B28C, 0x5BD1E995, 24, 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return the 32-bit hash of Kafka's default partitioner."""
    length = len(data)
    whole = length & ~3
    h = _SEED ^ length
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _32
        k = (k ^ (k >> _R)) * _M & _32
        h = (h * _M & _32) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _32
    h = (h ^ (h >> 13)) * _M & _32
    return h ^ (h >> 15)
