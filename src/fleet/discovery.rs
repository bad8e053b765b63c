//! `GET /models` -> the server kind, its models and their context windows.
//!
//! Parses the models listings of the OpenAI-compatible servers; knows nothing of sockets. `memory` decides when to ask.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::details::{Detail, DetailPage};
use super::entry::{ChatFitness, fitness, id, kind_of, window};
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
    /// True if the server refuses members that OpenAI's API does not have, by the marks of its listing.
    refuses_extensions: bool,
    /// The further page that tells more about these models, if such a server has one.
    page: Option<&'static DetailPage>,
    /// The place of the first of the models that fit best as the default one. A listing may be long, and is asked for it often.
    fittest: Option<usize>,
    /// The name of the default model, once one was chosen among models of which only some are loaded.
    chosen: Option<String>,
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
    /// The window that its own definition sets, which holds once it is loaded (Ollama's `num_ctx`).
    defined_window: Option<u64>,
    fitness: ChatFitness,
}

impl Discovered {
    /// The facts that are known before the listing was fetched.
    pub(super) fn unasked(settings: &Settings) -> Self {
        Discovered {
            flavour: settings.flavour.unwrap_or_default(),
            window: settings.window,
            ..Discovered::default()
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
            Some(Model { id: id(entry)?.to_owned(), window, defined_window: None, fitness: fitness(entry) })
        });
        let models: Vec<Model> = models.collect();
        let mut by_name: Vec<usize> = (0..models.len()).collect();
        // The sort keeps the order of equal names, so the first of them is found.
        by_name.sort_by(|a, b| name_at(&models, *a).cmp(&name_at(&models, *b)));
        let flavour = settings.flavour.unwrap_or_else(|| kind_of(data, server));
        Ok(Discovered {
            flavour,
            page: DetailPage::of(flavour, data, models.iter().any(|model| model.window.is_none())),
            fittest: fittest(&models),
            models,
            by_name,
            window: settings.window,
            refuses_extensions: is_strict(data),
            chosen: None,
            identity: identity(&listing, data, server),
        })
    }

    /// The further page of this server, which says more about its models.
    pub(super) fn page(&self) -> Option<&'static DetailPage> {
        self.page
    }

    /// The models that no page has described yet and whose window is unknown, at most `most` of them.
    pub(super) fn undefined(&self, most: usize) -> Vec<String> {
        let unknown = self.models.iter().filter(|model| model.window.is_none());
        unknown.take(most).map(|model| model.id.clone()).collect()
    }

    /// Adds what a further page says about the models. `lists_loaded`: it names the loaded models only. The owner's window
    /// stays.
    pub(super) fn add(&mut self, details: &[Detail], lists_loaded: bool) {
        let by_name: HashMap<&str, &Detail> =
            details.iter().map(|detail| (detail.id.as_str(), detail)).collect();
        for model in &mut self.models {
            let Some(detail) = by_name.get(model.id.as_str()) else {
                // A page that names the loaded models leaves out the others.
                if lists_loaded && model.fitness < ChatFitness::Unloaded {
                    model.fitness = ChatFitness::Unloaded;
                }
                continue;
            };
            model.window = self.window.or(detail.window).or(model.window);
            model.defined_window = detail.defined_window.or(model.defined_window);
            model.fitness = model.fitness.max(detail.fitness);
        }
    }

    /// Adds what a page says about the only model that is loaded, whatever its name.
    pub(super) fn add_to_all(&mut self, window: u64) {
        self.models.iter_mut().for_each(|model| model.window = self.window.or(Some(window)));
    }

    /// Takes over what stays true from the facts before, if the same models are listed: the windows that the models'
    /// definitions set, their work, and the choice of a default, which must not change whenever a server unloads an idle model.
    pub(super) fn keep_from(&mut self, before: &Discovered) {
        if self.identity == before.identity {
            for (model, old) in self.models.iter_mut().zip(&before.models) {
                model.defined_window = old.defined_window;
                if old.fitness == ChatFitness::OtherWork {
                    model.fitness = old.fitness;
                }
            }
            self.chosen.clone_from(&before.chosen);
        }
    }

    /// Ends the addition of details: the window of a definition holds where no other one is known, and a default model
    /// that is loaded stays the default. Only Ollama unloads by itself, so elsewhere the person has chosen another model.
    pub(super) fn settle(&mut self) {
        for model in &mut self.models {
            model.window = model.window.or(model.defined_window);
        }
        self.fittest = fittest(&self.models);
        if self.chosen.is_none() && self.flavour == ServerKind::Ollama {
            let loaded = self.default_model().filter(|model| model.fitness == ChatFitness::Chats);
            self.chosen = loaded.map(|model| model.id.clone());
        }
    }

    /// True if the same models were listed, with the same settings.
    pub(super) fn lists_the_same_as(&self, other: &Discovered) -> bool {
        self.identity == other.identity
    }

    /// True if the server refuses members that OpenAI's API does not have.
    pub fn refuses_extensions(&self) -> bool {
        self.refuses_extensions
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
        let chosen = self.chosen.as_deref().and_then(|name| self.find(name));
        chosen.or_else(|| self.models.get(self.fittest?))
    }

    /// The models that could be the default one as well, in the order of the listing.
    pub fn candidates(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(|model| model.fitness < ChatFitness::OtherWork)
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

fn fittest(models: &[Model]) -> Option<usize> {
    Some(models.iter().enumerate().min_by_key(|(_, model)| model.fitness)?.0)
}

fn name_at(models: &[Model], at: usize) -> Option<&str> {
    models.get(at).map(|model| model.id.as_str())
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

/// True if the marks of a listing are those of a service that refuses members which OpenAI's API does not have: Cerebras,
/// Groq and Mistral's own service do, and each answers a first request with 400 or 422.
fn is_strict(data: &[Value<'_>]) -> bool {
    let has = |entry: &Value<'_>, key: &str| entry.get(key).is_some();
    data.iter().any(|entry| {
        let owner = entry.get("owned_by").and_then(Value::as_str).unwrap_or_default();
        owner.eq_ignore_ascii_case("cerebras")
            || (owner == "mistralai" && has(entry, "capabilities"))
            || (has(entry, "active") && has(entry, "context_window"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::details::Details;
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

    /// A listing with what its further page adds.
    fn told(listing: &str, page: &str, settings: &Settings) -> Discovered {
        let mut found = Discovered::parse(&mut listing.as_bytes().to_vec(), None, settings).unwrap();
        match found.page().and_then(|it| it.read(&mut page.as_bytes().to_vec())) {
            Some(Details::Models(details, lists_loaded)) => found.add(&details, lists_loaded),
            Some(Details::Window(window)) => found.add_to_all(window),
            None => {}
        }
        found.settle();
        found
    }

    #[test]
    fn a_page_tells_the_windows_that_the_listing_does_not() {
        for (listing, page) in [
            (
                r#"{"data":[{"id":"m","owned_by":"library"}]}"#,
                r#"{"models":[{"name":"m","model":"m","context_length":4096}]}"#,
            ),
            (
                r#"{"data":[{"id":"m","owned_by":"organization_owner"}]}"#,
                r#"{"data":[{"id":"m","state":"loaded","max_context_length":131072,"loaded_context_length":4096}]}"#,
            ),
            (
                r#"{"data":[{"id":"m","owned_by":"llamacpp"}]}"#,
                r#"{"default_generation_settings":{"n_ctx":4096}}"#,
            ),
            (
                r#"{"data":[{"id":"m","owned_by":"tabbyAPI"}]}"#,
                r#"{"id":"m","parameters":{"max_seq_len":4096}}"#,
            ),
            (r#"{"data":[{"id":"m","owned_by":"koboldcpp"}]}"#, r#"{"value":4096}"#),
            (
                r#"{"data":[{"id":"m","owned_by":"openai","created":1677610602}]}"#,
                r#"{"data":[{"model_name":"m","model_info":{"max_input_tokens":4096}}]}"#,
            ),
        ] {
            assert_eq!(told(listing, page, &Settings::default()).window("m"), Some(4096), "{listing}");
            let set = Settings { window: Some(1000), ..Settings::default() };
            assert_eq!(told(listing, page, &set).window("m"), Some(1000), "the owner's word: {listing}");
            for other in ["", "[]", "{}", r#"{"models":7}"#, r#"{"data":[7,{"id":8}]}"#, "<html>"] {
                assert_eq!(told(listing, other, &Settings::default()).window("m"), None, "{other}");
            }
        }
    }

    #[test]
    fn servers_whose_listing_says_all_are_not_asked() {
        for listing in [
            r#"{"data":[{"id":"m","owned_by":"vllm"}]}"#,
            r#"{"data":[{"id":"m","owned_by":"llamacpp","meta":{"n_ctx":9}}]}"#,
            r#"{"data":[{"id":"a","owned_by":"llamacpp"},{"id":"b","owned_by":"llamacpp"}]}"#,
            r#"{"data":[{"id":"x/y:free","context_length":9}]}"#,
            r#"{"data":[{"id":"a:1"},{"id":"b"}]}"#,
            r#"{"data":[{"id":"gpt-5","owned_by":"openai"}]}"#,
        ] {
            let found = Discovered::parse(&mut listing.as_bytes().to_vec(), None, &Settings::default());
            assert_eq!(found.unwrap().page(), None, "{listing}");
        }
    }

    #[test]
    fn a_loaded_model_that_chats_is_the_default_and_stays_it() {
        let listing = r#"{"data":[{"id":"a","owned_by":"library"},{"id":"b","owned_by":"library"}]}"#;
        let before = told(listing, r#"{"models":[{"name":"b"}]}"#, &Settings::default());
        assert_eq!(before.default_model().map(|model| model.id.as_str()), Some("b"));
        // Ollama unloads an idle model after five minutes.
        let mut after =
            Discovered::parse(&mut listing.as_bytes().to_vec(), None, &Settings::default()).unwrap();
        after.keep_from(&before);
        after.settle();
        assert_eq!(after.default_model().map(|model| model.id.as_str()), Some("b"));
        // Where none is loaded, the choice is open until one is.
        let idle = told(listing, r#"{"models":[]}"#, &Settings::default());
        assert_eq!((idle.default_model().map(|model| model.id.as_str()), &idle.chosen), (Some("a"), &None));
        let of_other = r#"{"data":[{"id":"a","owned_by":"library"}]}"#;
        let mut other =
            Discovered::parse(&mut of_other.as_bytes().to_vec(), None, &Settings::default()).unwrap();
        other.keep_from(&before);
        other.settle();
        assert_eq!(other.default_model().map(|model| model.id.as_str()), Some("a"));
    }
}
