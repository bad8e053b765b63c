//! A Messages request -> the body of a chat completion, and the plan for reading its answer.
//!
//! docs/translation.md, A, field by field. Fields that have no place are dropped; none of them fails the request.

use crate::anthropic::{Block, MessagesRequest, Thinking as Asked, ToolChoice};
use crate::dialect::{Efforts, ServerKind as Flavour};
use crate::error::Error;
use crate::json::{Object, Value};
use crate::settings::Thinking;

use super::arguments::Schema;
use super::blocks;
use super::estimate;
use super::history::{History, history};
use super::plan::{Plan, Target};
use super::tool_id::TakenIds;
use super::tools::{Tools, sent_name, tools};

/// vLLM's and OpenAI's limit on `stop`; a fifth string is a 400 for the whole request.
const STOP_STRINGS_MAX: usize = 4;

/// What is kept free in the window beside prompt and answer: the estimate of the prompt is rough.
const WINDOW_MARGIN: u64 = 64;

/// The room for an answer that is asked for however large the prompt seems: if the estimate is wrong the answer is not
/// cut to a stump, and if it is right the upstream says so.
const ROOM_MIN: u64 = 1024;

/// Extensions that clients of vLLM send beside the API's own fields: passed on as they are.
const EXTRAS: [&str; 9] = [
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "priority",
    "cache_salt",
    "vllm_xargs",
    "logit_bias",
];

/// A request for the upstream.
#[derive(Debug)]
pub struct ChatRequest<'r> {
    /// The body.
    pub body: Value<'r>,
    /// How to read the answer.
    pub plan: Plan,
    /// What was left out and may matter to the owner, for one warning each.
    pub dropped: Vec<String>,
}

/// The chat completion for a request.
///
/// # Errors
/// 400: what cannot be served (docs/translation.md, A and B).
pub fn chat_request<'r>(
    request: &'r MessagesRequest<'r>,
    target: &Target<'r>,
) -> Result<ChatRequest<'r>, Error> {
    let dialect = target.flavour.dialect();
    let history = history(&request.system, &request.messages, target)?;
    let tools = tools(request, target.flavour)?;
    let thinks = thinks(request, target, &history, &tools);
    let lost = request.messages.iter().flat_map(|message| &message.content).filter_map(|block| match block {
        Block::Other { kind, body } if blocks::is_lost(kind, body) => {
            Some(format!("content block of type {kind}"))
        }
        _ => None,
    });
    let dropped = tools.dropped.iter().map(|(_, kind)| format!("server tool {kind}")).chain(lost).collect();
    let mut plan = plan(request, target, &tools);
    plan.think_tags = target.settings.think_tags && thinks;
    let repeated = history.prefill.as_deref().filter(|_| !dialect.wants_continue_flag);
    plan.repeated = repeated.map(|text| text.trim_start().to_string());

    let mut body = Object::new();
    body.push("model", target.model);
    body.push("messages", history.messages);
    let has_tools = !tools.functions.is_empty();
    if has_tools {
        body.push("tools", tools.functions);
        if let Some(choice) = tools.choice {
            body.push("tool_choice", choice);
        }
        if request.one_tool_call {
            body.push("parallel_tool_calls", false);
        }
    }
    let mut chat = ChatRequest { body: body.into(), plan, dropped };
    let estimated = estimate::prompt_tokens(&chat.body);
    chat.plan.prompt_tokens = estimate::whole(scaled(estimated, target.tokens_ratio)).max(1);
    let Some(body) = chat.body.as_object_mut() else { return Ok(chat) };
    let max_tokens = max_tokens(request, target, chat.plan.prompt_tokens);
    chat.plan.max_tokens = max_tokens;
    let cap = target.settings.max_tokens.unwrap_or(u64::MAX);
    chat.plan.is_clamped_to_window = max_tokens < request.max_tokens.min(cap);
    set_max_tokens(body, max_tokens, target.flavour);
    sampling(body, request, target.flavour);
    // Upstream stop strings also fire in reasoning and in the markup of tool calls, and tear pieces off them; and most
    // servers do not say which one they met. There the proxy alone looks for them.
    if !request.stop_sequences.is_empty() && dialect.tells_stop_string && !thinks && !has_tools {
        let stop = request.stop_sequences.iter().take(STOP_STRINGS_MAX);
        body.push("stop", stop.map(|text| Value::from(*text)).collect::<Vec<_>>());
    }
    if let Some(schema) = request.schema {
        let format = [("name", "output".into()), ("schema", schema.reborrow()), ("strict", true.into())];
        body.push(
            "response_format",
            Value::object([("type", "json_schema".into()), ("json_schema", Value::object(format))]),
        );
    }
    thinking(body, request, target, thinks, max_tokens);
    if let (true, Some(user)) = (target.settings.user_id, user_id(request)) {
        body.push("user", user);
    }
    for key in EXTRAS {
        if let Some(value) = request.body.get(key).filter(|_| dialect.takes_extensions) {
            body.push(key, value.reborrow());
        }
    }
    if history.prefill.is_some() && dialect.wants_continue_flag {
        body.push("add_generation_prompt", false);
        body.push("continue_final_message", true);
    }
    streaming(body, target.flavour);
    Ok(chat)
}

