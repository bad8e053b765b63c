// The live page. `ui/events` feeds it: one JSON object a second. Texts of clients are inserted as text only.
"use strict";

// As many finished requests as the server keeps.
const ROWS_MAX = 1000;
// The time that the charts show, at least and at most, and the width of one of their points.
const SPAN_MIN_S = 120;
const SPAN_S = 600;
const POINT_S = 5;
// The most turns of a conversation, and the most conversations, that are drawn.
const TURNS_MAX = 60;
const TALKS_MAX = 60;
const RETRY_MS = 2000;

const $ = (id) => document.getElementById(id);
const state = { run: "", after: 0, boxes: [], active: [], totals: {}, rows: [], connect: [], view: "boxes", skew: 0 };

// ---- Elements and texts

function el(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Sets a text only where it changed, so that a selection of the reader stays.
function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

const grouped = new Intl.NumberFormat("en-US");
const count = (n) => (n === null || n === undefined ? "–" : grouped.format(n));
function tokens(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1000) return String(Math.round(n));
  return n < 1e6 ? `${(n / 1000).toFixed(n < 1e4 ? 1 : 0)}k` : `${(n / 1e6).toFixed(n < 1e7 ? 2 : 1)}M`;
}
function seconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60000)} m ${Math.floor((ms % 60000) / 1000)} s`;
}
function age(s) {
  if (s < 60) return `${s} s`;
  return s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
}
const percent = (share) => (Number.isFinite(share) ? `${Math.round(share * 100)} %` : "–");
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const who = (row) => row.user || row.client;
const short = (name) => (name ? (name.length > 14 ? `${name.slice(0, 8).replace(/-$/, "")}…` : name) : "–");
const LANES = ["person", "agent", "background"];
const PHASES = { body: "sending", hook: "preparing", queue: "queued", connect: "connecting", head: "reading", stream: "writing", whole: "writing", unread: "unread" };
const median = (list) => (list.length ? list.sort((a, b) => a - b)[list.length >> 1] : null);

// ---- The facts that views share

function outcome(row) {
  if (row.status === 499) return "cancelled";
  return row.error || row.status >= 400 ? "error" : "ok";
}
const isLost = (row) => Boolean(row.prefix && row.prefix.cause && row.prefix.cause !== "not_reported");
const now = () => Date.now() + state.skew;
const recent = (box, ms) => state.rows.filter((row) => row.upstream === box && row.end > now() - ms);

// The rows are kept with the newest last; times become numbers once.
function keep(row) {
  row.start = Date.parse(row.time);
  row.end = row.start + row.total_ms;
  row.outcome = outcome(row);
  row.words = [row.request_id, row.session, row.agent, row.model, row.upstream_model, row.upstream, row.user, row.client, row.error]
    .filter(Boolean).join(" ").toLowerCase();
  state.rows.push(row);
}

// The prompt tokens that a box reads in a second, by its last answers.
function readSpeed(box) {
  const speeds = [];
  for (let i = state.rows.length - 1; i >= 0 && speeds.length < 15; i--) {
    const row = state.rows[i];
    const took = row.first_byte_ms - row.sent_ms;
    if (row.upstream === box && row.new_tokens > 200 && row.first_byte_ms && took > 0) speeds.push((row.new_tokens * 1000) / took);
  }
  return median(speeds);
}

function windowOf(box, model) {
  const found = state.boxes.find((one) => one.name === box);
  return found?.models.find((one) => one.id === model)?.window ?? null;
}

// ---- Keyed lists: a node stays while its key does

function sync(parent, items, keyOf, make, update) {
  const old = parent.nodes || new Map();
  const fresh = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (fresh.has(key)) continue;
    const node = old.get(key) || make(item);
    fresh.set(key, node);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    update(node, item);
  }
  for (const [key, node] of old) if (!fresh.has(key)) node.remove();
  parent.nodes = fresh;
}

function cells(tr, names) {
  tr.fields = names.map((name) => {
    const td = el("td", { "data-name": name });
    if (name.startsWith("#")) {
      td.dataset.name = name.slice(1);
      td.className = "n";
    }
    tr.append(td);
    return td;
  });
  return tr;
}

// ---- Boxes

function strip() {
  const minute = state.rows.filter((row) => row.end > now() - 60000);
  const prompt = minute.reduce((sum, row) => sum + row.input_tokens, 0);
  const cached = minute.reduce((sum, row) => sum + row.cached_tokens, 0);
  const first = median(minute.filter((row) => row.first_byte_ms).map((row) => row.first_byte_ms));
  const queued = state.active.filter((row) => row.phase === "queue").length;
  const items = [
    ["in progress", count(state.active.length)], ["queued", count(queued)], ["requests, last minute", count(minute.length)],
    ["first token", seconds(first)], ["prompt cached", percent(cached / prompt)], ["requests in all", count(state.totals.requests)],
  ];
  sync($("strip"), items, ([name]) => name, ([name]) => el("div", {}, el("b"), el("span", { textContent: name })),
    (node, [, value]) => text(node.firstChild, value));
}

// Tokens a second: each answer's tokens, spread over the time in which they were written, or their prompt was read.
function flow(box) {
  const last = Math.floor(now() / 1000 / POINT_S) * POINT_S;
  const known = last - (state.rows[0]?.start ?? Infinity) / 1000;
  const size = Math.ceil(Math.min(SPAN_S, Math.max(SPAN_MIN_S, known)) / POINT_S);
  const times = Array.from({ length: size }, (_, i) => last - (size - i - 1) * POINT_S);
  const [written, read] = [new Array(size).fill(0), new Array(size).fill(0)];
  const spread = (into, from, to, amount) => {
    const length = Math.max(to - from, 1);
    const begin = times[0] * 1000 - POINT_S * 1000;
    for (let i = Math.max(0, Math.floor((from - begin) / 1000 / POINT_S)); i < size; i++) {
      const start = begin + i * POINT_S * 1000;
      const overlap = Math.min(to, start + POINT_S * 1000) - Math.max(from, start);
      if (start > to) break;
      if (overlap >= 0) into[i] += (amount * Math.max(overlap, length === 1 ? 1 : 0)) / length / POINT_S;
    }
  };
  for (const row of state.rows) {
    if (row.upstream !== box || row.first_byte_ms === null || row.end < times[0] * 1000) continue;
    spread(written, row.start + row.first_byte_ms, row.end, row.output_tokens);
    if (row.sent_ms !== null) spread(read, row.start + row.sent_ms, row.start + row.first_byte_ms, row.new_tokens);
  }
  return [times, written, read];
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function chart(card, data) {
  const dim = colour("--dim");
  const line = colour("--line");
  const axis = { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const short = (_, values) => values.map((value) => tokens(value));
  const options = {
    width: Math.max(card.plot.clientWidth, 200), height: 150, legend: { show: false }, cursor: { y: false, drag: { x: false } },
    padding: [8, 4, 0, 4],
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(10, high * 1.15)] }, read: { range: (_, low, high) => [0, Math.max(100, high * 1.15)] } },
    series: [
      {},
      { stroke: colour("--write"), fill: `${colour("--write")}33`, width: 2, scale: "y", points: { show: false } },
      { stroke: colour("--new"), width: 1.5, scale: "read", points: { show: false } },
    ],
    axes: [
      { ...axis, size: 26, space: 70, values: (_, values) => values.map((value) => clock(value * 1000).slice(0, value % 60 ? 8 : 5)) },
      { ...axis, scale: "y", size: 36, values: short, space: 32 },
      { ...axis, scale: "read", side: 1, size: 40, values: short, grid: { show: false }, space: 32 },
    ],
    hooks: { setCursor: [(plot) => values(card, plot.cursor.idx)] },
  };
  return new uPlot(options, data, card.plot);
}

// The values beside the legend: those under the pointer, else the last whole point.
function values(card, at) {
  const data = card.data;
  if (!data) return;
  const i = at ?? data[0].length - 2;
  text(card.written, `${Math.round(data[1][i])}/s`);
  text(card.read, `${tokens(data[2][i])}/s`);
}

function makeBox() {
  const card = el("article", { class: "card" });
  card.name = el("h2");
  card.state = el("span");
  card.sub = el("p", { class: "sub" });
  card.why = el("p", { class: "why" });
  card.facts = el("div", { class: "facts", title: "Speeds and times are medians of the last 5 minutes." });
  card.fill = el("i");
  card.fillText = el("span");
  card.kv = el("div", { class: "labelled" }, el("span", { textContent: "cache in use" }), el("div", { class: "bar" }, card.fill), card.fillText);
  card.plot = el("div", { class: "chart" });
  card.written = el("span", { class: "value" });
  card.read = el("span", { class: "value" });
  card.append(el("div", { class: "head" }, card.name, card.state), card.sub, card.why, card.facts, card.kv,
    el("p", { class: "legend" }, el("i", { class: "write" }), "written", card.written, el("i", { class: "new" }), "prompt read", card.read), card.plot);
  return card;
}

function updateBox(card, box) {
  const member = box.member;
  text(card.name, box.name);
  card.state.className = `pill ${box.state}`;
  text(card.state, box.state);
  const models = box.models.map((model) => `${model.id}${model.window ? ` (${tokens(model.window)})` : ""}`).join(", ");
  text(card.sub, `${box.kind}${models ? ` · ${models}` : ""}${member ? ` · ${box.state} for ${age(member.for_seconds)}` : ""}`);
  text(card.why, box.why || "");
  const rows = recent(box.name, 300000);
  const prompt = rows.reduce((sum, row) => sum + row.input_tokens, 0);
  const cached = rows.reduce((sum, row) => sum + row.cached_tokens, 0);
  const first = median(rows.filter((row) => row.first_byte_ms).map((row) => row.first_byte_ms - (row.sent_ms ?? 0)));
  const speed = median(rows.filter((row) => row.tokens_per_second).map((row) => row.tokens_per_second));
  const mine = state.active.filter((row) => row.upstream === box.name);
  const running = member ? member.in_flight : mine.filter((row) => row.phase !== "queue").length;
  const waiting = member ? member.waiting : [0, 1, 2].map((lane) => mine.filter((row) => row.phase === "queue" && row.lane === lane).length);
  const queued = waiting.reduce((sum, n) => sum + n, 0);
  const facts = [
    ["running", member?.max_in_flight ? `${running} / ${member.max_in_flight}` : count(running)],
    [queued ? `queued: ${waiting.map((n, lane) => (n ? `${n} ${LANES[lane]}` : "")).filter(Boolean).join(", ")}` : "queued", count(queued)],
    ["first token", seconds(first)],
    ["tokens/s", speed === null ? "–" : speed.toFixed(speed < 10 ? 1 : 0)],
    ["prompt cached", percent(cached / prompt)],
    ["read/s", tokens(readSpeed(box.name))],
    ["requests", count(rows.length)],
    ["failed", count(rows.filter((row) => row.outcome === "error").length)],
  ];
  sync(card.facts, facts.map((fact, i) => [i, ...fact]), ([i]) => i, () => el("div", {}, el("b"), el("span")), (node, [, name, value]) => {
    text(node.firstChild, value);
    text(node.lastChild, name);
  });
  const use = member?.load?.cache_use;
  card.kv.hidden = use === null || use === undefined;
  if (!card.kv.hidden) {
    card.fill.style.width = `${Math.min(100, use * 100)}%`;
    card.fill.className = use > 0.95 ? "hot" : "";
    text(card.fillText, percent(use));
  }
  card.data = flow(box.name);
  const width = card.plot.clientWidth;
  const scheme = matchMedia("(prefers-color-scheme: dark)").matches;
  if (card.uplot && card.scheme !== scheme) {
    card.uplot.destroy();
    card.uplot = null;
  }
  if (!card.uplot && width) {
    card.uplot = chart(card, card.data);
    card.scheme = scheme;
  } else if (card.uplot) {
    if (width && card.uplot.width !== width) card.uplot.setSize({ width, height: 150 });
    card.uplot.setData(card.data);
  }
  values(card, card.uplot?.cursor.idx);
}

function boxes() {
  strip();
  sync($("box-list"), state.boxes, (box) => box.name, makeBox, updateBox);
}

// ---- Now

function progress(row) {
  if (row.first_byte_ms !== null) return ["write", 1, `first token after ${seconds(row.first_byte_ms)}`];
  if (!["head", "stream", "whole"].includes(row.phase)) return ["", 0, ""];
  const speed = readSpeed(row.upstream);
  const reading = row.total_ms - (row.sent_ms ?? row.received_ms ?? 0);
  if (!speed || !row.prompt_estimate) return ["read", 0, seconds(reading)];
  // Most of a turn's prompt is cached, so the share of the same conversation's last turn is taken.
  const before = state.rows.findLast((old) => old.session && old.session === row.session && old.agent === row.agent && old.upstream === row.upstream);
  const share = before && before.input_tokens ? before.cached_tokens / before.input_tokens : 0;
  const estimate = (row.prompt_estimate * (1 - share) * 1000) / speed;
  return ["read", Math.min(1, reading / estimate), `about ${seconds(Math.max(0, estimate - reading))} left to read`];
}

function showNow() {
  $("now-empty").hidden = state.active.length > 0;
  $("now-table").hidden = state.active.length === 0;
  const names = ["Phase", "Who", "Session", "Model", "Box", "Lane", "#Prompt", "#Time", "Progress"];
  const make = () => {
    const tr = cells(el("tr"), names);
    tr.pill = el("span", { class: "pill" });
    tr.fill = el("i");
    tr.note = el("span");
    tr.fields[0].append(tr.pill);
    tr.fields[8].append(el("div", { class: "labelled" }, el("div", { class: "bar" }, tr.fill), tr.note));
    return tr;
  };
  sync($("now-table").tBodies[0], state.active, (row) => row.request_id, make, (tr, row) => {
    const [kind, share, note] = progress(row);
    // Servers send the head of an answer before they have read the prompt.
    const phase = row.first_byte_ms === null && (row.phase === "stream" || row.phase === "whole") ? "head" : row.phase;
    tr.pill.className = `pill ${{ queue: "full", head: "read", stream: "well", whole: "well", unread: "out" }[phase] || ""}`;
    text(tr.pill, PHASES[phase] || phase);
    const shown = [null, who(row), short(row.session), row.model, row.upstream || "–", LANES[row.lane] || String(row.lane), tokens(row.prompt_estimate || null), seconds(row.total_ms)];
    shown.forEach((value, i) => value !== null && text(tr.fields[i], value));
    tr.fields[2].title = row.session || "";
    tr.fill.className = kind;
    tr.fill.style.width = `${share * 100}%`;
    text(tr.note, note);
  });
}

// ---- Conversations

function talks() {
  const found = new Map();
  for (const row of state.rows) {
    if (!row.session || !row.input_tokens) continue;
    const key = `${row.session}\n${row.agent || ""}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  return [...found].map(([key, rows]) => ({ key, rows, last: rows[rows.length - 1] }))
    .sort((a, b) => b.last.end - a.last.end).slice(0, TALKS_MAX);
}

