//! A Messages request -> the body of a chat completion, and the plan for reading its answer.
//!
//! Follows docs/translation.md, A, field by field. Fields that the upstream does not support are dropped; none of them
//! fails the request.

use std::borrow::Cow;

use crate::anthropic::{Block, MessagesRequest, Thinking, ToolChoice, WEB_SEARCH};
use crate::dialect::{Efforts, ServerKind};
use crate::error::Error;
use crate::json::{Object, Value};
use crate::settings::{LoopMode, ThinkingMode};
use crate::shown::cut;

use super::arguments::Schema;
use super::blocks;
use super::estimate::Prompt;
use super::extras;
use super::history::{BROKEN_EVERY, History, TOLD_FROM, history};
use super::late::Late;
use super::plan::{Asked, KEPT_ITEM_SIZE, Plan, Target};
use super::repair::LIMIT_KEYS;
use super::tool_id::TakenIds;
use super::tools::{NAME_SIZE_MAX, Tools, sent_name, strict_name, tools};

/// The limit of vLLM and OpenAI on `stop`: a fifth string is a 400 for the whole request.
const STOP_STRINGS_MAX: usize = 4;

/// The tokens that are kept free in the window beside prompt and answer, because the estimate of the prompt is rough.
const WINDOW_MARGIN: u64 = 64;

/// The least room that is requested for an answer, however large the prompt seems. If the estimate is wrong, the answer
/// is not cut to a stump; if it is right, the upstream says so.
const ROOM_MIN: u64 = 1024;

/// The part of the largest possible room, in percent, that is always requested. An estimate that is too large must not
/// cut answers, because nobody would notice. If it is too small, the upstream refuses the request, and the request is
/// repaired.
const ROOM_SHARE: u64 = 86;

/// The most bytes that a stream may keep of its request's tools: their names and schemas, and [`KEPT_ITEM_SIZE`] for
/// each. Claude Code's own tools have 3 KB; a hundred tools of ten properties each have 20 KB.
const TOOLS_KEPT_MAX: usize = 64 * 1024;

/// How many kinds of dropped things are reported for one request, and how many bytes of each.
const DROPPED_MAX: usize = 32;
const DROPPED_SIZE_MAX: usize = 64;

/// A request for the upstream.
#[derive(Debug)]
pub struct ChatRequest<'r> {
    /// The body.
    pub body: Value<'r>,
    /// How to read the answer.
    pub plan: Plan,
    /// The kinds of things that were dropped and may matter to the operator, for one warning each. The list and its
    /// texts are short.
    pub dropped: Vec<String>,
    /// The members that were dropped because the owner does not allow clients to pass them on, for one warning each.
    pub not_allowed: Vec<String>,
    /// True if the model is not offered a web search because the client has a tool of that name.
    pub has_search_clash: bool,
    /// True if the tools are too large to be kept while the answer runs. Then the arguments of some of them are not
    /// coerced to the schema.
    pub is_coercion_cut: bool,
}

/// Translates a request to a chat completion.
///
/// # Errors
/// 400: the request cannot be served (docs/translation.md, A and B).
pub fn chat_request<'r>(
    request: &'r MessagesRequest<'r>,
    target: &Target<'r>,
) -> Result<ChatRequest<'r>, Error> {
    let dialect = target.flavour.dialect();
    extras::check_images(&request.messages, target)?;
    let history = history(&request.system, &request.messages, target, Late::of(request, target))?;
    let is_loop_broken = breaks_loop(request, target, history.loop_length);
    let choice = if is_loop_broken { Some(ToolChoice::None) } else { request.tool_choice };
    let tools = tools(request, target, choice, &|name| history.late.has_told(name))?;
    let thinks = thinks(request, target, &history, &tools);
    let dropped = dropped(request, &tools);
    let not_allowed = extras::not_allowed(request, target.settings);
    check_kept(request, target.flavour)?;
    let (kept_tools, is_coercion_cut) = kept_tools(target, &tools);
    let mut plan = plan(request, target, &tools);
    plan.tools = kept_tools;
    plan.no_tool_call |= is_loop_broken;
    plan.is_loop_broken = is_loop_broken;
    plan.loop_length = if history.loop_length >= TOLD_FROM { history.loop_length } else { 0 };
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
    let has_search_clash = tools.has_search_clash;
    let body = body.into();
    let mut chat = ChatRequest { body, plan, dropped, not_allowed, has_search_clash, is_coercion_cut };
    chat.plan.measure(&chat.body, &target.lessons.tokens);
    let Some(body) = chat.body.as_object_mut() else { return Ok(chat) };
    let wanted_tokens = request.max_tokens.min(target.settings.max_tokens.unwrap_or(u64::MAX));
    let asked = &mut chat.plan.asked;
    let max_tokens = max_tokens(wanted_tokens, target, asked.estimate, asked.prompt_tokens);
    asked.wanted_tokens = wanted_tokens;
    asked.max_tokens = max_tokens;
    asked.is_clamped_to_window = max_tokens < wanted_tokens;
    set_max_tokens(body, max_tokens, target.flavour);
    sampling(body, request, target.flavour);
    // Upstream stop strings also match inside reasoning and the markup of tool calls, and cut pieces off them; and most
    // servers do not say which string they met. For such requests only the proxy looks for stop sequences.
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
    if dialect.takes_extensions {
        extras::add_usual(body, request);
    }
    if history.prefill.is_some() && dialect.wants_continue_flag {
        body.push("add_generation_prompt", false);
        body.push("continue_final_message", true);
    }
    streaming(body, target.flavour);
    extras::add_allowed(body, request, target.settings);
    Ok(chat)
}

