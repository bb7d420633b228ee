"""A browser for pages that need no server."""

import os
import re
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright


@contextmanager
def opened(file, **options):
    """The page of a file in Chromium; at the end, it must have requested only itself, and had no error."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("Chromium is missing, so the page is not tested: apt-get install chromium")
    requests, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(**options).new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.route(re.compile(r"^(?!file:)"), lambda route: route.abort())
        page.goto(file.as_uri())
        yield page
        browser.close()
    assert set(requests) == {file.as_uri()}
    assert errors == []
