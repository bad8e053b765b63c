//! The changes that make a refused chat completion acceptable: their names, what each costs, and the models that are
//! known to need some of them.
//!
//! `refusal` says which refusal calls for which changes; `translate::repair` makes them. docs/repairs.md has the table.

use std::fmt;

/// A change to a chat completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Without everything that switches thinking on, or says how much of it.
    NoThinking,
    /// An effort that is not among these becomes the nearest of them.
    Efforts(Vec<&'static str>),
    /// Without the members of this name, in the body, `stream_options`, `chat_template_kwargs`, each message and each
    /// tool's function.
    Without(String),
    /// A line of text in place of every image.
    NoImages,
    /// A line of text in place of every image but the newest ones, of which at most so many stay.
    ImagesMax(usize),
    /// A line of text in place of every image that is neither PNG nor JPEG.
    PlainImages,
    /// A line of text in place of the newest image that was not tried yet. The change that is made and remembered is
    /// [`Repair::BrokenImages`].
    NewestImage,
    /// A line of text in place of every image that this request has, if none of them was found to be the broken one. The
    /// change that is made and remembered is [`Repair::BrokenImages`].
    PresentImages,
    /// A line of text in place of the images whose addresses have these hashes.
    BrokenImages(Vec<u64>),
    /// Tool schemas without the keywords that few grammars know, such as `pattern` and `format`.
    PlainSchemas,
    /// The schema of a wanted format without the same keywords.
    PlainFormat,
    /// A schema that allows any object for the tool of this name.
    OpenSchema(String),
    /// A schema that allows any object for every tool.
    OpenSchemas,
    /// The order of messages that strict templates demand: one system message at the beginning, then user and
    /// assistant in turns, and no user directly behind a tool.
    Alternation,
    /// Each of several calls of one answer in an answer of its own, with its result behind it.
    SingleCalls,
    /// The text of an answer with calls in an answer of its own, before the calls.
    CallsAlone,
    /// The system message as the beginning of the first user message.
    NoSystem,
    /// `developer` in place of `system`, or the reverse.
    SystemRole(&'static str),
    /// Ids of tool calls as nine letters and digits.
    CallIds,
    /// Tool names of at most 64 letters, digits, `_` and `-`.
    ToolNames,
    /// A named tool as the only one that is offered, and `required` in place of its name.
    NoNamedChoice,
    /// A named tool as the only one that is offered, and no `tool_choice`.
    NoChoice,
    /// Calls as text: `tool_choice` of `none` in place of `auto`, for a server that was started without a parser for calls, or
    /// with another model's, which drops them. The tools stay in the prompt, and `rescue` finds the calls in the answer.
    CallsAsText,
    /// A wanted format without `strict`.
    LooseFormat,
    /// The wanted format as an instruction at the end of the last message.
    FormatAsText,
    /// The limit of the answer under this name.
    LimitName(&'static str),
    /// A limit of the answer of at most so many tokens.
    OutputMax(u64),
    /// A limit of the answer of at most so many tokens, for this request only: its prompt leaves no more room.
    Room(u64),
    /// An empty string in place of `content: null`.
    NoNullContent,
    /// The texts of a content as one string.
    StringContent,
    /// The reasoning of each answer with calls as `reasoning_content`, and a blank one in an answer that has none.
    ReasoningContent,
}

/// The efforts that servers know, the least first.
pub const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// The beginnings or parts of the names of models whose templates, and Mistral's own tokenizer, refuse what other models
/// accept.
const MISTRAL: [&str; 9] = [
    "mistral",
    "mixtral",
    "devstral",
    "magistral",
    "ministral",
    "codestral",
    "pixtral",
    "voxtral",
    "mathstral",
];

impl Repair {
    /// The changes that a model of this name needs before anything was refused. `is_strict`: its server refuses members
    /// that OpenAI's API does not have. Mistral's tokenizer and such servers have no use for arguments of a template.
    pub fn known(model: &str, is_strict: bool) -> Vec<Repair> {
        let model = model.to_ascii_lowercase();
        let is_mistral = MISTRAL.iter().any(|name| model.contains(name));
        let mut repairs = Vec::new();
        if is_mistral {
            repairs.extend([Repair::Alternation, Repair::CallIds, Repair::ToolNames]);
        }
        if is_mistral || is_strict {
            repairs.push(Repair::Without("chat_template_kwargs".into()));
        }
        if is_strict {
            repairs.push(Repair::Without("top_k".into()));
        }
        repairs
    }

    /// The place of the change among others, from 0: changes that merge messages come before those that split them, and
    /// what each of the messages must have comes last.
    pub fn rank(&self) -> u8 {
        match self {
            Repair::Alternation | Repair::NoSystem => 0,
            Repair::ReasoningContent => 2,
            _ => 1,
        }
    }

    /// True if the change is made to all later requests, too.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Repair::Room(_) | Repair::NewestImage | Repair::PresentImages)
    }

    /// True if the refusal did not say what exactly is wrong, so that the change is undone if it does not help.
    pub fn is_guess(&self) -> bool {
        matches!(self, Repair::PlainImages | Repair::BrokenImages(_))
    }

    /// True if one request needs at most one of the two.
    pub fn is_same_change(&self, other: &Repair) -> bool {
        self == other || matches!((self, other), (Repair::Room(_), Repair::Room(_)))
    }
}

/// The end of the sentence `the model …`: what was refused, what is done, and what that costs.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::NoThinking => f.write_str("takes no thinking; thinking and effort are left out"),
            Repair::Efforts(efforts) => {
                write!(f, "takes only the efforts {}; another becomes the nearest", efforts.join(", "))
            }
            Repair::Without(name) if name == "thinking_token_budget" => {
                f.write_str("takes no thinking budget; it is left out, so thinking is not limited")
            }
            Repair::Without(name) => write!(f, "takes no {name}; it is left out"),
            Repair::NoImages => f.write_str("takes no images; they are replaced by a line of text"),
            Repair::ImagesMax(max) => {
                write!(f, "takes at most {max} images; older ones are replaced by a line of text")
            }
            Repair::PlainImages => f.write_str(
                "decodes not all images; those that are neither PNG nor JPEG are replaced by a line of text",
            ),
            Repair::NewestImage | Repair::PresentImages | Repair::BrokenImages(_) => {
                f.write_str("could not decode an image; it is replaced by a line of text")
            }
            Repair::PlainSchemas => f.write_str(
                "cannot compile pattern, format or limits in tool schemas; they are left out, so the model may break them",
            ),
            Repair::PlainFormat => f.write_str(
                "cannot compile pattern, format or limits in the schema of an answer; they are left out, so an answer may break them",
            ),
            Repair::OpenSchema(name) => write!(
                f,
                "cannot compile the schema of the tool {name:?}; it is sent as any object, so the model sees no parameters"
            ),
            Repair::OpenSchemas => f.write_str(
                "cannot compile the tools' schemas; they are sent as any object, so the model sees no parameters",
            ),
            Repair::Alternation => f.write_str(
                "wants user and assistant in turns; messages are merged, and a short answer is put between a tool and a user",
            ),
            Repair::SingleCalls => f.write_str("takes one call in an answer; several become several answers"),
            Repair::CallsAlone => {
                f.write_str("takes no text beside calls; it becomes an answer of its own before the calls")
            }
            Repair::NoSystem => {
                f.write_str("takes no system message; it becomes the beginning of the first user message")
            }
            Repair::SystemRole(role) => write!(f, "takes the system message only as {role}"),
            Repair::CallIds => f.write_str("takes only call ids of nine letters and digits; others are hashed to such"),
            Repair::ToolNames => {
                f.write_str("takes only tool names of 64 letters and digits; longer ones are shortened")
            }
            Repair::NoNamedChoice => {
                f.write_str("takes no named tool_choice; only that tool is offered, as a required one")
            }
            Repair::NoChoice => f.write_str("takes no forced tool_choice; a named tool is the only one offered"),
            Repair::CallsAsText => f.write_str(
                "has no parser for its calls at this server; they are asked for as text, and found there",
            ),
            Repair::LooseFormat => f.write_str("takes this format only without strict; an answer may break it"),
            Repair::FormatAsText => {
                f.write_str("takes no response_format; the schema is an instruction now, and an answer may break it")
            }
            Repair::LimitName(name) => write!(f, "takes the answer's limit only as {name}"),
            Repair::OutputMax(max) => write!(f, "gives at most {max} tokens; longer limits are cut to that"),
            Repair::Room(room) => write!(f, "has room for {room} tokens beside this prompt"),
            Repair::NoNullContent => f.write_str("takes no content of null; it is sent as an empty string"),
            Repair::ReasoningContent => {
                f.write_str("wants reasoning_content beside calls; an answer without reasoning gets a blank one")
            }
            Repair::StringContent => f.write_str("takes content only as a string; images become a line of text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_mistral_are_known_by_name() {
        for name in
            ["mistralai/Devstral-Small-2-24B-Instruct-2512", "Mistral-7B", "magistral:24b", "pixtral-12b"]
        {
            assert!(Repair::known(name, false).contains(&Repair::CallIds), "{name}");
        }
        for name in ["qwen3-coder", "gpt-oss-120b", "gemma-3", ""] {
            assert_eq!(Repair::known(name, false), [], "{name}");
            let without: Vec<Repair> =
                ["chat_template_kwargs", "top_k"].map(|name| Repair::Without(name.into())).into();
            assert_eq!(Repair::known(name, true), without, "{name}");
        }
    }
}
