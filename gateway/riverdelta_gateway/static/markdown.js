// Draws Markdown that is still growing. A reply is never markup: tokens become elements one by one,
// HTML is shown as text, and links lead only to the web or to a mail address.

import { element, goesOn, LongText, makeScrollable } from "./dom.js";
import { Lexer, Tokenizer } from "./vendor/marked.esm.js";

const LEX_MS = 200; // for one segment: hostile text takes seconds, and each redraw reads it again
const SLOW_SEGMENTS = 3; // after so many that took longer, all of a text is plain

/** Markdown without what a growing text cannot have, or no text should. */
class Growing extends Tokenizer {
  #until = performance.now() + LEX_MS;

  // The lexer asks for these two first, at every block and at every piece of a line.
  space(text) {
    this.#checkTime();
    return super.space(text);
  }
  escape(text) {
    this.#checkTime();
    return super.escape(text);
  }

  #checkTime() {
    if (performance.now() > this.#until) throw new Error(`not read within ${LEX_MS} ms`);
  }

  html() {} // HTML is text
  tag() {}
  def() {} // a later line would change earlier ones
  reflink() {}
  lheading() {} // an incomplete "---" would turn the paragraph above it into a heading
}

const tokensOf = (text) => new Lexer({ gfm: true, breaks: true, tokenizer: new Growing() }).lex(text);

// -- where a text may be cut -----------------------------------------------------------------------

const PART_CHARS = 4_000; // segments of one layout part: new text at the end moves few others
const SOFT_CHARS = 8_000; // a block that is longer ends with the line
const HARD_CHARS = 16_000; // or, where its lines belong together, here
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`\n]{0,200})$/;
const MARKER = /^ {0,3}(?:[-+*]|\d{1,9}[.)])(?:\s|$)/;
const MAY_BECOME_MARKER = /^(?:[-+*]|\d{1,9}[.)]?)$/;
const BLANK = /^\s*$/;

/**
 * Cuts a text into segments that can be read alone: fences, and what blank lines part. Where it cuts
 * depends on the text before a cut and at most the line after it, never on how the text arrived: so a
 * text comes out the same however it was cut into deltas.
 */
class Segments {
  start = 0; // of the segment that is still open
  fence = null; // {mark, info, body}: how it began, if it is one
  #at = 0; // start of the first line that is not classified
  #blank = false; // the line before it is blank
  #list = false; // the open segment has a list

  /** Continue in `text`, which begins with all that was read; returns the newly settled segments. */
  *advance(text) {
    for (;;) {
      const newline = text.indexOf("\n", this.#at);
      const whole = newline >= 0;
      const line = text.slice(this.#at, whole ? newline : text.length);
      if (this.fence) {
        if (!whole) return;
        this.#at = newline + 1;
        if (closes(line, this.fence)) yield* this.#cut(this.#at, text);
        continue;
      }
      const opening = whole ? FENCE.exec(line.trimEnd()) : null;
      const fence = opening && !(this.#list && line.startsWith(" ")) ? opening : null;
      if (this.#at > this.start && (fence || this.#isNew(line, whole))) {
        yield* this.#cut(this.#at, text);
      }
      if (this.#at + line.length - this.start > HARD_CHARS) {
        const within = this.#at > this.start ? this.#at : wholeCharacters(text, this.start + HARD_CHARS);
        yield* this.#cut(within, text);
        continue;
      }
      if (!whole) return;
      this.#at = newline + 1;
      if (fence) this.fence = { mark: fence[1], info: fence[2].trim(), body: this.#at };
      this.#list ||= MARKER.test(line);
      this.#blank = BLANK.test(line);
    }
  }

  *#cut(end, text) {
    yield { text: text.slice(this.start, end), fence: this.fence, start: this.start };
    this.start = this.#at = end;
    this.fence = null;
    this.#blank = this.#list = false;
  }

  /** Whether a line, perhaps incomplete, begins a segment. False may become true. */
  #isNew(line, whole) {
    if (!line || /^\s/.test(line)) return false;
    if (this.#list) {
      if (!whole && MAY_BECOME_MARKER.test(line)) return false;
      if (MARKER.test(line)) return whole && this.#isLong();
      return this.#blank;
    }
    return this.#blank || (whole && this.#isLong() && !line.startsWith("|"));
  }

  #isLong() {
    return this.#at - this.start > SOFT_CHARS;
  }
}

const closes = (line, { mark }) => {
  const closing = /^ {0,3}(`{3,}|~{3,})\s*$/.exec(line)?.[1];
  return closing?.[0] === mark[0] && closing.length >= mark.length;
};

