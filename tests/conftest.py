"""What all tests share: no example has a time limit, and a real browser, chromium driven by Playwright, shows pages."""

from __future__ import annotations

import gc
import os
import shutil

import hypothesis
import pytest

# As in a batch, before anything imports torch: with its compiler off every process starts a second of CPU earlier.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# Of a process that imports everything and keeps five thousand tests, a fifth of the time was to look for garbage there.
gc.disable()
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
SLOW = ("notebooks", "browser", "workflow")  # folders whose files take minutes: begun first, or a worker waits for them
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests that run whole studies before the others, which fill up the time of the worker that ends sooner."""
    items.sort(key=lambda item: (*SLOW, item.path.parent.name).index(item.path.parent.name))


def pytest_collection_finish() -> None:
    """Collects garbage again from here on, more seldom than by default, and not among what was imported."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def lacking(what: str) -> None:
    """Skips where there is no browser; in CI that is a failure, or pages would go untested unnoticed."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must open pages in a browser; {what}", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")  # not longer: while it is open, its event loop is the thread's, and nobody else's
def browser():
    chromium = next((found for name in NAMES if (found := shutil.which(name))), None)
    if chromium is None:
        lacking("no chromium on this machine: apt-get install chromium")
    try:
        from playwright import sync_api
    except ImportError as error:
        lacking(f"no Playwright in this environment ({error}): make setup")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()
