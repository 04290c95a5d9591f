"""The browser of the tests: Debian's Chromium, or the one that `MODFLEET_CHROMIUM` names."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

#: It talks to nobody but the pages' own host.
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PLACES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class NoBrowserError(Exception):
    """The browser tests need Chromium, and there is none: install it (`apt-get install chromium`), or name one in
    MODFLEET_CHROMIUM."""


def chromium_path() -> str:
    """Raises: `NoBrowserError`."""
    named = os.environ.get("MODFLEET_CHROMIUM")
    for place in (named, "/usr/bin/chromium", *map(shutil.which, PLACES)) if not named else (named,):
        if place and Path(place).is_file():
            return place
    raise NoBrowserError(" ".join(str(NoBrowserError.__doc__).split()))


@contextmanager
def running_browser() -> Iterator[Browser]:
    path = chromium_path()
    rights = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run its sandbox as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *rights])
        yield browser
        browser.close()
