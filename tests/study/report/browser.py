"""A real Chromium without a window, as a user would open the page in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

# Asked when it is loaded, so that the skip is seen in the summary of any run.
pytest.importorskip("selenium", reason="selenium is not installed, so no page was looked at")
if not (CHROMIUM.exists() and DRIVER.exists()):
    pytest.skip(
        f"{CHROMIUM} or {DRIVER} is missing, so no page was looked at: apt-get install"
        " chromium chromium-driver",
        allow_module_level=True,
    )

from selenium import webdriver  # noqa: E402 - after the question whether there is one
from selenium.webdriver.chrome.service import Service  # noqa: E402 - the same


@contextmanager
def browser(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Any]:
    """A browser that writes down what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Selenium must not go looking for a driver on the network.
    service = Service(executable_path=str(DRIVER), env={**os.environ, "SE_OFFLINE": "true"})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        # Headless windows are no narrower than 500 pixels; the page's own width may be less.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """What the console said that is no mere remark."""
    return [e["message"] for e in driver.get_log("browser") if e["level"] in {"SEVERE", "WARNING"}]