function conversations() {
  const list = talks();
  $("talk-empty").hidden = list.length > 0;
  const make = () => {
    const card = el("article", { class: "card" });
    card.name = el("h2");
    card.right = el("span", { class: "sub" });
    card.sub = el("p", { class: "sub" });
    card.fill = el("i");
    card.note = el("span");
    card.turns = el("div", { class: "turns" });
    card.causes = el("p", { class: "causes" });
    card.append(el("div", { class: "head" }, card.name, card.right), card.sub,
      el("div", { class: "labelled" }, el("span", { textContent: "context" }), el("div", { class: "bar" }, card.fill), card.note), card.turns, card.causes);
    return card;
  };
  sync($("talk-list"), list, (talk) => talk.key, make, (card, { rows, last }) => {
    text(card.name, last.agent ? `${short(last.session)} › ${short(last.agent)}` : short(last.session));
    card.name.title = last.session;
    text(card.right, clock(last.end));
    text(card.sub, `${who(last)} · ${last.model} · ${last.upstream} · ${rows.length} turn${rows.length > 1 ? "s" : ""}`);
    const used = last.input_tokens + last.output_tokens;
    const size = windowOf(last.upstream, last.upstream_model);
    card.fill.style.width = size ? `${Math.min(100, (used / size) * 100)}%` : "0";
    card.fill.className = size && used / size > 0.85 ? "hot" : "";
    text(card.note, size ? `${tokens(used)} of ${tokens(size)}` : tokens(used));
    const shown = rows.slice(-TURNS_MAX);
    const most = Math.max(...shown.map((row) => row.input_tokens), 1);
    sync(card.turns, shown, (row) => row.number, (row) => {
      const label = `${clock(row.start)}: ${tokens(row.cached_tokens)} cached, ${tokens(row.new_tokens)} new${isLost(row) ? `, prefix lost: ${row.prefix.cause}` : ""}`;
      const bar = el("button", { title: label, "aria-label": label, onclick: () => open(row) });
      bar.append(el("i", { class: isLost(row) ? "lost" : "new" }), el("i", { class: "cached" }));
      return bar;
    }, (bar, row) => {
      bar.firstChild.style.height = `${(row.new_tokens / most) * 100}%`;
      bar.lastChild.style.height = `${(row.cached_tokens / most) * 100}%`;
    });
    const miss = rows.findLast(isLost);
    text(card.causes, miss ? `prefix lost at ${clock(miss.start)}: ${tokens(miss.prefix.lost)} tokens, ${miss.prefix.cause}${miss.prefix.at ? ` (${miss.prefix.at})` : ""}` : "");
  });
}

