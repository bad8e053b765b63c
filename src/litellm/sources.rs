//! The places where LiteLLM looks for the address and key of an entry of `model_list` that does not give them itself:
//! `credential_list`, `litellm_settings`, `environment_variables`, and the environment of the process.
//!
//! Knows the order in which LiteLLM looks; does not know any provider. The environment is an argument, so that nothing
//! is read here.
//!
//! | of an entry | the first of these that gives a value |
//! |---|---|
//! | address | its own `api_base` or `base_url`, its credential's, `default_litellm_params` of `router_settings`, `litellm_settings.api_base`, the provider's variables, the provider's default |
//! | key | its own `api_key`, its credential's, `default_litellm_params` of `router_settings`, `litellm_settings.api_key`, the provider's variable |
//! | a variable | `environment_variables`, the process: LiteLLM overwrites the latter with the former |

use super::ImportError;
use super::KeyVerdict::{Ignored, Mapped, Unsupported};
use super::report::{Report, join};
use super::upstream::SettingText;
use super::yaml::{Content, Node};

/// Returns the value of an environment variable by its name; `None` if it is not set.
pub type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// The beginning of a value that refers to an environment variable.
pub(super) const REFERENCE: &str = "os.environ/";

/// The parameters of an entry that give an address; an earlier one takes precedence.
pub(super) const ADDRESSES: [&str; 2] = ["api_base", "base_url"];

/// The path of the router's defaults.
const ROUTER_DEFAULTS: &str = "router_settings.default_litellm_params";

/// The settings that give one key for all entries.
const KEYS_FOR_ALL: [&str; 2] = ["api_key", "openai_key"];

/// The whole file, and the environment.
#[derive(Clone, Copy)]
pub(super) struct NamedAddresses<'n> {
    root: &'n Node,
    process: Variable<'n>,
    /// True if an entry whose address is in a variable that is not set is left out.
    pub(super) is_run: bool,
}

/// A value and its path in the file.
pub(super) type FoundSetting<'n> = (String, &'n Node);

impl<'n> NamedAddresses<'n> {
    pub(super) fn new(root: &'n Node, process: Variable<'n>, is_run: bool) -> Self {
        NamedAddresses { root, process, is_run }
    }

    /// The value of a variable as LiteLLM sees it: text of the file, or the name of the process's variable that holds
    /// the value. An empty variable counts as not set, as it does for LiteLLM.
    pub(super) fn variable(&self, name: &str) -> Option<SettingText> {
        let given = self.given(name).and_then(|text| match text.strip_prefix(REFERENCE) {
            Some(other) => self.of_process(other),
            None => Some(SettingText::Literal(text.to_owned())).filter(|_| !text.is_empty()),
        });
        given.or_else(|| self.of_process(name))
    }

    fn of_process(&self, name: &str) -> Option<SettingText> {
        self.is_set(name).then(|| SettingText::Environment(name.to_owned()))
    }

