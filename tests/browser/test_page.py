"""The chat page in a real browser: a reply streams, survives reloads, tabs, lost networks and a stop."""

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import PROMPT, OpenTab, ask

REPLY_MS = 60_000
Shoot = Callable[[Page, str], None]


def until_text(tab: Page, length: int) -> None:
    """Wait until the reply's text is longer than *length*."""
    tab.wait_for_function(
        "length => [...document.querySelectorAll('.reply > .markdown')]"
        ".reduce((sum, node) => sum + node.textContent.length, 0) > length",
        arg=length,
    )


def until_over(tab: Page) -> None:
    expect(tab.locator("#send")).to_be_visible(timeout=REPLY_MS)
    expect(tab.locator(".reply.open")).to_have_count(0)


def letters(text: str) -> str:
    """What of Markdown is shown, however it is drawn."""
    return re.sub(r"^ *\d+\. |[\W_]", "", text, flags=re.MULTILINE)


def shown_text(tab: Page) -> str:
    return letters("".join(tab.locator(".reply > .markdown").all_text_contents()))


def chat_of(tab: Page) -> str:
    return tab.url.partition("#")[2]


def stored(site: str, tab: Page) -> list[dict[str, Any]]:
    """Messages of the tab's chat, as the gateway's snapshot has them."""
    with urllib.request.urlopen(f"{site}chats/{chat_of(tab)}") as response:  # noqa: S310  # ours
        messages: list[dict[str, Any]] = json.load(response)["data"]["messages"]
    return messages


def stored_text(site: str, tab: Page) -> str:
    return "".join(
        letters(chunk["text"])
        for message in stored(site, tab)
        for chunk in message["chunks"]
        if chunk["kind"] == "text"
    )


def test_a_reply_streams_with_its_cards(open_tab: OpenTab, site: str, shoot: Shoot) -> None:
    tab = open_tab()
    shoot(tab, "welcome")
    ask(tab)
    expect(tab.locator(".prompt")).to_have_text(re.compile(PROMPT))
    expect(tab.locator("details.reasoning summary").first).to_be_visible()
    expect(tab.locator(".card").first).to_be_visible(timeout=REPLY_MS)
    expect(tab.locator("#stop")).to_be_visible()
    lines = tab.locator(".card pre .line")
    expect(lines.nth(2)).to_be_attached(timeout=REPLY_MS)
    some = lines.count()
    shoot(tab, "while-a-file-grows")
    expect(lines.nth(some)).to_be_attached()  # line by line
    until_over(tab)
    shoot(tab, "end")
    assert shown_text(tab) == stored_text(site, tab) != ""
    files = tab.locator(".card", has=tab.locator("pre .line"))
    assert files.locator("details").count() == 2
    for index, name in enumerate(files.locator("summary > span:first-child").all_text_contents()):
        (card,) = (
            card
            for message in stored(site, tab)
            for chunk in message["chunks"]
            for card in chunk["outputs"].values()
            if card["type"] == "files"
        )
        file = card["files"][card["file_ids"][index]]
        assert name == file["file_name"]
        shown = files.locator("pre").nth(index).locator(".line").all_text_contents()
        assert "".join(shown) == file["file"]["text"]
    expect(tab.locator(".pills li").first).to_be_visible()
    expect(tab.locator("#title")).not_to_have_text("Untitled chat")
    expect(tab.locator("#status-first")).to_have_text(re.compile(r"\d+ ms"))
    expect(tab.locator("#chats [aria-current=true]")).to_have_text(
        tab.locator("#title").inner_text()
    )


def test_a_reload_in_the_middle_goes_on_in_place(
    open_tab: OpenTab, site: str, shoot: Shoot
) -> None:
    tab = open_tab()
    ask(tab)
    until_text(tab, 10)
    before, chat = shown_text(tab), chat_of(tab)
    tab.reload()
    expect(tab.locator("#stop")).to_be_visible()
    until_text(tab, len(before) - 1)
    assert shown_text(tab).startswith(before)
    shoot(tab, "reloaded")
    until_over(tab)
    assert chat_of(tab) == chat
    assert shown_text(tab) == stored_text(site, tab)
    assert len(stored(site, tab)) == 1


def test_a_second_tab_mirrors_the_first_live(open_tab: OpenTab, site: str, shoot: Shoot) -> None:
    first = open_tab()
    ask(first)
    until_text(first, 5)
    second = open_tab(f"#{chat_of(first)}")
    until_text(second, 5)
    expect(second.locator("#stop")).to_be_visible()
    shoot(second, "second")
    ask_count = second.locator(".prompt").count()
    until_over(first)
    until_over(second)
    assert ask_count == 1
    assert shown_text(first) == shown_text(second) == stored_text(site, first)


