// One WebSocket to the gateway that comes back by itself, and goes on in each chat where it was.

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
const QUIET_MS = 15000; // the gateway was silent for this long: ask whether it is still there
const ANSWER_MS = 5000; // how long it may take to say so

/**
 * Calls back:
 *   onState(state)  "connecting" | "live" | "lost" | "refused" (coming again would not help)
 *   onFrame(frame)  every frame the gateway sends, as section "WebSocket" of the README has them
 */
export class Connection {
  #url;
  #onState;
  #onFrame;
  #socket = null;
  #failures = 0;
  #timer = 0;
  #lastHeard = 0;
  #positions = new Map(); // chat → the position after which to go on; null: begin with a snapshot
  #unsent = [];

  constructor(url, { onState, onFrame }) {
    this.#url = url;
    this.#onState = onState;
    this.#onFrame = onFrame;
    addEventListener("online", () => this.#comeBack());
    addEventListener("offline", () => this.#lose());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !this.#socket) this.#comeBack();
    });
    setInterval(() => this.#watch(), 1000);
    this.#open();
  }

  /** Follow a chat from now on, over every reconnection. */
  subscribe(chat, position = null) {
    this.#positions.set(chat, position);
    this.#send("/chats/subscribe", { chat_id: chat, after: position });
  }

  unsubscribe(chat) {
    if (this.#positions.delete(chat)) this.#send("/chats/unsubscribe", { chat_id: chat });
  }

  /** Where a chat's last event stands; null before the first. */
  position(chat) {
    return this.#positions.get(chat) ?? null;
  }

  /** Send a request; while the connection is away it waits, but a subscription is made anew anyway. */
  request(route, payload = {}) {
    if (!this.#send(route, payload)) this.#unsent.push([route, payload]);
  }

  #send(route, payload) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify({ route, payload }));
    return true;
  }

  #open() {
    clearTimeout(this.#timer);
    this.#onState("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#heard(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (socket === this.#socket) this.#closed(code);
    };
  }

  #opened() {
    this.#failures = 0;
    this.#lastHeard = performance.now();
    this.#onState("live");
    for (const [chat, after] of this.#positions) {
      this.#send("/chats/subscribe", { chat_id: chat, after });
    }
    const unsent = this.#unsent;
    this.#unsent = [];
    for (const [route, payload] of unsent) this.request(route, payload);
  }

  #heard(frame) {
    this.#lastHeard = performance.now();
    const chat = frame.payload?.chat;
    if (frame.route === "/chats/subscribe" && frame.position && this.#positions.has(chat)) {
      this.#positions.set(chat, frame.position);
    }
    this.#onFrame(frame);
  }

  #closed(code) {
    this.#socket = null;
    if (isFinal(code)) {
      this.#onState("refused");
      return;
    }
    this.#onState("lost");
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    clearTimeout(this.#timer);
    if (navigator.onLine) {
      this.#timer = setTimeout(() => this.#open(), wait * (0.5 + Math.random() / 2));
    }
  }

  #lose() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    clearTimeout(this.#timer);
    this.#onState("lost");
  }

  #comeBack() {
    if (this.#socket) return;
    this.#failures = 0;
    this.#open();
  }

  /** A network that vanished without a word closes nothing: ask, and believe no answer. */
  #watch() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const quiet = performance.now() - this.#lastHeard;
    if (quiet > QUIET_MS + ANSWER_MS) {
      this.#lose();
      if (navigator.onLine) this.#comeBack();
    } else if (quiet > QUIET_MS && quiet <= QUIET_MS + 1000) {
      this.#send("/chats/list", {});
    }
  }
}

/** The gateway's close codes say by their range whether coming back would help. */
function isFinal(code) {
  return code >= 4500 && code < 5000;
}
