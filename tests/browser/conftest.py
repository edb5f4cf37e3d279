"""One `riverdelta up` for all browser tests, as a newcomer starts it, and a real Chromium."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.browser import OpenTab

ARTIFACTS = Path(__file__).parents[2] / ".artifacts" / "browser"
START_S = 120.0
STOP_S = 60.0

OPTIONS = (
    "--no-sandbox",  # CI is root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Chromium looks its maker's hosts up at every start.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page."""
    folder = tmp_path_factory.mktemp("up")
    riverdelta = str(Path(sys.executable).with_name("riverdelta"))
    command = [riverdelta, "up", "--data-dir", str(folder / "data")]
    with (folder / "up.log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            yield _address(process, folder / "up.log")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            finally:
                process.kill()
                ARTIFACTS.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / "up.log", ARTIFACTS)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        printed = log.read_text()
        found = re.search(r"page +(http://\S+)", printed)
        if found and "workers ready" in printed:
            return found[1].rstrip("/") + "/"
        time.sleep(0.1)
    raise AssertionError(f"riverdelta up did not come up:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.fail("no chromium: install Debian's package, or name another with CHROMIUM=...")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*OPTIONS])
        with contextlib.closing(browser):
            yield browser


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    options = getattr(request, "param", {"viewport": {"width": 1200, "height": 820}})
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def open_tab(context: BrowserContext, site: str) -> Iterator[OpenTab]:
    """Open a tab at a place of the site; a script error or a blocked resource fails the test."""
    troubles: list[str] = []

    def open_(place: str = "", prepare: Callable[[Page], object] = lambda _: None) -> Page:
        tab = context.new_page()
        prepare(tab)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on(
            "console", lambda said: troubles.append(said.text) if _is_policy(said.text) else None
        )
        tab.goto(site + place)
        return tab

    yield open_
    assert troubles == []


def _is_policy(text: str) -> bool:
    return "Content Security Policy" in text


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Keep a picture of a tab, named for the test and the moment."""

    def shoot_(tab: Page, moment: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        test = request.node.originalname.removeprefix("test_")
        tab.screenshot(path=ARTIFACTS / f"{test}-{moment}.png")

    return shoot_
