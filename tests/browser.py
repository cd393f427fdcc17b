"""A real browser for tests: Chromium, as the system or Playwright has it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Error, async_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Yield Chromium; skip the test where there is none, except in CI."""
    path = next((found for found in map(shutil.which, PROGRAMS) if found), None)
    async with async_playwright() as playwright:
        try:
            chromium = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):  # noqa: TID251 - the composition root of the tests
                raise
            pytest.skip(
                f"there is no Chromium: install it, or run `playwright install chromium` ({error.message[:80]})"
            )
        try:
            yield chromium
        finally:
            await chromium.close()