def test_a_chat_begun_in_one_tab_is_listed_in_the_other(open_tab: OpenTab) -> None:
    watcher = open_tab()
    tab = open_tab()
    ask(tab)
    begun = tab.locator("#chats li:has([aria-current])").get_attribute("data-chat")
    expect(watcher.locator(f'#chats li[data-chat="{begun}"]')).to_be_visible()
    tab.locator("#stop:enabled").click()
    until_over(tab)


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop(open_tab: OpenTab, site: str, shoot: Shoot, by: str) -> None:
    tab = open_tab()
    ask(tab)
    until_text(tab, 5)
    if by == "button":
        tab.locator("#stop").click()
    else:
        tab.keyboard.press("Escape")
    expect(tab.get_by_text("Stopped.", exact=True)).to_be_visible()
    until_over(tab)
    shoot(tab, "stopped")
    assert stored(site, tab)[0]["status"] == "stopped"
    assert shown_text(tab) == stored_text(site, tab)
    ask(tab, "And now?")  # the chat goes on
    expect(tab.locator(".prompt")).to_have_count(2)
    tab.locator("#stop:enabled").click()
    until_over(tab)


def test_an_asset_without_a_prompt(open_tab: OpenTab, site: str, shoot: Shoot) -> None:
    tab = open_tab()
    tab.get_by_text("About an asset").click()
    tab.get_by_label("Type").select_option("metric")
    tab.get_by_label("Id").fill("quarterly-revenue")
    tab.locator("#send").click()
    expect(tab.locator(".card pre .line").first).to_be_attached()
    until_over(tab)
    until_text(tab, 5)
    shoot(tab, "asset")
    assert tab.locator("#title").inner_text() not in {"", "Untitled chat", "New chat"}


def test_what_is_refused_says_why_and_keeps_the_draft(open_tab: OpenTab, shoot: Shoot) -> None:
    tab = open_tab()
    tab.get_by_text("About an asset").click()
    tab.get_by_label("Id").fill("no-such-thing")
    ask(tab, "What is this?")
    expect(tab.get_by_role("alert")).to_contain_text("asset_id")
    expect(tab.get_by_label("Message", exact=True)).to_have_value("What is this?")
    expect(tab.locator("#send")).to_be_visible()
    shoot(tab, "refused")


def test_a_lost_network_is_shown_and_caught_up_with(
    open_tab: OpenTab, site: str, shoot: Shoot
) -> None:
    tab = open_tab()
    ask(tab)
    until_text(tab, 5)
    tab.context.set_offline(True)
    expect(tab.locator("#network")).to_contain_text("The connection is lost")
    shoot(tab, "offline")
    tab.wait_for_timeout(1500)  # the reply goes on meanwhile
    tab.context.set_offline(False)
    expect(tab.locator("#network")).to_be_hidden()
    until_over(tab)
    assert shown_text(tab) == stored_text(site, tab)


PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("context", [PHONE], indirect=True, ids=["phone"])
def test_phone_width(open_tab: OpenTab, shoot: Shoot) -> None:
    tab = open_tab()
    ask(tab)
    until_text(tab, 5)
    shoot(tab, "live")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(overflow) == 0
    expect(tab.locator("#side")).to_be_hidden()
    tab.get_by_label("Show the list of chats").click()
    expect(tab.locator("#chats [aria-current=true]")).to_be_visible()
    shoot(tab, "list")
    tab.keyboard.press("Escape")
    expect(tab.locator("#side")).to_be_hidden()
    expect(tab.locator(".card").first).to_be_visible(timeout=REPLY_MS)
    assert tab.evaluate(overflow) == 0
    tab.locator("#stop:enabled").click()
    until_over(tab)


@pytest.mark.parametrize(
    "context", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True, ids=str
)
def test_light_and_dark_by_wish_and_by_system(open_tab: OpenTab) -> None:
    tab = open_tab()
    ground = "getComputedStyle(document.body).backgroundColor"
    system = tab.evaluate(ground)
    tab.get_by_label("Switch between light and dark").click()
    chosen = tab.evaluate(ground)
    assert chosen != system
    tab.reload()
    assert tab.evaluate(ground) == chosen


def test_the_keyboard_reaches_everything_and_screen_readers_announce_the_end(
    open_tab: OpenTab,
) -> None:
    tab = open_tab()
    tab.keyboard.press("Tab")
    expect(tab.get_by_text("Skip to the message field")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.get_by_label("Message", exact=True)).to_be_focused()
    tab.keyboard.type("Hello")
    tab.keyboard.press("Enter")
    until_text(tab, 5)
    tab.keyboard.press("Escape")
    expect(tab.locator("#said")).to_contain_text("The reply has ended: stopped.")
    expect(tab.locator("#messages li")).to_have_count(1)
