// OpenAI's TypeScript library through sparkgap. SPARKGAP_URL: a proxy in front of openai_upstream.py.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { default: OpenAI } = require("openai");

const client = new OpenAI({ baseURL: `${process.env.SPARKGAP_URL}/v1`, apiKey: "sk-any", maxRetries: 0, timeout: 60_000 });
const TEXT = "Hello from the scripted upstream.";
const messages = [{ role: "user", content: "Hi" }];

async function fails(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("no error");
}

test("a chat completion, whole and streamed", async () => {
  const whole = await client.chat.completions.create({ model: "gpt-5.2", messages });
  assert.equal(whole.choices[0].message.content, TEXT);
  assert.ok(whole._request_id.startsWith("req_"));
  const stream = await client.chat.completions.create({ model: "gpt-5.2", messages, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text.trim(), TEXT);
});

test("a response, whole, streamed and continued", async () => {
  const first = await client.responses.create({ model: "gpt-5.2", input: "Hi" });
  assert.equal(first.output_text, TEXT);
  const stream = client.responses.stream({ model: "gpt-5.2", input: "on", previous_response_id: first.id });
  const last = await stream.finalResponse();
  assert.equal(last.output_text, TEXT);
  assert.equal(last.previous_response_id, first.id);
});

test("embeddings", async () => {
  const { data } = await client.embeddings.create({ model: "bge", input: ["a", "b"] });
  assert.deepEqual(data.map((one) => [...one.embedding]), [[1, -0.5], [1, -0.5]]);
});

test("errors", async () => {
  const refused = await fails(client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "please refuse" }] }));
  assert.ok(refused instanceof OpenAI.BadRequestError && refused.message.includes("top_p must be in"), refused);
  const missing = await fails(client.completions.create({ model: "m", prompt: "x" }));
  assert.ok(missing instanceof OpenAI.NotFoundError && missing.message.includes("does not serve /v1/completions"), missing);
});

test("a client that leaves", async () => {
  const stream = await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "please hang" }], stream: true });
  for await (const _ of stream) break;
});
