//! A Messages request -> the body of a chat completion, and the plan for reading its answer.
//!
//! docs/translation.md, A, field by field. Fields that have no place are dropped; none of them fails the request.

use crate::anthropic::{Block, MessagesRequest, Thinking as Asked, ToolChoice};
use crate::error::Error;
use crate::json::{Object, Value};
use crate::openai::{Flavour, Settings, Thinking};

use super::arguments::Schema;
use super::blocks;
use super::estimate::{self, Prompt};
use super::estimator::Estimator;
use super::history::{History, history};
use super::tool_id::TakenIds;
use super::tools::{NAME_SIZE_MAX, Tools, sent_name, tools};

/// vLLM's and OpenAI's limit on `stop`; a fifth string is a 400 for the whole request.
const STOP_STRINGS_MAX: usize = 4;

/// What is kept free in the window beside prompt and answer: the estimate of the prompt is rough.
const WINDOW_MARGIN: u64 = 64;

/// The room for an answer that is asked for however large the prompt seems: if the estimate is wrong the answer is not
/// cut to a stump, and if it is right the upstream says so.
const ROOM_MIN: u64 = 1024;

/// The part of the room that a prompt leaves at best, in percent, that is always asked for. An estimate that is too large
/// must not cut answers: nobody would notice. One that is too small is refused by the upstream and repaired.
const ROOM_SHARE: u64 = 86;

/// What a stream may keep of the stop sequences of its request, in bytes: the texts, and [`KEPT_ITEM_SIZE`] for each.
const STOPS_KEPT_MAX: usize = 128 * 1024;

/// What a stream may keep of its request's tools, in bytes: their names and schemas, and [`KEPT_ITEM_SIZE`] for each. Claude
/// Code's own have 3 KB; a hundred tools of ten properties each have 20 KB.
const TOOLS_KEPT_MAX: usize = 64 * 1024;

/// What a text or a tool takes in a [`Plan`] beside its bytes.
const KEPT_ITEM_SIZE: usize = 32;

/// How many kinds of things that were left out are told of one request, and how much of each.
const DROPPED_MAX: usize = 32;
const DROPPED_SIZE_MAX: usize = 64;

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

/// Who will answer, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model's name at the upstream.
    pub model: &'t str,
    /// The server's flavour.
    pub flavour: Flavour,
    /// The context window in tokens, where known.
    pub window: Option<u64>,
    /// What earlier answers and refusals of the model told.
    pub lessons: Lessons,
    /// What the owner set.
    pub settings: &'t Settings,
}

/// What earlier answers and refusals of a model told. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lessons {
    /// How it counts prompts.
    pub tokens: Estimator,
    /// The context window that a refusal named. It counts where [`Target::window`] is not known.
    pub window: Option<ToldWindow>,
}

/// A context window that only a refusal told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldWindow {
    /// Its tokens.
    pub tokens: u64,
    /// Whether the server refuses a prompt and an answer that are too large together. Others (LM Studio) refuse only a
    /// prompt, and end an answer where the window ends: there is no reason to ask them for less.
    pub limits_answers: bool,
}

/// A request for the upstream.
#[derive(Debug)]
pub struct ChatRequest<'r> {
    /// The body.
    pub body: Value<'r>,
    /// How to read the answer.
    pub plan: Plan,
    /// Kinds of things that were left out and may matter to the owner, for one warning each: a few, and short.
    pub dropped: Vec<String>,
    /// The tools are too large to be kept while the answer runs: of some of them, arguments are not coerced to the schema.
    pub is_coercion_cut: bool,
}

