//! A further page of some servers, which says of their models what the listing does not: windows, and which are loaded.
//!
//! | server | page | tells |
//! |---|---|---|
//! | Ollama | `/api/ps` | the loaded models and their windows; a server that has it is an Ollama |
//! | Ollama | `/api/show` | the window that a model's definition sets, and whether it chats |
//! | LM Studio | `/api/v0/models` | the loaded models, their windows, their types |
//! | llama.cpp | `/props` | the window of a slot, where the listing has none |
//! | TabbyAPI | `/v1/model` | the loaded model and its window |
//! | KoboldCpp | `/api/extra/true_max_context_length` | the window |
//! | LiteLLM | `/model/info` | the windows that its file or its own table gives |
//!
//! Reads the pages; knows nothing of sockets.

use super::entry::{self, ChatFitness, id, is_relay, tokens_at};
use crate::dialect::ServerKind;
use crate::json::{self, Value};
use crate::transport::Path;

/// A further page about models.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DetailPage {
    /// Where it is.
    pub(super) path: Path<'static>,
    /// The member with the list of models; `None`: the page is about one model, or about all of them.
    list: Option<&'static str>,
    /// The member that holds a model's name; empty if the page names none.
    name: &'static str,
    /// The member that holds its window.
    window: &'static [&'static str],
    /// True if the page names the loaded models only.
    lists_loaded: bool,
    /// The kind of a server that has this page.
    pub(super) kind: Option<ServerKind>,
}

const OLLAMA: DetailPage = DetailPage {
    path: Path::Root("/api/ps"),
    list: Some("models"),
    name: "name",
    window: &["context_length"],
    lists_loaded: true,
    kind: Some(ServerKind::Ollama),
};
const LM_STUDIO: DetailPage = DetailPage {
    path: Path::Root("/api/v0/models"),
    list: Some("data"),
    name: "id",
    window: &["loaded_context_length"],
    lists_loaded: false,
    kind: None,
};
const LLAMA_CPP: DetailPage = DetailPage {
    path: Path::Root("/props"),
    list: None,
    name: "",
    window: &["default_generation_settings", "n_ctx"],
    lists_loaded: false,
    kind: None,
};
const TABBY_API: DetailPage = DetailPage {
    path: Path::Api("/model"),
    list: None,
    name: "id",
    window: &["parameters", "max_seq_len"],
    lists_loaded: true,
    kind: None,
};
const KOBOLD_CPP: DetailPage = DetailPage {
    path: Path::Root("/api/extra/true_max_context_length"),
    list: None,
    name: "",
    window: &["value"],
    lists_loaded: false,
    kind: None,
};
const LITELLM: DetailPage = DetailPage {
    path: Path::Root("/model/info"),
    list: Some("data"),
    name: "model_name",
    window: &["model_info", "max_input_tokens"],
    lists_loaded: false,
    kind: None,
};

/// The facts on a page about one model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    /// The name that requests use for it.
    pub(super) id: String,
    /// The window that holds now.
    pub(super) window: Option<u64>,
    /// The window that its own definition sets.
    pub(super) defined_window: Option<u64>,
    /// Whether it chats and is loaded.
    pub(super) fitness: ChatFitness,
}

/// The facts on a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Details {
    /// About each of these models; true if they are the loaded ones.
    Models(Vec<Detail>, bool),
    /// About the server: the window of its only model.
    Window(u64),
}

