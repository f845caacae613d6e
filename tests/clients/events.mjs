// `node events.mjs CLIENT URL LAST`: prints the data of each message that a page with this client would get, each in a
// line as JSON, and ends after the message with the data LAST.

import { createRequire } from "node:module";

const [client, url, last] = process.argv.slice(2);

function message(data) {
  console.log(JSON.stringify(data));
  if (data === last) process.exit();
}

const clients = {
  eventsource: async () => {
    const { EventSource } = await import("eventsource");
    new EventSource(url).onmessage = ({ data }) => message(data);
  },

  "reconnecting-eventsource": async () => {
    const { EventSource: eventSourceClass } = await import("eventsource");
    const { default: ReconnectingEventSource } = await import("reconnecting-eventsource");
    const source = new ReconnectingEventSource(url, { eventSourceClass, max_retry_time: 20 });
    // With `onmessage` in place of a listener, this client does not remember the id.
    source.addEventListener("message", ({ data }) => message(data));
  },

  "event-source-polyfill": async () => {
    const { default: polyfill } = await import("event-source-polyfill");
    new polyfill.EventSourcePolyfill(url).onmessage = ({ data }) => message(data);
  },

  "fetch-event-source": async () => {
    // What this client takes from a page. Node cannot import its modules, but can require them.
    globalThis.window = globalThis;
    globalThis.document = { removeEventListener() {} };
    const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");
    await fetchEventSource(url, {
      openWhenHidden: true,
      onmessage: ({ data }) => message(data),
      onclose: () => {
        throw new Error("the stream has ended: connect again");
      },
    });
  },

  // It parses the data of each message as JSON.
  openai: async () => {
    const { default: OpenAI } = await import("openai");
    const openai = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
    for await (const data of await openai.post("", { stream: true })) message(`${data}`);
  },
};

await clients[client]();
