"""What tests of the page share."""

from collections.abc import Callable

from playwright.sync_api import Page

OpenTab = Callable[..., Page]


PROMPT = "Build a revenue dashboard for the third quarter"


def ask(tab: Page, prompt: str = PROMPT) -> None:
    tab.get_by_label("Message", exact=True).fill(prompt)
    tab.keyboard.press("Enter")
