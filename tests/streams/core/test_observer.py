"""Tests of the observer protocol and of the observer that ignores every event."""

from streams.core.observer import NullObserver, Observer


def methods(of: type) -> dict[str, object]:
    return {name: value for name, value in vars(of).items() if not name.startswith("_")}


def test_the_null_observer_documents_every_event() -> None:
    observer: Observer = NullObserver()

    assert methods(NullObserver).keys() == methods(Observer).keys()
    assert [name for name, method in methods(NullObserver).items() if not method.__doc__] == []
    assert observer.record_ended("fetch_changes", "applied", 0.1) is None  # type: ignore[func-returns-value]