fn user_id<'r>(request: &MessagesRequest<'r>) -> Option<&'r str> {
    request.body.get("metadata")?.get("user_id")?.as_str()
}

fn plan(request: &MessagesRequest<'_>, target: &Target<'_>, tools: &Tools<'_>) -> Plan {
    let coerce = target.settings.coerce_arguments;
    let schema =
        |tool: &crate::anthropic::Tool<'_>| tool.schema.filter(|_| coerce).and_then(Schema::from_json);
    Plan {
        model: request.model.to_string(),
        stream: request.stream,
        stop_sequences: request.stop_sequences.iter().map(ToString::to_string).collect(),
        thinking_omitted: request.thinking_omitted,
        think_tags: false,
        repeated: None,
        no_tool_call: request.tool_choice == Some(ToolChoice::None),
        one_tool_call: request.one_tool_call,
        taken_ids: TakenIds::of(&request.messages),
        tools: tools
            .declared
            .iter()
            .map(|tool| (sent_name(tool.name, target.flavour).into_owned(), schema(tool)))
            .collect(),
        renamed: tools
            .declared
            .iter()
            .map(|tool| (sent_name(tool.name, target.flavour), tool.name))
            .filter(|(sent, name)| sent != name)
            .map(|(sent, name)| (sent.into_owned(), name.to_string()))
            .collect(),
        never_empty: target.settings.never_empty,
        discard: request.max_tokens == 0,
        prompt_tokens: 1,
        max_tokens: request.max_tokens,
        is_clamped_to_window: false,
        window: target.window,
        context_window_beta: false,
    }
}

/// Whether the model is to think. Off for what cannot be had with it: a forced call (the API refuses the pair, we serve
/// the call) and the continuation of an answer (the template would open a new think block inside it).
fn thinks(
    request: &MessagesRequest<'_>,
    target: &Target<'_>,
    history: &History<'_>,
    tools: &Tools<'_>,
) -> bool {
    let asked = match target.settings.thinking {
        Thinking::On => true,
        Thinking::Off => false,
        Thinking::Auto => matches!(request.thinking, Some(Asked::Enabled(_) | Asked::Adaptive)),
    };
    asked && !tools.forced && history.prefill.is_none() && request.max_tokens > 0
}

fn scaled(tokens: u64, ratio: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
    {
        tokens as f64 * ratio
    }
}

