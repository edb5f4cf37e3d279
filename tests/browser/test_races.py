"""What a real gateway does too rarely to wait for: the page talks to a gateway that a test plays."""

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, WebSocketRoute, expect

from tests.support.browser import OpenTab, ask

Frame = dict[str, Any]


class Gateway:
    """Answers nothing by itself: a test takes requests one by one, and sends frames."""

    def __init__(self, tab: Page) -> None:
        self._tab = tab
        self._requests: list[Frame] = []
        self._sockets: list[WebSocketRoute] = []
        self._seqs = itertools.count(1)
        tab.route_web_socket("**/ws*", self._connected)

    def _connected(self, socket: WebSocketRoute) -> None:
        self._sockets.append(socket)
        socket.on_message(lambda text: self._requests.append(json.loads(text)))

    def take(self, route: str) -> Frame:
        """Wait for the next request of *route*; give it."""
        request: Frame = self._wait(lambda: self._pop(route))
        return request

    def wait_for_socket(self, number: int) -> None:
        self._wait(lambda: len(self._sockets) >= number or None)

    @property
    def url(self) -> str:
        """Address of the last socket."""
        return self._sockets[-1].url

    def close(self) -> None:
        self._sockets[-1].close(code=1012)

    def send(self, route: str, event: str, payload: Any, **fields: Any) -> None:
        frame = {"route": route, "event": event, "payload": payload, "error": None, **fields}
        self._sockets[-1].send(json.dumps({"position": None, **frame}))

    def refuse(self, request: Frame, code: str) -> None:
        error = {"code": code, "message": f"refused: {code}"}
        self.send(request["route"], "error", None, error=error, request_id=request["request_id"])

    def subscribed(self, request: Frame, *messages: Frame) -> None:
        chat, id_ = request["payload"]["chat_id"], request["request_id"]
        self.send("/chats/subscribe", "subscribed", {"chat_id": chat}, request_id=id_)
        self.event(chat, "snapshot", {"messages": messages})

    def event(self, chat: str, type_: str, data: Frame, **where: Any) -> None:
        seq = next(self._seqs)
        event = {"chat": chat, "type": type_, "seq": seq, "data": data, **where}
        self.send("/chats/subscribe", type_, event, position=f"e:{seq}")

    def listed(self, *chats: str) -> None:
        self.send("/chats/list", "chats", {"chats": [{"chat_id": chat} for chat in chats]})

    def _pop(self, route: str) -> Frame | None:
        for request in self._requests:
            if request["route"] == route:
                self._requests.remove(request)
                return request
        return None

    def _wait(self, give: Callable[[], Any]) -> Any:
        for _ in range(1000):
            if (given := give()) is not None:
                return given
            self._tab.wait_for_timeout(10)
        raise AssertionError(f"it did not come; there are {self._requests}")


def message(id_: str, text: str, *, prompt: str = "asked", status: str = "completed") -> Frame:
    chunk: Frame = {
        "chunk": f"{id_}.0",
        "kind": "text",
        "format": "text",
        "status": status,
        "text": text,
        "tool_name": None,
        "tool_call_id": None,
        "section": None,
        "outputs": {},
    }
    return {
        "message": id_,
        "role": "assistant",
        "metadata": {"turn": {"prompt": prompt, "title": f"Title of {id_}"}},
        "status": status,
        "error": None,
        "annotations": [],
        "chunks": [chunk],
    }


def chat_document(chat: str, id_: str, prompt: str) -> Frame:
    asked = {"prompt": prompt, "asset_id": None, "asset_type": None}
    return {
        "id": chat,
        "title": None,
        "status": "open",
        "messages": [{"id": id_, "request_message": asked}],
        "message_id": id_,
    }


def opened(open_tab: OpenTab, place: str = "") -> tuple[Page, Gateway]:
    gateways: list[Gateway] = []
    tab = open_tab(place, prepare=lambda tab: gateways.append(Gateway(tab)))
    (gateway,) = gateways
    gateway.take("/chats/list")
    return tab, gateway


def delta(gateway: Gateway, chat: str, id_: str, text: str) -> None:
    gateway.event(chat, "chunk.delta", {"offset": 0, "text": text}, message=id_, chunk=f"{id_}.0")


def reply_of(tab: Page) -> Any:
    return tab.locator(".reply")


