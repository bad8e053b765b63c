//! `system` and `messages` -> the `messages` of a chat completion.
//!
//! The rules are those of docs/translation.md, B. They all keep turn N+1 an extension of turn N: the translation of a
//! message depends on that message and the ones before it, and on the one after it only if the client cut its turn in
//! two. So the upstream's prefix cache holds from turn to turn.

mod answer;
mod loops;
mod results;

use std::borrow::Cow;

use crate::anthropic::{Block, Message, Role, ToolResult, WEB_SEARCH};
use crate::dialect::ServerKind;
use crate::error::Error;
use crate::json::{self, Value};
use crate::settings::{LoopMode, SystemMessages};
use crate::shown::cut;

use super::blocks;
use super::late::Late;
use super::plan::Target;
use super::signature::is_foreign;
use super::stream::{SearchCall, SearchRound};
use super::tool_id;
use answer::{AssistantCall, AssistantTurn, append};
use loops::CallLoop;
pub(super) use loops::{BROKEN_EVERY, TOLD_FROM};

/// Replaces an image that the model cannot see.
pub const IMAGE_OMITTED: &str = "[image omitted: model has no vision]";
/// Replaces a result that the client never sent.
const NO_RESULT: &str = "[no result: interrupted]";
/// Replaces the content of an empty result: some templates reject an empty one.
const NO_OUTPUT: &str = "(no output)";
/// How many bytes of a call's id are repeated in the line before each of its images. An id may be as long as the
/// request, and repeating it for each image would take far more memory than the request.
const IMAGE_ID_SIZE_MAX: usize = 64;
/// The beginning of a line that Claude Code puts first in its system prompt. It differs in each conversation, so it
/// would cost the upstream its whole prefix cache.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

/// One message of the chat, before it is JSON.
#[derive(Debug)]
enum ChatMessage<'r> {
    System(Cow<'r, str>),
    User(Vec<Part<'r>>),
    Assistant(AssistantTurn<'r>),
    Tool { id: &'r str, content: Cow<'r, str> },
}

#[derive(Debug)]
enum Part<'r> {
    Text(Cow<'r, str>),
    Image(&'r Value<'r>),
}

/// The translated conversation.
#[derive(Debug)]
pub(super) struct History<'r> {
    /// `messages`.
    pub(super) messages: Vec<Value<'r>>,
    /// The text of the last message, if that message is the beginning of the answer, which the model is to continue.
    pub(super) prefill: Option<String>,
    /// The tools whose definitions stand in `messages`.
    pub(super) late: Late<'r>,
    /// The number of equal calls in a row, with equal results, at the end; 0 if the last message has no result.
    pub(super) loop_length: usize,
}

/// Translates the conversation.
///
/// # Errors
/// 400: there is nothing to answer, or the last message has tool calls without results.
pub(super) fn history<'r>(
    system: &[&'r str],
    messages: &'r [Message<'r>],
    target: &Target<'_>,
    late: Late<'r>,
) -> Result<History<'r>, Error> {
    let (turns, reminders, early) = (Vec::new(), Vec::new(), Vec::new());
    let mut builder = Builder { turns, reminders, early, target, late, calls: CallLoop::default() };
    let last_user = messages.iter().rposition(|message| message.role == Role::User);
    let leading = messages.iter().take_while(|message| message.role == Role::System).count();
    let (leading, mut rest) = messages.split_at(leading);
    builder.system(system, leading, last_user.is_some());
    while let Some((message, after)) = rest.split_first() {
        if message.role == Role::Assistant {
            builder.assistant(message, after.is_empty());
            rest = after;
        } else {
            let len = rest.iter().take_while(|message| message.role != Role::Assistant).count();
            let (run, after) = rest.split_at(len);
            builder.user_turn(run, last_user.is_some_and(|last| last >= messages.len() - after.len()));
            // If calls are still open, the model's messages before and after this run become one, and their results
            // come later: until then the reminders wait, because nothing may stand between a call and its result.
            if !after.is_empty() && builder.open_calls().is_empty() {
                builder.settle_reminders();
            }
            rest = after;
        }
    }
    builder.finish()
}

