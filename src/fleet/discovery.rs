//! `GET /models` -> the server kind, its models and their context windows.
//!
//! Parses the models listings of the OpenAI-compatible servers; knows nothing of sockets. `memory` decides when to ask.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::dialect::ServerKind;
use crate::json::{self, Value};
use crate::settings::Settings;

/// The facts that are known about an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The server kind; the owner's setting overrides the one that the server reports.
    pub flavour: ServerKind,
    /// Its models in the order of its listing; empty until the listing was fetched.
    pub models: Vec<Model>,
    /// The places of the models in the listing, ordered by their names: a server may list thousands.
    by_name: Vec<usize>,
    /// The context window that the owner set; it also holds for models that are not listed.
    window: Option<u64>,
    /// A hash of everything in the listing that stays the same while the server runs. A different hash means another
    /// server, other models, or another configuration of them.
    identity: u64,
}

/// One model that an upstream serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that requests use for it.
    pub id: String,
    /// Its context window in tokens; `None` if neither the owner set it nor the server reports it.
    pub window: Option<u64>,
    fitness: ChatFitness,
}

/// How well a model fits requests that name no model, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ChatFitness {
    Chats,
    /// It would have to be loaded first, in place of another one.
    Unloaded,
    /// Its name says that it does other work.
    OtherWork,
}

impl Discovered {
    /// The facts that are known before the listing was fetched.
    pub(super) fn unasked(settings: &Settings) -> Self {
        Discovered {
            flavour: settings.flavour.unwrap_or_default(),
            models: Vec::new(),
            by_name: Vec::new(),
            window: settings.window,
            identity: 0,
        }
    }

    /// Parses the models listing. `server` is the response's `server` header.
    pub(super) fn parse(body: &mut [u8], server: Option<&str>, settings: &Settings) -> Result<Self, String> {
        let listing =
            json::parse(body).map_err(|error| format!("the models listing is not valid JSON: {error}"))?;
        // Together lists its models without an object around them.
        let data = listing.get("data").unwrap_or(&listing).as_array();
        let data = data.ok_or("the models listing has no array `data`")?;
        let own_windows: HashMap<&str, u64> =
            data.iter().filter_map(|entry| Some((id(entry)?, window(entry)?))).collect();
        let models = data.iter().filter_map(|entry| {
            // A LoRA adapter has the window of the model that it adapts.
            let parent = || own_windows.get(entry.get("parent")?.as_str()?).copied();
            let window = settings.window.or_else(|| window(entry)).or_else(parent);
            Some(Model { id: id(entry)?.to_owned(), window, fitness: fitness(entry) })
        });
        let models: Vec<Model> = models.collect();
        let mut by_name: Vec<usize> = (0..models.len()).collect();
        // The sort keeps the order of equal names, so the first of them is found.
        by_name.sort_by(|a, b| name_at(&models, *a).cmp(&name_at(&models, *b)));
        Ok(Discovered {
            flavour: settings.flavour.unwrap_or_else(|| flavour(data, server)),
            models,
            by_name,
            window: settings.window,
            identity: identity(&listing, data, server),
        })
    }

    /// The listed model of this name. Its cost grows with the logarithm of the listing's length.
    pub fn find(&self, name: &str) -> Option<&Model> {
        let first = self.by_name.partition_point(|at| name_at(&self.models, *at) < Some(name));
        let found = self.models.get(*self.by_name.get(first)?)?;
        (found.id == name).then_some(found)
    }

    /// The model for requests that name no model: the first that chats and is loaded, otherwise the first that chats,
    /// otherwise the first.
    pub fn default_model(&self) -> Option<&Model> {
        self.models.iter().min_by_key(|model| model.fitness)
    }

    /// The listing's number, which is the same for the same listing; 0 before the first one.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// The context window of `model` in tokens, if it is known. An upstream with a single model (llama.cpp) answers
    /// with that model whatever name is requested, so the window of that model applies.
    pub fn window(&self, model: &str) -> Option<u64> {
        match (self.find(model), self.models.as_slice()) {
            (Some(listed), _) => listed.window,
            (None, [only]) => only.window,
            (None, _) => self.window,
        }
    }
}

fn name_at(models: &[Model], at: usize) -> Option<&str> {
    models.get(at).map(|model| model.id.as_str())
}

