// Draws the messages of a chat. Each message and chunk keeps its elements; what a view says was
// touched is drawn once per frame, however many deltas came in it.

import { Card, element, setText } from "./cards.js";

const SENTENCES = {
  producer_lost: "The service that was writing this reply went away.",
  producer_timeout: "The service that was writing this reply fell silent.",
  producer_error: "The service that was writing this reply failed.",
  source_error: "The model reported an error.",
  data_lost: "A part of this reply was lost.",
};

export class Messages {
  #list;
  #shown = new Map(); // message id → ShownMessage
  #dirty = new Set();
  #view = null;
  #all = false;
  #asked = 0;
  #onDrawn;

  constructor(list, onDrawn) {
    this.#list = list;
    this.#onDrawn = onDrawn;
  }

  /** Show another view from now on. */
  show(view) {
    this.#view = view;
    this.touch({ all: true });
  }

  /** Redraw what `ChatView.apply` says was touched. */
  touch(touched) {
    if (!touched) return;
    if (touched.all) this.#all = true;
    else this.#dirty.add(touched.message);
    this.#asked ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#asked = 0;
    const messages = this.#view.messages;
    if (this.#all) {
      const ids = new Set(messages.map(({ message }) => message));
      for (const [id, shown] of this.#shown) {
        if (!ids.has(id)) {
          shown.root.remove();
          this.#shown.delete(id);
        }
      }
      for (const { message } of messages) this.#dirty.add(message);
      this.#all = false;
    }
    for (const id of this.#dirty) {
      const message = this.#view.message(id);
      if (!message) continue;
      let shown = this.#shown.get(id);
      if (!shown) {
        shown = new ShownMessage(message);
        this.#shown.set(id, shown);
        this.#list.append(shown.root);
      }
      shown.update(message);
    }
    this.#dirty.clear();
    this.#onDrawn();
  }
}

class ShownMessage {
  root;
  #reply = element("div", "reply");
  #chunks = new Map();
  #outcome = element("p", "outcome");

  constructor({ metadata }) {
    this.root = element("li", "message");
    const turn = metadata?.turn;
    const asked = turn?.prompt ?? (turn?.asset_id ? `${turn.asset_type} ${turn.asset_id}` : null);
    if (asked !== null) {
      const prompt = element("p", turn.prompt ? "prompt text" : "prompt asset", asked);
      prompt.prepend(element("span", "unseen", "You said: "));
      this.root.append(prompt);
    }
    this.#reply.append(element("span", "unseen", "Reply: "));
    this.root.append(this.#reply);
  }

  update(message) {
    const open = message.status === "open";
    this.#reply.classList.toggle("open", open);
    this.#reply.classList.toggle("waiting", open && !message.chunks.some(({ text }) => text));
    this.#reply.setAttribute("aria-busy", String(open));
    const ids = new Set(message.chunks.map(({ chunk }) => chunk));
    for (const [id, shown] of this.#chunks) {
      if (!ids.has(id)) {
        shown.root.remove();
        this.#chunks.delete(id);
      }
    }
    const last = message.chunks.at(-1);
    for (const chunk of message.chunks) {
      let shown = this.#chunks.get(chunk.chunk);
      if (!shown) {
        shown = shownChunk(chunk);
        this.#chunks.set(chunk.chunk, shown);
        this.#reply.append(shown.root);
      }
      // Some providers end a chunk with its step only: what is not the last one grows no more.
      shown.update(chunk, open && chunk === last && chunk.status === "open");
    }
    this.#say(message);
  }

  #say({ status, error }) {
    const sentence =
      status === "stopped"
        ? "Stopped."
        : status === "failed"
          ? `${SENTENCES[error?.code] ?? "This reply failed."} (${error?.code ?? "unknown"})`
          : "";
    this.#outcome.textContent = sentence;
    this.#outcome.classList.toggle("failed", status === "failed");
    if (sentence) this.#reply.append(this.#outcome);
    else this.#outcome.remove();
  }
}

function shownChunk({ kind, section }) {
  if (kind === "tool_call") return new Card();
  if (kind === "reasoning") return new Folded("reasoning", "Thinking…", "Thoughts");
  if (kind === "tool_result") return new Folded("reasoning", "Result…", "Result of the tool");
  if (section?.name === "code") return new Code(section.info);
  return new Plain(kind);
}

class Plain {
  root;

  constructor(kind) {
    this.root = element("p", `text ${kind}`);
  }

  update({ text }, live) {
    setText(this.root, text.trimEnd());
    this.root.classList.toggle("live", live);
    this.root.hidden = !text;
  }
}

class Code {
  root = element("section", "card code");
  #pre = element("pre", "raw");

  constructor(info) {
    const header = element("header");
    header.append(element("span", "second", info || "code"));
    this.root.append(header, this.#pre);
    this.#pre.tabIndex = 0;
  }

  update({ text }) {
    setText(this.#pre, text);
  }
}

class Folded {
  root;
  #summary = element("summary");
  #text = element("p", "text");
  #names;

  constructor(className, ...names) {
    this.root = element("details", className);
    this.root.append(this.#summary, this.#text);
    this.#names = names;
  }

  update({ text }, live) {
    setText(this.#summary, live ? this.#names[0] : this.#names[1]);
    setText(this.#text, text);
    this.root.hidden = !text;
  }
}
