// `node chat.mjs URL`: asks with the official client, as a stream, as one answer, and wrongly.

import OpenAI from "openai";

const openai = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const question = { model: "parrot", messages: [{ role: "user", content: "What is that?" }] };

let tokens = 0;
let text = "";
for await (const chunk of await openai.chat.completions.create({ ...question, stream: true })) {
  const { delta, finish_reason } = chunk.choices[0];
  text += delta.content ?? "";
  tokens++;
  if (finish_reason === "stop") console.log(tokens > 50 ? "streamed" : tokens);
}

const whole = await openai.chat.completions.create(question);
console.log(whole.choices[0].message.content === text ? "the same" : text);

try {
  await openai.chat.completions.create({ ...question, messages: [] });
} catch (error) {
  console.log(error.message);
}
