//! Where LiteLLM looks for what an entry of `model_list` does not say itself: `credential_list`, `litellm_settings`,
//! `environment_variables`, and the environment of the process.
//!
//! Knows the order in which LiteLLM looks; knows no provider. The environment is an argument, so that nothing is read here.
//!
//! | of an entry | the first of these that says anything |
//! |---|---|
//! | address | its own `api_base` or `base_url`, its credential's, `default_litellm_params` of `router_settings`, `litellm_settings.api_base`, the provider's variables, the provider's default |
//! | key | its own `api_key`, its credential's, `default_litellm_params` of `router_settings`, `litellm_settings.api_key`, the provider's variable |
//! | a variable | `environment_variables`, the process: LiteLLM writes the former over the latter |

use super::ImportError;
use super::Verdict::{Ignored, Mapped, Unsupported};
use super::report::{Report, join};
use super::upstream::Text;
use super::yaml::{Content, Node};

/// The value of an environment variable by its name; `None` where it is not set.
pub type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// How the value of a variable begins that stands for another one.
pub(super) const REFERENCE: &str = "os.environ/";

/// The parameters of an entry that give an address, in the order in which they count.
pub(super) const ADDRESSES: [&str; 2] = ["api_base", "base_url"];

/// Where the router's defaults stand.
const ROUTER_DEFAULTS: &str = "router_settings.default_litellm_params";

/// The settings for all entries that give a key.
const KEYS_FOR_ALL: [&str; 2] = ["api_key", "openai_key"];

/// The whole file, and the environment.
#[derive(Clone, Copy)]
pub(super) struct Sources<'n> {
    root: &'n Node,
    process: Variable<'n>,
}

/// A value and its path in the file.
pub(super) type Found<'n> = (String, &'n Node);

impl<'n> Sources<'n> {
    pub(super) fn new(root: &'n Node, process: Variable<'n>) -> Self {
        Sources { root, process }
    }

    /// The value of a variable as LiteLLM sees it: text of the file, or the name of the variable of the process that holds
    /// it. An empty one counts as not set, as it does for LiteLLM.
    pub(super) fn variable(&self, name: &str) -> Option<Text> {
        let given = self.given(name).and_then(|text| match text.strip_prefix(REFERENCE) {
            Some(other) => self.of_process(other),
            None => Some(Text::Literal(text.to_owned())).filter(|_| !text.is_empty()),
        });
        given.or_else(|| self.of_process(name))
    }

    fn of_process(&self, name: &str) -> Option<Text> {
        self.is_set(name).then(|| Text::Environment(name.to_owned()))
    }

    /// Whether the process has it.
    pub(super) fn is_set(&self, name: &str) -> bool {
        (self.process)(name).is_some_and(|value| !value.is_empty())
    }