/// The messages of a round of searches: the model's answer with its calls, and their results. `before`: the beginning of the
/// answer that the client gave.
pub(super) fn round_messages(
    before: &str,
    round: &SearchRound,
    results: &[String],
    flavour: ServerKind,
) -> Vec<Value<'static>> {
    let mut bytes: Vec<Vec<u8>> =
        round.calls.iter().map(|call| call.arguments.clone().into_bytes()).collect();
    let inputs: Vec<Option<Value<'_>>> = bytes.iter_mut().map(|bytes| json::parse(bytes).ok()).collect();
    let call = |(call, input)| {
        let SearchCall { id, .. }: &SearchCall = call;
        AssistantCall { id, name: WEB_SEARCH, input: Option::as_ref(input) }
    };
    let calls = round.calls.iter().zip(&inputs).map(call).collect();
    let answer = ChatMessage::Assistant(AssistantTurn::of_round(before, &round.written, calls));
    let result = |(call, text): (&SearchCall, &String)| {
        ChatMessage::Tool { id: &call.id, content: Cow::Borrowed(text) }.into_json(flavour).into_owned()
    };
    let results = round.calls.iter().zip(results).map(result);
    std::iter::once(answer.into_json(flavour).into_owned()).chain(results).collect()
}

struct Builder<'r, 't> {
    turns: Vec<ChatMessage<'r>>,
    /// System messages that come where no user or tool message can take them yet.
    reminders: Vec<Cow<'r, str>>,
    /// Results that come in the model's own message.
    early: Vec<&'r ToolResult<'r>>,
    target: &'t Target<'t>,
    late: Late<'r>,
    calls: CallLoop<'r>,
}

