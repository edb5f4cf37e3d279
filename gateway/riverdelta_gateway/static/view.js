// A chat as a reader sees it: reduces its events, and the cards in them.
// The same rules as riverdelta.core.view and riverdelta.core.outputs; uses neither page nor network.

/** A property of `object` itself, else undefined: names come from replies, which may say "__proto__". */
export const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

function put(object, name, value) {
  if (name === "__proto__") {
    const property = { value, writable: true, enumerable: true, configurable: true };
    Object.defineProperty(object, name, property); // an assignment would change what `object` inherits
  } else {
    object[name] = value;
  }
}

/** Put `output` onto the caller's own card (null before the first), in place: it costs what is new. */
export function growOutput(card, output) {
  return output.type === "json" ? growJson(card ?? {}, output) : growObject(card ?? {}, output);
}

function growJson(card, output) {
  const value = output.patches?.length
    ? applyPatches(card.value ?? null, output.patches)
    : structuredClone(output.value); // later patches change it in place
  for (const [name, field] of Object.entries(output)) put(card, name, field);
  card.value = value;
  card.patches = null;
  return card;
}

const SUFFIX = "_chunk";

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isPart = (name, value) =>
  name.endsWith(SUFFIX) && (value === null || typeof value === "string");

function growObject(card, output) {
  const parts = [];
  for (const [name, value] of Object.entries(output)) {
    const partName = name + SUFFIX;
    const before = own(card, name);
    if (isPart(name, value)) {
      parts.push([name, value]);
    } else if (isObject(value)) {
      put(card, name, growObject(isObject(before) ? before : {}, value));
    } else if (value === null && Object.hasOwn(output, partName) && isPart(partName, output[partName])) {
      put(card, name, before ?? null);
    } else {
      put(card, name, value);
    }
  }
  for (const [partName, part] of parts) {
    put(card, partName, null);
    if (part !== null) {
      const name = partName.slice(0, -SUFFIX.length);
      const before = own(card, name);
      put(card, name, typeof before === "string" ? before + part : part);
    }
  }
  return card;
}

/** Apply `chunk.patch` patches, each [path, op, value], to the caller's own document; returns it. */
export function applyPatches(document, patches) {
  const root = [document];
  for (const [path, op, value] of patches) {
    let container = root;
    let slot = 0;
    for (const step of path) {
      container = own(container, slot);
      slot = step;
    }
    put(container, slot, op === "append" ? own(container, slot) + value : structuredClone(value));
  }
  return root[0];
}

const ENDS = {
  "message.completed": "completed",
  "message.failed": "failed",
  "message.stopped": "stopped",
};

/**
 * Reduces a chat's events, in the order of their `seq`, to `messages` in the shape of a snapshot.
 *
 * `apply` returns what it changed, so that a page redraws only that:
 * {all: true}, {message}, {message, chunk} or null.
 */
export class ChatView {
  messages = [];
  #messages = new Map();
  #chunks = new Map();

  apply(event) {
    const { type, data } = event;
    if (type === "snapshot") {
      this.#restart(structuredClone(data.messages));
      return { all: true };
    }
    if (event.chunk) {
      return this.#applyToChunk(event, type, data);
    }
    return event.message ? this.#applyToMessage(event.message, type, data) : null;
  }

  message(id) {
    return this.#messages.get(id);
  }

  chunk(id) {
    return this.#chunks.get(id);
  }

  #restart(messages) {
    this.messages = messages;
    this.#messages = new Map(messages.map((message) => [message.message, message]));
    this.#chunks = new Map(
      messages.flatMap((message) => message.chunks.map((chunk) => [chunk.chunk, chunk])),
    );
  }

  #applyToMessage(id, type, data) {
    if (type === "message.started") {
      const message = {
        message: id,
        role: data.role,
        metadata: data.metadata,
        status: "open",
        finish_reason: null,
        usage: null,
        error: null,
        stop_reason: null,
        annotations: [],
        chunks: [],
      };
      this.messages.push(message);
      this.#messages.set(id, message);
      return { message: id };
    }
    const message = this.#messages.get(id);
    if (!message) {
      return null;
    }
    if (type === "message.annotated") {
      message.annotations.push({ name: data.name, data: data.data });
    } else if (type === "message.replaced") {
      this.#restart(this.messages.filter((other) => !data.messages.includes(other.message)));
      return { all: true };
    } else if (Object.hasOwn(ENDS, type)) {
      message.status = ENDS[type];
      if (type === "message.completed") {
        message.finish_reason = data.finish_reason;
        message.usage = data.usage;
      } else if (type === "message.failed") {
        message.error = { code: data.code, detail: data.detail };
      } else {
        message.stop_reason = data.reason;
      }
    } else {
      return null;
    }
    return { message: id };
  }

  #applyToChunk(event, type, data) {
    const id = event.chunk;
    if (type === "chunk.started") {
      const chunk = {
        chunk: id,
        kind: data.kind,
        format: data.format,
        status: "open",
        text: "",
        tool_name: data.tool_name,
        tool_call_id: data.tool_call_id,
        section: data.section,
        outputs: {},
      };
      this.#chunks.set(id, chunk);
      this.#messages.get(event.message)?.chunks.push(chunk);
      return { message: event.message, chunk: id };
    }
    const chunk = this.#chunks.get(id);
    if (!chunk) return null;
    switch (type) {
      case "chunk.delta":
        chunk.text += data.text;
        break;
      case "chunk.output":
        put(chunk.outputs, data.processor, growOutput(own(chunk.outputs, data.processor) ?? null, data.output));
        break;
      case "chunk.reset":
        chunk.text = "";
        chunk.outputs = {};
        break;
      case "chunk.completed":
        chunk.status = "completed";
        break;
      case "chunk.failed":
        chunk.status = "failed";
        break;
      default:
        return null;
    }
    return { message: event.message, chunk: id };
  }
}
