// The chat page: which chat is shown, what is asked of the gateway, and the status line.

import { Connection } from "./connection.js";
import { element } from "./cards.js";
import { Messages } from "./messages.js";
import { ChatView } from "./view.js";

const $ = (id) => document.getElementById(id);

const SUGGESTIONS = [
  "Build a revenue dashboard for the third quarter",
  "Which data do we have about churn?",
];

const query = new URLSearchParams(location.search);
const token = query.get("token");
const headers = token ? { authorization: `Bearer ${token}` } : {};
const MOST_TITLES = 30; // of older chats that are asked for when the list comes

// -- the chat that is shown ------------------------------------------------------------------------

let chat = null; // its id; null: a new one that nobody asked anything yet
let view = new ChatView();
let waiting = false; // a post of ours has no answer yet
let askedAt = 0;
const chats = new Map(); // id → {title}, newest first
const messages = new Messages($("messages"), drawn);

function show(id) {
  if (id === chat) return;
  if (chat) link.unsubscribe(chat);
  chat = id;
  view = new ChatView();
  messages.show(view);
  rate.clear();
  $("status-first").textContent = "–";
  $("status-position").textContent = "–";
  $("said").textContent = "";
  if (!waiting) askedAt = 0; // else: the chat that is shown now is the one that was asked
  follow = true;
  if (id) {
    link.subscribe(id);
    if (!chats.has(id)) chats.set(id, { title: null });
  }
  const wanted = id ? `#${encodeURIComponent(id)}` : location.pathname + location.search;
  if (location.hash !== (id ? wanted : "")) history.pushState(null, "", wanted);
  setTitle();
  drawChats();
  update();
}

function setTitle() {
  const title = titleOfView() ?? chats.get(chat)?.title ?? (chat ? "Untitled chat" : "New chat");
  $("title").textContent = title;
  document.title = chat ? `${title} · riverdelta` : "riverdelta";
  if (chat && chats.has(chat)) chats.get(chat).title = title;
}

const titleOfView = () => titleOf(view.messages);

/** A chat's title: the last one that a message said. */
function titleOf(messages) {
  for (const { annotations, metadata } of messages.toReversed()) {
    const note = annotations.findLast(({ name, data }) => name === "title" && data?.title);
    const title = note?.data.title ?? metadata?.turn?.title;
    if (title) return title;
  }
  return null;
}

const liveMessage = () => view.messages.findLast(({ status }) => status === "open");

/** Bring everything beside the messages in line with the chat. */
function update() {
  const busy = waiting || Boolean(liveMessage());
  $("welcome").hidden = Boolean(chat) || waiting;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("stop").disabled = !liveMessage();
  $("status-chat").textContent = chat ?? "–";
  $("status-position").textContent = (chat && link.position(chat)) || "–";
}

// -- what comes from the gateway -------------------------------------------------------------------

function take(frame) {
  if (frame.error) {
    refuse(frame);
    return;
  }
  switch (frame.route) {
    case "/chats/subscribe":
      if (frame.payload?.chat === chat) takeEvent(frame.payload);
      break;
    case "/chats/list":
      takeList(frame.payload);
      break;
    case "/chats/post":
      takePost(frame);
      break;
  }
}

function takeEvent(event) {
  const before = liveMessage();
  const touched = view.apply(event);
  messages.touch(touched);
  if (event.type === "chunk.delta") {
    rate.count();
    if (askedAt) {
      $("status-first").textContent = `${Math.round(performance.now() - askedAt)} ms`;
      askedAt = 0;
    }
  }
  if (event.type === "message.annotated" || event.type === "snapshot") {
    setTitle();
    drawChats();
  }
  const live = liveMessage();
  if (live) waiting = false;
  if (before && !live) {
    $("said").textContent = `The reply has ended: ${view.message(before.message)?.status}.`;
  }
  if (live !== before || event.type === "snapshot") drawChats();
  update();
}

function takeList(payload) {
  const known = new Map(chats);
  chats.clear();
  // The one that is shown is listed too, whoever began it.
  const listed = payload.chats.map((each) => each.chat_id);
  for (const id of new Set(chat && !listed.includes(chat) ? [chat, ...listed] : listed)) {
    chats.set(id, { title: known.get(id)?.title ?? null });
  }
  setTitle();
  drawChats();
  const untitled = [...chats.keys()].filter((id) => id !== chat && !chats.get(id).title);
  for (const id of untitled.slice(0, MOST_TITLES)) readTitle(id);
}

/** The list has no titles: they are in the chats. */
async function readTitle(id) {
  const response = await fetch(`chats/${encodeURIComponent(id)}`, { headers });
  if (!response.ok || !chats.has(id)) return;
  const { data } = await response.json();
  chats.get(id).title = titleOf(data.messages);
  drawChats();
}

/** Frames that all of a user's sockets get: a chat began, here or in another tab; its title. */
function takePost({ event, payload }) {
  const id = payload.chat_id ?? payload.id;
  if (event === "initializeChat") {
    const known = chats.get(id);
    chats.delete(id);
    const others = [...chats];
    chats.clear();
    chats.set(id, known ?? { title: payload.title || null });
    for (const [other, about] of others) chats.set(other, about);
    if (waiting && !chat) show(id);
    drawChats();
  } else if (event === "complete") {
    if (id === chat) waiting = false; // it may have been over before it was followed
    update();
  } else if (event === "generatingTitle" && payload.progress === "completed" && chats.has(id)) {
    chats.get(id).title = payload.title;
    drawChats();
  }
}