impl<'r> Builder<'r, '_> {
    /// Makes the leading system message from `system` and from the system messages before all others: a client that
    /// begins its conversation with one means the same by both.
    fn system(&mut self, blocks: &[&'r str], leading: &'r [Message<'r>], user_follows: bool) {
        let texts = blocks.iter().map(|text| Cow::Borrowed(without_billing_header(text)));
        let leading = leading.iter().filter(|message| !(message.until_next_user && user_follows));
        let texts = texts.chain(leading.flat_map(system_texts));
        if let Some(text) = join(texts.filter(|text| !text.trim().is_empty()), "\n\n") {
            self.turns.push(ChatMessage::System(text));
        }
    }

    fn system_message(&mut self, message: &'r Message<'r>) {
        let texts = system_texts(message).filter(|text| !text.trim().is_empty());
        let Some(text) = join(texts, "\n\n") else { return };
        let keep = self.target.settings.system_messages == SystemMessages::Keep;
        if keep && self.open_calls().is_empty() {
            self.turns.push(ChatMessage::System(text));
            return;
        }
        let reminder = if text.starts_with("<system-reminder>") {
            text
        } else {
            Cow::Owned(format!("<system-reminder>\n{text}\n</system-reminder>"))
        };
        // A reminder never becomes a turn of its own: Qwen's templates drop the reasoning before each new user turn.
        match self.turns.last_mut() {
            Some(ChatMessage::User(parts)) => parts.push(Part::Text(reminder)),
            Some(ChatMessage::Tool { content, .. }) => {
                let content = content.to_mut();
                content.push_str("\n\n");
                content.push_str(&reminder);
            }
            _ => self.reminders.push(reminder),
        }
    }

    /// Translates everything between two answers: user messages, which the API merges, and system messages.
    fn user_turn(&mut self, run: &'r [Message<'r>], user_follows: bool) {
        let last_user = run.iter().rposition(|message| message.role == Role::User);
        let results = run.iter().flat_map(|message| &message.content).filter_map(as_result);
        let results: Vec<&ToolResult<'r>> = self.early.drain(..).chain(results).collect();
        if results.is_empty() {
            self.calls.reset();
        }
        if last_user.is_some() || !results.is_empty() {
            self.results(&results);
        }
        for (at, message) in run.iter().enumerate() {
            let forgotten = user_follows || last_user.is_some_and(|last| last > at);
            match message.role {
                Role::System if message.until_next_user && forgotten => {}
                Role::System => self.system_message(message),
                Role::User | Role::Assistant => self.user(message),
            }
        }
    }

    /// Keeps system messages between two answers where they are, as a turn of the user. They were sent that way when
    /// they were the last messages, and a message that was sent once must keep its place.
    fn settle_reminders(&mut self) {
        let reminders = self.reminders.drain(..).map(Part::Text).collect();
        self.user_parts(reminders);
    }

    fn user(&mut self, message: &'r Message<'r>) {
        let mut parts: Vec<Part<'r>> = self.reminders.drain(..).map(Part::Text).collect();
        for block in &message.content {
            each_part(block, self.target, &mut self.late, &mut |part| parts.push(part));
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.trim().is_empty()));
        self.user_parts(parts);
    }

    /// Appends the parts to the user's turn, or begins a new turn.
    fn user_parts(&mut self, parts: Vec<Part<'r>>) {
        if parts.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(ChatMessage::User(before)) => before.extend(parts),
            _ => self.turns.push(ChatMessage::User(parts)),
        }
    }

    /// Puts the results directly behind the calls just made, in the order of the calls. A result that answers no call
    /// becomes text of the user, unless it is empty. The images that tools returned follow all results.
    fn results(&mut self, results: &[&'r ToolResult<'r>]) {
        let open = self.open_calls().to_vec();
        let ids: Vec<&str> = open.iter().map(|call| call.id).collect();
        let mut after = Vec::new();
        let paired = results::pair(&ids, results);
        for (AssistantCall { id, name, input }, result) in open.into_iter().zip(paired.of_calls) {
            let result = result.and_then(|at| results.get(at));
            let content = result.map(|result| result_text(result, &mut after, self.target, &mut self.late));
            let mut content = content.unwrap_or(Cow::Borrowed(NO_RESULT));
            if self.target.settings.loops != LoopMode::Off {
                self.calls.add(name, input, &mut content);
            }
            self.turns.push(ChatMessage::Tool { id, content });
        }
        for result in paired.without_call.iter().filter_map(|at| results.get(*at)) {
            let mut images = Vec::new();
            let text = result_text(result, &mut images, self.target, &mut self.late);
            if text == NO_OUTPUT {
                continue;
            }
            let id = tool_id::given(&result.id);
            after.push(Part::Text(Cow::Owned(format!("Result of tool call {id}: {text}"))));
            after.extend(images);
        }
        self.user_parts(after);
    }

    /// The calls in the last answer, which have no result yet.
    fn open_calls(&self) -> &[AssistantCall<'r>] {
        match self.turns.last() {
            Some(ChatMessage::Assistant(answer)) => &answer.calls,
            _ => &[],
        }
    }

    fn assistant(&mut self, message: &'r Message<'r>, last: bool) {
        self.early_results();
        for block in &message.content {
            // A summary of the earlier conversation does not count as an answer of the model.
            if let Block::Other { kind: "compaction", .. } = block {
                self.user_parts(block_text(block).map(Part::Text).into_iter().collect());
            }
        }
        let mut answer = match self.turns.pop_if(|turn| matches!(turn, ChatMessage::Assistant(_))) {
            Some(ChatMessage::Assistant(answer)) => answer,
            _ => AssistantTurn::default(),
        };
        answer.text_ended = true; // the text of a second message begins a new paragraph
        let settings = self.target.settings;
        let is_kept = |block: &&Block<'_>| match block {
            Block::Thinking { signature, .. } => settings.foreign_thinking || !is_foreign(signature),
            _ => true,
        };
        message.content.iter().filter(is_kept).for_each(|block| answer.push(block));
        if !answer.is_empty(last) {
            self.turns.push(ChatMessage::Assistant(answer));
        }
        self.early.extend(message.content.iter().filter_map(as_result));
        if last {
            self.early_results();
        }
    }

    /// Puts results from the model's own message behind its calls if the next message is the model's too.
    fn early_results(&mut self) {
        if !self.early.is_empty() {
            let results: Vec<&ToolResult<'r>> = self.early.drain(..).collect();
            self.results(&results);
        }
    }

    fn finish(mut self) -> Result<History<'r>, Error> {
        let open: Vec<&str> = self.open_calls().iter().map(|call| call.id).collect();
        if !open.is_empty() {
            let what = "`tool_use` ids were found without `tool_result` blocks immediately after";
            return Err(Error::invalid(format!("messages: {what}: {}", open.join(", "))));
        }
        self.settle_reminders();
        if self.turns.iter().all(|turn| matches!(turn, ChatMessage::System(_))) {
            return Err(Error::invalid("messages.0: user messages must have non-empty content"));
        }
        let mut prefill = None;
        if let Some(ChatMessage::Assistant(answer)) = self.turns.last_mut() {
            let text = answer.text.take().map(|text| text.trim_end().to_string());
            prefill = Some(text.clone().unwrap_or_default());
            answer.text = text.map(Cow::Owned);
        }
        if prefill.is_some() && !self.target.flavour.dialect().takes_prefill {
            return Err(Error::invalid(
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            ));
        }
        let flavour = self.target.flavour;
        if self.target.settings.thinking_in_text {
            let last_user = self.turns.iter().rposition(|turn| matches!(turn, ChatMessage::User(_)));
            for turn in self.turns.iter_mut().take(last_user.unwrap_or(0)) {
                if let ChatMessage::Assistant(answer) = turn {
                    answer.think_in_text();
                }
            }
        }
        let messages = self.turns.into_iter().map(|turn| turn.into_json(flavour)).collect();
        Ok(History { messages, prefill, late: self.late, loop_length: self.calls.length() })
    }
}

