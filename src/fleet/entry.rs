//! One entry of a models listing: the name, the context window, and whether the model chats; and the server's kind.
//!
//! Reads the listings of the OpenAI-compatible servers; knows nothing of sockets.

use crate::dialect::ServerKind;
use crate::json::Value;

/// How well a model fits requests that name no model, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChatFitness {
    /// It chats, and is loaded as far as the server says.
    #[default]
    Chats,
    /// It would have to be loaded first, in place of another one.
    Unloaded,
    /// Its name or the server says that it does other work.
    OtherWork,
}

/// The members of a listed model that hold its context window, the one that holds for a request first.
const WINDOW_PATHS: [&[&str]; 14] = [
    &["max_model_len"],                  // vLLM, SGLang, NIM
    &["meta", "n_ctx"],                  // llama.cpp, for one slot
    &["n_ctx"],                          // llama-cpp-python and relays of it
    &["loaded_context_length"],          // LM Studio, of a loaded model
    &["parameters", "max_seq_len"],      // TabbyAPI
    &["max_seq_len"],                    // servers on ExLlama
    &["max_context_window"],             // Lemonade
    &["top_provider", "context_length"], // OpenRouter
    &["context_length"],                 // OpenRouter, Together
    &["context_window"],                 // Groq
    &["max_context_length"],             // Mistral
    &["context_size"],                   // Novita and other services
    &["limits", "max_context_length"],   // Cerebras
    &["max_input_tokens"],               // relays such as LiteLLM
];

/// Words in the names of models that do not chat: embedders, rerankers, classifiers, and models that hear, speak or
/// draw. A word is a run of letters and digits.
const OTHER_WORDS: [&str; 27] = [
    "bge",
    "gte",
    "e5",
    "minilm",
    "colbert",
    "tts",
    "stt",
    "asr",
    "kokoro",
    "piper",
    "parakeet",
    "bark",
    "clip",
    "siglip",
    "sdxl",
    "sd3",
    "flux",
    "dall",
    "imagen",
    "sora",
    "realtime",
    "moderation",
    "guard",
    "musicgen",
    "clap",
    "mpnet",
    "splade",
];

/// Parts of such names.
const OTHER_PARTS: [&str; 7] =
    ["embed", "rerank", "whisper", "transcri", "stable-diffusion", "text-to-", "dall-e"];

/// The values of a member that names the work of a model, for work other than chatting: LM Studio's and Together's
/// `type`, Lemonade's `labels`.
const OTHER_TYPES: [&str; 13] = [
    "embedding",
    "embeddings",
    "rerank",
    "reranker",
    "reranking",
    "image",
    "audio",
    "transcription",
    "transcribe",
    "tts",
    "moderation",
    "video",
    "image-generation",
];

/// The options of llama-server that set its window, and that set the number of slots that share it.
const WINDOW_OPTIONS: [&str; 2] = ["-c", "--ctx-size"];
const SLOT_OPTIONS: [&str; 2] = ["-np", "--parallel"];
const WHOLE_WINDOW_OPTIONS: [&str; 2] = ["-kvu", "--kv-unified"];

/// The time that LiteLLM gives as `created` of each model: it is a constant in its program.
const LITELLM_CREATED: u64 = 1_677_610_602;

/// The name of a listed model.
pub(super) fn id<'e>(entry: &'e Value<'_>) -> Option<&'e str> {
    entry.get("id")?.as_str()
}

/// The number at the end of a path of members; `None` for 0, which servers give for "unknown".
pub(super) fn tokens_at(value: &Value<'_>, path: &[&str]) -> Option<u64> {
    let value = path.iter().try_fold(value, |value, key| value.get(key))?;
    value.as_u64().filter(|&tokens| tokens > 0)
}

/// The context window of a listed model.
pub(super) fn window(entry: &Value<'_>) -> Option<u64> {
    let known = WINDOW_PATHS.iter().find_map(|path| tokens_at(entry, path));
    known.or_else(|| window_of_arguments(entry.get("status")?.get("args")?.as_array()?))
}

/// The window of one slot by the command line with which llama.cpp's router starts a model. A window of 0 stands for
/// the model's own, which the command line does not tell.
fn window_of_arguments(arguments: &[Value<'_>]) -> Option<u64> {
    let words: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
    let number = |names: [&str; 2]| {
        let after = |at: usize| words.get(at + 1).copied();
        let found = words.iter().enumerate().rev().find_map(|(at, word)| match word.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value),
            _ if names.contains(word) => after(at),
            _ => None,
        });
        found?.parse::<u64>().ok()
    };
    let window = number(WINDOW_OPTIONS).filter(|tokens| *tokens > 0)?;
    let is_whole = words.iter().any(|word| WHOLE_WINDOW_OPTIONS.contains(word));
    // Without the option the slots share one cache, and each may use all of it.
    let slots = number(SLOT_OPTIONS).filter(|slots| *slots > 0 && !is_whole).unwrap_or(1);
    Some(window / slots).filter(|tokens| *tokens > 0)
}

/// How well a listed model fits requests that name no model.
pub(super) fn fitness(entry: &Value<'_>) -> ChatFitness {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    // llama.cpp's router has an object, LM Studio a text.
    let status = entry.get("status").and_then(|status| status.get("value")).and_then(Value::as_str);
    match status.or_else(|| text("state")) {
        _ if is_for_other_work(entry) => ChatFitness::OtherWork,
        Some("unloaded" | "not-loaded" | "failed") => ChatFitness::Unloaded,
        _ => ChatFitness::Chats,
    }
}