/// What the answer's translation must know of its request. Owns what it holds, so that the request can be freed while
/// a long answer runs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The model as the client named it.
    pub model: String,
    /// Whether the client wants events.
    pub stream: bool,
    /// All stop sequences; matched in the answer's text.
    pub stop_sequences: Vec<String>,
    /// Whether the reasoning is withheld and only its signature shown.
    pub thinking_omitted: bool,
    /// The template opens the reasoning itself and the server has no parser for it: text is reasoning up to `</think>`.
    pub think_tags: bool,
    /// How the client began the answer, where the server repeats that before it goes on (llama.cpp).
    pub repeated: Option<String>,
    /// No tool call is passed on: the client asked for none.
    pub no_tool_call: bool,
    /// Only the first tool call is passed on.
    pub one_tool_call: bool,
    /// The tools that were declared, each with what is needed to repair its arguments.
    pub tools: Vec<(String, Option<Schema>)>,
    /// The ids of tool calls that the client knows from the history: a new call gets another one.
    pub taken_ids: TakenIds,
    /// Tools whose names were shortened for a strict API: the name that was sent, and the client's.
    pub renamed: Vec<(String, String)>,
    /// An answer without anything gets a block of empty text.
    pub never_empty: bool,
    /// Nothing is shown: the client asked for 0 tokens, to warm the cache.
    pub discard: bool,
    /// The prompt's tokens by rule of thumb, which the answer's count teaches to scale.
    pub estimate: Prompt,
    /// The prompt's tokens as the model will most likely count them; never 0.
    pub prompt_tokens: u64,
    /// The limit that was sent.
    pub max_tokens: u64,
    /// Whether the window left less room than the client asked for.
    pub is_clamped_to_window: bool,
    /// The context window in tokens, where known.
    pub window: Option<u64>,
    /// The client knows the stop reason `model_context_window_exceeded`: its `anthropic-beta` header named
    /// `model-context-window-exceeded-2025-08-26`. The caller sets it.
    pub context_window_beta: bool,
}

/// The chat completion for a request.
///
/// # Errors
/// 400: what cannot be served (docs/translation.md, A and B).
pub fn chat_request<'r>(
    request: &'r MessagesRequest<'r>,
    target: &Target<'r>,
) -> Result<ChatRequest<'r>, Error> {
    let history = history(&request.system, &request.messages, target)?;
    let tools = tools(request, target.flavour)?;
    let thinks = thinks(request, target, &history, &tools);
    let dropped = dropped(request, &tools);
    check_kept(request, target.flavour)?;
    let (kept_tools, is_coercion_cut) = kept_tools(target, &tools);
    let mut plan = plan(request, target, &tools);
    plan.tools = kept_tools;
    plan.think_tags = target.settings.think_tags && thinks;
    let repeated = history.prefill.as_deref().filter(|_| target.flavour == Flavour::LlamaCpp);
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
    let mut chat = ChatRequest { body: body.into(), plan, dropped, is_coercion_cut };
    chat.plan.measure(&chat.body, &target.lessons.tokens);
    let Some(body) = chat.body.as_object_mut() else { return Ok(chat) };
    let max_tokens = max_tokens(request, target, &chat.plan);
    chat.plan.max_tokens = max_tokens;
    let cap = target.settings.max_tokens.unwrap_or(u64::MAX);
    chat.plan.is_clamped_to_window = max_tokens < request.max_tokens.min(cap);
    set_max_tokens(body, max_tokens, target.flavour);
    sampling(body, request, target.flavour);
    // Upstream stop strings also fire in reasoning and in the markup of tool calls, and tear pieces off them; and most
    // servers do not say which one they met. There the proxy alone looks for them.
    let tells = matches!(target.flavour, Flavour::Vllm | Flavour::Sglang | Flavour::Unknown);
    if !request.stop_sequences.is_empty() && tells && !thinks && !has_tools {
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
        if let Some(value) = request.body.get(key).filter(|_| target.flavour != Flavour::OpenAi) {
            body.push(key, value.reborrow());
        }
    }
    if history.prefill.is_some() && target.flavour != Flavour::LlamaCpp {
        body.push("add_generation_prompt", false);
        body.push("continue_final_message", true);
    }
    streaming(body, target.flavour);
    Ok(chat)
}

fn user_id<'r>(request: &MessagesRequest<'r>) -> Option<&'r str> {
    request.body.get("metadata")?.get("user_id")?.as_str()
}

