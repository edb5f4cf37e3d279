// Draws the messages of a chat. Each message and chunk keeps its elements; what changed in the view
// is drawn once per frame, however many deltas came in between.

import { Card } from "./cards.js";
import { element, LongText, makeScrollable, setText } from "./dom.js";
import { Code, Markdown } from "./markdown.js";
import { own } from "./view.js";

const SENTENCES = {
  producer_lost: "The service that was writing this reply was lost.",
  producer_timeout: "The service that was writing this reply sent nothing for too long.",
  producer_error: "The service that was writing this reply failed.",
  source_error: "The model reported an error.",
  data_lost: "A part of this reply was lost.",
};

export class Messages {
  #list;
  #shown = new Map(); // message id → ShownMessage
  #dirty = new Map(); // message id → ids of the chunks that changed; null: all
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
    this.#list.replaceChildren();
    this.#shown.clear(); // another chat may have messages with the same ids
    this.#dirty.clear();
    this.touch({ all: true });
  }

  /** Redraw what `ChatView.apply` changed. */
  touch(touched) {
    if (!touched) return;
    const { all, message, chunk } = touched;
    if (all) this.#all = true;
    else if (!chunk) this.#dirty.set(message, null);
    else if (!this.#dirty.has(message)) this.#dirty.set(message, new Set([chunk]));
    else this.#dirty.get(message)?.add(chunk);
    // A hidden tab gets no frames: what it missed is drawn at once when it is shown.
    this.#asked ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#asked = 0;
    if (this.#all) this.#arrange();
    for (const [id, ids] of this.#dirty) {
      const message = this.#view.message(id);
      if (message) this.#shownAs(message).update(message, ids && [...ids].map((id) => this.#view.chunk(id)));
    }
    this.#all = false;
    this.#dirty.clear();
    this.#onDrawn();
  }

  /** After a snapshot: every message of the view, no other one, in its order. */
  #arrange() {
    for (const [id, shown] of this.#shown) {
      if (!this.#view.message(id)) {
        shown.root.remove();
        this.#shown.delete(id);
      }
    }
    let next = this.#list.firstChild;
    for (const message of this.#view.messages) {
      const { root } = this.#shownAs(message);
      if (root === next) next = next.nextSibling;
      else this.#list.insertBefore(root, next);
      this.#dirty.set(message.message, null);
    }
  }

  #shownAs(message) {
    let shown = this.#shown.get(message.message);
    if (!shown) {
      shown = new ShownMessage(message);
      this.#shown.set(message.message, shown);
      this.#list.append(shown.root);
    }
    return shown;
  }
}

class ShownMessage {
  root;
  #reply = element("div", "reply");
  #chunks = new Map();
  #last = null; // chunk: the one that may still grow
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

  /** `changed`: chunks to redraw, in order; null: all. */
  update(message, changed) {
    const open = message.status === "open";
    this.#reply.classList.toggle("open", open);
    this.#reply.classList.toggle("waiting", open && !message.chunks.some(({ text }) => text));
    this.#reply.setAttribute("aria-busy", String(open));
    if (!changed) this.#keepOnly(message.chunks);
    const last = message.chunks.at(-1);
    const before = this.#last;
    this.#last = last;
    for (const chunk of changed ?? message.chunks) this.#updateChunk(chunk, open);
    if (changed && before && before !== last) this.#updateChunk(before, open);
    this.#say(message);
  }

  #updateChunk(chunk, open) {
    let shown = this.#chunks.get(chunk.chunk);
    if (!shown) {
      shown = shownChunk(chunk);
      this.#chunks.set(chunk.chunk, shown);
      this.#reply.append(shown.root);
    }
    // Some providers end a chunk only with its step: a chunk that is not the last grows no more.
    shown.update(chunk, open && chunk === this.#last && chunk.status === "open");
  }

  #keepOnly(chunks) {
    const ids = new Set(chunks.map(({ chunk }) => chunk));
    for (const [id, shown] of this.#chunks) {
      if (!ids.has(id)) {
        shown.root.remove();
        this.#chunks.delete(id);
      }
    }
  }

  #say({ status, error }) {
    const sentence =
      status === "stopped"
        ? "Stopped."
        : status === "failed"
          ? `${own(SENTENCES, error?.code) ?? "This reply failed."} (${error?.code ?? "unknown"})`
          : "";
    this.#outcome.textContent = sentence;
    this.#outcome.classList.toggle("failed", status === "failed");
    if (sentence) this.#reply.append(this.#outcome);
    else this.#outcome.remove();
  }
}

function shownChunk({ kind, section }) {
  if (kind === "tool_call") return new Card();
  if (kind === "reasoning") return new Folded("Thinking…", "Thoughts");
  if (kind === "tool_result") return new Result();
  if (section?.name === "code") return new Code(section.info);
  return new Plain(kind);
}

class Plain {
  #text = new Markdown();
  root = this.#text.root;

  constructor(kind) {
    this.root.classList.add(kind);
  }

  update({ text }, live) {
    this.#text.update(text);
    this.root.classList.toggle("live", live);
    this.root.hidden = !text.trim();
  }
}

/** The reasoning before a reply, folded. */
class Folded {
  root = element("details", "reasoning");
  #summary = element("summary");
  #text = new Markdown();
  #names;

  constructor(...names) {
    this.root.append(this.#summary, this.#text.root);
    this.#names = names;
  }

  update({ text }, live) {
    setText(this.#summary, live ? this.#names[0] : this.#names[1]);
    this.#text.update(text);
    this.root.hidden = !text.trim();
  }
}

/** A tool's result, shown as raw text. */
class Result {
  root = element("details", "reasoning");
  #text;

  constructor() {
    const pre = element("pre", "raw");
    makeScrollable(pre, "Tool result");
    this.root.append(element("summary", "", "Tool result"), pre);
    this.#text = new LongText(pre);
  }

  update({ text }) {
    this.#text.update(text);
    this.root.hidden = !text;
  }
}