// ---- Requests

const filter = { text: "", box: "", outcome: "", slow: 0 };
let drawn = 0;

function passes(row) {
  if (filter.box && row.upstream !== filter.box) return false;
  if (filter.outcome === "lost" ? !isLost(row) : filter.outcome && row.outcome !== filter.outcome) return false;
  return row.total_ms >= filter.slow && row.words.includes(filter.text);
}

function bar(share) {
  const fill = el("i");
  fill.style.width = `${share * 100}%`;
  return el("div", { class: "labelled" }, el("div", { class: "bar" }, fill), el("span", { textContent: percent(share) }));
}

function requestRow(row) {
  const names = ["Time", "Who", "Session", "Model", "Box", "#Prompt", "Cached", "#Output", "#First", "#Total", "#Tokens/s", "End"];
  const tr = cells(el("tr", { tabIndex: 0, onclick: () => open(row) }), names);
  const end = row.outcome === "ok" ? row.stop_reason || String(row.status) : row.outcome === "cancelled" ? "client left" : String(row.status);
  [clock(row.start), who(row), short(row.session), row.model, row.upstream || "–", tokens(row.input_tokens || null), null, tokens(row.output_tokens || null),
    seconds(row.first_byte_ms), seconds(row.total_ms), row.tokens_per_second ? String(row.tokens_per_second) : "–", null,
  ].forEach((value, i) => value !== null && (tr.fields[i].textContent = value));
  tr.fields[2].title = row.session || "";
  if (row.input_tokens) tr.fields[6].append(bar(row.cached_tokens / row.input_tokens));
  tr.fields[11].append(el("span", { class: row.outcome === "error" ? "bad" : isLost(row) ? "full" : "", textContent: isLost(row) && row.outcome === "ok" ? "prefix lost" : end, title: row.error || end }));
  tr.row = row;
  return tr;
}