fn user_id<'r>(request: &MessagesRequest<'r>) -> Option<&'r str> {
    request.body.get("metadata")?.get("user_id")?.as_str()
}

/// The kinds of things that were dropped, each once. They are the client's words, so they are cut, and only the first
/// ones are reported.
fn dropped(request: &MessagesRequest<'_>, tools: &Tools<'_>) -> Vec<String> {
    let servers = request.body.get("mcp_servers").and_then(Value::as_array).unwrap_or_default();
    let servers = (!servers.is_empty()).then_some(("field", "mcp_servers"));
    let kind = request.body.get("thinking").and_then(|thinking| thinking.get("type")?.as_str());
    let thinking = kind.filter(|_| request.thinking.is_none()).map(|kind| ("thinking of type", kind));
    let lost = request.messages.iter().flat_map(|message| &message.content).filter_map(|block| match block {
        Block::Other { kind, body } if blocks::is_lost(kind, body) => Some(("content block of type", *kind)),
        _ => None,
    });
    let blocks = request.messages.iter().flat_map(|message| &message.content);
    let blocks = blocks.flat_map(|block| match block {
        Block::ToolResult(result) => result.content.as_slice(),
        other => std::slice::from_ref(other),
    });
    let unread = blocks.filter_map(|block| match block {
        Block::Other { kind: "document", body } => Some(("document of type", blocks::unread_type(body)?)),
        _ => None,
    });
    let mut kinds = Vec::new();
    let tools = tools.dropped.iter().map(|(_, kind)| ("server tool", *kind));
    for (what, kind) in servers.into_iter().chain(thinking).chain(tools).chain(lost).chain(unread) {
        let found = (what, cut(kind, DROPPED_SIZE_MAX));
        if !kinds.contains(&found) {
            kinds.push(found);
            if kinds.len() >= DROPPED_MAX {
                break;
            }
        }
    }
    kinds.into_iter().map(|(what, kind)| format!("{what} {kind}")).collect()
}

/// Refuses a request of which a stream would have to keep too much.
///
/// # Errors
/// 400: texts that must be kept until the end of the answer are too long.
fn check_kept(request: &MessagesRequest<'_>, flavour: ServerKind) -> Result<(), Error> {
    let size = |text: &&str| text.len() + KEPT_ITEM_SIZE;
    let renamed = request.tools.iter().map(|tool| tool.name);
    let renamed = renamed.filter(|name| sent_name(name, flavour) != *name);
    if renamed.map(|name| size(&name) + NAME_SIZE_MAX + KEPT_ITEM_SIZE).sum::<usize>() > TOOLS_KEPT_MAX {
        let what =
            format!("tools: names that this upstream does not take, of over {} KiB", TOOLS_KEPT_MAX / 1024);
        return Err(Error::invalid(format!(
            "{what}; use names of at most {NAME_SIZE_MAX} letters and digits"
        )));
    }
    Ok(())
}

/// The tools that a stream keeps, each with the schema that is needed to coerce its arguments, and whether something
/// was left out. The kept size is bounded, however many tools a request declares.
fn kept_tools(target: &Target<'_>, tools: &Tools<'_>) -> (Vec<(String, Option<Schema>)>, bool) {
    // Calls in text are recognized by the schema, too.
    let coerce = target.settings.coerce_arguments || target.settings.rescue_tool_calls;
    let mut left = TOOLS_KEPT_MAX;
    let mut kept = Vec::with_capacity(tools.declared.len().min(TOOLS_KEPT_MAX / KEPT_ITEM_SIZE));
    let mut is_cut = false;
    for tool in &tools.declared {
        let name = sent_name(tool.name, target.flavour);
        let Some(rest) = left.checked_sub(name.len() + KEPT_ITEM_SIZE) else {
            is_cut = true;
            break;
        };
        left = rest;
        let schema = match tool.schema.filter(|_| coerce).map(|schema| Schema::within(schema, left)) {
            Some(Ok(schema)) => schema,
            Some(Err(_)) => {
                is_cut = true;
                None
            }
            None => None,
        };
        left -= schema.as_ref().map_or(0, Schema::size).min(left);
        kept.push((name.into_owned(), schema));
    }
    // A call without a name is taken for a call of the only tool. A tool that is merely the only one kept must not be
    // taken for it.
    if kept.len() == 1 && tools.declared.len() > 1 {
        kept.clear();
    }
    (kept, is_cut)
}

