//! The prefix guard (docs/translation.md, H): turn N+1 extends turn N, so that the upstream's prefix cache holds.
//!
//! The conversations have the shapes that Claude Code sends, and the translation itself makes each answer. Every
//! request is compared with the one before it: the bytes that go upstream, and the prompt that Qwen's own chat template
//! makes of them. The templates are data of Qwen3.5 (Apache 2.0). Qwen3.6's differs in one condition, which this test
//! inserts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers fail as tests do"
)]

mod support;

use minijinja::{Environment, Error, ErrorKind, Value as Data};
use serde_json::{Value, json};
use sparkgap::dialect::ServerKind;
use sparkgap::settings::{LateTools, Settings};
use sparkgap::translate::{Lessons, Plan, Target};

use support::replay::{Answer, Exchange, request};

const QWEN_3_5: &str = include_str!("templates/qwen3.5.jinja");
const CONVERSATIONS: u64 = 30;
const REQUESTS_MAX: usize = 14;

/// A generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn words(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "file",
            "\n\n",
            "naïve",
            "{\"x\": 1}",
            "日本",
            "<tag>",
            "</think>x",
            "  two",
            "end\n",
            "😀",
            "\\n",
            "a",
        ];
        let count = 1 + self.below(5);
        let words: Vec<&str> = (0..count).map(|_| WORDS[usize::try_from(self.below(12)).unwrap()]).collect();
        format!("w{}", words.join(" "))
    }
}

/// The settings of the client and the owner.
#[derive(Clone, Copy, Debug)]
struct Manner {
    thinking: Option<&'static str>,
    display: &'static str,
    thinking_in_text: bool,
    /// True if the template keeps reasoning, as Qwen3.6's does.
    keeps_thinking: bool,
}

struct Conversation {
    dice: Dice,
    manner: Manner,
    messages: Vec<Value>,
    /// The number of times that the user has spoken. Tool results alone do not count.
    user_turns: usize,
    /// A message that is sent with this request only, as the last one.
    passing: Option<Value>,
    /// The text of the model's last answer as the model wrote it, if it stands directly behind reasoning.
    written: Option<String>,
}

impl Conversation {
    fn new(seed: u64, manner: Manner) -> Self {
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Conversation { dice, manner, messages: Vec::new(), user_turns: 0, passing: None, written: None }
    }

    fn user_speaks(&mut self) {
        self.user_turns += 1;
        let mut content = Vec::new();
        if self.user_turns == 1 {
            content.push(json!({"type": "text", "text": "<system-reminder>\nclaudeMd\n</system-reminder>"}));
        }
        content
            .push(json!({"type": "text", "text": self.dice.words(), "cache_control": {"type": "ephemeral"}}));
        self.messages.push(json!({"role": "user", "content": content}));
        if self.user_turns == 1 || self.dice.one_in(3) {
            let text = self.dice.words();
            self.messages.push(json!({"role": "system", "content": [{"type": "text", "text": text}]}));
        }
    }