/// The members of a listed model that hold its context window, the one that holds for a request first. Ollama and LM
/// Studio have none.
const WINDOW_PATHS: [&[&str]; 8] = [
    &["max_model_len"],                  // vLLM, SGLang, NIM
    &["meta", "n_ctx"],                  // llama.cpp, for one slot
    &["parameters", "max_seq_len"],      // TabbyAPI
    &["max_context_window"],             // Lemonade
    &["top_provider", "context_length"], // OpenRouter
    &["context_length"],                 // OpenRouter, Together
    &["context_window"],                 // Groq
    &["max_context_length"],             // Mistral
];

/// Parts of the names of models that do not chat: embedders, rerankers, and models that hear or speak.
const OTHER_WORK: [&str; 6] = ["embed", "rerank", "bge-", "whisper", "tts-", "-tts"];

fn id<'e>(entry: &'e Value<'_>) -> Option<&'e str> {
    entry.get("id")?.as_str()
}

fn window(entry: &Value<'_>) -> Option<u64> {
    let told = |path: &&[&str]| {
        let value = path.iter().try_fold(entry, |value, key| value.get(key))?;
        value.as_u64().filter(|&tokens| tokens > 0)
    };
    WINDOW_PATHS.iter().find_map(told)
}

fn fitness(entry: &Value<'_>) -> ChatFitness {
    let name = id(entry).unwrap_or_default().to_ascii_lowercase();
    // llama.cpp's router tells which models are loaded.
    let status = entry.get("status").and_then(|status| status.get("value")).and_then(Value::as_str);
    match status {
        _ if OTHER_WORK.iter().any(|part| name.contains(part)) => ChatFitness::OtherWork,
        Some("unloaded") => ChatFitness::Unloaded,
        _ => ChatFitness::Chats,
    }
}

/// The members of a listed model that stay the same while the server runs. `created` is not among them: vLLM and
/// llama.cpp set it to the time of the request; only Ollama's is the time of the model. vLLM's `permission` has a new
/// id each time.
const LASTING_KEYS: [&str; 6] = ["id", "owned_by", "root", "parent", "max_model_len", "meta"];

/// The hash of the lasting parts of a listing. llama.cpp also lists the abilities of its models, in `models` beside
/// `data`.
fn identity(listing: &Value<'_>, data: &[Value<'_>], server: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    let mut add = |value: Option<&Value<'_>>| value.map(Value::to_json).hash(&mut hasher);
    for entry in data {
        LASTING_KEYS.iter().for_each(|key| add(entry.get(key)));
        let kind = entry.get("owned_by").and_then(Value::as_str).map(ServerKind::from_owned_by);
        if kind.is_some_and(|kind| kind.dialect().lists_creation) {
            add(entry.get("created"));
        }
    }
    for model in listing.get("models").and_then(Value::as_array).unwrap_or_default() {
        add(model.get("name"));
        add(model.get("capabilities"));
    }
    hasher.finish()
}

