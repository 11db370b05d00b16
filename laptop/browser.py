"""The Chromium that this machine has. Playwright's own is never downloaded."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def open_page(executable: str) -> Iterator[Page]:
    """Within the block one page of a headless Chromium is open."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            # Twice the pixels, for screenshots that can be read.
            yield browser.new_page(viewport={"width": 1000, "height": 900}, device_scale_factor=1.4)
        finally:
            browser.close()