    /// Adds the results in the order in which the tools ended; sometimes with a text of the user, or with a reminder
    /// after them.
    fn tools_answer(&mut self, calls: &[String]) {
        let mut ids = calls.to_vec();
        if ids.len() > 1 && self.dice.one_in(2) {
            ids.reverse();
        }
        let mut content: Vec<Value> = Vec::new();
        for id in ids {
            let result: Value = match self.dice.below(5) {
                0 => json!([{"type": "text", "text": self.dice.words()}, {"type": "text", "text": "b"}]),
                1 => json!([]),
                2 => {
                    self.user_turns += 1; // for the template
                    json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}])
                }
                _ => json!(self.dice.words()),
            };
            let is_error = self.dice.one_in(5);
            content.push(
                json!({"type": "tool_result", "tool_use_id": id, "content": result, "is_error": is_error}),
            );
        }
        if self.dice.one_in(4) {
            self.user_turns += 1;
            content.push(json!({"type": "text", "text": self.dice.words()}));
        }
        self.messages.push(json!({"role": "user", "content": content}));
        if self.dice.one_in(3) {
            self.messages.push(json!({"role": "system", "content": self.dice.words()}));
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let hash = self.dice.below(u64::MAX);
        let mut messages = self.messages.clone();
        self.passing = self
            .dice
            .one_in(5)
            .then(|| json!({"role": "system", "content": "Only now.", "clear_at": "next_user_message"}));
        messages.extend(self.passing.clone());
        let mut body = json!({
            "model": "claude-x", "max_tokens": 32000, "messages": messages, "stream": false,
            "system": [
                {"type": "text", "text": format!("x-anthropic-billing-header: cch={hash:x};")},
                {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "# Tools\nLong."},
            ],
            "tools": [
                {"name": "Bash", "description": "Runs", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}},
                {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}}}},
            ],
            "metadata": {"user_id": format!("{hash:x}")},
        });
        if let Some(kind) = self.manner.thinking {
            body["thinking"] = json!({"type": kind, "display": self.manner.display});
        }
        body.to_string().into_bytes()
    }

    /// The model's answer, made by the translation; returns the ids of its calls.
    fn model_answers(&mut self, plan: Plan) -> Vec<String> {
        let mut sse = String::new();
        let mut say = |delta: Value| {
            sse += &format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
        };
        self.written = None;
        let reasons = self.manner.thinking == Some("adaptive");
        if reasons {
            say(json!({"reasoning": format!("{}\n", self.dice.words().replace("</think>", ""))}));
        }
        let count = if self.dice.one_in(3) { 0 } else { 1 + self.dice.below(3) };
        if count == 0 || self.dice.one_in(2) {
            let text = format!("\n\n{}", self.dice.words().replace("</think>", ""));
            say(json!({"content": text}));
            self.written = reasons.then_some(text);
        }
        for index in 0..count {
            let id = format!("call_{}_{index}", self.messages.len());
            let arguments = json!({"command": self.dice.words()}).to_string();
            say(
                json!({"tool_calls": [{"index": index, "id": id, "function": {"name": "Bash", "arguments": arguments}}]}),
            );
        }
        sse +=
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let (window, status, retry_after, silences) = (None, 200, None, Vec::new());
        let body = sse.into_bytes();
        let exchange =
            Exchange { plan, window, status, retry_after, silences, is_sse: true, body, search: None };
        let Answer::Told(message) = exchange.whole().answer else { panic!("no answer") };
        let message: Value = serde_json::from_slice(&message).unwrap();
        let content = message["content"].as_array().unwrap().clone();
        if self.written.is_some() {
            let shown = content[1]["text"].as_str().unwrap();
            assert!(
                !shown.starts_with('\n'),
                "terminals show the newlines that the template puts here: {shown:?}"
            );
        }
        let calls = content.iter().filter_map(|block| Some(block["id"].as_str()?.to_string())).collect();
        self.messages.push(json!({"role": "assistant", "content": content}));
        calls
    }
}

/// The body that went upstream, and the prompt that its template makes of it.
struct Sent {
    chat: Value,
    prompt: String,
    user_turns: usize,
}

/// Qwen3 on vLLM.
fn qwen3(settings: &Settings) -> Target<'_> {
    Target {
        model: "qwen3",
        flavour: ServerKind::Vllm,
        window: Some(262_144),
        lessons: Lessons::default(),
        settings,
    }
}

fn send(conversation: &mut Conversation, template: &Environment<'_>) -> (Sent, Plan) {
    let settings = Settings { thinking_in_text: conversation.manner.thinking_in_text, ..Settings::default() };
    let target = qwen3(&settings);
    let body = conversation.body();
    let (chat, plan) = request(&body, &target).unwrap();
    assert_eq!(chat, request(&body, &target).unwrap().0);
    let chat: Value = serde_json::from_str(&chat).unwrap();
    let prompt = render(template, &chat);
    (Sent { chat, prompt, user_turns: conversation.user_turns }, plan)
}

fn template(keeps_thinking: bool) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build().unwrap());
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |text: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    let condition = "loop.index0 > ns.last_query_index";
    assert_eq!(QWEN_3_5.matches(condition).count(), 1);
    let text = if keeps_thinking {
        QWEN_3_5.replace(
            condition,
            &format!("(preserve_thinking is defined and preserve_thinking) or {condition}"),
        )
    } else {
        QWEN_3_5.to_string()
    };
    environment.add_template_owned("chat", text).unwrap();
    environment
}

/// Renders as vLLM does: `reasoning` under both names, arguments as objects, and the template's own arguments as
/// further variables.
fn render(template: &Environment<'_>, chat: &Value) -> String {
    let mut messages = chat["messages"].clone();
    for message in messages.as_array_mut().unwrap() {
        if let Some(reasoning) = message.get("reasoning").cloned() {
            message["reasoning_content"] = reasoning;
        }
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            let arguments = &mut call["function"]["arguments"];
            *arguments = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
        }
    }
    let mut context = chat["chat_template_kwargs"].clone();
    context["messages"] = messages;
    context["tools"] = chat["tools"].clone();
    context["add_generation_prompt"] = json!(true);
    template.get_template("chat").unwrap().render(data(&context)).unwrap()
}

