// The status line: chat, position, deltas per second, time to the first delta, connection.

import { setText } from "./dom.js";

const LINK = {
  connecting: ["connecting", ""],
  live: ["live", "live"],
  lost: ["offline", "lost"],
  refused: ["refused", "lost"],
};
const SLOT_MS = 250;
const SLOTS = 4; // a second

const $ = (name) => document.getElementById(`status-${name}`);

/** Deltas of the last second, counted in slots. */
export class Rate {
  #counts = new Array(SLOTS).fill(0);
  #slot = 0;

  constructor() {
    setInterval(() => setText($("rate"), String(this.#sum())), SLOT_MS);
  }

  count(deltas) {
    this.#turn();
    this.#counts[this.#slot % SLOTS] += deltas;
  }

  clear() {
    this.#counts.fill(0);
  }

  #sum() {
    this.#turn();
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  #turn() {
    const slot = Math.floor(performance.now() / SLOT_MS);
    for (let next = Math.max(this.#slot + 1, slot - SLOTS + 1); next <= slot; next += 1) {
      this.#counts[next % SLOTS] = 0;
    }
    this.#slot = slot;
  }
}

export function showPlace(chat, position) {
  setText($("chat"), chat ?? "–");
  setText($("position"), (chat && position) || "–");
}

export function showFirst(ms) {
  setText($("first"), ms === null ? "–" : `${Math.round(ms)} ms`);
}

export function showLink(state) {
  const [word, className] = LINK[state];
  setText($("link"), word);
  $("link").className = className;
}
