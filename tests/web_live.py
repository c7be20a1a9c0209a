"""The web page in a real server and a real Chromium, for the browser tests and the screenshots."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from boneage.web.serve import open_server
from boneage.web.settings import Settings

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def served(predictor, **settings) -> Iterator[str]:
    """The address of a server around `predictor`, for as long as the block lasts."""
    server = open_server(predictor, 0, Settings(**{"per_minute": 6000, "burst": 1000} | settings))
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """`$BONEAGE_CHROMIUM`, else the system's, else the one that `playwright install chromium` brings."""
    path = os.environ.get("BONEAGE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()
