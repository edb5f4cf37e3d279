// One WebSocket to the gateway. It reconnects by itself, and resumes each chat at its position.

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
const QUIET_MS = 15000; // without a frame for this long, send a request to test the connection
const ANSWER_MS = 5000; // how long the answer may take
const OPEN_MS = 10000; // how long a connection may take to open
const AGAIN_MS = 2000; // a refused subscription is retried after this

/**
 * Calls back:
 *   onState(state)  "connecting" | "live" | "lost" | "refused" (reconnecting would not help)
 *   onFrame(frame)  every frame the gateway sends, as section "WebSocket" of the README has them
 */
export class Connection {
  #url;
  #onState;
  #onFrame;
  #socket = null;
  #failures = 0;
  #timer = 0;
  #lastReceivedAt = 0;
  #pinged = false; // since the last frame
  #chats = new Map(); // chat → {position: resume behind it, asked: id of the request, live}
  #unsent = new Map(); // id → request
  #lastId = 0;

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

  /** Subscribe to a chat, over all reconnections; a snapshot comes first. */
  subscribe(chat) {
    this.#chats.set(chat, { position: null, asked: 0, live: false });
    this.#ask(chat);
  }

  unsubscribe(chat) {
    if (this.#chats.delete(chat)) this.#send(this.#request("/chats/unsubscribe", { chat_id: chat }));
  }

  /** Position of a chat's last event; null before the first. */
  position(chat) {
    return this.#chats.get(chat)?.position ?? null;
  }

  /** Send a request, now or when the connection is back; returns its id. */
  request(route, payload = {}) {
    const request = this.#request(route, payload);
    if (!this.#send(request)) this.#unsent.set(request.request_id, request);
    return request.request_id;
  }

  /** Whether a request was not sent yet. */
  isUnsent(id) {
    return this.#unsent.has(id);
  }

  /** Drop a request that was not sent yet. */
  forget(id) {
    this.#unsent.delete(id);
  }

  #request(route, payload) {
    this.#lastId += 1;
    return { route, payload, request_id: this.#lastId };
  }

  #ask(chat) {
    const subscription = this.#chats.get(chat);
    const request = this.#request("/chats/subscribe", { chat_id: chat, after: subscription.position });
    subscription.asked = request.request_id;
    subscription.live = false;
    this.#send(request);
  }

  #send(request) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(request));
    return true;
  }

  #open() {
    clearTimeout(this.#timer);
    this.#onState("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#noteAlive();
    socket.onopen = () => {
      if (socket === this.#socket) this.#opened();
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#received(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (socket === this.#socket) this.#closed(code);
    };
  }

  #opened() {
    this.#noteAlive();
    this.#onState("live");
    for (const chat of this.#chats.keys()) this.#ask(chat);
    for (const request of this.#unsent.values()) this.#send(request);
    this.#unsent.clear();
  }

  #noteAlive() {
    this.#lastReceivedAt = performance.now();
    this.#pinged = false;
  }

  #received(frame) {
    this.#noteAlive();
    this.#failures = 0; // only now: a gateway may accept a connection and close it at once
    if (frame.route === "/chats/subscribe" && !this.#belongs(frame)) return;
    this.#onFrame(frame);
  }

  /** Record a chat's frame; false: it belongs to an ended subscription. */
  #belongs({ event, payload, position, error, request_id: id }) {
    if (event === "error") return this.#refused(error, id);
    const chat = payload.chat ?? payload.chat_id;
    const subscription = this.#chats.get(chat);
    if (!subscription) return false;
    if (event === "subscribed") {
      subscription.live ||= subscription.asked === id;
    } else if (subscription.live) {
      subscription.position = position;
    }
    return subscription.live;
  }

  #refused(error, id) {
    const [chat] = [...this.#chats].find(([, { asked }]) => asked === id) ?? [];
    if (!chat) return false;
    if (error.code === "NOT_FOUND") {
      this.#chats.delete(chat);
    } else {
      const again = () => {
        if (this.#chats.get(chat)?.asked === id) this.#ask(chat);
      };
      setTimeout(again, error.retry_after_s * 1000 || AGAIN_MS);
    }
    return true;
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

  /** A lost network does not close the socket: send a request, and reconnect if no answer comes. */
  #watch() {
    if (!this.#socket) return;
    const quiet = performance.now() - this.#lastReceivedAt;
    if (this.#socket.readyState === WebSocket.CONNECTING) {
      if (quiet > OPEN_MS) this.#giveUp();
    } else if (this.#pinged) {
      // The timers of a hidden tab run once a minute: the request needs its time, too.
      if (performance.now() - this.#pinged > ANSWER_MS) this.#giveUp();
    } else if (quiet > QUIET_MS) {
      this.#pinged = performance.now();
      this.#send(this.#request("/chats/list", {}));
    }
  }

  #giveUp() {
    const socket = this.#socket;
    this.#closed(0);
    socket.close();
  }
}

/** The range of a close code says whether reconnecting would help. */
function isFinal(code) {
  return code >= 4500 && code < 5000;
}