// Rows never change, so each is made once; the newest comes first.
function requests() {
  const body = $("request-table").tBodies[0];
  const fresh = state.rows.filter((row) => row.number > drawn);
  const made = document.createDocumentFragment();
  for (const row of fresh.reverse()) {
    const tr = requestRow(row);
    tr.hidden = !passes(row);
    made.append(tr);
  }
  if (fresh.length) {
    drawn = fresh[0].number;
    body.prepend(made);
  }
  while (body.rows.length > ROWS_MAX) body.lastChild.remove();
  const hidden = body.querySelectorAll("tr[hidden]").length;
  text($("f-count"), `${count(body.rows.length - hidden)} of ${count(body.rows.length)}`);
  const select = $("f-box");
  const names = [...new Set([...state.boxes.map((box) => box.name), filter.box].filter(Boolean))];
  if (select.options.length !== names.length + 1) {
    select.replaceChildren(el("option", { value: "", textContent: "all" }), ...names.map((name) => el("option", { value: name, textContent: name })));
    select.value = filter.box;
  }
}

function refilter() {
  Object.assign(filter, { text: $("f-text").value.trim().toLowerCase(), box: $("f-box").value, outcome: $("f-outcome").value, slow: Number($("f-slow").value) });
  for (const tr of $("request-table").tBodies[0].rows) tr.hidden = !passes(tr.row);
  requests();
}