/// The tools that have other names at a strict server: the name there, and the client's. A server that takes the client's
/// names may turn out to be strict when it refuses them, so they are kept for every server, up to a limit.
fn renamed(tools: &Tools<'_>, flavour: ServerKind) -> Vec<(String, String)> {
    let is_strict = flavour.dialect().is_strict_on_names; // then `check_kept` has refused more than the limit
    let mut left = TOOLS_KEPT_MAX;
    let pairs = tools.declared.iter().filter_map(|tool| match strict_name(tool.name) {
        Cow::Owned(sent) => Some((sent, tool.name.to_string())),
        Cow::Borrowed(_) => None,
    });
    let pairs = pairs.take_while(|(sent, name)| {
        left = left.saturating_sub(sent.len() + name.len() + 2 * KEPT_ITEM_SIZE);
        is_strict || left > 0
    });
    pairs.collect()
}

fn plan(request: &MessagesRequest<'_>, target: &Target<'_>, tools: &Tools<'_>) -> Plan {
    // The choice of another tool may have left only that one.
    let is_left = || tools.declared.iter().any(|tool| tool.name == WEB_SEARCH);
    let may_call = request.tool_choice != Some(ToolChoice::None) && request.max_tokens > 0;
    Plan {
        asked: Asked {
            model: request.model.to_string(),
            prompt_tokens: 1,
            wanted_tokens: request.max_tokens,
            max_tokens: request.max_tokens,
            window: target.window.or(target.lessons.window.map(|told| told.tokens)),
            ..Asked::default()
        },
        stream: request.stream,
        stop_sequences: request.stop_sequences.iter().map(ToString::to_string).collect(),
        thinking_asked: matches!(request.thinking, Some(Thinking::Enabled(_) | Thinking::Adaptive)),
        thinking_omitted: request.thinking_omitted,
        think_tags: false,
        repeated: None,
        no_tool_call: request.tool_choice == Some(ToolChoice::None),
        forced_tool: match request.tool_choice {
            Some(ToolChoice::Tool(name)) => Some(name.to_owned()),
            _ => None,
        },
        one_tool_call: request.one_tool_call,
        taken_ids: TakenIds::of(&request.messages),
        coerces: target.settings.coerce_arguments,
        rescues: target.settings.rescue_tool_calls,
        loop_length: 0,
        is_loop_broken: false,
        ends_repeated_lines: target.settings.loops == LoopMode::Break,
        tools: Vec::new(),
        renamed: renamed(tools, target.flavour),
        search: tools.search.clone().filter(|_| may_call && is_left()),
        never_empty: target.settings.never_empty,
        discard: request.max_tokens == 0,
        context_window_beta: false,
    }
}

