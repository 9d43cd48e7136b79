"""A page in headless Chromium, for `make test-browser`."""

import shutil
import subprocess
from pathlib import Path

__all__ = ["browse"]


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium; its console messages are in `stderr` and contain ``CONSOLE``."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "install Chromium to run this test"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--enable-logging=stderr", "--virtual-time-budget=5000", *options,
               page.as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
