//! The chain of a body: length and hash of each tool, each piece of the system prompt, and each message, in this order.

use std::fmt;

use super::sum::{hash, mix};
use crate::json::{Object, Value};
use crate::shown::{ShownText, cut};

/// The bytes of one piece of the system prompt: how exactly a change in it is placed.
const PIECE_SIZE: usize = 256;

/// The most pieces of the system prompt; the last one has all the rest.
const PIECES_MAX: usize = 1024;

/// The most parts of a chain, 64 KiB. A request with more is not judged.
const PARTS_MAX: usize = 4096;

/// The most bytes of the names of tools that are kept, so that a change of one can be told by name.
const NAMES_SIZE_MAX: usize = 4096;

/// The most bytes of a tool's name that are told.
const NAME_SIZE_MAX: usize = 64;

/// A chain is one of the same conversation as another if the parts that they share have this part of the shorter one's
/// bytes.
const SHARED_PART: u64 = 4;

/// One part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChainPart {
    hash: u64,
    size: u32,
    role: MessageRole,
}

/// The role of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageRole {
    System,
    User,
    Assistant,
    ToolResult,
    /// Anything else, and whatever is not a message.
    Other,
}

impl MessageRole {
    fn of(message: &Value<'_>) -> MessageRole {
        match message.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => MessageRole::System,
            Some("user") => MessageRole::User,
            Some("assistant") => MessageRole::Assistant,
            Some("tool") => MessageRole::ToolResult,
            _ => MessageRole::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            MessageRole::System => "system",
            MessageRole::User => "user",
            MessageRole::Assistant => "assistant",
            MessageRole::ToolResult => "tool_result",
            MessageRole::Other => "other",
        }
    }
}

/// The chain of a body, and the settings that change the prompt that a server makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    tools: Box<[ChainPart]>,
    system: Box<[ChainPart]>,
    messages: Box<[ChainPart]>,
    /// The names of the tools, each with a line end.
    names: Box<str>,
    model: u64,
    effort: u64,
    thinking: u64,
    /// True if it has more parts than a chain may have.
    is_cut: bool,
}

impl Chain {
    /// A hash of the tools, the system prompt and the first message: it names the conversation of a client that does not name
    /// it.
    pub fn root(&self) -> u64 {
        let parts = self.tools.iter().chain(&self.system).chain(self.messages.first());
        parts.fold(0, |root, part| mix(root, part.hash))
    }

    /// The bytes that it takes.
    pub fn size(&self) -> usize {
        let parts = self.tools.len() + self.system.len() + self.messages.len();
        size_of::<Chain>() + parts * size_of::<ChainPart>() + self.names.len()
    }

    /// The bytes of the body's parts.
    fn body_size(&self) -> u64 {
        self.parts().map(|part| u64::from(part.size)).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &ChainPart> {
        self.tools.iter().chain(&self.system).chain(&self.messages)
    }

    /// How much this body and an earlier one share, in bytes of parts that are the same at the same place. `None`: so little
    /// that they are not turns of one conversation, or one of them is too long to be judged.
    pub fn shared(&self, before: &Chain) -> Option<u64> {
        let same = |now: &[ChainPart], before: &[ChainPart]| -> u64 {
            now.iter()
                .zip(before)
                .filter(|(now, before)| now == before)
                .map(|(now, _)| u64::from(now.size))
                .sum()
        };
        let shared = same(&self.tools, &before.tools)
            + same(&self.system, &before.system)
            + same(&self.messages, &before.messages);
        let is_one = shared * SHARED_PART >= self.body_size().min(before.body_size()) && shared > 0;
        (is_one && !self.is_cut && !before.is_cut).then_some(shared)
    }

    /// Compares this body with the one of the turn before.
    pub fn compare(&self, before: &Chain) -> Comparison {
        let mut common = 0;
        Comparison {
            place: self.first_change(before, &mut common),
            common,
            total: before.body_size(),
            is_model_changed: self.model != before.model,
            is_effort_changed: self.effort != before.effort,
            is_thinking_changed: self.thinking != before.thinking,
            is_by_hook: false,
            is_setting_by_hook: false,
        }
    }

    /// The first place at which this body does not continue the earlier one. `common`: the bytes before it.
    fn first_change(&self, before: &Chain, common: &mut u64) -> Option<ChangePlace> {
        if let Some(at) = first_difference(&self.tools, &before.tools, true, common) {
            return Some(ChangePlace::Tool { number: at + 1, name: self.changed_tool(before, at) });
        }
        if let Some(at) = first_difference(&self.system, &before.system, true, common) {
            return Some(ChangePlace::System { character: at * PIECE_SIZE });
        }
        // A shorter conversation, whose end was taken back, continues at an earlier place.
        let at = first_difference(&self.messages, &before.messages, false, common)?;
        let role = self.messages.get(at).map_or(MessageRole::Other, |part| part.role);
        Some(ChangePlace::Message { number: at + 1, role: role.name() })
    }

    /// The name of the tool that was changed, added or removed at this place, if it is known.
    fn changed_tool(&self, before: &Chain, at: usize) -> Option<String> {
        let (now, was) = (self.names.lines().nth(at), before.names.lines().nth(at));
        let is_missing = |name: &&str, chain: &Chain| chain.names.lines().all(|known| known != *name);
        let removed = was.filter(|name| is_missing(name, self));
        let name = removed.filter(|_| now.is_none_or(|now| before.names.lines().any(|known| known == now)));
        Some(cut(name.or(now).or(was)?, NAME_SIZE_MAX).to_string())
    }
}

/// The index of the first part that is not the same in both. Where all are, `must_end` says whether the shorter list is a
/// difference. `common` grows by the bytes of the parts before.
fn first_difference(
    now: &[ChainPart],
    before: &[ChainPart],
    must_end: bool,
    common: &mut u64,
) -> Option<usize> {
    let pairs = now.iter().zip(before);
    let same = pairs
        .take_while(|(now, before)| now == before)
        .map(|(now, _)| *common += u64::from(now.size))
        .count();
    let is_end = same == now.len() || same == before.len();
    (!is_end || (must_end && now.len() != before.len())).then_some(same)
}

/// How a body differs from that of the turn before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The first place at which it does not continue the earlier one; `None`: it does.
    pub place: Option<ChangePlace>,
    /// The bytes before that place.
    pub common: u64,
    /// The bytes of the earlier body's parts.
    pub total: u64,
    /// It goes to another model.
    pub is_model_changed: bool,
    /// Its effort is another one.
    pub is_effort_changed: bool,
    /// Thinking, or another argument of the template, is another one.
    pub is_thinking_changed: bool,
    /// The change was made by a hook, not by the client.
    pub is_by_hook: bool,
    /// The other model, effort or argument of the template comes from a hook, not from the client.
    pub is_setting_by_hook: bool,
}