def test_events_of_a_subscription_that_is_over_are_not_taken(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one", status="open"))
    gateway.listed("a", "b")
    expect(reply_of(tab)).to_have_text("Reply: one")
    tab.locator("[data-chat=b] button").click()
    gateway.take("/chats/subscribe")
    tab.locator("[data-chat=a] button").click()
    again = gateway.take("/chats/subscribe")
    assert again["payload"] == {"chat_id": "a", "after": None}
    delta(gateway, "a", "m", "LATE")  # of the first subscription
    gateway.event("b", "snapshot", {"messages": [message("m", "of b")]})
    gateway.subscribed(again, message("m", "one two", status="open"))
    delta(gateway, "a", "m", " three")
    expect(reply_of(tab)).to_have_text("Reply: one two three")


def test_a_late_event_moves_no_position(open_tab: OpenTab) -> None:
    _, gateway = opened(open_tab, "#a")
    request = gateway.take("/chats/subscribe")
    delta(gateway, "a", "m", "LATE")
    gateway.close()
    gateway.wait_for_socket(2)
    assert gateway.take("/chats/subscribe")["payload"]["after"] is None
    assert request["payload"]["after"] is None


def test_a_reconnection_goes_on_after_the_last_event(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one", status="open"))
    delta(gateway, "a", "m", " two")
    expect(tab.locator("#status-position")).to_have_text("e:2")
    gateway.close()
    gateway.wait_for_socket(2)
    assert gateway.take("/chats/subscribe")["payload"]["after"] == "e:2"


def test_messages_of_two_chats_may_have_the_same_id(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "of a", prompt="to a"))
    gateway.listed("a", "b")
    expect(tab.locator(".prompt")).to_contain_text("to a")
    tab.locator("[data-chat=b] button").click()
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "of b", prompt="to b"))
    expect(tab.locator(".prompt")).to_contain_text("to b")
    expect(reply_of(tab)).to_have_text("Reply: of b")