// ---- One request

function phases(row) {
  const total = Math.max(row.total_ms, 1);
  const received = Math.min(row.received_ms ?? 0, total);
  const sent = row.sent_ms ?? total;
  const first = row.first_byte_ms ?? total;
  const queue = row.queue_ms ?? 0;
  const connect = row.connect_ms ?? 0;
  const own = Math.max(0, sent - received - queue - connect);
  const list = [["body", "client's body", 0, received], ["queue", "queue", received, queue]];
  if (row.sent_ms === null) return [...list, ["own", "until the end", received + queue, Math.max(0, total - received - queue)]];
  return [...list, ["connect", "connect", received + queue, connect], ["own", "sparkgap", received + queue + connect, own],
    ["read", "reading the prompt", sent, Math.max(0, first - sent)], ["write", "writing the answer", first, Math.max(0, total - first)]];
}

function waterfall(row) {
  const total = Math.max(row.total_ms, 1);
  const fall = el("div", { class: "fall" });
  for (const [kind, name, start, length] of phases(row)) {
    const mark = el("i", { class: `p-${kind}` });
    mark.style.left = `${Math.min(99.5, (start / total) * 100)}%`;
    mark.style.width = `${Math.min(100 - (start / total) * 100, (length / total) * 100)}%`;
    fall.append(el("span", { textContent: name }), el("div", { class: "track" }, length > 0 ? mark : null), el("span", { class: "n", textContent: seconds(length) }));
  }
  return fall;
}

