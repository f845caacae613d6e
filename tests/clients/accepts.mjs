// `node accepts.mjs CLIENT URL`: asks with what this client accepts by default, and prints what type of content comes.

import axios from "axios";
import OpenAI from "openai";

const [client, url] = process.argv.slice(2);

const clients = {
  axios: async () => {
    const response = await axios.get(url, { responseType: "stream" });
    return response.headers["content-type"];
  },
  fetch: async () => (await fetch(url)).headers.get("content-type"),
  openai: async () => {
    const openai = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const { response } = await openai.post("", { stream: true }).withResponse();
    return response.headers.get("content-type");
  },
};

console.log(await clients[client]());
process.exit();