/// True if calls are forbidden for this turn, because the same call was made again and again. A call that the client
/// forces is not forbidden.
fn breaks_loop(request: &MessagesRequest<'_>, target: &Target<'_>, length: usize) -> bool {
    let is_due = length > 0 && length.is_multiple_of(BROKEN_EVERY);
    let is_forced = matches!(request.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
    is_due && !is_forced && target.settings.loops == LoopMode::Break
}

/// Whether the model is to think. It does not with a forced call (the API refuses the pair, but the proxy serves the
/// call) and with the continuation of an answer (the template would open a new think block inside it).
fn thinks(
    request: &MessagesRequest<'_>,
    target: &Target<'_>,
    history: &History<'_>,
    tools: &Tools<'_>,
) -> bool {
    let asked = match target.settings.thinking {
        ThinkingMode::On => true,
        ThinkingMode::Off => false,
        ThinkingMode::Auto => matches!(request.thinking, Some(Thinking::Enabled(_) | Thinking::Adaptive)),
    };
    asked && !tools.forced && history.prefill.is_none() && request.max_tokens > 0
}

/// The wanted limit on the answer's tokens, within the room that the window has left.
fn max_tokens(wanted: u64, target: &Target<'_>, estimate: Prompt, prompt_tokens: u64) -> u64 {
    let window = target.window.or_else(|| {
        // This window is only known from a refusal. If it still applies, a prompt that does not fit is refused,
        // whatever limit is sent. If it does not apply any more, a limit derived from it would cut the answer.
        let told = target.lessons.window.filter(|told| told.limits_answers)?;
        Some(told.tokens).filter(|tokens| prompt_tokens < *tokens)
    });
    let room = window.map_or(u64::MAX, |window| {
        let possible = window.saturating_sub(target.lessons.tokens.least(estimate));
        likely_room(window, prompt_tokens).max(possible.saturating_mul(ROOM_SHARE) / 100)
    });
    wanted.min(room).max(1)
}

/// Changes a translated request for another target at the same upstream: the server has loaded another model, or has
/// another window by now. Sets the name, unless a hook had set another one than `before`, and the limit on the answer, in the
/// body and in `asked`. The rest stays as it was translated for the earlier target, since the client's request is gone by
/// now.
pub fn retarget(body: &mut Object<'_>, asked: &mut Asked, before: &str, target: &Target<'_>) {
    if let Some(model) = body.get_mut("model").filter(|model| model.as_str() == Some(before)) {
        *model = target.model.to_string().into();
    }
    asked.prompt_tokens = target.lessons.tokens.tokens(asked.estimate);
    asked.window = target.window.or(target.lessons.window.map(|told| told.tokens));
    asked.max_tokens = max_tokens(asked.wanted_tokens, target, asked.estimate, asked.prompt_tokens);
    asked.is_clamped_to_window = asked.max_tokens < asked.wanted_tokens;
    for limit in LIMIT_KEYS {
        if let Some(limit) = body.get_mut(limit) {
            *limit = asked.max_tokens.into();
        }
    }
}

/// The tokens that `window` most likely leaves for an answer.
pub fn likely_room(window: u64, prompt_tokens: u64) -> u64 {
    let left = window.saturating_sub(prompt_tokens.saturating_add(WINDOW_MARGIN));
    left.max(ROOM_MIN.min(window / 2))
}

/// Sets the limit under the names that the server knows. Also used by a second try with a smaller limit.
pub(super) fn set_max_tokens(body: &mut Object<'_>, max_tokens: u64, flavour: ServerKind) {
    for key in flavour.dialect().max_tokens_keys {
        body.set(*key, max_tokens);
    }
}

fn sampling<'r>(body: &mut Object<'r>, request: &MessagesRequest<'r>, flavour: ServerKind) {
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

/// Sets the thinking switch, its effort and its budget. The switch is always sent explicitly: Qwen's templates think
/// unless told not to, and on vLLM an effort alone would switch thinking on.
fn thinking<'r>(
    body: &mut Object<'r>,
    request: &MessagesRequest<'r>,
    target: &Target<'_>,
    thinks: bool,
    max_tokens: u64,
) {
    let dialect = target.flavour.dialect();
    // LM Studio ignores these arguments so far; Ollama has an effort "none" instead.
    if dialect.takes_template_arguments {
        let mut arguments = Object::new();
        arguments.push("enable_thinking", thinks);
        if target.settings.preserve_thinking {
            arguments.push("preserve_thinking", true);
        }
        let own = extras::template_arguments(request, target.settings);
        arguments.set_all(own.map(|(key, value)| (key, value.reborrow())));
        body.push("chat_template_kwargs", arguments);
    }
    if let Some(effort) = effort(request, target, thinks) {
        body.push("reasoning_effort", effort);
    }
    if let (Some(Thinking::Enabled(budget)), true, Some((key, by_default))) =
        (request.thinking, thinks, dialect.thinking_budget)
        && target.settings.thinking_budget.unwrap_or(by_default)
    {
        body.push(key, budget.min(max_tokens.saturating_sub(1)));
    }
}

/// The effort, if the model may think. If the request does not mention thinking, an effort alone is passed on.
fn effort<'r>(request: &MessagesRequest<'r>, target: &Target<'_>, thinks: bool) -> Option<&'r str> {
    let last_system = request.messages.last().and_then(|message| message.effort);
    let may_think = thinks || (request.thinking.is_none() && target.settings.thinking == ThinkingMode::Auto);
    let said = last_system.or(request.effort).filter(|_| may_think);
    match (target.flavour.dialect().efforts, said, request.thinking) {
        (Efforts::UpToHigh, Some("xhigh" | "max"), _) => Some("high"),
        // A strict API does not accept a budget, so the nearest effort is sent.
        (Efforts::UpToHigh, None, Some(Thinking::Enabled(budget))) if thinks => Some(match budget {
            0..=2048 => "low",
            2049..=8192 => "medium",
            _ => "high", // its highest
        }),
        (Efforts::AnyOrNone, None, _) if !thinks => Some("none"),
        _ => said,
    }
}

/// The upstream is always asked to stream: vLLM's whole answer to a cut tool call looks complete.
fn streaming(body: &mut Object<'_>, flavour: ServerKind) {
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
