// The chat page: the chat that is shown, the requests to the gateway, and what their answers change.

import { ChatList } from "./chatlist.js";
import { Connection } from "./connection.js";
import { element, setText } from "./dom.js";
import { Messages } from "./messages.js";
import { Rate, showFirst, showLink, showPlace } from "./status.js";
import { ChatView } from "./view.js";

const $ = (id) => document.getElementById(id);

const SUGGESTIONS = [
  "Build a revenue dashboard for the third quarter",
  "Which data do we have about churn?",
];
const UNANSWERED =
  "The connection was lost before there was an answer. If your message does not appear, send it again.";

const token = takeToken();
const query = new URLSearchParams(location.search);
const headers = token ? { authorization: `Bearer ${token}` } : {};

/** The token of the address, or of this tab: out of the address, it is in no bookmark, history or picture. */
function takeToken() {
  const address = new URL(location.href);
  const given = address.searchParams.get("token");
  try {
    if (given === null) return sessionStorage.getItem("token");
    sessionStorage.setItem("token", given); // for reloads
  } catch {
    return given; // storage is blocked: a reload needs the address
  }
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
  return given;
}

// -- the chat that is shown ------------------------------------------------------------------------

let chat = null; // its id; null: a new chat, not posted to yet
let view = new ChatView();
const posts = new Map(); // chat id or null → {prompt, asset, request}: our post without an answer
let timed = null; // {chat, at}: chat and time of our post, until the first delta
let lostPrompt = null; // our prompt when the connection was lost: it may have arrived
let follow = true; // the reader is at the end of the text: stay there
const rate = new Rate();
const messages = new Messages($("messages"), drawn);
const chats = new ChatList($("chats"), { onChoose: choose, onUntitled: readTitle });

function show(id, { replace = false } = {}) {
  if (id === chat) return;
  if (chat) link.unsubscribe(chat);
  chat = id;
  view = new ChatView();
  messages.show(view);
  rate.clear();
  showFirst(null);
  setText($("said"), "");
  $("refusal").hidden = true;
  follow = true;
  if (id) {
    link.subscribe(id);
    if (!chats.has(id)) chats.putFirst(id);
  }
  const place = id ? `#${encodeURIComponent(id)}` : "";
  if (location.hash !== place) {
    history[replace ? "replaceState" : "pushState"](null, "", location.pathname + location.search + place);
  }
  setTitle();
  update();
}

function setTitle() {
  if (chat) chats.setTitle(chat, titleOf(view.messages));
  const title = chat ? (chats.title(chat) ?? "Untitled chat") : "New chat";
  setText($("title"), title);
  document.title = chat ? `${title} · riverdelta` : "riverdelta";
}

/** A chat's title: the last one in its messages. */
function titleOf(messages) {
  for (const { annotations, metadata } of messages.toReversed()) {
    const note = annotations.findLast(({ name, data }) => name === "title" && data?.title);
    const title = note?.data.title ?? metadata?.turn?.title;
    if (title) return title;
  }
  return null;
}

const liveMessage = () => view.messages.findLast(({ status }) => status === "open");

/** Update everything beside the messages. */
function update() {
  const live = liveMessage();
  const waiting = posts.has(chat);
  $("welcome").hidden = Boolean(chat) || waiting;
  $("no-chats").hidden = chats.size > 0;
  const stopFocused = document.activeElement === $("stop");
  $("send").hidden = waiting || Boolean(live);
  $("stop").hidden = !$("send").hidden;
  $("stop").disabled = !live;
  if (stopFocused && $("stop").hidden) $("prompt").focus(); // else the focus is lost with the button
  chats.mark(chat, Boolean(live));
  showPlace(chat, link.position(chat));
}

// -- what comes from the gateway -------------------------------------------------------------------