function facts(pairs) {
  const list = el("dl");
  for (const [name, value] of pairs) {
    if (value !== null && value !== undefined && value !== "" && value !== 0 && value !== false) list.append(el("dt", { textContent: name }), el("dd", { textContent: String(value) }));
  }
  return list;
}

// The facts that stand elsewhere in the dialog, or are this page's own.
const TITLES = ["request_id", "error", "prefix", "start", "end", "words", "outcome", "number", "input_tokens", "cached_tokens", "new_tokens", "output_tokens", "tokens_per_second"];

// The parts of a recording, by their names in `ui/recording`. Each is asked for when it is opened.
const PARTS = [["client_body", "Client's body"], ["hook_changes", "Changes by hooks"], ["upstream_body", "Upstream's body"],
  ["difference", "Difference to the turn before"], ["upstream_answer", "Upstream's answer"], ["client_answer", "Client's answer"]];

function recorded(id, [part, title]) {
  // Only the notes are announced: a screen reader need not read a whole body aloud.
  const place = { notes: el("div", { role: "status" }), text: el("div"), isDone: false };
  const details = el("details", {}, el("summary", { textContent: title }), place.notes, place.text);
  // One that failed is asked for again when it is opened again.
  details.addEventListener("toggle", () => details.open && !place.isDone && load(id, part, title, place));
  return details;
}

async function load(id, part, title, place) {
  const note = (name, ...words) => place.notes.replaceChildren(...words.map((textContent) => el("p", { class: name, textContent })));
  note("note", "loading");
  try {
    const answer = await fetch(`ui/recording/${encodeURIComponent(id)}?part=${part}`, { cache: "no-store" });
    if (answer.status === 401) return ask();
    const told = await answer.json();
    if (!answer.ok) return note("why", told.error.message);
    const lines = el("pre", { tabIndex: 0, role: "region", "aria-label": title });
    if (part === "difference" || part === "hook_changes") {
      for (const line of told.text.split(/(?<=\n)/)) lines.append(line[0] === "-" || line[0] === "+" ? el("span", { class: line[0] === "-" ? "gone" : "added", textContent: line }) : line);
    } else lines.textContent = told.text;
    place.isDone = true;
    place.text.replaceChildren(...(told.text ? [lines] : []));
    note("note", ...told.notes);
  } catch {
    note("why", "The server cannot be reached.");
  }
}

