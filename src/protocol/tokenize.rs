//! Asks a server for the number of tokens of a prompt, in the format of its kind.

use std::rc::Rc;

use crate::dialect::{ServerKind, TokenCount};
use crate::fleet::Resolved;
use crate::json::{Object, Value};
use crate::transport::{Path, Response, Wait};

/// The most bytes of an answer that are read. vLLM's answer begins with the count, and then lists every token.
const ANSWER_SIZE_MAX: usize = 4096;

/// The members of a chat completion that shape its prompt, as `/tokenize` accepts them. Members that control the
/// generation are left out, so that the same prompt always makes the same question, whose count is remembered.
const PROMPT_KEYS: [&str; 5] =
    ["model", "messages", "tools", "chat_template_kwargs", "continue_final_message"];

/// The members that shape the prompt, for a server that accepts a whole chat completion.
const COMPLETION_KEYS: [&str; 8] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "reasoning_effort",
    "response_format",
];

/// True if the server counts a prompt with `/tokenize`.
fn has_tokenize(flavour: ServerKind) -> bool {
    matches!(flavour.dialect().token_count, TokenCount::Tokenize(_))
}

/// The question for the number of tokens of a chat completion's prompt, in the format of this kind of server.
pub fn question(flavour: ServerKind, mut body: Value<'_>) -> Vec<u8> {
    let mut question = Object::new();
    let keys = if has_tokenize(flavour) { &PROMPT_KEYS[..] } else { &COMPLETION_KEYS };
    for key in keys {
        if let Some(value) = body.as_object_mut().and_then(|object| object.remove(key)) {
            question.push(key, value);
        }
    }
    if has_tokenize(flavour) {
        let effort = body.as_object_mut().and_then(|object| object.remove("reasoning_effort"));
        let arguments = question.get_mut("chat_template_kwargs").and_then(Value::as_object_mut);
        if let (Some(effort), Some(arguments)) = (effort, arguments) {
            arguments.set("reasoning_effort", effort);
        }
        question.push("add_generation_prompt", question.get("continue_final_message").is_none());
        question.push("add_special_tokens", false);
    }
    let mut bytes = Vec::new();
    Value::from(question).write(&mut bytes);
    bytes
}

/// Something that happens while an upstream is asked for a count.
#[derive(Debug)]
pub enum CountStep<'c> {
    /// The question goes to this path.
    Asks(Path<'c>),
    /// The upstream refused with this status.
    Refused(u16, Option<u32>, &'c [u8]),
    /// The beginning of its answer.
    Answered(&'c [u8]),
}

/// The key behind which a server of this kind tells its count.
fn count_key(flavour: ServerKind) -> &'static str {
    if has_tokenize(flavour) { "\"count\"" } else { "\"input_tokens\"" }
}

/// The count in the beginning of a server's answer, if it tells one.
pub fn read_count(flavour: ServerKind, answer: &[u8]) -> Option<u64> {
    number_after(answer, count_key(flavour)).filter(|count| *count > 0)
}

/// Sends a [`question`] to the upstream. `None` if it cannot count, or did not answer in time. `note` is told each step.
pub fn ask_token_count(
    resolved: &Resolved,
    question: &[u8],
    wait: &Rc<dyn Wait>,
    note: &dyn Fn(CountStep<'_>),
) -> Option<u64> {
    let paths: &[_] = match resolved.flavour.dialect().token_count {
        TokenCount::Tokenize(paths) => paths,
        TokenCount::InputTokens(path) => &[(false, path)],
        TokenCount::None => return None,
    };
    let name = resolved.served.name();
    for (is_root, path) in paths {
        let path = if *is_root { Path::Root(path) } else { Path::Api(path) };
        note(CountStep::Asks(path));
        match resolved.served.upstream().ask(path, question, wait) {
            Ok(response) if response.status == 200 => {
                let answer = read_beginning(response, resolved.flavour);
                note(CountStep::Answered(&answer));
                return read_count(resolved.flavour, &answer);
            }
            Ok(response) => {
                let (status, retry_after) = (response.status, response.retry_after);
                log::debug!("upstream {name} counts no tokens: status {status}");
                note(CountStep::Refused(status, retry_after, response.beginning()));
            }
            Err(failure) => {
                log::debug!("upstream {name} counts no tokens: {failure}");
                return None;
            }
        }
    }
    None
}

/// Reads an answer until it has told its count, or is too long.
fn read_beginning(mut response: Response, flavour: ServerKind) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    // After a failure no count can come.
    while let Ok(read @ 1..) = response.read(&mut chunk) {
        seen.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if seen.len() > ANSWER_SIZE_MAX || number_after(&seen, count_key(flavour)).is_some() {
            break;
        }
    }
    seen
}

/// The number in the first member of that name. It is complete only if something follows it.
fn number_after(answer: &[u8], key: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(answer);
    let after = text.split_once(key)?.1.trim_start_matches([' ', ':']);
    let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    (digits > 0 && digits < after.len()).then(|| after.get(..digits)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(flavour: ServerKind, body: &str) -> String {
        let mut bytes = body.as_bytes().to_vec();
        String::from_utf8(question(flavour, crate::json::parse(&mut bytes).unwrap())).unwrap()
    }

    #[test]
    fn a_question_is_the_prompt_and_nothing_else() {
        let body = r#"{"model":"m","messages":[],"tools":[],"tool_choice":"required","max_tokens":5,
            "temperature":1,"chat_template_kwargs":{"enable_thinking":true},"reasoning_effort":"high",
            "stream":true,"return_progress":true,"stream_options":{"include_usage":true}}"#;
        let prompt = r#"{"model":"m","messages":[],"tools":[],"#;
        // /tokenize ignores the effort; the template uses it.
        assert_eq!(
            asked(ServerKind::Vllm, body),
            format!(
                "{prompt}{}",
                r#""chat_template_kwargs":{"enable_thinking":true,"reasoning_effort":"high"},"add_generation_prompt":true,"add_special_tokens":false}"#
            )
        );
        assert_eq!(
            asked(ServerKind::LlamaCpp, body),
            format!(
                "{prompt}{}",
                r#""tool_choice":"required","chat_template_kwargs":{"enable_thinking":true},"reasoning_effort":"high"}"#
            )
        );
    }

    #[test]
    fn the_beginning_of_an_answer_is_counted_without_another_one() {
        let asked = asked(ServerKind::Sglang, r#"{"messages":[],"continue_final_message":true}"#);
        assert!(asked.contains(r#""continue_final_message":true,"add_generation_prompt":false"#), "{asked}");
    }
}