impl Comparison {
    /// Finds the changes that hooks made: `own` compares the bodies before the hooks.
    pub fn tell_hooks(&mut self, own: &Comparison) {
        self.is_by_hook = self.place.is_some() && own.place.is_none();
        let settings = [
            (self.is_model_changed, own.is_model_changed),
            (self.is_effort_changed, own.is_effort_changed),
            (self.is_thinking_changed, own.is_thinking_changed),
        ];
        let first = settings.into_iter().find(|(is_changed, _)| *is_changed);
        self.is_setting_by_hook = first.is_some_and(|(_, is_own)| !is_own);
    }
}

/// A place in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangePlace {
    /// A tool.
    Tool {
        /// Its number, from 1.
        number: usize,
        /// Its name, as far as it is known.
        name: Option<String>,
    },
    /// The system prompt.
    System {
        /// About the character at which it was changed, from 0; at most 256 too small.
        character: usize,
    },
    /// A message behind the system prompt.
    Message {
        /// Its number in the upstream's body, from 1.
        number: usize,
        /// `user`, `assistant`, `tool_result`, `system` or `other`.
        role: &'static str,
    },
}

impl fmt::Display for ChangePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangePlace::Tool { number, name: None } => write!(f, "tool {number}"),
            ChangePlace::Tool { number, name: Some(name) } => {
                write!(f, "tool {number} ({})", ShownText::new(name))
            }
            ChangePlace::System { character: 0 } => f.write_str("system prompt, near its beginning"),
            ChangePlace::System { character } => write!(f, "system prompt, about character {character}"),
            ChangePlace::Message { number, role } => write!(f, "message {number} ({role})"),
        }
    }
}

/// A chain that grows while its body is written.
#[derive(Debug, Default)]
pub struct ChainBuilder {
    tools: Vec<ChainPart>,
    system: Vec<ChainPart>,
    messages: Vec<ChainPart>,
    names: String,
    is_cut: bool,
}

impl ChainBuilder {
    /// Writes a body as [`Value::write`] does, and makes its chain on the way.
    pub fn write(body: &Value<'_>, out: &mut Vec<u8>) -> Chain {
        let Some(object) = body.as_object() else {
            body.write(out);
            return Chain { is_cut: true, ..Chain::default() };
        };
        let mut builder = ChainBuilder::default();
        object.write_items(out, |key, item, bytes| match key {
            "tools" => builder.add_tool(item, bytes),
            "messages" => builder.add_message(item, bytes),
            _ => {}
        });
        builder.finish(object)
    }

    fn add_tool(&mut self, tool: &Value<'_>, bytes: &[u8]) {
        let name =
            tool.get("function").unwrap_or(tool).get("name").and_then(Value::as_str).unwrap_or_default();
        // A name with a line end would be two.
        if self.names.len() + name.len() < NAMES_SIZE_MAX {
            self.names.extend(name.chars().map(|c| if c == '\n' { ' ' } else { c }));
            self.names.push('\n');
        }
        self.add(|builder| &mut builder.tools, bytes, MessageRole::Other);
    }

    fn add_message(&mut self, message: &Value<'_>, bytes: &[u8]) {
        let role = MessageRole::of(message);
        if role != MessageRole::System || !self.messages.is_empty() {
            return self.add(|builder| &mut builder.messages, bytes, role);
        }
        let mut rest = bytes;
        while let Some((piece, after)) = rest.split_at_checked(PIECE_SIZE) {
            if self.system.len() + 1 >= PIECES_MAX {
                break;
            }
            self.add(|builder| &mut builder.system, piece, role);
            rest = after;
        }
        self.add(|builder| &mut builder.system, rest, role);
    }

    fn add(&mut self, list: impl FnOnce(&mut Self) -> &mut Vec<ChainPart>, bytes: &[u8], role: MessageRole) {
        if self.tools.len() + self.system.len() + self.messages.len() >= PARTS_MAX {
            self.is_cut = true;
            return;
        }
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        list(self).push(ChainPart { hash: hash(bytes), size, role });
    }

    fn finish(self, body: &Object<'_>) -> Chain {
        let hash_of = |key: &str| body.get(key).map_or(0, |value| hash(value.to_json().as_bytes()));
        Chain {
            tools: self.tools.into(),
            system: self.system.into(),
            messages: self.messages.into(),
            names: self.names.into(),
            model: hash_of("model"),
            effort: hash_of("reasoning_effort"),
            thinking: hash_of("chat_template_kwargs"),
            is_cut: self.is_cut,
        }
    }
}