function open(row) {
  text($("detail-title"), row.request_id);
  const body = $("detail-body");
  body.replaceChildren();
  if (row.error) body.append(el("p", { class: "why", textContent: row.error }));
  body.append(el("h3", { textContent: `${seconds(row.total_ms)} from ${clock(row.start)}` }), waterfall(row), el("h3", { textContent: "Tokens" }));
  body.append(facts([["prompt", count(row.input_tokens)], ["of it cached", `${count(row.cached_tokens)} (${percent(row.cached_tokens / row.input_tokens)})`], ["of it new", count(row.new_tokens)],
    ["answer", count(row.output_tokens)], ["tokens/s", row.tokens_per_second]]));
  if (row.prefix) {
    body.append(el("h3", { textContent: "Prefix" }), facts([["kept", count(row.prefix.kept)], ["lost", count(row.prefix.lost)], ["cause", row.prefix.cause], ["at", row.prefix.at]]));
  }
  body.append(el("h3", { textContent: "What was sent" }), ...PARTS.map((part) => recorded(row.request_id, part)));
  body.append(el("h3", { textContent: "Other facts" }), facts(Object.entries(row).filter(([name]) => !TITLES.includes(name)).map(([name, value]) => [name, value !== null && typeof value === "object" ? JSON.stringify(value) : value])));
  if (!$("detail").open) $("detail").showModal();
}

// ---- Errors, usage, connect

function errors() {
  const found = new Map();
  for (const row of state.rows) {
    if (row.outcome !== "error") continue;
    const key = `${row.status} ${row.upstream} ${(row.error || "").replace(/\d+/g, "#")}`;
    found.set(key, { key, row, times: (found.get(key)?.times || 0) + 1 });
  }
  const list = [...found.values()].sort((a, b) => b.row.end - a.row.end);
  $("errors-empty").hidden = list.length > 0;
  const make = (item) => el("button", { class: "card fault", onclick: (event) => open(event.currentTarget.row || item.row) },
    el("b"), el("span", { class: "sub" }), el("p", { class: "bad" }));
  sync($("error-list"), list, (item) => item.key, make, (node, { row, times }) => {
    node.row = row;
    text(node.children[0], `${row.status} `);
    text(node.children[1], `${times > 1 ? `${times} times, last ` : ""}${clock(row.end)} · ${who(row)} · ${row.model || "no model"}${row.upstream ? ` · ${row.upstream}` : ""}`);
    text(node.children[2], row.error || "");
  });
}

function usage() {
  const found = new Map();
  for (const row of state.rows) {
    const key = `${who(row)}\n${row.model}`;
    const sum = found.get(key) || { key, who: who(row), model: row.model, requests: 0, failed: 0, prompt: 0, cached: 0, output: 0, time: 0 };
    sum.requests += 1;
    sum.failed += row.outcome === "error" ? 1 : 0;
    sum.prompt += row.input_tokens;
    sum.cached += row.cached_tokens;
    sum.output += row.output_tokens;
    sum.time += row.sent_ms === null ? 0 : row.total_ms - row.sent_ms;
    found.set(key, sum);
  }
  const list = [...found.values()].sort((a, b) => b.prompt + b.output - a.prompt - a.output).slice(0, 200);
  const names = ["Client", "Model", "#Requests", "#Failed", "#Prompt", "Cached", "#Output", "#Box time"];
  sync($("usage-table").tBodies[0], list, (sum) => sum.key, () => cells(el("tr"), names), (tr, sum) => {
    const shown = [sum.who, sum.model || "–", count(sum.requests), count(sum.failed), tokens(sum.prompt), null, tokens(sum.output), seconds(sum.time)];
    shown.forEach((value, i) => value !== null && text(tr.fields[i], value));
    tr.fields[5].replaceChildren(...(sum.prompt ? [bar(sum.cached / sum.prompt)] : []));
  });
}

function connect() {
  $("key-note").hidden = !state.connect.some(({ line }) => line.includes("KEY"));
  const make = ({ name, line }) => {
    const button = el("button", { textContent: "Copy", "aria-label": `Copy the line for ${name}` });
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(line);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousSibling);
        button.textContent = "Selected";
      }
    });
    return el("div", {}, el("h3", { textContent: name }), el("div", { class: "line" }, el("pre", { textContent: line }), button));
  };
  sync($("connect-list"), state.connect, ({ name, line }) => `${name} ${line}`, make, () => {});
}

// ---- Views, and the link to the server

const VIEWS = { boxes, now: showNow, conversations, requests, errors, usage, connect };
let isLoggedOut = false;

