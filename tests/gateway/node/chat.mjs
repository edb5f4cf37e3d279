// The real client of the AI SDK against a gateway: node chat.mjs URL SCENARIO CHAT, JSON on stdout.
// `Chat` is what `useChat` drives: AbstractChat with a state that is plain instead of React's.
import { AbstractChat, DefaultChatTransport, readUIMessageStream } from "ai";

const [, , url, scenario, chatId] = process.argv;
const transport = () => new DefaultChatTransport({ api: `${url}/api/chat` });

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => (this.messages = [...this.messages, message]);
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    (this.messages = this.messages.with(index, structuredClone(message)));
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {
  constructor(messages = []) {
    const state = new State();
    state.messages = messages;
    const ends = [];
    const onFinish = ({ isAbort, isDisconnect, isError }) =>
      ends.push({ isAbort, isDisconnect, isError });
    super({ id: chatId, state, transport: transport(), onFinish });
    this.ends = ends;
  }

  get outcome() {
    return {
      status: this.status,
      error: this.error?.message ?? null,
      messages: this.messages,
      ends: this.ends,
    };
  }
}

const until = async (condition) => {
  for (const end = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`not in time: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const ask = (text) => ({ id: "prompt-1", role: "user", parts: [{ type: "text", text }] });
const textOf = (chat) =>
  (chat.lastMessage?.parts ?? []).filter(({ type }) => type === "text").map(({ text }) => text).join("");
const stopOnTheServer = () => fetch(`${url}/api/chat/${chatId}/stop`, { method: "POST" });

/** The last state of the message that a stream folds to. */
async function fold(stream) {
  let last = null;
  const onError = (error) => {
    throw error;
  };
  for await (const message of readUIMessageStream({ stream, onError })) last = message;
  return last;
}

const send = (text, abortSignal) =>
  transport().sendMessages({
    chatId,
    messages: [ask(text)],
    trigger: "submit-message",
    messageId: undefined,
    abortSignal,
  });

const scenarios = {
  async turn() {
    const types = new Set();
    const [read, seen] = (await send("How are sales?")).tee();
    const message = await fold(read);
    for await (const { type } of seen) types.add(type);
    return { message, types: [...types].sort() };
  },

  async reconnect() {
    const leaving = new AbortController();
    let seen = 0;
    try {
      for await (const { type } of await send("How are sales?", leaving.signal)) {
        if (type === "tool-input-delta" && ++seen === 5) leaving.abort();
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
    const message = await fold(await transport().reconnectToStream({ chatId }));
    const after = await fold(await transport().reconnectToStream({ chatId }));
    const { messages } = await (await fetch(`${url}/api/chat/${chatId}`)).json();
    return { seen, message, after, loaded: messages.at(-1) };
  },

  async chat() {
    const chat = new Chat();
    await chat.sendMessage({ text: "One" });
    await chat.sendMessage({ text: "HISTORY" });
    const second = chat.lastMessage;
    await chat.regenerate();
    const { outcome } = chat;
    await chat.resumeStream();
    return { second, outcome, afterResume: chat.outcome };
  },

  async stop() {
    const first = new Chat();
    const sending = first.sendMessage({ text: "Some words HANG" });
    await until(() => textOf(first) === "Some words ");
    await first.stop(); // only hangs up
    await sending;
    const second = new Chat(first.messages);
    const resuming = second.resumeStream();
    await until(() => second.status === "streaming" && textOf(second) === "Some words ");
    await stopOnTheServer();
    await resuming;
    const third = new Chat(second.messages);
    await third.resumeStream();
    return { first: first.outcome, second: second.outcome, third: third.outcome };
  },

  async cut() {
    const chat = new Chat();
    await chat.sendMessage({ text: "Some words HANG" });
    return { outcome: chat.outcome };
  },

  async error() {
    const chat = new Chat();
    await chat.sendMessage({ text: "Words FAIL" });
    return { outcome: chat.outcome };
  },
};

process.stdout.write(JSON.stringify(await scenarios[scenario]()));