fn data(value: &Value) -> Data {
    match value {
        Value::Null => Data::from(()),
        Value::Bool(b) => Data::from(*b),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Data::from(number.as_f64().unwrap()), Data::from)
        }
        Value::String(text) => Data::from(text.as_str()),
        Value::Array(items) => items.iter().map(data).collect(),
        Value::Object(object) => {
            Data::from_pairs(object.iter().map(|(key, value)| (key.as_str(), data(value))))
        }
    }
}

/// Checks that the messages of a request are the beginning of the next request's. Only reminders that were folded into
/// the last message may disappear.
fn assert_messages_extend(before: &Value, after: &Value, case: &str) {
    let (before, after) = (before.as_array().unwrap(), after.as_array().unwrap());
    let (last, head) = before.split_last().unwrap();
    assert!(after.len() >= before.len(), "{case}");
    assert_eq!(head, &after[..head.len()], "{case}");
    assert!(same_but_for_reminders(last, &after[head.len()]), "{case}: {last} {}", after[head.len()]);
}

/// The text of the reminder that is sent with one request only.
const PASSING: &str = "<system-reminder>\nOnly now.\n</system-reminder>";

fn same_but_for_reminders(before: &Value, after: &Value) -> bool {
    let mut before = before.clone();
    if before == *after {
        return true;
    }
    match &mut before["content"] {
        Value::String(text) => {
            let Some(rest) = text.strip_suffix(PASSING) else { return false };
            *text = rest.strip_suffix("\n\n").unwrap().to_string();
        }
        Value::Array(parts) => {
            let text = parts.last().unwrap()["text"].as_str().unwrap_or("").to_string();
            match text.strip_suffix(PASSING) {
                Some("") => _ = parts.pop(),
                Some(rest) => {
                    parts.last_mut().unwrap()["text"] = json!(rest.strip_suffix("\n\n").unwrap());
                }
                None => return false,
            }
        }
        _ => return false,
    }
    before == *after
}

/// The prompt up to the part that is answered: without the generation prompt and the passing reminder before it.
fn up_to_generation(prompt: &str) -> &str {
    let prompt = &prompt[..prompt.rfind("<|im_start|>assistant\n").unwrap()];
    match prompt.rfind(PASSING) {
        // The template trims the end of a message.
        Some(at) => prompt[..at].trim_end(),
        // Marks follow a tool's result, and later reminders come before those marks.
        None => prompt.trim_end_matches("<|im_end|>\n").trim_end_matches("\n</tool_response>"),
    }
}

/// Returns the number of times that a new turn of the user changed what had been rendered.
fn run(manner: Manner) -> usize {
    let mut changes = 0;
    let template = template(manner.keeps_thinking);
    for seed in 1..=CONVERSATIONS {
        let mut conversation = Conversation::new(seed, manner);
        conversation.user_speaks();
        let (mut before, mut plan) = send(&mut conversation, &template);
        for number in 1..REQUESTS_MAX {
            let calls = conversation.model_answers(plan);
            if calls.is_empty() {
                conversation.user_speaks()
            } else {
                conversation.tools_answer(&calls)
            }
            let (after, next) = send(&mut conversation, &template);
            let case = format!("{manner:?}, seed {seed}, request {number}");
            // Whatever the template does with newlines, the model gets its text as it wrote it.
            if let (Some(written), false) = (&conversation.written, manner.thinking_in_text) {
                let mut answers = after.chat["messages"].as_array().unwrap().iter();
                let last = answers.rfind(|message| message["role"] == "assistant");
                assert_eq!(last.unwrap()["content"], json!(written), "{case}");
            }
            assert_eq!(before.chat["tools"].to_string(), after.chat["tools"].to_string(), "{case}");
            assert_eq!(before.chat["messages"][0], after.chat["messages"][0], "{case}");
            let new_user_turn = before.user_turns != after.user_turns;
            if !manner.thinking_in_text {
                assert_messages_extend(&before.chat["messages"], &after.chat["messages"], &case);
            }
            // Qwen3.5 drops the reasoning of earlier turns at each new turn, and no option prevents it.
            if manner.keeps_thinking || manner.thinking_in_text || !new_user_turn {
                let prefix = up_to_generation(&before.prompt);
                assert!(after.prompt.starts_with(prefix), "{case}\n{prefix}\n――――\n{}", after.prompt);
            } else {
                changes += usize::from(!after.prompt.starts_with(up_to_generation(&before.prompt)));
            }
            (before, plan) = (after, next);
        }
    }
    changes
}