function refuse({ route, error }) {
  if (route === "/chats/subscribe" && error.code === "NOT_FOUND") {
    show(null);
  }
  if (route === "/chats/post") {
    waiting = false;
    const draft = $("prompt").dataset.sent;
    if (draft && !$("prompt").value) {
      $("prompt").value = draft;
      resize();
    }
  }
  $("refusal").textContent = error.message;
  $("refusal").hidden = false;
  update();
}

// -- asking ----------------------------------------------------------------------------------------

function ask(prompt, asset) {
  const payload = {};
  if (prompt) payload.prompt = prompt;
  if (chat) payload.chat_id = chat;
  if (asset) Object.assign(payload, asset);
  $("refusal").hidden = true;
  $("prompt").dataset.sent = prompt;
  waiting = true;
  askedAt = performance.now();
  follow = true;
  link.request("/chats/post", payload);
  update();
}

function chosenAsset() {
  const id = $("asset-id").value.trim();
  return id ? { asset_id: id, asset_type: $("asset-type").value } : null;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  const asset = chosenAsset();
  if ((!prompt && !asset) || waiting || liveMessage()) return;
  $("prompt").value = "";
  $("asset-id").value = "";
  $("asset").open = false;
  resize();
  ask(prompt, asset);
});

function stop() {
  if (chat && liveMessage()) link.request("/chats/stop", { chat_id: chat });
}

$("stop").addEventListener("click", stop);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (document.body.classList.contains("side-open")) openSide(false);
    else stop();
  }
});

$("prompt").addEventListener("input", resize);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

function resize() {
  $("prompt").rows = Math.min(8, $("prompt").value.split("\n").length);
}

for (const text of SUGGESTIONS) {
  const button = element("button", "plain", text);
  button.type = "button";
  button.addEventListener("click", () => ask(text, null));
  const item = element("li");
  item.append(button);
  $("suggestions").append(item);
}

// -- the list of chats -----------------------------------------------------------------------------

function drawChats() {
  $("no-chats").hidden = chats.size > 0;
  $("chats").replaceChildren(
    ...[...chats].map(([id, { title }]) => {
      const button = element("button", "", title ?? "Untitled chat");
      button.type = "button";
      button.title = id;
      if (id === chat) {
        button.setAttribute("aria-current", "true");
        button.classList.toggle("live", Boolean(liveMessage()));
      }
      button.addEventListener("click", () => {
        show(id);
        openSide(false);
        $("prompt").focus();
      });
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
}

$("new-chat").addEventListener("click", () => {
  waiting = false;
  show(null);
  openSide(false);
  $("prompt").focus();
});

function openSide(open) {
  document.body.classList.toggle("side-open", open);
  $("toggle-side").setAttribute("aria-expanded", String(open));
}

$("toggle-side").addEventListener("click", () => {
  openSide(!document.body.classList.contains("side-open"));
});
$("stage").addEventListener("click", (event) => {
  if (!event.target.closest("#toggle-side")) openSide(false);
});

// -- scrolling: follow the text while the reader is at its end -------------------------------------

let follow = true;

function drawn() {
  if (follow) $("scroll").scrollTop = $("scroll").scrollHeight;
  $("latest").hidden = follow;
}

$("scroll").addEventListener("scroll", () => {
  const { scrollTop, clientHeight, scrollHeight } = $("scroll");
  follow = scrollTop + clientHeight >= scrollHeight - 40;
  $("latest").hidden = follow;
});

$("latest").addEventListener("click", () => {
  follow = true;
  drawn();
});

// -- status ----------------------------------------------------------------------------------------

const LINK = {
  connecting: ["connecting", ""],
  live: ["live", "live"],
  lost: ["offline", "lost"],
  refused: ["refused", "lost"],
};

function linkChanged(state) {
  const [word, className] = LINK[state];
  $("status-link").textContent = word;
  $("status-link").className = className;
  const lost = state === "lost" || state === "refused";
  if (lost) {
    $("network").textContent =
      state === "refused"
        ? "The gateway refused this page. Reload it, or sign in again."
        : "The connection is lost. The reply goes on without it; this page catches up when it is back.";
  }
  if (lost || state === "live") $("network").hidden = !lost;
  if (state === "live") link.request("/chats/list");
}

/** Deltas of the last second. */
const rate = {
  times: [],
  count() {
    this.times.push(performance.now());
  },
  clear() {
    this.times = [];
  },
  show() {
    const since = performance.now() - 1000;
    this.times = this.times.filter((time) => time > since);
    $("status-rate").textContent = String(this.times.length);
  },
};
setInterval(() => rate.show(), 250);

// -- light and dark --------------------------------------------------------------------------------

const THEME = "riverdelta-theme";
const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

document.documentElement.dataset.theme = localStorage.getItem(THEME) ?? (isDark() ? "dark" : "light");
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem(THEME, document.documentElement.dataset.theme);
});

// -- beginning -------------------------------------------------------------------------------------

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
socketUrl.hash = "";
socketUrl.search = token ? `?token=${encodeURIComponent(token)}` : "";
const link = new Connection(socketUrl.href, { onState: linkChanged, onFrame: take });

const named = () => decodeURIComponent(location.hash.slice(1)) || null;
addEventListener("popstate", () => show(named()));
addEventListener("hashchange", () => show(named()));
messages.show(view);
if (named()) show(named());
update();
const linked = query.get("asset_id");
if (linked && !named()) ask("", { asset_id: linked, asset_type: query.get("asset_type") });