/** The text in an open or settled fence; a last line that may yet close it is held back. */
function codeIn(text, { mark }, settled) {
  const last = text.lastIndexOf("\n", settled ? text.length - 2 : text.length) + 1;
  const held = settled || /^ {0,3}(`*|~*)\s*$/.exec(text.slice(last))?.[1]?.[0] === mark[0];
  return held ? text.slice(0, last) : text;
}

function wholeCharacters(text, end) {
  const half = text.charCodeAt(end - 1);
  return half >= 0xd800 && half < 0xdc00 ? end - 1 : end;
}

// -- drawing ---------------------------------------------------------------------------------------

/** A text in Markdown. Settled segments are drawn once; of the rest, only what changed. */
export class Markdown {
  root = element("div", "markdown");
  #text = "";
  #segments = new Segments();
  #part = null; // the last one
  #partStart = 0;
  #settled = null; // the last node in it that stays as it is
  #code = null; // the fence that is open
  #plain = false; // the open segment cannot be read in time
  #slow = 0; // segments like that

  update(text) {
    if (text === this.#text) return;
    if (!goesOn(text, this.#text)) {
      this.root.replaceChildren();
      this.#segments = new Segments();
      this.#part = this.#settled = this.#code = null;
      this.#plain = false;
      this.#slow = 0;
    }
    this.#text = text;
    for (const segment of this.#segments.advance(text)) {
      this.#draw(segment, true);
      this.#settled = this.#part.lastChild;
      this.#code = null;
      this.#plain = false;
      if (this.#segments.start - this.#partStart > PART_CHARS) this.#part = null;
    }
    const { start, fence } = this.#segments;
    this.#draw({ text: fence ? "" : text.slice(start), fence, start }, false);
  }

  #draw({ text, fence, start }, settled) {
    if (!this.#part) {
      if (!text && !fence) return;
      this.#part = this.root.appendChild(element("div", "part"));
      this.#partStart = start;
      this.#settled = null;
    }
    if (!fence) {
      this.#put(this.#nodes(text));
      return;
    }
    if (!this.#code) {
      this.#code = new Code(fence.info);
      this.#put([]);
      this.#part.append(this.#code.root); // itself, not what looks like it: it keeps its elements
    }
    const body = settled ? text.slice(fence.body - start) : this.#text.slice(fence.body);
    this.#code.update({ text: codeIn(body, fence, settled) });
  }

  /** The nodes of one segment's text. */
  #nodes(text) {
    if (!this.#plain && this.#slow < SLOW_SEGMENTS) {
      try {
        return blocks(text);
      } catch (error) {
        console.warn("shown as plain text:", error); // too slow, or nested deeper than the stack
        this.#plain = true;
        this.#slow += 1;
      }
    }
    return [element("p", "text", text)];
  }

  #put(nodes) {
    const open = this.#settled ? this.#settled.nextSibling : this.#part.firstChild;
    putChildren(this.#part, open, nodes);
  }
}

/** A block of code, with its language. */
export class Code {
  root = element("section", "card code");
  #text;

  constructor(info) {
    const pre = element("pre", "raw");
    makeScrollable(pre, info ? `Code, ${info}` : "Code");
    if (info) {
      const header = element("header");
      header.append(element("span", "second", info));
      this.root.append(header);
    }
    this.root.append(pre);
    this.#text = new LongText(pre);
  }

  update({ text }) {
    this.#text.update(text);
  }
}

/** Replace the children of `parent` from `node` on by `made`; equal ones stay, with their selections. */
function putChildren(parent, node, made) {
  for (const next of made) {
    const following = node?.nextSibling ?? null;
    if (!node) parent.append(next);
    else if (!become(node, next)) node.replaceWith(next);
    node = following;
  }
  while (node) {
    const following = node.nextSibling;
    node.remove();
    node = following;
  }
}

function become(node, made) {
  if (node.nodeType === Node.TEXT_NODE && made.nodeType === Node.TEXT_NODE) {
    if (made.data.startsWith(node.data)) node.appendData(made.data.slice(node.length));
    else node.data = made.data;
    return true;
  }
  if (node.nodeName !== made.nodeName || node.attributes.length !== made.attributes.length) return false;
  for (const { name, value } of made.attributes) if (node.getAttribute(name) !== value) return false;
  putChildren(node, node.firstChild, [...made.childNodes]);
  return true;
}

/** The nodes of one segment's text; throws where it takes too long, or is nested too deep. */
export const blocks = (text) => tokensOf(text).flatMap(block);

function block(token) {
  switch (token.type) {
    case "space":
      return [];
    case "heading":
      return [filled(`h${Math.min(token.depth + 1, 6)}`, inline(token.tokens))]; // below the chat's title
    case "hr":
      return [element("hr")];
    case "code": {
      const code = new Code(token.lang);
      code.update({ text: `${token.text}\n` });
      return [code.root];
    }
    case "blockquote":
      return [filled("blockquote", token.tokens.flatMap(block))];
    case "list":
      return [list(token)];
    case "table":
      return [table(token)];
    case "paragraph":
      return [filled("p", inline(token.tokens))];
    case "text":
    case "checkbox":
      return inline([token]);
    default:
      return [element("p", "", token.raw)];
  }
}

function list({ ordered, start, items }) {
  const made = element(ordered ? "ol" : "ul");
  if (ordered && start !== 1) made.start = start;
  made.append(...items.map((item) => filled("li", item.tokens.flatMap(block))));
  return made;
}

function table({ header, rows }) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const { tokens, align } of header) {
    const cell = filled("th", inline(tokens), align);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    body.insertRow().append(...row.map(({ tokens, align }) => filled("td", inline(tokens), align)));
  }
  const frame = filled("div", [made], "table");
  makeScrollable(frame, "Table");
  return frame;
}

const SPANS = new Set(["strong", "em", "del"]);

function inline(tokens) {
  return tokens.flatMap((token) => {
    switch (token.type) {
      case "text":
        return token.tokens ? inline(token.tokens) : [new Text(token.text)];
      case "escape":
        return [new Text(token.text)];
      case "codespan":
        return [element("code", "", token.text)];
      case "br":
        return [element("br")];
      case "checkbox":
        return [new Text(token.checked ? "☑ " : "☐ ")];
      case "link":
        return [link(token, inline(token.tokens))];
      case "image": // nothing is loaded from other hosts
        return [link(token, [new Text(token.text || token.href)])];
      default:
        if (SPANS.has(token.type)) return [filled(token.type, inline(token.tokens))];
        return [new Text(token.raw)];
    }
  });
}

function link({ href, raw }, nodes) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href) || !URL.canParse(href)) return new Text(raw);
  const made = filled("a", nodes);
  made.href = href;
  made.rel = "noopener noreferrer";
  made.target = "_blank";
  return made;
}

function filled(tag, nodes, className = "") {
  const made = element(tag, className ?? "");
  made.append(...nodes);
  return made;
}