fn as_result<'b, 'r>(block: &'b Block<'r>) -> Option<&'b ToolResult<'r>> {
    if let Block::ToolResult(result) = block { Some(result) } else { None }
}

fn join<'r>(mut texts: impl Iterator<Item = Cow<'r, str>>, separator: &str) -> Option<Cow<'r, str>> {
    let mut joined = Some(texts.next()?);
    for text in texts {
        append(&mut joined, text, separator);
    }
    joined
}

/// The text without the line of the billing header. Empty if the text is nothing else: then its block is dropped.
fn without_billing_header(text: &str) -> &str {
    if !text.trim_start().starts_with(BILLING_HEADER) {
        return text;
    }
    text.trim_start().split_once('\n').map_or("", |(_, rest)| rest)
}

/// The text of a tool result. Its images are appended to `images`, each with a line that says which call returned it.
fn result_text<'r>(
    result: &ToolResult<'r>,
    images: &mut Vec<Part<'r>>,
    target: &Target<'_>,
    late: &mut Late<'_>,
) -> Cow<'r, str> {
    let mut text = None;
    let mut has_image = false;
    let mut add = |part| match part {
        Part::Text(more) if more.is_empty() => {}
        Part::Text(more) => append(&mut text, more, "\n"),
        Part::Image(source) => {
            let id = tool_id::given(&result.id);
            let line = format!("Image returned by tool call {}:", cut(&id, IMAGE_ID_SIZE_MAX));
            images.extend([Part::Text(Cow::Owned(line)), Part::Image(source)]);
            has_image = true;
        }
    };
    for block in &result.content {
        match block {
            // The tool's output may be all in this block, so the model gets it as it is.
            Block::Other { kind, body } if blocks::is_lost(kind, body) => {
                add(Part::Text(Cow::Owned(body.to_json())));
            }
            other => each_part(other, target, late, &mut add),
        }
    }
    let text = text.unwrap_or(Cow::Borrowed(if has_image { "[image]" } else { NO_OUTPUT }));
    // No server has a flag for an error, so the text must say so.
    if result.is_error && !text.starts_with("Error") && !text.starts_with("<tool_use_error>") {
        Cow::Owned(format!("Error: {text}"))
    } else {
        text
    }
}