function draw() {
  text($("count-now"), state.active.length ? String(state.active.length) : "");
  const failed = state.rows.filter((row) => row.outcome === "error").length;
  text($("count-errors"), failed ? String(failed) : "");
  if (!isLoggedOut) VIEWS[state.view]();
}

function show() {
  const wanted = location.hash.slice(1);
  const isNew = wanted !== state.view;
  state.view = Object.hasOwn(VIEWS, wanted) ? wanted : "boxes";
  for (const name of Object.keys(VIEWS)) $(`view-${name}`).hidden = isLoggedOut || name !== state.view;
  $("login").hidden = !isLoggedOut;
  document.title = `sparkgap: ${document.querySelector(`nav a[href="#${state.view}"]`).firstChild.textContent.trim()}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${state.view}`) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  if (isNew) scrollTo(0, 0);
  draw();
}

function take(event) {
  if (event.run !== undefined) {
    if (event.run !== state.run) {
      // Another process: its numbers begin anew.
      Object.assign(state, { run: event.run, after: 0, rows: [] });
      drawn = 0;
      $("request-table").tBodies[0].replaceChildren();
    }
    state.connect = event.connect;
    $("logout").hidden = !event.connect.some(({ line }) => line.includes("KEY"));
  }
  state.skew = event.now - Date.now();
  state.boxes = event.boxes;
  state.active = event.in_flight;
  state.totals = event.totals;
  for (const row of event.finished) {
    if (row.number > state.after) keep(row);
    state.after = Math.max(state.after, row.number);
  }
  if (state.rows.length > ROWS_MAX) state.rows.splice(0, state.rows.length - ROWS_MAX);
  draw();
}

function link(words, isLive) {
  text($("link"), words);
  $("link").className = isLive ? "live" : "";
}

let stop = null;

async function follow() {
  stop?.abort();
  const mine = (stop = new AbortController());
  link("connecting", false);
  let words = "connection lost; trying again";
  try {
    const answer = await fetch(`ui/events?run=${state.run}&after=${state.after}`, { signal: mine.signal, cache: "no-store" });
    if (answer.status === 401) return ask();
    if (!answer.ok) words = (await answer.json()).error.message;
    else await read(answer.body.getReader());
  } catch {
    // The words below say that the link is lost.
  }
  if (mine.signal.aborted) return;
  link(words, false);
  setTimeout(() => mine === stop && !document.hidden && follow(), RETRY_MS);
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop();
    for (const part of parts) take(JSON.parse(part.slice("data: ".length)));
    link("live", true);
  }
}

// Shows the form for a key. The facts of the session that has ended are taken from the page.
function ask() {
  isLoggedOut = true;
  Object.assign(state, { run: "", after: 0, boxes: [], active: [], rows: [], totals: {}, connect: [] });
  drawn = 0;
  $("request-table").tBodies[0].replaceChildren();
  $("detail").close();
  $("detail-body").replaceChildren();
  $("logout").hidden = true;
  link("key needed", false);
  show();
  $("key").focus();
}

async function post(path, body) {
  return fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text($("login-error"), "");
  try {
    const answer = await post("ui/login", { key: $("key").value.trim() });
    if (!answer.ok) {
      text($("login-error"), answer.status === 401 ? "This key is not valid here." : (await answer.json()).error.message);
      return;
    }
  } catch {
    text($("login-error"), "The server cannot be reached.");
    return;
  }
  $("key").value = "";
  isLoggedOut = false;
  show();
  follow();
});
$("logout").addEventListener("click", async () => {
  stop?.abort();
  await post("ui/logout", {}).catch(() => {});
  ask();
});
$("filters").addEventListener("input", refilter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("request-table").addEventListener("keydown", (event) => {
  const tr = event.target.closest("tr[tabindex]");
  if (!tr) return;
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  let next = step && tr[step];
  while (next?.hidden) next = next[step];
  if (next) next.focus();
  else if (event.key === "Enter" || event.key === " ") open(tr.row);
  if (step || event.key === "Enter" || event.key === " ") event.preventDefault();
});
// A page that nobody sees gives its place to others.
document.addEventListener("visibilitychange", () => (document.hidden ? stop?.abort() : isLoggedOut || follow()));
addEventListener("hashchange", show);
addEventListener("resize", () => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
show();
follow();