fn run_all(thinking_in_text: bool, keeps_thinking: bool) -> usize {
    let mut changes = 0;
    for thinking in [None, Some("disabled"), Some("adaptive")] {
        for display in ["summarized", "omitted"] {
            changes += run(Manner { thinking, display, thinking_in_text, keeps_thinking });
        }
    }
    changes
}

// covers: 3, 111
#[test]
fn qwen_3_6_keeps_its_cache_over_user_turns() {
    assert_eq!(run_all(false, true), 0);
}

// covers: 111
#[test]
fn qwen_3_5_keeps_its_cache_within_a_user_turn() {
    // If Qwen3.5 kept its cache without the setting, the tests above and below would show nothing.
    assert!(run_all(false, false) > 0);
}

#[test]
fn qwen_3_5_keeps_its_cache_over_user_turns_with_thinking_in_text() {
    assert_eq!(run_all(true, false), 0);
}

/// A tool of about 400 tokens, as Claude Code's own are.
fn tool(name: &str, deferred: bool) -> Value {
    let text = format!("{name} does one thing, and this sentence says when to use it, and when not to. ");
    let mut tool = json!({"name": name, "description": text.repeat(20),
        "input_schema": {"type": "object", "properties": {"value": {"type": "string"}}}});
    if deferred {
        tool["defer_loading"] = json!(true);
    }
    tool
}

/// The prompts of a conversation in which the model reads files, and at three points searches for a tool, which its
/// client then inserts among `tools` by the alphabet. Each prompt with whether it is the first with a new tool.
fn prompts_with_late_tools(late_tools: LateTools) -> Vec<(String, bool)> {
    let template = template(true);
    let settings = Settings { late_tools, ..Settings::default() };
    let target = qwen3(&settings);
    let mut tools: Vec<Value> =
        ["Agent", "Bash", "Edit", "Glob", "Grep", "Read", "Skill", "ToolSearch", "Write"]
            .map(|name| tool(name, false))
            .to_vec();
    let mut messages = vec![json!({"role": "user", "content": "Please find out why it fails."})];
    let mut prompts = Vec::new();
    for step in 0..60 {
        let new = match step {
            20 => Some("WebFetch"),
            30 => Some("mcp__git__log"),
            45 => Some("CronCreate"),
            _ => None,
        };
        let id = format!("call_{step}");
        let (name, input, result) = match new {
            Some(name) => (
                "ToolSearch",
                json!({"query": format!("select:{name}")}),
                json!([{"type": "tool_reference", "tool_name": name}]),
            ),
            None => ("Read", json!({"value": format!("file-{step}")}), json!("A line of code.\n".repeat(80))),
        };
        if let Some(name) = new {
            tools.push(tool(name, true));
            tools.sort_by_key(|tool| tool["name"].as_str().unwrap().to_lowercase());
        }
        messages.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": name, "input": input}]}));
        messages.push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": result}]}));
        let body = json!({"model": "claude-x", "max_tokens": 32000, "messages": messages, "tools": tools,
            "system": "You are Claude Code."});
        let (chat, _) = request(body.to_string().as_bytes(), &target).unwrap();
        prompts.push((render(&template, &serde_json::from_str(&chat).unwrap()), new.is_some()));
    }
    prompts
}

/// The part of each prompt with a new tool that the prompt before it has too, as a prefix.
fn cached_shares(late_tools: LateTools) -> Vec<f64> {
    let prompts = prompts_with_late_tools(late_tools);
    let share = |before: &str, after: &str| {
        let common = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
        f64::from(u32::try_from(common).unwrap()) / f64::from(u32::try_from(after.len()).unwrap())
    };
    let pairs = prompts.iter().zip(prompts.iter().skip(1));
    pairs.filter(|(_, (_, is_new))| *is_new).map(|((before, _), (after, _))| share(before, after)).collect()
}

#[test]
fn a_late_tool_as_text_keeps_the_cache() {
    let (text, declared) = (cached_shares(LateTools::Text), cached_shares(LateTools::Declare));
    assert_eq!((text.len(), declared.len()), (3, 3));
    assert!(text.iter().all(|share| *share >= 0.95), "{text:?}");
    // If the cache held anyway, the line above would show nothing.
    assert!(declared.iter().all(|share| *share < 0.5), "{declared:?}");
    println!("cached share after a late tool: {text:?} as text, {declared:?} declared");
}