impl DetailPage {
    /// The page for a server with this listing; `None` if the listing says all that such a server tells.
    /// `lacks_window`: the window of a model is unknown.
    pub(super) fn of(
        kind: ServerKind,
        data: &[Value<'_>],
        lacks_window: bool,
    ) -> Option<&'static DetailPage> {
        let owner = data.iter().find_map(|entry| entry.get("owned_by")?.as_str()).unwrap_or_default();
        match kind {
            ServerKind::Ollama => Some(&OLLAMA),
            ServerKind::LmStudio => Some(&LM_STUDIO),
            // A router has no window of its own, and each of its models has another one.
            ServerKind::LlamaCpp if lacks_window && data.len() == 1 => Some(&LLAMA_CPP),
            _ if owner.eq_ignore_ascii_case("tabbyAPI") => Some(&TABBY_API),
            _ if owner.eq_ignore_ascii_case("koboldcpp") && lacks_window => Some(&KOBOLD_CPP),
            ServerKind::Unknown if is_relay(data) && lacks_window => Some(&LITELLM),
            // Names with a tag are Ollama's. The owner of a model that came from elsewhere is not.
            ServerKind::Unknown if lacks_window && !data.is_empty() && data.iter().all(has_tag) => {
                Some(&OLLAMA)
            }
            _ => None,
        }
    }

    /// Reads the page; `None` if it is another one.
    pub(super) fn read(&self, body: &mut [u8]) -> Option<Details> {
        let page = json::parse(body).ok()?;
        let Some(list) = self.list else {
            return match self.name {
                "" => tokens_at(&page, self.window).map(Details::Window),
                _ => Some(Details::Models(self.detail(&page).into_iter().collect(), self.lists_loaded)),
            };
        };
        let list = page.get(list)?.as_array()?;
        Some(Details::Models(list.iter().filter_map(|entry| self.detail(entry)).collect(), self.lists_loaded))
    }

    fn detail(&self, entry: &Value<'_>) -> Option<Detail> {
        Some(Detail {
            id: entry.get(self.name)?.as_str()?.to_owned(),
            window: tokens_at(entry, self.window),
            defined_window: None,
            fitness: entry::fitness(entry),
        })
    }
}

fn has_tag(entry: &Value<'_>) -> bool {
    id(entry).is_some_and(|name| name.contains(':'))
}

/// Ollama's page about one model.
pub(super) const DEFINITION_PATH: Path<'static> = Path::Root("/api/show");

/// The question for that page.
pub(super) fn definition_question(model: &str) -> String {
    Value::object([("model", model.to_owned().into())]).to_json()
}

/// Reads that page: the window that the model's definition sets with `num_ctx`, and whether it chats. The length that
/// the model was trained for is not its window: Ollama loads it with less, and cuts what does not fit.
pub(super) fn read_definition(model: &str, body: &mut [u8]) -> Option<Detail> {
    let page = json::parse(body).ok()?;
    let parameters = page.get("parameters").and_then(Value::as_str).unwrap_or_default();
    let window = parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx"));
    let abilities = page.get("capabilities").and_then(Value::as_array);
    let chats =
        abilities.is_none_or(|list| list.iter().any(|ability| ability.as_str() == Some("completion")));
    Some(Detail {
        id: model.to_owned(),
        defined_window: window.and_then(|tokens| tokens.trim().parse().ok()).filter(|tokens| *tokens > 0),
        fitness: if chats { ChatFitness::Chats } else { ChatFitness::OtherWork },
        window: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_tells_window_and_work() {
        let read = |text: &str| read_definition("m", &mut text.as_bytes().to_vec());
        let page = r#"{"parameters":"stop  \"<|im_end|>\"\nnum_ctx                        16384","capabilities":["completion","tools"],
            "model_info":{"qwen3.context_length":262144}}"#;
        let detail = read(page).unwrap();
        assert_eq!((detail.defined_window, detail.fitness), (Some(16_384), ChatFitness::Chats));
        let embedder =
            read(r#"{"capabilities":["embedding"],"model_info":{"bert.context_length":512}}"#).unwrap();
        assert_eq!((embedder.defined_window, embedder.fitness), (None, ChatFitness::OtherWork));
        for odd in [r#"{"parameters":7}"#, r#"{"parameters":"num_ctx many"}"#, "{}"] {
            assert_eq!(read(odd).unwrap().defined_window, None, "{odd}");
        }
        assert!(read("<html>").is_none());
    }
}
