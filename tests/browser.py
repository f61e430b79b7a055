"""A real browser without a screen, for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)


@contextmanager
def opened_browser(width: int = 1280, height: int = 800, dark: bool = False) -> Iterator:
    """Selenium's driver of an installed Chromium that reaches nothing but files; skips the test where there is none."""
    selenium = pytest.importorskip("selenium", reason="selenium, of perception[dev], drives the browser")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = next(filter(None, map(shutil.which, DRIVERS)), None)
    if program is None or driver is None:
        pytest.skip("no Chromium with its chromedriver is installed (on Debian: apt install chromium chromium-driver)")
    assert selenium.__version__
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = program
    wanted = ["--headless=new", f"--window-size={width},{height}", "--hide-scrollbars", "--disable-dev-shm-usage"]
    # Whatever is not a file fails at once, as it does without a network.
    wanted += ["--proxy-server=127.0.0.1:9", "--force-device-scale-factor=1", "--force-color-profile=srgb"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        wanted.append("--no-sandbox")
    for argument in wanted:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(driver))
    try:
        browser.set_script_timeout(120)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        yield browser
    finally:
        browser.quit()