/// The client's limit, within the owner's cap and what the window has left.
fn max_tokens(request: &MessagesRequest<'_>, target: &Target<'_>, prompt_tokens: u64) -> u64 {
    let cap = target.settings.max_tokens.unwrap_or(u64::MAX);
    let room = match target.window {
        Some(window) => window.saturating_sub(prompt_tokens + WINDOW_MARGIN).max(ROOM_MIN.min(window / 2)),
        None => u64::MAX,
    };
    request.max_tokens.min(cap).min(room).max(1)
}

/// Sets the limit under the names that the server knows. Also for a second try with a smaller one.
pub(super) fn set_max_tokens(body: &mut Object<'_>, max_tokens: u64, flavour: Flavour) {
    for key in flavour.dialect().max_tokens_keys {
        body.set(*key, max_tokens);
    }
}

fn sampling<'r>(body: &mut Object<'r>, request: &MessagesRequest<'r>, flavour: Flavour) {
    if let Some(temperature) = request.temperature {
        body.push("temperature", temperature);
    }
    if let Some(top_p) = request.top_p {
        body.push("top_p", top_p.reborrow());
    }
    if let Some(top_k) = request.top_k.filter(|_| flavour.dialect().takes_extensions) {
        body.push("top_k", top_k.reborrow());
    }
}

/// The thinking switch, its effort and its budget. The switch is always said outright: Qwen's templates think unless
/// told not to, and on vLLM an effort alone would switch it on.
fn thinking<'r>(
    body: &mut Object<'r>,
    request: &MessagesRequest<'r>,
    target: &Target<'_>,
    thinks: bool,
    max_tokens: u64,
) {
    let dialect = target.flavour.dialect();
    // LM Studio passes it over so far; Ollama has an effort "none" instead.
    if dialect.takes_template_arguments {
        let mut arguments = Object::new();
        arguments.push("enable_thinking", thinks);
        if target.settings.preserve_thinking {
            arguments.push("preserve_thinking", true);
        }
        if let Some(own) = request.body.get("chat_template_kwargs").and_then(Value::as_object) {
            own.iter().for_each(|(key, value)| arguments.set(key, value.reborrow()));
        }
        body.push("chat_template_kwargs", arguments);
    }
    if let Some(effort) = effort(request, target, thinks) {
        body.push("reasoning_effort", effort);
    }
    if let (Some(Asked::Enabled(budget)), true, Some((key, by_default))) =
        (request.thinking, thinks, dialect.thinking_budget)
        && target.settings.thinking_budget.unwrap_or(by_default)
    {
        body.push(key, budget.min(max_tokens.saturating_sub(1)));
    }
}

/// The effort, where the model may think; without a word on thinking an effort alone is passed on.
fn effort<'r>(request: &MessagesRequest<'r>, target: &Target<'_>, thinks: bool) -> Option<&'r str> {
    let last_system = request.messages.last().and_then(|message| message.effort);
    let may_think = thinks || (request.thinking.is_none() && target.settings.thinking == Thinking::Auto);
    let said = last_system.or(request.effort).filter(|_| may_think);
    match (target.flavour.dialect().efforts, said, request.thinking) {
        (Efforts::UpToHigh, Some("xhigh" | "max"), _) => Some("high"),
        // A strict API takes no budget: the effort that comes nearest.
        (Efforts::UpToHigh, None, Some(Asked::Enabled(budget))) if thinks => Some(match budget {
            0..=2048 => "low",
            2049..=8192 => "medium",
            _ => "high", // its highest
        }),
        (Efforts::AnyOrNone, None, _) if !thinks => Some("none"),
        _ => said,
    }
}

/// The upstream is always asked to stream: vLLM's whole answer to a cut tool call looks complete.
fn streaming(body: &mut Object<'_>, flavour: Flavour) {
    body.push("stream", true);
    let mut options = Object::new();
    options.push("include_usage", true);
    let dialect = flavour.dialect();
    if let Some(key) = dialect.usage_option {
        options.push(key, true);
    }
    if let Some(key) = dialect.progress_key {
        body.push(key, true);
    }
    body.push("stream_options", options);
}
