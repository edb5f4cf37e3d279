// The list of chats. Each chat keeps its elements, so that the keyboard focus survives updates.

import { element, setText } from "./dom.js";

export class ChatList {
  #list;
  #entries = new Map(); // chat id → {title, item, button}, in the order of the list
  #marked; // the button of the chat that is shown
  #onChoose;
  #unread;

  /**
   * Calls back:
   *   onChoose(id)    a chat was clicked
   *   onUntitled(id)  a chat without a title came into sight, for the first time
   */
  constructor(list, { onChoose, onUntitled }) {
    this.#list = list;
    this.#onChoose = onChoose;
    this.#unread = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) {
        if (!isIntersecting) continue;
        this.#unread.unobserve(target);
        const id = target.dataset.chat;
        if (this.#entries.get(id)?.title === null) onUntitled(id);
      }
    });
  }

  get size() {
    return this.#entries.size;
  }

  has(id) {
    return this.#entries.has(id);
  }

  title(id) {
    return this.#entries.get(id)?.title ?? null;
  }

  /** List these chats and no others, in this order. */
  setAll(ids) {
    const before = this.#entries;
    this.#entries = new Map(ids.map((id) => [id, before.get(id) ?? this.#made(id)]));
    for (const [id, { item }] of before) {
      if (!this.#entries.has(id)) {
        this.#unread.unobserve(item);
        item.remove();
      }
    }
    const focused = document.activeElement;
    let next = this.#list.firstChild;
    for (const { item } of this.#entries.values()) {
      if (item === next) next = next.nextSibling;
      else this.#list.insertBefore(item, next);
    }
    if (this.#list.contains(focused)) focused.focus(); // moving an element loses its focus
  }

  /** Put a chat first; it may be new. */
  putFirst(id) {
    this.setAll([id, ...this.#others(id)]);
  }

  remove(id) {
    this.setAll(this.#others(id));
  }

  /** Name a chat, if it is listed; null changes nothing. */
  setTitle(id, title) {
    const entry = this.#entries.get(id);
    if (!entry || !title) return;
    entry.title = title;
    setText(entry.button, title);
    entry.button.title = title; // whole, where the list is too narrow for it
  }

  /** Mark the chat that is shown; *live*: a reply is coming there. */
  mark(current, live) {
    const button = this.#entries.get(current)?.button;
    if (button !== this.#marked) {
      this.#marked?.removeAttribute("aria-current");
      this.#marked?.classList.remove("live");
      button?.setAttribute("aria-current", "true");
      this.#marked = button;
    }
    button?.classList.toggle("live", live);
  }

  #others(id) {
    return [...this.#entries.keys()].filter((other) => other !== id);
  }

  #made(id) {
    const button = element("button");
    setText(button, "Untitled chat");
    button.type = "button";
    button.title = id;
    button.addEventListener("click", () => this.#onChoose(id));
    const item = element("li");
    item.dataset.chat = id;
    item.append(button);
    this.#unread.observe(item);
    return { title: null, item, button };
  }
}
