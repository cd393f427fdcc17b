"""Sessions: only the password opens one, any process with the same settings verifies it, and guessing is slow."""

import jwt
import pytest
from pydantic import SecretBytes, SecretStr

from streams.web.console.sessions import BURST, LASTS, REFILL_SECONDS, Sessions, TooManyAttempts
from tests.streams.web.api.parts import MovableClock

PASSWORD = "a password of people"
KEY = SecretBytes(b"k" * 32)


def sessions(clock: MovableClock, password: str = PASSWORD, key: SecretBytes = KEY) -> Sessions:
    return Sessions(SecretStr(password), key, clock)


def test_only_the_password_opens_a_session_and_other_processes_verify_it() -> None:
    clock = MovableClock()
    here, there = sessions(clock), sessions(clock)
    cookie = here.open(PASSWORD)
    assert cookie is not None
    assert PASSWORD not in cookie
    first, second = here.read(cookie), there.read(cookie)
    assert first is not None
    assert first == second
    assert here.open("another password") is None
    assert here.open("") is None
    assert here.open("pässwörd") is None
    other = here.open(PASSWORD)
    assert here.read(other) != first


def test_a_session_ends_by_itself_and_with_the_password_or_the_key() -> None:
    clock = MovableClock()
    cookie = sessions(clock).open(PASSWORD)
    assert sessions(clock, "a newer password of people").read(cookie) is None
    assert sessions(clock, key=SecretBytes(b"n" * 32)).read(cookie) is None
    clock.move(seconds=LASTS.total_seconds() - 1)
    assert sessions(clock).read(cookie) is not None
    clock.move(seconds=1)
    assert sessions(clock).read(cookie) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "a.b.c", "a" * 5000])
def test_what_is_no_cookie_is_no_session(cookie: str | None) -> None:
    assert sessions(MovableClock()).read(cookie) is None


def test_a_cookie_that_this_server_did_not_sign_is_no_session() -> None:
    clock = MovableClock()
    claims = {"aud": "console", "exp": clock.now().timestamp() + 60, "form": "x"}
    assert sessions(clock).read(jwt.encode(claims, "k" * 32, "HS256")) is None
    assert sessions(clock).read(jwt.encode(claims, "", "none")) is None


def test_guessing_is_slow_and_a_right_password_is_never_counted() -> None:
    clock = MovableClock()
    door = sessions(clock)
    for _ in range(3 * BURST):
        assert door.open(PASSWORD)
    for number in range(BURST):
        assert door.open(f"guess {number}") is None
    with pytest.raises(TooManyAttempts, match="try again in 6 s"):
        door.open("one more")
    with pytest.raises(TooManyAttempts):
        door.open(PASSWORD)
    clock.move(seconds=REFILL_SECONDS)
    assert door.open("one more") is None
    with pytest.raises(TooManyAttempts):
        door.open(PASSWORD)
    clock.move(seconds=REFILL_SECONDS)
    assert door.open(PASSWORD)
