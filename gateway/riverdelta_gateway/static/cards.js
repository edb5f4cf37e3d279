// Draws cards: the outputs that processors make from tool calls. A card keeps its elements and changes
// only what is new: a file that grows by a line costs a line, not a file.

import { element, goesOn, LongText, makeScrollable, setText } from "./dom.js";
import { Markdown } from "./markdown.js";
import { own } from "./view.js";

const STATES = { loading: "working…", completed: "done", failed: "failed" };

function setState(node, status) {
  if (node.dataset.status === status) return;
  node.dataset.status = status;
  node.className = `state ${status}`;
  node.textContent = own(STATES, status) ?? status;
}

/** The card of one chunk. `update` takes the chunk as a view has it. */
export class Card {
  root = element("section", "card");
  #title = element("h2");
  #second = element("span", "second");
  #state = element("span", "state");
  #body = null;
  #shape = "";

  constructor() {
    const header = element("header");
    header.append(this.#title, this.#second, this.#state);
    this.root.append(header);
  }

  update(chunk) {
    const [card] = Object.values(chunk.outputs);
    const shape = card?.type ?? "raw";
    if (shape !== this.#shape) {
      this.#body?.root.remove();
      this.#body = new (own(BODIES, shape) ?? RawBody)();
      this.#shape = shape;
      this.root.append(this.#body.root);
    }
    const open = chunk.status === "open" ? "loading" : chunk.status;
    setText(this.#title, card?.title || toolTitle(chunk.tool_name));
    setText(this.#second, card?.secondary_title ?? "");
    setState(this.#state, card?.status ?? open);
    this.#body.update(card, chunk);
  }
}

function toolTitle(name) {
  const words = (name || "tool call").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

class TextBody {
  #text = new Markdown();
  root = this.#text.root;

  update(card) {
    this.#text.update(card.message ?? "");
  }
}

class RawBody {
  root = element("details");
  #text;
  #whole; // the value that was shown as a whole

  constructor() {
    const pre = element("pre", "raw");
    makeScrollable(pre, "Arguments");
    this.root.append(element("summary", "", "Arguments"), pre);
    this.#text = new LongText(pre);
  }

  update(card, chunk) {
    if (card?.type !== "json" || chunk.status === "open") {
      this.#text.update(chunk.text); // as it comes: to lay a long value out again for each delta costs all of it
    } else if (card.value !== this.#whole) {
      this.#whole = card.value;
      this.#text.update(JSON.stringify(card.value, null, 2));
    }
  }
}

class PillsBody {
  root = element("div", "pills");
  #drawn = null;

  update(card) {
    const groups = card.pill_containers ?? [];
    if (groups === this.#drawn) return; // always whole, and rare: draw all of it again
    this.#drawn = groups;
    this.root.replaceChildren(
      ...groups.flatMap((group) => {
        const list = element("ul");
        list.append(...group.pills.map((pill) => element("li", "", pill.text)));
        return [element("h3", "", group.title), list];
      }),
    );
  }
}

class FilesBody {
  root = element("div");
  #files = new Map();

  update(card) {
    const ids = new Set(card.file_ids);
    for (const id of ids) {
      const file = own(card.files, id);
      if (file) this.#file(id).update(file.file_name, file.status, file.file?.text ?? "");
    }
    for (const [id, shown] of this.#files) {
      if (!ids.has(id)) {
        shown.root.remove();
        this.#files.delete(id);
      }
    }
  }

  #file(id) {
    let file = this.#files.get(id);
    if (!file) {
      file = new FileText();
      this.#files.set(id, file);
      this.root.append(file.root);
    }
    return file;
  }
}

class YmlBody {
  root = element("div");
  #texts = new Map();

  update(card) {
    for (const [pointer, { text }] of Object.entries(card.texts)) {
      if (!this.#texts.has(pointer)) {
        const shown = new FileText();
        this.#texts.set(pointer, shown);
        this.root.append(shown.root);
      }
      this.#texts.get(pointer).update(pointer, card.status, text ?? "");
    }
  }
}

const BODIES = { text: TextBody, files: FilesBody, pills: PillsBody, yml: YmlBody };

const PART_LINES = 100; // lines in one layout part: a new line moves few others

/** A file whose lines appear as they arrive, numbered. */
class FileText {
  root = element("details");
  #name = element("span");
  #state = element("span", "state");
  #pre = element("pre");
  #shown = "";
  #lines = 0;
  #line = null; // the last one, while it has no end
  #follow = true; // the reader is at the end: stay there

  constructor() {
    const summary = element("summary");
    summary.append(this.#name, this.#state);
    this.root.open = true;
    this.root.append(summary, this.#pre);
    this.#pre.addEventListener("scroll", () => {
      this.#follow = this.#pre.scrollTop + this.#pre.clientHeight >= this.#pre.scrollHeight - 4;
    });
  }

  update(name, status, text) {
    setText(this.#name, name);
    makeScrollable(this.#pre, name);
    setState(this.#state, status);
    if (text === this.#shown) return;
    if (!goesOn(text, this.#shown)) {
      this.#pre.replaceChildren();
      this.#shown = "";
      this.#lines = 0;
      this.#line = null;
    }
    for (let at = this.#shown.length; at < text.length; ) {
      const newline = text.indexOf("\n", at);
      const end = newline < 0 ? text.length : newline + 1;
      this.#line ??= this.#nextLine();
      this.#line.append(text.slice(at, end));
      if (newline >= 0) this.#line = null;
      at = end;
    }
    this.#shown = text;
    if (this.#follow) this.#pre.scrollTop = this.#pre.scrollHeight;
  }

  #nextLine() {
    if (this.#lines % PART_LINES === 0) this.#pre.append(element("span", "part"));
    this.#lines += 1;
    const line = element("span", "line");
    line.dataset.number = this.#lines; // counted here: CSS counters visit all lines for each new one
    this.#pre.lastElementChild.append(line);
    return line;
  }
}