    /// True if the environment of the process has the variable, with a value that is not empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        (self.process)(name).is_some_and(|value| !value.is_empty())
    }

    /// The value that `environment_variables` gives to the variable.
    pub(super) fn given(&self, name: &str) -> Option<&'n str> {
        self.root.get("environment_variables")?.get(name)?.text()
    }

    /// The name by which to read a variable: another one if `environment_variables` refers to another variable.
    pub(super) fn name_of(&self, name: &str) -> String {
        match self.variable(name) {
            Some(SettingText::Environment(other)) => other,
            _ => name.to_owned(),
        }
    }

    /// The text itself, or the present value of the variable that holds the text.
    pub(super) fn value(&self, text: &SettingText) -> Option<String> {
        match text {
            SettingText::Literal(text) => Some(text.clone()),
            SettingText::Environment(name) => match self.variable(name)? {
                SettingText::Literal(value) => Some(value),
                SettingText::Environment(name) => (self.process)(&name),
            },
        }
    }

    /// The variable to which `environment_variables` refers under `name`, if that variable is not set; with the place
    /// of the reference.
    pub(super) fn dangling(&self, name: &str) -> Option<(String, &'n Node)> {
        let node = self.root.get("environment_variables")?.get(name)?;
        let other = node.text()?.strip_prefix(REFERENCE)?;
        self.variable(name).is_none().then(|| (other.to_owned(), node))
    }

    /// The first of these keys that the entry has, otherwise the first that its credential has. Null counts as missing,
    /// and so does an empty address, since LiteLLM then looks elsewhere.
    pub(super) fn find(&self, params: &'n Node, path: &str, keys: &[&str]) -> Option<FoundSetting<'n>> {
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

    /// The address for every entry that has none: from the router's defaults, otherwise `litellm_settings.api_base`.
    pub(super) fn address_for_all(&self) -> Option<FoundSetting<'n>> {
        let of_settings = || self.setting("api_base").filter(|(_, node)| node.text() != Some(""));
        ADDRESSES.iter().find_map(|key| self.of_router(key)).or_else(of_settings)
    }

    /// The key for every entry that has none.
    pub(super) fn key_for_all(&self) -> Option<FoundSetting<'n>> {
        self.of_router("api_key").or_else(|| KEYS_FOR_ALL.iter().find_map(|key| self.setting(key)))
    }

    /// A default of the router for all entries. An empty one counts as missing.
    fn of_router(&self, key: &str) -> Option<FoundSetting<'n>> {
        let node = self.root.get("router_settings")?.get("default_litellm_params")?.get(key)?;
        (!matches!(node.text(), None | Some(""))).then(|| (join(ROUTER_DEFAULTS, key), node))
    }

    fn setting(&self, key: &str) -> Option<FoundSetting<'n>> {
        let node = self.root.get("litellm_settings")?.get(key)?;
        (!node.is_null()).then(|| (join("litellm_settings", key), node))
    }

    /// The entry of `credential_list` that an entry of `model_list` names.
    fn credential(&self, params: &Node) -> Option<FoundSetting<'n>> {
        let name = params.get("litellm_credential_name")?.text()?;
        let Content::List(credentials) = &self.root.get("credential_list")?.content else { return None };
        let mut credentials = credentials.iter().enumerate();
        let is_named =
            |credential: &Node| credential.get("credential_name").and_then(Node::text) == Some(name);
        let (i, credential) = credentials.find(|(_, credential)| is_named(credential))?;
        Some((format!("credential_list[{i}]"), credential))
    }

    /// The name of the credential that the entry names, if the file does not have it.
    pub(super) fn missing_credential(&self, params: &'n Node) -> Option<&'n str> {
        let name = params.get("litellm_credential_name")?.text()?;
        self.credential(params).is_none().then_some(name)
    }

    /// Reports `credential_list` and the settings for all entries as unused. An entry that uses them changes the report
    /// later.
    pub(super) fn report_unused(&self, report: &mut Report) {
        report.mark("credential_list", Ignored, "no entry of model_list names it");
        for key in KEYS_FOR_ALL.iter().chain(&["api_base"]) {
            report.mark(join("litellm_settings", key), Ignored, "every entry of model_list has its own");
        }
        for key in ADDRESSES.iter().chain(&["api_key"]) {
            report.mark(join(ROUTER_DEFAULTS, key), Ignored, "every entry of model_list has its own");
        }
    }

    /// Reports how the entry's credential is used.
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

/// The text of an entry's name or model: the text itself, or the value of the variable that it refers to, with a note
/// for the report. `Err` if that variable is not set.
pub(super) fn present(
    node: &Node,
    sources: NamedAddresses<'_>,
    what: &str,
) -> Result<Option<(String, String)>, ImportError> {
    let Some(text) = node.text() else { return Ok(None) };
    let text = SettingText::read(text);
    match (&text, sources.value(&text)) {
        (SettingText::Environment(name), Some(value)) => Ok(Some((value, format!(" ({name} as it is now)")))),
        (SettingText::Environment(name), None) => {
            let why = format!(
                "{what} comes from the environment variable {name}, which is not set; set it, or write the name here"
            );
            Err(node.error(why))
        }
        (SettingText::Literal(_), value) => Ok(value.map(|value| (value, String::new()))),
    }
}

/// A value of an entry in which each reference names the variable that holds the value. The report names each variable that
/// is not set: the Lua leaves out that value alone.
pub(super) fn name_variables(
    node: &Node,
    path: &str,
    sources: NamedAddresses<'_>,
    report: &mut Report,
) -> Node {
    let mut named = node.clone();
    match &mut named.content {
        Content::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                *item = name_variables(item, &format!("{path}[{i}]"), sources, report);
            }
        }
        Content::Map(entries) => {
            for (key, item) in entries {
                *item = name_variables(item, &join(path, key), sources, report);
            }
        }
        Content::Scalar { text, .. } => {
            report_unset(node, path, sources, report);
            if let SettingText::Environment(name) = SettingText::read(text) {
                *text = format!("{REFERENCE}{}", sources.name_of(&name));
            }
        }
    }
    named
}

/// Reports a value that is in a variable which is not set, with its line. Returns true if it did.
pub(super) fn report_unset(
    node: &Node,
    path: &str,
    sources: NamedAddresses<'_>,
    report: &mut Report,
) -> bool {
    let text = node.text().map(SettingText::read);
    let Some(text @ SettingText::Environment(name)) = text.as_ref() else { return false };
    if sources.value(text).is_some() {
        return false;
    }
    let why = format!("the environment variable {name} is not set; set it, or write the value here");
    report.mark(path, Unsupported, format!("{UNSET_VALUE}: {}", node.error(why)));
    true
}

/// The beginning of the note on a value that is in a variable which is not set.
pub(super) const UNSET_VALUE: &str = "this value is left out";

/// An address that is in a variable which is not set where the file is read.
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
        ImportError { file: None, line: Some(unset.line), column: Some(1), message }
    }
}
