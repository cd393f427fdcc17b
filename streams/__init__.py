"""RentStream: the dataflow, the runners and roles that run it, and the pure decisions at its core."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rentstream")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0"
