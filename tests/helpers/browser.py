"""A real browser without a window, and pages in it that may use no network and log nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright; a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=OPTIONS)
        yield found
        found.close()


class Watched:
    """A page, and what it asked the network for, logged, or threw."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: Path, state: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{path.as_uri()}#{state}")
        self.page.wait_for_selector(".card")

    def names(self) -> list[str]:
        """Those of the cards on the screen, in order."""
        return self.page.locator(".card .name").all_inner_texts()

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def press(self, keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def outside(self) -> list[str]:
        """Requests for anything but files and data."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:", "about:"))]


@contextmanager
def watched(of: Any, **options: Any) -> Iterator[Watched]:
    """A new page that remembers nothing of others. It must not complain, or use the network.

    It asks for no motion, so that nothing is ever looked at while it fades.
    """
    size = {"width": 1280, "height": 800}
    context = of.new_context(**{"viewport": size, "accept_downloads": True, "reduced_motion": "reduce", **options})
    page = Watched(context.new_page())
    yield page
    assert page.complaints == []
    assert page.outside() == []
    context.close()