fn is_for_other_work(entry: &Value<'_>) -> bool {
    let name = id(entry).unwrap_or_default().to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let is_other = |value: &Value<'_>| value.as_str().is_some_and(|word| OTHER_TYPES.contains(&word));
    let labels = entry.get("labels").and_then(Value::as_array).unwrap_or_default();
    // Mistral's own service tells what each model can do.
    let chats = entry.get("capabilities").and_then(|abilities| abilities.get("completion_chat"));
    words.any(|word| OTHER_WORDS.contains(&word))
        || OTHER_PARTS.iter().any(|part| name.contains(part))
        || entry.get("type").is_some_and(is_other)
        || labels.iter().any(is_other)
        || chats.and_then(Value::as_bool) == Some(false)
}

/// True if LiteLLM made the listing. It names OpenAI as the owner of each model, whatever serves it.
pub(super) fn is_relay(data: &[Value<'_>]) -> bool {
    let of_relay = |entry: &Value<'_>| {
        entry.get("created").and_then(Value::as_u64) == Some(LITELLM_CREATED)
            && entry.get("owned_by").and_then(Value::as_str) == Some("openai")
    };
    !data.is_empty() && data.iter().all(of_relay)
}

/// The server's kind by the owners of its models, otherwise by the `server` header of the response.
pub(super) fn kind_of(data: &[Value<'_>], server: Option<&str>) -> ServerKind {
    let owners = data.iter().filter_map(|entry| entry.get("owned_by")?.as_str());
    let kind = owners.map(ServerKind::from_owned_by).find(|&kind| kind != ServerKind::Unknown);
    match kind {
        // OpenAI does not tell windows. NVIDIA's NIM does and gives the same owner, and it takes what vLLM takes.
        Some(ServerKind::OpenAi) if is_relay(data) || data.iter().any(|entry| window(entry).is_some()) => {
            ServerKind::Unknown
        }
        Some(kind) => kind,
        None => server.map_or(ServerKind::Unknown, ServerKind::from_server_header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn with<T>(text: &str, read: impl FnOnce(&Value<'_>) -> T) -> T {
        read(&json::parse(&mut text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_command_line_of_a_routed_model_tells_its_window() {
        for (arguments, expected) in [
            (r#""llama-server","--ctx-size","131072""#, Some(131_072)),
            (r#""-c","32768","-np","4""#, Some(8_192)),
            (r#""-c","32768","--parallel","4","--kv-unified""#, Some(32_768)),
            (r#""--ctx-size=4096","-np","1""#, Some(4_096)),
            // The last one counts, as for llama-server.
            (r#""-c","1024","-c","2048""#, Some(2_048)),
            (r#""-c","0""#, None),
            (r#""-c""#, None),
            (r#""-c","many""#, None),
            (r#""-c","3","-np","4""#, None),
            (r#"1,{},"--port","8080""#, None),
            ("", None),
        ] {
            let entry = format!(r#"{{"id":"m","status":{{"value":"loaded","args":[{arguments}]}}}}"#);
            assert_eq!(with(&entry, window), expected, "{arguments}");
        }
        assert_eq!(with(r#"{"id":"m","status":"loaded"}"#, window), None);
    }

    #[test]
    fn work_other_than_chatting_is_told_by_name_and_by_the_server() {
        for entry in [
            r#""id":"multilingual-e5-large""#,
            r#""id":"omni-moderation-latest""#,
            r#""id":"hexgrad/Kokoro-82M""#,
            r#""id":"black-forest-labs/FLUX.1""#,
            r#""id":"x","type":"embeddings""#,
            r#""id":"x","labels":["reranking"]"#,
            r#""id":"x","capabilities":{"completion_chat":false}"#,
        ] {
            assert_eq!(with(&format!("{{{entry}}}"), fitness), ChatFitness::OtherWork, "{entry}");
        }
        for entry in [
            r#""id":"qwen3-coder","type":"llm""#,
            r#""id":"note5-chat""#,
            r#""id":"paperclip-7b","labels":["vision","tool-calling"]"#,
            r#""id":"x","type":7,"labels":"image""#,
            r#""id":"x","capabilities":{"completion_chat":true}"#,
        ] {
            assert_eq!(with(&format!("{{{entry}}}"), fitness), ChatFitness::Chats, "{entry}");
        }
        assert_eq!(with(r#"{"id":"x","state":"not-loaded"}"#, fitness), ChatFitness::Unloaded);
    }

    #[test]
    fn a_relay_and_a_nim_are_not_openai() {
        let kind = |text: &str| with(text, |list| kind_of(list.as_array().unwrap(), None));
        assert_eq!(
            kind(r#"[{"id":"m","created":1677610602,"owned_by":"openai"}]"#),
            ServerKind::Unknown,
            "LiteLLM"
        );
        assert_eq!(kind(r#"[{"id":"m","owned_by":"system","max_model_len":131072}]"#), ServerKind::Unknown);
        assert_eq!(
            kind(
                r#"[{"id":"gpt-3.5-turbo","created":1677610602,"owned_by":"openai"},{"id":"b","owned_by":"system"}]"#
            ),
            ServerKind::OpenAi
        );
        assert_eq!(kind("[]"), ServerKind::Unknown);
    }
}