function take(frame) {
  if (frame.event === "error") {
    refuse(frame);
    return;
  }
  switch (frame.route) {
    case "/chats/subscribe":
      if (frame.payload.chat === chat) takeEvent(frame.payload);
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
  messages.touch(view.apply(event));
  if (event.type === "chunk.delta") {
    rate.count(event.seq - (event.first_seq ?? event.seq) + 1);
    if (timed?.chat === chat) {
      showFirst(performance.now() - timed.at);
      timed = null;
    }
  }
  if (event.chunk) return; // only the chunk changed
  if (event.type === "message.annotated" || event.type === "snapshot") setTitle();
  const live = liveMessage();
  if (live) {
    posts.delete(chat);
    setText($("said"), "");
  }
  if (before && !live) {
    setText($("said"), `The reply has ended: ${view.message(before.message)?.status ?? "replaced"}.`);
  }
  forgetIfArrived(view.messages);
  update();
}

function takeList(payload) {
  const listed = payload.chats.map((each) => each.chat_id);
  // The chat that is shown is listed too, even if another user began it.
  chats.setAll(chat && !listed.includes(chat) ? [chat, ...listed] : listed);
  setTitle();
  update();
}

/** Read a chat's title from the chat: the list has no titles. */
async function readTitle(id) {
  let messages;
  try {
    const response = await fetch(`chats/${encodeURIComponent(id)}`, { headers });
    if (!response.ok) return;
    messages = (await response.json()).data.messages;
  } catch {
    return; // the network was lost meanwhile
  }
  if (!chats.title(id)) chats.setTitle(id, titleOf(messages));
  if (!chat && forgetIfArrived(messages)) show(id);
}

/** Frames to all of a user's sockets: a turn began or ended, here or in another tab; its title. */
function takePost({ event, payload }) {
  const id = payload.chat_id ?? payload.id;
  if (event === "initializeChat") {
    chats.putFirst(id);
    chats.setTitle(id, payload.title);
    posts.delete(id);
    const post = posts.get(null);
    const asked = payload.messages.find((message) => message.id === payload.message_id)?.request_message;
    if (post && asked && isSame(post, asked)) {
      posts.delete(null);
      if (timed) timed.chat = id;
      if (!chat) show(id);
    }
    update();
  } else if (event === "complete") {
    posts.delete(id); // it may have ended before we subscribed
    update();
  } else if (event === "generatingTitle" && payload.progress === "completed") {
    chats.setTitle(id, payload.title);
    if (id === chat) setTitle();
  }
}

const isSame = ({ prompt, asset }, asked) =>
  prompt === (asked.prompt ?? "") && (asset?.asset_id ?? null) === (asked.asset_id ?? null);

function refuse({ route, error, request_id: id }) {
  if (route === "/chats/subscribe" && error.code === "NOT_FOUND") {
    chats.remove(chat);
    show(null, { replace: true });
  }
  if (route === "/chats/post") {
    const refused = [...posts].find(([, { request }]) => request === id);
    if (refused) giveBack(...refused);
  }
  say(error.message);
  update();
}

function say(trouble) {
  $("refusal").textContent = trouble;
  $("refusal").hidden = false;
}

// -- asking ----------------------------------------------------------------------------------------

function ask(prompt, asset) {
  if (posts.has(chat) || liveMessage()) return;
  const payload = { ...asset };
  if (prompt) payload.prompt = prompt;
  if (chat) payload.chat_id = chat;
  $("refusal").hidden = true;
  lostPrompt = null;
  follow = true;
  timed = { chat, at: performance.now() };
  posts.set(chat, { prompt, asset, request: link.request("/chats/post", payload) });
  update();
}

/** A post failed: put its prompt back into the field, if that is empty. */
function giveBack(where, { prompt, asset }) {
  posts.delete(where);
  timed = null;
  if (where !== chat) return;
  if (prompt && !$("prompt").value) {
    $("prompt").value = prompt;
    resize();
  }
  if (asset) {
    $("asset-id").value = asset.asset_id;
    $("asset").open = true;
  }
}

/** The connection is lost: a request without an answer may have arrived or not. */
function giveBackUnanswered(isFinal) {
  for (const [where, post] of [...posts]) {
    if (link.isUnsent(post.request) && !isFinal) continue; // it will be sent when the connection is back
    link.forget(post.request);
    giveBack(where, post);
    lostPrompt = post.prompt;
    say(UNANSWERED);
  }
  update();
}

/** A prompt that was in doubt did arrive: do not offer to send it again. */
function forgetIfArrived(messages) {
  if (!lostPrompt || messages.at(-1)?.metadata?.turn?.prompt !== lostPrompt) return false;
  if ($("prompt").value === lostPrompt) {
    $("prompt").value = "";
    resize();
  }
  lostPrompt = null;
  $("refusal").hidden = true;
  return true;
}

function chosenAsset() {
  const id = $("asset-id").value.trim();
  return id ? { asset_id: id, asset_type: $("asset-type").value } : null;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  const asset = chosenAsset();
  if ((!prompt && !asset) || posts.has(chat) || liveMessage()) return;
  $("prompt").value = "";
  $("asset-id").value = "";
  $("asset").open = false;
  resize();
  ask(prompt, asset);
});

