// `node finite.mjs CLIENT URL COUNT`: reads the finite stream at URL this often, one request after the other over the
// client's pool of connections, and prints how many came whole: up to the data `[DONE]`.

import http from "node:http";
import { text } from "node:stream/consumers";

import axios from "axios";
import OpenAI from "openai";

const [client, url, count] = process.argv.slice(2);
const httpAgent = new http.Agent({ keepAlive: true });

const clients = {
  "node:http": () =>
    new Promise((resolve, reject) => {
      const request = http.get(url, { agent: httpAgent }, (response) => resolve(text(response)));
      request.on("error", reject);
    }),

  axios: async () => (await axios.get(url, { httpAgent })).data,

  // A call that fails is tried again by default: not here, where each failure counts.
  openai: async () => {
    const openai = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const messages = [{ role: "user", content: "hello" }];
    const chunks = await openai.chat.completions.create({ model: "test", messages, stream: true });
    let finished = false;
    for await (const chunk of chunks) finished = chunk.choices[0].finish_reason === "stop";
    return finished ? "[DONE]" : "";
  },
};

let whole = 0;
for (let i = 0; i < count; i++) {
  try {
    if ((await clients[client]()).includes("[DONE]")) whole++;
  } catch (error) {
    console.error(`${client}: ${error.code ?? error.message}`);
  }
}
console.log(`${whole} of ${count}`);