fn flavour(data: &[Value<'_>], server: Option<&str>) -> ServerKind {
    let owners = data.iter().filter_map(|entry| entry.get("owned_by")?.as_str());
    match owners.map(ServerKind::from_owned_by).find(|&flavour| flavour != ServerKind::Unknown) {
        Some(flavour) => flavour,
        None => server.map_or(ServerKind::Unknown, ServerKind::from_server_header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, server: Option<&str>, settings: &Settings) -> Result<Discovered, String> {
        Discovered::parse(&mut text.as_bytes().to_vec(), server, settings)
    }

    #[test]
    fn flavours_are_told_apart() {
        for (owner, server, expected) in [
            ("vllm", None, ServerKind::Vllm),
            ("sglang", None, ServerKind::Sglang),
            ("llamacpp", None, ServerKind::LlamaCpp),
            ("library", None, ServerKind::Ollama),
            ("organization_owner", None, ServerKind::LmStudio),
            ("me", Some("llama.cpp"), ServerKind::LlamaCpp),
            ("vllm", Some("llama.cpp"), ServerKind::Vllm),
            ("me", Some("uvicorn"), ServerKind::Unknown),
        ] {
            let text = format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}"}}]}}"#);
            assert_eq!(parse(&text, server, &Settings::default()).unwrap().flavour, expected, "{owner}");
        }
    }

    #[test]
    fn windows_come_from_the_server_or_the_owner() {
        let text = r#"{"data":[{"id":"a","max_model_len":8192},{"id":"b","meta":{"n_ctx":4096}},{"id":"c"},
            {"id":"d","max_model_len":0},{"id":"e","meta":null}]}"#;
        let told = parse(text, None, &Settings::default()).unwrap();
        let windows: Vec<_> = told.models.iter().map(|model| model.window).collect();
        assert_eq!(windows, [Some(8192), Some(4096), None, None, None]);
        assert_eq!(told.window("b"), Some(4096));
        assert_eq!(told.window("other"), None);

        let settings =
            Settings { window: Some(1000), flavour: Some(ServerKind::Ollama), ..Settings::default() };
        let set = parse(text, None, &settings).unwrap();
        assert_eq!(
            (set.window("a"), set.window("other"), set.flavour),
            (Some(1000), Some(1000), ServerKind::Ollama)
        );
        assert_eq!(Discovered::unasked(&settings).window("a"), Some(1000));
    }

    #[test]
    fn windows_have_many_names() {
        for entry in [
            r#""parameters":{"max_seq_len":4096}"#,
            r#""max_context_window":4096"#,
            r#""context_length":8192,"top_provider":{"context_length":4096}"#,
            r#""context_length":4096,"top_provider":{"context_length":null}"#,
            r#""context_window":4096"#,
            r#""max_context_length":4096"#,
            r#""max_model_len":4096,"max_context_length":8192"#,
        ] {
            let text = format!(r#"{{"data":[{{"id":"a",{entry}}}]}}"#);
            assert_eq!(parse(&text, None, &Settings::default()).unwrap().window("a"), Some(4096), "{entry}");
        }
        let bare = r#"[{"id":"a","context_length":4096},{"id":"b"}]"#;
        let told = parse(bare, None, &Settings::default()).unwrap();
        assert_eq!((told.window("a"), told.window("b")), (Some(4096), None));
        let adapters = r#"{"data":[{"id":"m","parent":"a","max_model_len":null},{"id":"a","parent":null,"max_model_len":4096},
            {"id":"n","parent":"gone"}]}"#;
        let told = parse(adapters, None, &Settings::default()).unwrap();
        assert_eq!((told.window("m"), told.window("n")), (Some(4096), None));
    }

    #[test]
    fn a_request_without_a_model_gets_one_that_chats() {
        for (listed, expected) in [
            (r#"{"id":"nomic-embed-text:latest"},{"id":"qwen3"}"#, "qwen3"),
            (r#"{"id":"whisper-1"},{"id":"tts-1"},{"id":"BAAI/bge-m3"},{"id":"qwen3"}"#, "qwen3"),
            (r#"{"id":"a","status":{"value":"unloaded"}},{"id":"b","status":{"value":"loaded"}}"#, "b"),
            (r#"{"id":"embed"},{"id":"a","status":{"value":"unloaded"}}"#, "a"),
            (r#"{"id":"embed"},{"id":"rerank"}"#, "embed"),
            (r#"{"id":"a"},{"id":"b"}"#, "a"),
        ] {
            let told = parse(&format!(r#"{{"data":[{listed}]}}"#), None, &Settings::default()).unwrap();
            assert_eq!(told.default_model().map(|model| model.id.as_str()), Some(expected), "{listed}");
        }
        assert!(Discovered::default().default_model().is_none());
    }

    #[test]
    fn a_single_model_answers_to_every_name() {
        let text = r#"{"data":[{"id":"a","max_model_len":8192}]}"#;
        assert_eq!(parse(text, None, &Settings::default()).unwrap().window("b"), Some(8192));
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for text in ["", "{}", "7", "<html>", r#"{"data":{}}"#, r#"{"models":[]}"#] {
            assert!(parse(text, None, &Settings::default()).is_err(), "{text}");
        }
        let odd = parse(r#"{"data":[1,{},{"id":2},{"id":"x"}]}"#, None, &Settings::default()).unwrap();
        assert_eq!(odd.models.len(), 1);
    }

    #[test]
    fn a_model_is_found_by_its_name_and_the_first_of_a_name_counts() {
        let text = r#"{"data":[{"id":"b","max_model_len":1},{"id":"a","max_model_len":2},{"id":"b","max_model_len":3}]}"#;
        let told = parse(text, None, &Settings::default()).unwrap();
        let window = |name| told.find(name).map(|model| model.window);
        assert_eq!((window("b"), window("a")), (Some(Some(1)), Some(Some(2))));
        assert_eq!((window(""), window("ab"), window("c")), (None, None, None));
        assert_eq!(told.models[0].id, "b", "the listing keeps its order");
        assert!(Discovered::unasked(&Settings::default()).find("a").is_none());
    }
}