/// What was left out, each kind once: as the clients' words they are cut, and only the first ones are told.
fn dropped(request: &MessagesRequest<'_>, tools: &Tools<'_>) -> Vec<String> {
    let lost = request.messages.iter().flat_map(|message| &message.content).filter_map(|block| match block {
        Block::Other { kind, body } if blocks::is_lost(kind, body) => Some(("content block of type", *kind)),
        _ => None,
    });
    let mut kinds = Vec::new();
    for (what, kind) in tools.dropped.iter().map(|(_, kind)| ("server tool", *kind)).chain(lost) {
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

/// The beginning of a text, of at most `size_max` bytes.
pub(super) fn cut(text: &str, size_max: usize) -> &str {
    let end = (0..=size_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Refuses a request of which a stream would have to keep too much.
///
/// # Errors
/// 400: a text that has to be known until the answer's end is too long.
fn check_kept(request: &MessagesRequest<'_>, flavour: Flavour) -> Result<(), Error> {
    let size = |text: &&str| text.len() + KEPT_ITEM_SIZE;
    if request.stop_sequences.iter().map(size).sum::<usize>() > STOPS_KEPT_MAX {
        let what = format!("stop_sequences: together they may have about {} KiB", STOPS_KEPT_MAX / 1024);
        return Err(Error::invalid(format!("{what}; send fewer or shorter ones")));
    }
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

/// The tools that a stream keeps, each with what is needed to repair its arguments, and whether some of that was left
/// out: what is kept is bounded, however many tools a request declares.
fn kept_tools(target: &Target<'_>, tools: &Tools<'_>) -> (Vec<(String, Option<Schema>)>, bool) {
    let coerce = target.settings.coerce_arguments;
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
    // A call without a name is taken for one of the only tool: not of the only one that is kept.
    if kept.len() == 1 && tools.declared.len() > 1 {
        kept.clear();
    }
    (kept, is_cut)
}

impl Plan {
    /// About the bytes that it keeps beside its own size.
    pub fn kept_size(&self) -> usize {
        let texts = self.stop_sequences.iter().chain(&self.repeated).chain([&self.model]);
        let texts = texts.map(|text| text.len() + KEPT_ITEM_SIZE).sum::<usize>();
        let tools = self
            .tools
            .iter()
            .map(|(name, schema)| name.len() + KEPT_ITEM_SIZE + schema.as_ref().map_or(0, Schema::size));
        let renamed = self.renamed.iter().map(|(sent, own)| sent.len() + own.len() + 2 * KEPT_ITEM_SIZE);
        texts + tools.sum::<usize>() + renamed.sum::<usize>() + self.taken_ids.size()
    }
}

fn plan(request: &MessagesRequest<'_>, target: &Target<'_>, tools: &Tools<'_>) -> Plan {
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
        tools: Vec::new(),
        renamed: tools
            .declared
            .iter()
            .map(|tool| (sent_name(tool.name, target.flavour), tool.name))
            .filter(|(sent, name)| sent != name)
            .map(|(sent, name)| (sent.into_owned(), name.to_string()))
            .collect(),
        never_empty: target.settings.never_empty,
        discard: request.max_tokens == 0,
        estimate: Prompt::default(),
        prompt_tokens: 1,
        max_tokens: request.max_tokens,
        is_clamped_to_window: false,
        window: target.window.or(target.lessons.window.map(|told| told.tokens)),
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

impl Plan {
    /// Estimates the prompt that goes out. Again after a hook has changed it: the answer's count is of what was sent.
    pub fn measure(&mut self, chat: &Value<'_>, tokens: &Estimator) {
        self.estimate = estimate::prompt(chat);
        self.prompt_tokens = tokens.tokens(self.estimate);
    }
}

/// The client's limit, within the owner's cap and what the window has left.
fn max_tokens(request: &MessagesRequest<'_>, target: &Target<'_>, plan: &Plan) -> u64 {
    let cap = target.settings.max_tokens.unwrap_or(u64::MAX);
    let window = target.window.or_else(|| {
        // A prompt that does not fit a window that was only told once is refused, if that window still stands, whatever is
        // asked for. If it does not stand any more, a limit by it would cut the answer.
        let told = target.lessons.window.filter(|told| told.limits_answers)?;
        Some(told.tokens).filter(|tokens| plan.prompt_tokens < *tokens)
    });
    let room = window.map_or(u64::MAX, |window| {
        let possible = window.saturating_sub(target.lessons.tokens.least(plan.estimate));
        likely_room(window, plan.prompt_tokens).max(possible.saturating_mul(ROOM_SHARE) / 100)
    });
    request.max_tokens.min(cap).min(room).max(1)
}

/// The tokens that `window` most likely has left for an answer.
pub fn likely_room(window: u64, prompt_tokens: u64) -> u64 {
    let left = window.saturating_sub(prompt_tokens.saturating_add(WINDOW_MARGIN));
    left.max(ROOM_MIN.min(window / 2))
}

/// Sets the limit under the names that the server knows. Also for a second try with a smaller one.
pub(super) fn set_max_tokens(body: &mut Object<'_>, max_tokens: u64, flavour: Flavour) {
    if matches!(flavour, Flavour::Vllm | Flavour::OpenAi) {
        body.set("max_completion_tokens", max_tokens);
    }
    if flavour != Flavour::OpenAi {
        body.set("max_tokens", max_tokens);
    }
}

fn sampling<'r>(body: &mut Object<'r>, request: &MessagesRequest<'r>, flavour: Flavour) {
    if let Some(temperature) = request.temperature {
        body.push("temperature", temperature);
    }
    if let Some(top_p) = request.top_p {
        body.push("top_p", top_p.reborrow());
    }
    if let Some(top_k) = request.top_k.filter(|_| flavour != Flavour::OpenAi) {
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
    let flavour = target.flavour;
    // LM Studio passes it over so far; Ollama has an effort "none" instead.
    if !matches!(flavour, Flavour::Ollama | Flavour::OpenAi) {
        let mut arguments = Object::new();
        arguments.push("enable_thinking", thinks);
        if target.settings.preserve_thinking {
            arguments.push("preserve_thinking", true);
        }
        if let Some(own) = request.body.get("chat_template_kwargs").and_then(Value::as_object) {
            arguments.set_all(own.iter().map(|(key, value)| (key, value.reborrow())));
        }
        body.push("chat_template_kwargs", arguments);
    }
    if let Some(effort) = effort(request, target, thinks) {
        body.push("reasoning_effort", effort);
    }
    // vLLM refuses a budget where it was started without a reasoning config: there only if the owner says so.
    let takes_budget = target.settings.thinking_budget.unwrap_or(flavour == Flavour::LlamaCpp);
    if let (Some(Asked::Enabled(budget)), true, true) = (request.thinking, thinks, takes_budget) {
        let budget = budget.min(max_tokens.saturating_sub(1));
        match flavour {
            Flavour::Vllm => body.push("thinking_token_budget", budget),
            Flavour::LlamaCpp => body.push("thinking_budget_tokens", budget),
            _ => {}
        }
    }
}

/// The effort, where the model may think; without a word on thinking an effort alone is passed on.
fn effort<'r>(request: &MessagesRequest<'r>, target: &Target<'_>, thinks: bool) -> Option<&'r str> {
    let last_system = request.messages.last().and_then(|message| message.effort);
    let may_think = thinks || (request.thinking.is_none() && target.settings.thinking == Thinking::Auto);
    let said = last_system.or(request.effort).filter(|_| may_think);
    match (target.flavour, said, request.thinking) {
        (Flavour::OpenAi, Some("xhigh" | "max"), _) => Some("high"),
        // A strict API takes no budget: the effort that comes nearest.
        (Flavour::OpenAi, None, Some(Asked::Enabled(budget))) if thinks => Some(match budget {
            0..=2048 => "low",
            2049..=8192 => "medium",
            _ => "high", // its highest
        }),
        (Flavour::Ollama, None, _) if !thinks => Some("none"),
        _ => said,
    }
}

/// The upstream is always asked to stream: vLLM's whole answer to a cut tool call looks complete.
fn streaming(body: &mut Object<'_>, flavour: Flavour) {
    body.push("stream", true);
    let mut options = Object::new();
    options.push("include_usage", true);
    match flavour {
        // The first chunk then tells the exact prompt tokens.
        Flavour::Vllm | Flavour::Sglang => options.push("continuous_usage_stats", true),
        Flavour::LlamaCpp => body.push("return_progress", true),
        _ => {}
    }
    body.push("stream_options", options);
}
