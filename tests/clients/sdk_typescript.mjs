// The official TypeScript SDK through sparkgap: typed answers, accumulated streams, error classes.
// SPARKGAP_URL: a proxy in front of upstream.py. UPSTREAM_RECORD: the file that holds what the upstream was asked.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { default: Anthropic } = require("@anthropic-ai/sdk");

const client = new Anthropic({ baseURL: process.env.SPARKGAP_URL, apiKey: "sk-client", maxRetries: 0, timeout: 60_000 });
const WEATHER = {
  name: "get_weather",
  description: "The weather of a city",
  input_schema: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer" }, note: { type: "string" } },
    required: ["city"],
  },
};

const ask = (keyword, more = {}) => ({
  model: "claude-sonnet-5-5",
  max_tokens: 1000,
  messages: [{ role: "user", content: `please do ${keyword}` }],
  ...more,
});

const recorded = () => readFileSync(process.env.UPSTREAM_RECORD, "utf8").trim().split("\n").map((line) => JSON.parse(line));

// The same request whole and streamed; they must agree.
async function both(request) {
  const whole = await client.messages.create(request);
  const streamed = await client.messages.stream(request).finalMessage();
  const { id, ...one } = whole;
  // The SDK's own addition, for structured output.
  const { id: otherId, parsed_output: _, ...other } = streamed;
  assert.notEqual(id, otherId);
  assert.deepEqual(plain(other), plain(one));
  return whole;
}

const plain = (value) => JSON.parse(JSON.stringify(value));

async function fails(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("no error");
}

test("text", async () => {
  const message = await both(ask("NOTHING", { system: [{ type: "text", text: "Be brief." }] }));
  assert.equal(message.content[0].text, "Hello from the scripted upstream.");
  assert.deepEqual([message.role, message.model, message.stop_reason], ["assistant", "claude-sonnet-5-5", "end_turn"]);
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 5);
  assert.ok(message._request_id.startsWith("req_"));
  const [one, other] = recorded().slice(-2);
  assert.deepEqual(one.body, other.body);
  assert.ok(!JSON.stringify(one).includes("sk-client"));
});

test("the stream's own events", async () => {
  const texts = [];
  const stream = client.messages.stream(ask("UNICODE")).on("text", (text) => texts.push(text));
  assert.equal(await stream.finalText(), "Grüße, 世界 🙂");
  assert.ok(texts.length > 3 && texts.join("") === "Grüße, 世界 🙂");
  const kinds = [];
  for await (const event of await client.messages.create({ ...ask("UNICODE"), stream: true })) kinds.push(event.type);
  assert.equal(kinds[0], "message_start");
  assert.deepEqual(kinds.slice(-2), ["message_delta", "message_stop"]);
});

test("thinking", async () => {
  const message = await both(ask("THINK", { thinking: { type: "adaptive" } }));
  assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
  assert.equal(message.content[0].thinking, "Six times seven is forty-two.");
  assert.ok(message.content[0].signature);
  const request = ask("THINK", { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 4000 });
  request.messages.push({ role: "assistant", content: message.content }, { role: "user", content: "please do THINK" });
  await both(request);
  const without = await both(ask("THINK", { thinking: { type: "disabled" } }));
  assert.deepEqual(without.content.map((block) => block.type), ["text"]);
});

test("two tools, their results in the other order", async () => {
  const request = ask("CITIES", { tools: [WEATHER], tool_choice: { type: "auto" } });
  const message = await both(request);
  assert.equal(message.stop_reason, "tool_use");
  const calls = message.content.filter((block) => block.type === "tool_use");
  assert.deepEqual(calls.map((call) => call.input), [{ city: "Paris" }, { city: "Oslo", note: 'ä "b"' }]);
  const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: `${call.input.city}!` }));
  request.messages.push({ role: "assistant", content: message.content }, { role: "user", content: results.reverse() });
  const last = await both(request);
  assert.equal(last.content.at(-1).text, "Results: Paris! | Oslo!");
  const { messages } = recorded().at(-1).body;
  assert.deepEqual(messages.map((message) => message.role), ["user", "assistant", "tool", "tool"]);
  assert.deepEqual(messages.slice(2).map((message) => message.tool_call_id), calls.map((call) => call.id));
});