def test_a_post_that_a_lost_connection_swallowed_is_given_back(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one"))
    expect(reply_of(tab)).to_have_text("Reply: one")
    ask(tab, "more")
    gateway.take("/chats/post")
    expect(tab.locator("#stop")).to_be_disabled()
    gateway.close()
    expect(tab.get_by_role("alert")).to_contain_text("send it again")
    expect(tab.get_by_label("Message", exact=True)).to_have_value("more")
    expect(tab.locator("#send")).to_be_visible()
    # It had arrived after all: then nobody should send it again.
    gateway.wait_for_socket(2)
    request = gateway.take("/chats/subscribe")
    gateway.subscribed(request, message("m", "one"), message("n", "x", prompt="more"))
    expect(tab.get_by_label("Message", exact=True)).to_have_value("")
    expect(tab.get_by_role("alert")).to_be_hidden()


def test_a_post_without_a_connection_waits_for_it(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one"))
    expect(reply_of(tab)).to_have_text("Reply: one")
    tab.context.set_offline(True)
    expect(tab.locator("#network")).to_contain_text("The connection is lost")
    ask(tab, "more")
    tab.context.set_offline(False)
    gateway.wait_for_socket(2)
    assert gateway.take("/chats/post")["payload"] == {"prompt": "more", "chat_id": "a"}
    expect(tab.get_by_role("alert")).to_be_hidden()


def test_a_post_waits_in_its_own_chat(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one"))
    gateway.listed("a", "b")
    expect(reply_of(tab)).to_have_text("Reply: one")
    ask(tab, "more")
    request = gateway.take("/chats/post")
    tab.locator("[data-chat=b] button").click()
    expect(tab.locator("#send")).to_be_visible()  # b waits for nothing
    tab.locator("[data-chat=a] button").click()
    expect(tab.locator("#stop")).to_be_visible()
    gateway.refuse(request, "RATE_LIMITED")
    expect(tab.get_by_role("alert")).to_contain_text("RATE_LIMITED")
    expect(tab.locator("#send")).to_be_visible()
    expect(tab.get_by_label("Message", exact=True)).to_have_value("more")


def test_a_new_chat_shows_what_it_asked_and_nothing_else(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab)
    ask(tab, "first")
    gateway.take("/chats/post")
    tab.get_by_role("button", name="New chat").click()
    ask(tab, "second")
    gateway.take("/chats/post")
    gateway.send("/chats/post", "initializeChat", chat_document("c1", "m1", "first"))
    gateway.send("/chats/post", "initializeChat", chat_document("c2", "m2", "of another tab"))
    expect(tab.locator("#chats li")).to_have_count(2)
    assert "#" not in tab.url
    gateway.send("/chats/post", "initializeChat", chat_document("c3", "m3", "second"))
    assert gateway.take("/chats/subscribe")["payload"]["chat_id"] == "c3"
    expect(tab).to_have_url(re.compile(r"#c3$"))


def test_a_failure_elsewhere_says_nothing_here(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one"))
    expect(reply_of(tab)).to_have_text("Reply: one")
    ask(tab, "more")
    gateway.take("/chats/post")
    failed = {"code": "INTERNAL_SERVER_ERROR", "message": "that one failed"}
    gateway.send("/chats/post", "complete", chat_document("z", "m9", "x"), error=failed)
    gateway.listed("a", "z")
    expect(tab.locator("#chats li")).to_have_count(2)
    expect(tab.get_by_role("alert")).to_be_hidden()
    expect(tab.locator("#stop")).to_be_visible()


def test_a_chat_that_is_gone_leaves_the_list(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    request = gateway.take("/chats/subscribe")
    gateway.listed("a", "b")
    gateway.refuse(request, "NOT_FOUND")
    expect(tab.get_by_role("alert")).to_contain_text("NOT_FOUND")
    expect(tab.locator("#welcome")).to_be_visible()
    expect(tab.locator("#chats li")).to_have_count(1)
    expect(tab).to_have_url(re.compile(r"/$"))


def test_a_chat_that_cannot_be_followed_now_is_asked_for_again(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.refuse(gateway.take("/chats/subscribe"), "INTERNAL_SERVER_ERROR")
    expect(tab.get_by_role("alert")).to_be_visible()
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "one"))
    expect(reply_of(tab)).to_have_text("Reply: one")


def test_a_snapshot_in_the_middle_and_a_replacement(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "#a")
    gateway.subscribed(gateway.take("/chats/subscribe"), message("m", "**on", status="open"))
    delta(gateway, "a", "m", "e** two")
    expect(reply_of(tab).locator("strong")).to_have_text("one")
    whole = message("m", "**one** two `three`", status="open")
    gateway.event("a", "snapshot", {"messages": [message("k", "before"), whole]})
    expect(reply_of(tab)).to_have_text(["Reply: before", "Reply: one two three"])
    started = {"role": "assistant", "metadata": {"turn": {"prompt": "again", "replaces": ["m"]}}}
    gateway.event("a", "message.started", started, message="n")
    gateway.event("a", "message.replaced", {"messages": ["k", "m"]}, message="n")
    expect(tab.locator("#messages li")).to_have_count(1)
    expect(tab.locator(".prompt")).to_contain_text("again")


def test_the_keyboard_keeps_its_place_in_the_list(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab)
    gateway.listed("a", "b", "c")
    tab.locator("[data-chat=b] button").focus()
    gateway.send("/chats/post", "initializeChat", chat_document("d", "m", "x"))
    expect(tab.locator("#chats li").first).to_have_attribute("data-chat", "d")
    gateway.listed("c", "b", "a")
    expect(tab.locator("#chats li").first).to_have_attribute("data-chat", "c")
    expect(tab.locator("[data-chat=b] button")).to_be_focused()


def test_an_address_that_is_none_of_ours(open_tab: OpenTab) -> None:
    tab = open_tab("#%E0%A4%A")
    expect(tab.locator("#welcome")).to_be_visible()
    expect(tab.locator("#status-link")).to_have_text("live")


def test_a_token_leaves_the_address_and_outlives_a_reload(open_tab: OpenTab) -> None:
    tab, gateway = opened(open_tab, "?token=a%2Bb#c")
    assert gateway.url.endswith("?token=a%2Bb")
    assert tab.url.endswith("/#c")
    tab.reload()
    gateway.take("/chats/list")
    assert gateway.url.endswith("?token=a%2Bb")
    assert tab.url.endswith("/#c")
    assert tab.evaluate("history.length") == 2  # the blank page and this one


GROWING = """async count => {
    const { Card } = await import("./cards.js");
    const { ChatView } = await import("./view.js");
    const where = {message: "m", chunk: "m.0"};
    const view = new ChatView();
    view.apply({type: "message.started", message: "m", data: {role: "assistant", metadata: {}}});
    view.apply({...where, type: "chunk.started", data: {kind: "tool_call", format: "json"}});
    const patch = (text, patches) => {
        view.apply({...where, type: "chunk.delta", data: {text}});
        const output = {type: "json", id: "c", status: "loading", value: null, patches};
        view.apply({...where, type: "chunk.output", data: {processor: "json", output}});
    };
    const items = Array.from({length: count}, (_, n) => [[n], "set", `item ${n}`]);
    patch("[" + "1,".repeat(count), [[[], "set", []], ...items]);
    const card = new Card();
    const chunk = view.chunk("m.0");
    card.update(chunk);
    const { value } = chunk.outputs.json;

    const records = [];
    const watcher = new MutationObserver(seen => records.push(...seen));
    watcher.observe(card.root, {childList: true, subtree: true, characterData: true});
    const real = structuredClone;
    let cloned = 0;
    globalThis.structuredClone = value => (cloned += JSON.stringify(value).length, real(value));
    for (let n = 0; n < 20; n += 1) {
        patch("2,", [[[count + n], "set", 2]]);
        card.update(chunk);
    }
    globalThis.structuredClone = real;
    records.push(...watcher.takeRecords());
    return {
        cloned,
        changes: records.length,
        removed: records.flatMap(r => [...r.removedNodes]).length,
        in_place: chunk.outputs.json.value === value,
        length: value.length,
    };
}"""


def test_a_patch_and_its_redraw_cost_the_same_however_long_the_value(open_tab: OpenTab) -> None:
    tab, _ = opened(open_tab)
    small, large = (tab.evaluate(GROWING, count) for count in (10, 20_000))
    assert (small.pop("length"), large.pop("length")) == (30, 20_020)
    assert small == large == {"cloned": 20, "changes": 20, "removed": 0, "in_place": True}