function stop() {
  const live = liveMessage();
  if (live) link.request("/chats/stop", { chat_id: chat, message_id: live.message });
}

$("stop").addEventListener("click", stop);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (document.body.classList.contains("side-open")) {
    openSide(false);
    $("toggle-side").focus();
  } else {
    stop();
  }
});

// The address names the chat: following the link would open a chat called "prompt".
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("prompt").focus();
});
$("prompt").addEventListener("input", resize);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

function resize() {
  $("prompt").style.height = "";
  $("prompt").style.height = `${$("prompt").scrollHeight}px`;
}

for (const text of SUGGESTIONS) {
  const button = element("button", "plain", text);
  button.type = "button";
  button.addEventListener("click", () => {
    ask(text, null);
    $("prompt").focus(); // the button goes away
  });
  const item = element("li");
  item.append(button);
  $("suggestions").append(item);
}

// -- the list of chats -----------------------------------------------------------------------------

function choose(id) {
  show(id);
  openSide(false);
  $("prompt").focus();
}

$("new-chat").addEventListener("click", () => {
  posts.delete(null); // its answer is for a chat that is no longer shown
  choose(null);
  update();
});

function openSide(open) {
  document.body.classList.toggle("side-open", open);
  $("toggle-side").setAttribute("aria-expanded", String(open));
}

$("toggle-side").addEventListener("click", () => {
  const open = !document.body.classList.contains("side-open");
  openSide(open);
  if (open) $("new-chat").focus();
});
$("stage").addEventListener("click", (event) => {
  if (!event.target.closest("#toggle-side")) openSide(false);
});

// -- scrolling: follow the text while the reader is at its end -------------------------------------

function drawn() {
  update();
  toEnd();
}

function toEnd() {
  if (follow) $("scroll").scrollTop = $("scroll").scrollHeight;
  $("latest").hidden = follow;
}

let scrolledTo = 0;
$("scroll").addEventListener("scroll", () => {
  const { scrollTop, clientHeight, scrollHeight } = $("scroll");
  const atEnd = scrollTop + clientHeight >= scrollHeight - 40;
  // Only scrolling up leaves the end: the end also moves down when the text above it grows.
  if (atEnd || scrollTop < scrolledTo) follow = atEnd;
  scrolledTo = scrollTop;
  $("latest").hidden = follow;
});
// Text that becomes visible may be longer than estimated; the window or the composer may change size.
const sizes = new ResizeObserver(toEnd);
sizes.observe($("messages"));
sizes.observe($("scroll"));

$("latest").addEventListener("click", () => {
  follow = true;
  toEnd();
  $("prompt").focus(); // the button goes away
});

// -- the connection --------------------------------------------------------------------------------

const LOST = {
  lost: "The connection is lost. The reply goes on; this page catches up when the connection is back.",
  refused: "The gateway refused this page. Reload it, or sign in again.",
};

function linkChanged(state) {
  showLink(state);
  if (state in LOST) {
    setText($("network"), LOST[state]);
    giveBackUnanswered(state === "refused");
  } else if (state === "live") {
    setText($("network"), "");
    link.request("/chats/list");
  }
}

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
socketUrl.hash = "";
socketUrl.search = token ? `?token=${encodeURIComponent(token)}` : "";
const link = new Connection(socketUrl.href, { onState: linkChanged, onFrame: take });

// -- beginning -------------------------------------------------------------------------------------

/** The chat that the address names. */
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null; // not an address of this page
  }
}

addEventListener("popstate", () => show(named()));
addEventListener("hashchange", () => show(named()));
const linked = query.get("asset_id");
if (named()) {
  show(named());
} else if (linked) {
  const type = query.get("asset_type");
  query.delete("asset_id"); // once is enough: a reload must not post again
  query.delete("asset_type");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  ask("", { asset_id: linked, asset_type: type });
}
update();