    /// What `environment_variables` says of it.
    pub(super) fn given(&self, name: &str) -> Option<&'n str> {
        self.root.get("environment_variables")?.get(name)?.text()
    }

    /// The name to ask for a variable by: another one where `environment_variables` refers to it.
    pub(super) fn name_of(&self, name: &str) -> String {
        match self.variable(name) {
            Some(Text::Environment(other)) => other,
            _ => name.to_owned(),
        }
    }

    /// The text itself, or the present value of the variable that holds it.
    pub(super) fn value(&self, text: &Text) -> Option<String> {
        match text {
            Text::Literal(text) => Some(text.clone()),
            Text::Environment(name) => match self.variable(name)? {
                Text::Literal(value) => Some(value),
                Text::Environment(name) => (self.process)(&name),
            },
        }
    }

    /// The variable that should hold an address and does not: `environment_variables` refers to it under `name`. Comes
    /// with the place of that reference.
    pub(super) fn dangling(&self, name: &str) -> Option<(String, &'n Node)> {
        let node = self.root.get("environment_variables")?.get(name)?;
        let other = node.text()?.strip_prefix(REFERENCE)?;
        self.variable(name).is_none().then(|| (other.to_owned(), node))
    }

    /// The first of these keys that the entry has, else the first that its credential has. A null is not there, nor is an
    /// empty address, for which LiteLLM looks elsewhere.
    pub(super) fn find(&self, params: &'n Node, path: &str, keys: &[&str]) -> Option<Found<'n>> {
        let among = |path: &str, node: &'n Node| {
            let is_there = |key: &str, node: &Node| {
                !node.is_null() && (!ADDRESSES.contains(&key) || node.text() != Some(""))
            };
            let value =
                |key: &&str| Some((join(path, key), node.get(key).filter(|node| is_there(key, node))?));
            keys.iter().find_map(value)
        };
        among(path, params).or_else(|| {
            let (path, credential) = self.credential(params)?;
            among(&join(&path, "credential_values"), credential.get("credential_values")?)
        })
    }

    /// The address that counts for every entry that has none: the router's defaults, else `litellm_settings.api_base`.
    pub(super) fn address_for_all(&self) -> Option<Found<'n>> {
        let of_settings = || self.setting("api_base").filter(|(_, node)| node.text() != Some(""));
        ADDRESSES.iter().find_map(|key| self.of_router(key)).or_else(of_settings)
    }

    /// The key that counts for every entry that has none.
    pub(super) fn key_for_all(&self) -> Option<Found<'n>> {
        self.of_router("api_key").or_else(|| KEYS_FOR_ALL.iter().find_map(|key| self.setting(key)))
    }

    /// A default of the router for all entries. An empty one is not there.
    fn of_router(&self, key: &str) -> Option<Found<'n>> {
        let node = self.root.get("router_settings")?.get("default_litellm_params")?.get(key)?;
        (!matches!(node.text(), None | Some(""))).then(|| (join(ROUTER_DEFAULTS, key), node))
    }

    fn setting(&self, key: &str) -> Option<Found<'n>> {
        let node = self.root.get("litellm_settings")?.get(key)?;
        (!node.is_null()).then(|| (join("litellm_settings", key), node))
    }

    /// The credential that an entry names.
    fn credential(&self, params: &Node) -> Option<Found<'n>> {
        let name = params.get("litellm_credential_name")?.text()?;
        let Content::List(credentials) = &self.root.get("credential_list")?.content else { return None };
        let mut credentials = credentials.iter().enumerate();
        let is_named =
            |credential: &Node| credential.get("credential_name").and_then(Node::text) == Some(name);
        let (i, credential) = credentials.find(|(_, credential)| is_named(credential))?;
        Some((format!("credential_list[{i}]"), credential))
    }

    /// The name of a credential that the entry asks for and the file does not have.
    pub(super) fn missing_credential(&self, params: &'n Node) -> Option<&'n str> {
        let name = params.get("litellm_credential_name")?.text()?;
        self.credential(params).is_none().then_some(name)
    }

    /// Says what became of `credential_list` and of the settings for all, before any entry has asked for them.
    pub(super) fn report_unused(&self, report: &mut Report) {
        report.mark("credential_list", Ignored, "no entry of model_list names it");
        for key in KEYS_FOR_ALL.iter().chain(&["api_base"]) {
            report.mark(join("litellm_settings", key), Ignored, "every entry of model_list has its own");
        }
        for key in ADDRESSES.iter().chain(&["api_key"]) {
            report.mark(join(ROUTER_DEFAULTS, key), Ignored, "every entry of model_list has its own");
        }
    }

    /// Says what became of the entry's credential.
    pub(super) fn report_credential(&self, params: &'n Node, path: &str, report: &mut Report) {
        let Some(name) = params.get("litellm_credential_name").and_then(Node::text) else { return };
        let key = join(path, "litellm_credential_name");
        let Some((credential_path, credential)) = self.credential(params) else {
            let note = format!("credential_list has no {name:?}, and LiteLLM goes on without it");
            return report.mark(key, Unsupported, note);
        };
        report.mark(key, Mapped, format!("{credential_path}, for what the entry does not say itself"));
        report.mark(&credential_path, Mapped, "taken over where an entry names it");
        report.mark(join(&credential_path, "credential_info"), Ignored, "a description, for people");
        let values = join(&credential_path, "credential_values");
        let others = credential.get("credential_values").map(Node::entries).unwrap_or_default().iter();
        let is_known = |key: &str| matches!(key, "api_key" | "api_base" | "base_url" | "custom_llm_provider");
        for (other, _) in others.filter(|(other, _)| !is_known(other)) {
            report.mark(
                join(&values, other),
                Unsupported,
                "only api_key and api_base of a credential are taken over",
            );
        }
    }
}

/// The name that an entry is asked by, or its model: what stands there, or the value of a variable, with a note for the
/// report. `Err` where that variable is not set.
pub(super) fn present(
    node: &Node,
    sources: Sources<'_>,
    what: &str,
) -> Result<Option<(String, String)>, String> {
    let Some(text) = node.text() else { return Ok(None) };
    let text = Text::read(text);
    match (&text, sources.value(&text)) {
        (Text::Environment(name), Some(value)) => Ok(Some((value, format!(" ({name} as it is now)")))),
        (Text::Environment(name), None) => Err(format!(
            "{what} comes from the environment variable {name}, which is not set; set it, or write the name here"
        )),
        (Text::Literal(_), value) => Ok(value.map(|value| (value, String::new()))),
    }
}

/// An address from a variable that is not set where the file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unset {
    /// The line of the key that refers to it, from 1.
    pub line: usize,
    /// The path of that key.
    pub key: String,
    /// The variable.
    pub variable: String,
}

impl From<&Unset> for ImportError {
    fn from(unset: &Unset) -> ImportError {
        let message = format!(
            "{} is the environment variable {}, which is not set; set it, or write the address there",
            unset.key, unset.variable
        );
        ImportError { line: Some(unset.line), column: Some(1), message }
    }
}