fn image<'r>(source: &'r Value<'r>, target: &Target<'_>) -> Part<'r> {
    let is_address = source.get("type").and_then(Value::as_str) == Some("url");
    if !target.settings.vision {
        Part::Text(Cow::Borrowed(IMAGE_OMITTED))
    } else if is_address && !target.flavour.dialect().takes_image_addresses {
        Part::Text(Cow::Borrowed("[image omitted: the server takes no addresses of images]"))
    } else {
        Part::Image(source)
    }
}

/// Passes the parts of a block of a user message or of a result to `add`: an image, the text of a document and its
/// images, the definition of a tool that comes late, or the text of any other block.
fn each_part<'r>(
    block: &Block<'r>,
    target: &Target<'_>,
    late: &mut Late<'_>,
    add: &mut impl FnMut(Part<'r>),
) {
    if let Block::Image(source) = block {
        add(image(source, target));
    }
    let definition = if let Block::Other { kind, body } = block { late.tell(kind, body) } else { None };
    if let Some(text) = definition.or_else(|| block_text(block)) {
        add(Part::Text(text));
    }
    if let Block::Other { kind: "document", body } = block {
        blocks::images(body).for_each(|source| add(image(source, target)));
    }
}

/// The texts of a system message, without the billing header.
fn system_texts<'r>(message: &'r Message<'r>) -> impl Iterator<Item = Cow<'r, str>> {
    message.content.iter().filter_map(|block| match block {
        Block::Text(text) => Some(Cow::Borrowed(without_billing_header(text))),
        other => block_text(other),
    })
}

/// The text of a block of any kind; `None` if it has no text.
fn block_text<'r>(block: &Block<'r>) -> Option<Cow<'r, str>> {
    match block {
        Block::Text(text) => Some(Cow::Borrowed(text)),
        Block::Other { kind, body } => blocks::text(kind, body),
        Block::Image(_) | Block::ToolUse { .. } | Block::ToolResult(_) | Block::Thinking { .. } => None,
    }
}

impl<'r> ChatMessage<'r> {
    fn into_json(self, flavour: ServerKind) -> Value<'r> {
        match self {
            ChatMessage::System(text) => Value::object([("role", "system".into()), ("content", text.into())]),
            ChatMessage::User(parts) => Value::object([("role", "user".into()), ("content", content(parts))]),
            ChatMessage::Tool { id, content } => Value::object([
                ("role", "tool".into()),
                ("tool_call_id", tool_id::given(id).into()),
                ("content", content.into()),
            ]),
            ChatMessage::Assistant(answer) => answer.into_json(flavour),
        }
    }
}

/// The content of a message. Text alone becomes one string, which every template takes; with images it is an array of
/// parts.
fn content<'r>(parts: Vec<Part<'r>>) -> Value<'r> {
    let mut merged: Vec<Part<'r>> = Vec::new();
    for part in parts {
        match (merged.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => {
                let before = before.to_mut();
                before.push_str("\n\n");
                before.push_str(&text);
            }
            (_, part) => merged.push(part),
        }
    }
    match <[Part<'r>; 1]>::try_from(merged) {
        Ok([Part::Text(text)]) => text.into(),
        Ok([image]) => vec![image.into_json()].into(),
        Err(parts) => parts.into_iter().map(Part::into_json).collect::<Vec<_>>().into(),
    }
}

impl<'r> Part<'r> {
    fn into_json(self) -> Value<'r> {
        match self {
            Part::Text(text) => Value::object([("type", "text".into()), ("text", text.into())]),
            Part::Image(source) => {
                let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or("");
                let url: Value<'r> = match text("type") {
                    "url" => text("url").to_string().into(),
                    _ => format!("data:{};base64,{}", text("media_type"), text("data")).into(),
                };
                Value::object([("type", "image_url".into()), ("image_url", Value::object([("url", url)]))])
            }
        }
    }
}
