//! A chat completion request as a prompt: rendered to text, four bytes of which are a token. Pure.

use serde_json::Value;

use super::cache::BLOCK;
use super::engine::{Job, chain};

const TOKEN_BYTES: usize = 4;

/// The number of tokens of a text.
pub fn tokens(text: &str) -> u64 {
    text.len().div_ceil(TOKEN_BYTES) as u64
}

/// The whole prompt: tools, then the messages, then the beginning of the answer.
pub fn prompt(chat: &Value) -> String {
    let mut text = String::new();
    for tool in chat["tools"].as_array().into_iter().flatten() {
        text += &format!("{tool}\n");
    }
    for message in chat["messages"].as_array().into_iter().flatten() {
        text += &format!("<|{}|>", message["role"].as_str().unwrap_or_default());
        match &message["content"] {
            Value::String(content) => text += content,
            Value::Array(parts) => parts.iter().for_each(|part| text += part["text"].as_str().unwrap_or("")),
            _ => {}
        }
        if message["tool_calls"].is_array() {
            text += &message["tool_calls"].to_string();
        }
        text += "<|end|>\n";
    }
    text + "<|assistant|>"
}

/// The text of an answer: words of one token each, other ones for another prompt.
pub fn answer(prompt: &str, count: u64) -> String {
    let seed = sparkgap::hash::Fnv::EMPTY.push(prompt.as_bytes()).mixed();
    let word = |at| {
        let number = chain(seed, at);
        let letter = |shift: u32| char::from(b'a' + (number >> shift & 15) as u8);
        let end = if at + 1 == count { '.' } else { ' ' };
        [letter(0), letter(8), letter(16), end]
    };
    (0..count).flat_map(word).collect()
}

/// The work for a prompt and the text that continues it. Thinking is not a part of later prompts, so an answer that
/// begins with it leaves no blocks that are found again.
pub fn job(prompt: &str, thinking: u64, text: &str) -> Job {
    let size = BLOCK as usize * TOKEN_BYTES;
    let whole = if thinking == 0 { format!("{prompt}{text}") } else { prompt.to_owned() };
    let mut hash = 0;
    let blocks = whole.as_bytes().chunks_exact(size).map(|block| {
        hash = chain(hash, sparkgap::hash::Fnv::EMPTY.push(block).mixed());
        hash
    });
    Job { blocks: blocks.collect(), prompt: tokens(prompt), output: (thinking + tokens(text)).max(1) }
}
