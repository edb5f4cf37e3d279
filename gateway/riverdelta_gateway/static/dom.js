// Helpers for elements and texts.

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Let the keyboard scroll `node`, and name it for screen readers. */
export function makeScrollable(node, name) {
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", name);
}

/** Whether `text` begins with `before`. Faster than startsWith, which compares by character. */
export const goesOn = (text, before) => text.slice(0, before.length) === before;

const texts = new WeakMap(); // node → text that setText shows there: reading it from the node copies it

/** Show a short `text` in `node`, which shows an earlier state of it. */
export function setText(node, text) {
  const before = texts.get(node) ?? "";
  if (text === before) return;
  texts.set(node, text);
  if (before && goesOn(text, before)) node.firstChild.appendData(text.slice(before.length));
  else node.textContent = text;
}

const PART_CHARS = 4000;

/**
 * Shows a text that may become long, in a node that keeps white space. It is laid out in parts of some
 * lines each, and only the last one changes while the text grows.
 */
export class LongText {
  #node;
  #shown = "";
  #part = null;

  constructor(node) {
    this.#node = node;
  }

  update(text) {
    if (text === this.#shown) return;
    if (!goesOn(text, this.#shown)) {
      this.#node.replaceChildren();
      this.#part = null;
      this.#shown = "";
    }
    let at = this.#shown.length;
    while (at < text.length) {
      this.#part ??= this.#node.appendChild(element("span", "part")).appendChild(new Text());
      // A part ends with the line in which it becomes long enough.
      const least = Math.max(at, at + PART_CHARS - this.#part.length);
      const newline = text.indexOf("\n", least);
      const end = newline < 0 ? text.length : newline + 1;
      this.#part.appendData(text.slice(at, end));
      if (newline >= 0) this.#part = null;
      at = end;
    }
    this.#shown = text;
  }
}
