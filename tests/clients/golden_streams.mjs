// The TypeScript half of golden_streams.py: accumulates the streams of the cases in its arguments, which it gets from
// SERVER_URL, and prints `{case: {message} or {error}}`. NODE_MODULES: where the SDK is.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { default: Anthropic } = require("@anthropic-ai/sdk");

const client = new Anthropic({ baseURL: process.env.SERVER_URL, apiKey: "sk-client", maxRetries: 0, timeout: 30_000 });

async function accumulated(model) {
  const stream = client.messages.stream({ model, max_tokens: 100, messages: [{ role: "user", content: "Hi" }] });
  try {
    return { message: await stream.finalMessage() };
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) return { error: `${error}` };
    return { error: error.error?.error?.type ?? `${error}` };
  }
}

const told = {};
for (const model of process.argv.slice(2)) told[model] = await accumulated(model);
console.log(JSON.stringify(told));