test("cut at the limit, and stopped", async () => {
  assert.equal((await both(ask("LENGTH"))).stop_reason, "max_tokens");
  const stopped = await both(ask("COUNT", { stop_sequences: ["STOP"] }));
  assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ["stop_sequence", "STOP"]);
  assert.equal((await client.messages.stream(ask("CUTCALL", { tools: [WEATHER] })).finalMessage()).stop_reason, "max_tokens");
});

test("half a call is not run", async () => {
  const ran = [];
  const weather = { ...WEATHER, run: (input) => (ran.push(input.city), "Rain"), parse: (input) => input };
  const message = await client.messages.create(ask("HALFWEATHER", { tools: [WEATHER] }));
  assert.deepEqual([message.stop_reason, message.content.map((block) => block.type)], ["max_tokens", ["text"]]);
  assert.equal((await client.messages.stream(ask("HALFWEATHER", { tools: [WEATHER] })).finalMessage()).stop_reason, "max_tokens");
  await client.beta.messages.toolRunner(ask("HALFWEATHER", { tools: [weather] })).runUntilDone();
  const eager = client.beta.messages.toolRunner(ask("HALFWEATHER", { tools: [weather], stream: true, runToolsEagerly: true }));
  for await (const stream of eager) for await (const _ of stream);
  assert.deepEqual(ran, []);
  await client.beta.messages.toolRunner(ask("CITY", { tools: [weather] })).runUntilDone();
  assert.deepEqual(ran, ["Paris"], "the same runner runs a whole one");
});

test("call ids that come again", async () => {
  const request = ask("WEATHERS", { tools: [WEATHER] });
  const shown = [];
  for (let turn = 0; turn < 3; turn++) {
    const { content } = await client.messages.stream(request).finalMessage();
    const { id } = content.find((block) => block.type === "tool_use");
    shown.push(id);
    request.messages.push({ role: "assistant", content }, { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: "Rain" }] });
  }
  await client.messages.create(request);
  assert.equal(new Set(shown).size, 3);
  const { messages } = recorded().at(-1).body;
  assert.deepEqual(messages.filter((message) => message.role === "tool").map((message) => message.tool_call_id), Array(3).fill("call_0"));
});

test("error classes", async () => {
  for (const [keyword, kind, status, name] of [
    ["BAD", Anthropic.BadRequestError, 400, "invalid_request_error"],
    ["OVERFLOW", Anthropic.BadRequestError, 400, "invalid_request_error"],
    ["MISSING", Anthropic.NotFoundError, 404, "not_found_error"],
    ["KEY", Anthropic.InternalServerError, 502, "api_error"],
    ["BUSY", Anthropic.InternalServerError, 529, "overloaded_error"],
  ]) {
    for (const stream of [false, true]) {
      const error = await fails(client.messages.create({ ...ask(keyword), stream }));
      assert.ok(error instanceof kind, `${keyword}: ${error}`);
      assert.deepEqual([error.status, error.error.error.type], [status, name]);
      assert.ok(error.requestID.startsWith("req_") && error.requestID === error.error.request_id);
    }
  }
  const error = await fails(client.messages.create({ ...ask("NOTHING"), messages: [] }));
  assert.equal(error.error.error.message, "messages: at least one message is required");
});

test("an error in mid-stream is thrown", async () => {
  for (const keyword of ["MIDERROR", "CUT"]) {
    const texts = [];
    const error = await fails(client.messages.stream(ask(keyword)).on("text", (text) => texts.push(text)).finalMessage());
    assert.ok(error instanceof Anthropic.APIError, `${keyword}: ${error}`);
    assert.equal(texts.join(""), "Half an");
  }
});

test("a stream that is aborted", async () => {
  const stream = client.messages.stream(ask("THINK", { thinking: { type: "adaptive" } }));
  stream.on("thinking", () => stream.abort());
  const error = await fails(stream.finalMessage());
  assert.ok(error instanceof Anthropic.APIUserAbortError, `${error}`);
  assert.equal((await client.messages.create(ask("NOTHING"))).stop_reason, "end_turn");
});

test("many at a time", async () => {
  const answers = await Promise.all(Array.from({ length: 30 }, () => client.messages.stream(ask("NOTHING")).finalMessage()));
  assert.equal(new Set(answers.map((message) => message.id)).size, 30);
});
