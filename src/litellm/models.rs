//! `model_list` -> upstreams, and groups of entries by `model_name`.
//!
//! Knows which of `litellm_params` sparkgap supports; does not know routing.

use super::facts::{self, EntryFacts, ModelKind};
use super::keys::{OF_OLLAMA_ALONE, OLLAMA, PARAMETERS};
use super::names::name_upstreams;
use super::providers::{NO_KEY, split_model};
use super::report::{Report, join};
use super::share::ListedShare;
use super::sources::{ADDRESSES, NamedAddresses, Unset, name_variables, present, report_unset};
use super::target::{self, ListedKey, ModelTarget};
use super::upstream::{ImportedUpstream, SettingText};
use super::yaml::{Content, Node};
use super::{ImportError, KeyVerdict};
use crate::config::Secret;
use crate::route;

/// One change of the request's body.
#[derive(Clone, Debug)]
pub(super) struct Tweak {
    pub(super) field: String,
    pub(super) value: Node,
    /// True if the value also replaces one that the client sent (`extra_body`).
    pub(super) force: bool,
}

/// One entry of `model_list` that can be served.
#[derive(Clone, Debug)]
pub(super) struct ImportedModel {
    pub(super) upstream: usize,
    /// The model without the provider prefix. `*` stands for the text that the `*` of its group's name matched.
    pub(super) model: String,
    pub(super) tweaks: Vec<Tweak>,
    /// Its part in the requests for its name.
    pub(super) share: ListedShare,
    /// The kind of the model.
    pub(super) kind: ModelKind,
    /// For the report: its path, and its name in words.
    pub(super) path: String,
    pub(super) called: String,
}

/// The entries of one `model_name`; never empty.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) entries: Vec<ImportedModel>,
    /// True if the group was made for one name that a pattern covers, because an alias or a fallback uses that name.
    pub(super) made_up: bool,
}

impl Group {
    pub(super) fn is_pattern(&self) -> bool {
        self.name.contains('*')
    }
}

/// All of `model_list`.
#[derive(Debug, Default)]
pub(super) struct Models {
    pub(super) upstreams: Vec<ImportedUpstream>,
    pub(super) groups: Vec<Group>,
    /// Path, name and reason of each entry that cannot be served.
    pub(super) left_out: Vec<(String, String, String)>,
    pub(super) environment: Vec<(String, Secret)>,
    /// Addresses in variables that are not set here, but may be set in the environment of the service.
    pub(super) unset: Vec<Unset>,
    /// Variables of `environment_variables` whose values the Lua holds itself.
    pub(super) taken_over: Vec<String>,
    /// For the report: the path of each setting whose line names an upstream, that upstream, and a note. Upstreams get
    /// their names last, so these lines are written then.
    named_later: Vec<(String, usize, String)>,
    /// The settings of entries that count for their whole upstream.
    facts: Vec<EntryFacts>,
}

/// The most entries of `model_list`: each name is compared with every other one.
const ENTRIES_MAX: usize = 1000;

/// The key for the most requests of an entry at a time.
const PARALLEL: &str = "max_parallel_requests";

/// Reads `model_list`.
pub(super) fn read(
    root: &Node,
    sources: NamedAddresses<'_>,
    report: &mut Report,
) -> Result<Models, ImportError> {
    let Some(list) = root.get("model_list") else {
        return Err(
            root.error("no model_list; expected a LiteLLM configuration (model_list: - model_name: …)")
        );
    };
    let Content::List(items) = &list.content else {
        return Err(list.error("model_list must be a list; each entry begins with - model_name: …"));
    };
    if items.len() > ENTRIES_MAX {
        let message = format!("model_list has {} entries; the limit is {ENTRIES_MAX}", items.len());
        return Err(list.error(message));
    }
    let mut models = Models::default();
    sources.report_unused(report);
    for (i, item) in items.iter().enumerate() {
        models.entry(&format!("model_list[{i}]"), item, sources, report);
    }
    let facts = std::mem::take(&mut models.facts);
    models.named_later.extend(facts::agree(&facts, &mut models.upstreams, report));
    if models.groups.is_empty() {
        let reasons: Vec<String> =
            models.left_out.iter().map(|(path, _, why)| format!("{path}: {why}")).collect();
        if items.is_empty() {
            return Err(list.error("model_list is empty; expected - model_name: … with litellm_params"));
        }
        let message = format!("no entry of model_list can be served; {}", reasons.join("; "));
        return Err(list.error(message.trim_end_matches("; ")));
    }
    name_upstreams(&mut models.upstreams);
    models.name_keys();
    for (path, i, more) in std::mem::take(&mut models.named_later) {
        let Some(upstream) = models.upstreams.get(i) else { continue };
        let name = &upstream.name;
        let note = match (&upstream.key, upstream.max_in_flight) {
            (Some(key), _) if path.ends_with(".api_key") => format!(
                "keys do not belong in files that get shared: set {key} in the service's environment, the Lua asks for it"
            ),
            (_, Some(max)) if path.ends_with(PARALLEL) => {
                format!(
                    "upstream {name} gets at most {max} at a time, for all its names together; further ones wait"
                )
            }
            _ => format!("upstream {name}{more}"),
        };
        report.mark(path, KeyVerdict::Mapped, note);
    }
    Ok(models)
}

impl Models {
    fn entry(&mut self, path: &str, item: &Node, sources: NamedAddresses<'_>, report: &mut Report) {
        let listed = item.get("model_name").and_then(Node::text).unwrap_or_default();
        let read = match named_entry(item, sources) {
            Ok((name, from, params)) => match self.read_entry(path, &name, params, sources, report) {
                Ok(entry) => Ok((name, from, entry)),
                Err(error) => Err((name, error)),
            },
            Err(error) => Err((listed.to_owned(), error)),
        };
        let (name, from, entry) = match read {
            Ok(read) => read,
            Err((name, error)) => return self.leave_out(path, item, &name, error.to_string(), report),
        };
        self.facts.push(EntryFacts::read(path, item, entry.upstream, sources, report));
        let share = ListedShare::read(item);
        let called = if from.is_empty() { "this name".to_owned() } else { format!("{name}{from}") };
        let kind = facts::read_kind(path, item, report);
        let entry = ImportedModel { share, called, kind, ..entry };
        match self.groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.entries.push(entry),
            None => self.groups.push(Group { name, entries: vec![entry], made_up: false }),
        }
    }

    /// Reports for every key of an entry that the entry cannot be served, and why.
    fn leave_out(&mut self, path: &str, item: &Node, name: &str, why: String, report: &mut Report) {
        let below =
            match item.get("litellm_params").and_then(|params| params.get("model")).and_then(Node::text) {
                Some(_) => "the entry is left out, see its model".to_owned(),
                None => format!("the entry is left out: {why}"),
            };
        report.mark(path, KeyVerdict::Unsupported, below.clone());
        for key in ["litellm_params", "model_info"].iter().filter_map(|key| Some((key, item.get(key)?))) {
            for (name, _) in key.1.entries() {
                report.mark(join(&join(path, key.0), name), KeyVerdict::Unsupported, below.clone());
            }
        }
        report.mark(format!("{path}.litellm_params.model"), KeyVerdict::Unsupported, why.clone());
        self.left_out.push((path.to_owned(), name.to_owned(), why));
    }

    /// The entry, called by its name alone and without its share; or why it cannot be served.
    fn read_entry(
        &mut self,
        entry_path: &str,
        name: &str,
        params: &Node,
        sources: NamedAddresses<'_>,
        report: &mut Report,
    ) -> Result<ImportedModel, ImportError> {
        // A reason without a place of its own gets the line of the model.
        let at_model = |why: String| params.get("model").unwrap_or(params).error(why);
        if !route::is_name(name) {
            let why = "its model_name is empty, has control characters, or a blank at an end; rename it";
            return Err(at_model(why.to_owned()));
        }
        let path = &format!("{entry_path}.litellm_params");
        let text = |key, what| match sources.find(params, path, &[key]) {
            Some((_, node)) => present(node, sources, what).map(Option::unwrap_or_default),
            None => Ok((String::new(), String::new())),
        };
        let (model, from) = text("model", "the model's name")?;
        let custom = Some(text("custom_llm_provider", "the provider")?.0).filter(|custom| !custom.is_empty());
        let has_base =
            sources.find(params, path, &ADDRESSES).is_some() || sources.address_for_all().is_some();
        let (provider, model, note) = split_model(&model, custom.as_deref(), has_base).map_err(at_model)?;
        let target = target::read(params, path, &provider, sources)?.map_err(at_model)?;
        if let Some(unset) = target.unset.as_ref().filter(|_| sources.is_run) {
            return Err(unset.into());
        }
        sources.report_credential(params, path, report);
        let (more, flavour) = (target.notes.clone(), target.flavour);
        let has_address = target.address_path.is_some();
        let upstream = self.upstream(path, params, target, sources, report)?;
        if params.get("custom_llm_provider").is_some() {
            self.named_later.push((format!("{path}.custom_llm_provider"), upstream, String::new()));
        }
        // If no key of the file gives the address, the report shows the address at the model.
        let note = if has_address { format!("{note}{from}") } else { format!("{note}{from}{more}") };
        report.mark(format!("{path}.model"), KeyVerdict::Mapped, note);
        let tweaks = read_tweaks(path, params, flavour, sources, report);
        self.limit(path, params, upstream, sources, report);
        let (share, called, path) = (ListedShare::default(), name.to_owned(), entry_path.to_owned());
        let kind = ModelKind::Chat;
        Ok(ImportedModel { upstream, model, tweaks, share, kind, path, called })
    }

    /// The upstream with this address and key; added if it does not exist yet.
    fn upstream(
        &mut self,
        path: &str,
        params: &Node,
        target: ModelTarget<'_>,
        sources: NamedAddresses<'_>,
        report: &mut Report,
    ) -> Result<usize, ImportError> {
        let (key, key_path) = self.key(target.key, sources, report)?;
        self.unset.extend(target.unset);
        self.taken_over.extend(target.taken_from);
        let key_was_literal = key.as_ref().is_some_and(|key| key.starts_with('\0'));
        // The same variable may hold the address of a server that entries ask by different APIs.
        let is_same = |other: &ImportedUpstream| {
            other.url == target.url && other.key == key && other.speaks_messages == target.speaks_messages
        };
        let i = match self.upstreams.iter().position(is_same) {
            Some(i) => {
                if let Some(other) = self.upstreams.get_mut(i).filter(|other| other.flavour != target.flavour)
                {
                    // The prefixes name different server kinds: sparkgap finds out by asking the server.
                    other.flavour = None;
                }
                i
            }
            None => {
                self.upstreams.push(ImportedUpstream {
                    name: String::new(),
                    url: target.url,
                    key,
                    key_was_literal,
                    flavour: target.flavour,
                    speaks_messages: target.speaks_messages,
                    window: None,
                    timeout: None,
                    max_in_flight: None,
                    again: None,
                });
                self.upstreams.len() - 1
            }
        };
        if key_was_literal {
            self.named_later.push((key_path, i, String::new()));
        }
        // The other parameter for the address is not used; its line in the report is the same.
        for own in ADDRESSES {
            match params.get(own).map(|node| matches!(node.text(), None | Some(""))) {
                Some(true) => report.mark(join(path, own), KeyVerdict::Ignored, "empty"),
                Some(false) => self.named_later.push((join(path, own), i, String::new())),
                None => {}
            }
        }
        if let Some(path) = target.address_path {
            self.named_later.push((path, i, target.notes));
        }
        Ok(i)
    }

    /// Takes `max_parallel_requests` as the upstream's limit. The entries of one server share it, so the largest number
    /// counts.
    fn limit(
        &mut self,
        path: &str,
        params: &Node,
        upstream: usize,
        sources: NamedAddresses<'_>,
        report: &mut Report,
    ) {
        let Some(node) = params.get(PARALLEL).filter(|node| !node.is_null()) else { return };
        let path = join(path, PARALLEL);
        if report_unset(node, &path, sources, report) {
            return;
        }
        let text = present(node, sources, PARALLEL).ok().flatten();
        match text.and_then(|(text, _)| text.trim().parse::<u32>().ok()) {
            Some(0) => report.mark(path, KeyVerdict::Ignored, "0 sets no limit, as in LiteLLM"),
            Some(max) => {
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.max_in_flight = upstream.max_in_flight.max(Some(max));
                }
                self.named_later.push((path, upstream, String::new()));
            }
            None => {
                report.mark(path, KeyVerdict::Unsupported, "not a number; set max_in_flight on the upstream")
            }
        }
    }

    /// The name of the variable that holds the key, and the key's place in the file. A literal key moves to a variable
    /// that is named last; until then its index here stands for that name.
    fn key(
        &mut self,
        key: ListedKey<'_>,
        sources: NamedAddresses<'_>,
        report: &mut Report,
    ) -> Result<(Option<String>, String), ImportError> {
        let (path, node) = match key {
            ListedKey::Given(found) => found,
            ListedKey::Variable(name) => return Ok((Some(sources.name_of(name)), String::new())),
            ListedKey::None => return Ok((None, String::new())),
        };
        if matches!(node.content, Content::List(_) | Content::Map(_)) {
            return Err(node.error(format!("{path} must be text; write none, a key or os.environ/NAME")));
        }
        let key = match SettingText::read(node.text().unwrap_or_default()) {
            SettingText::Environment(name) => {
                let name = sources.name_of(&name);
                report.mark(&path, KeyVerdict::Mapped, format!("env \"{name}\""));
                Some(name)
            }
            SettingText::Literal(text) if NO_KEY.contains(&text.to_ascii_lowercase().as_str()) => {
                report.mark(&path, KeyVerdict::Mapped, "no key is sent");
                None
            }
            SettingText::Literal(text) => {
                let secret = Secret::new(text);
                let known = self.environment.iter().position(|(_, other)| *other == secret);
                let slot = known.unwrap_or(self.environment.len());
                if known.is_none() {
                    self.environment.push((path.clone(), secret));
                }
                Some(format!("\0{slot}"))
            }
        };
        Ok((key, path))
    }

    /// Names the variable of each literal key after the first upstream that uses the key.
    fn name_keys(&mut self) {
        for slot in 0..self.environment.len() {
            let mark = format!("\0{slot}");
            let Some(first) = self.upstreams.iter().find(|u| u.key.as_ref() == Some(&mark)) else { continue };
            let word: String = first
                .name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect();
            let base = match word.starts_with(|c: char| c.is_ascii_digit()) {
                true => format!("KEY_{word}"),
                false => format!("{word}_KEY"),
            };
            let taken = |name: &str| self.asks_for(name) || self.environment.iter().any(|(n, _)| n == name);
            let name = (1..)
                .map(|n| if n == 1 { base.clone() } else { format!("{base}_{n}") })
                .find(|name| !taken(name))
                .unwrap_or(base.clone());
            for upstream in self.upstreams.iter_mut().filter(|u| u.key.as_ref() == Some(&mark)) {
                upstream.key = Some(name.clone());
            }
            if let Some(variable) = self.environment.get_mut(slot) {
                variable.0 = name;
            }
        }
    }

    /// True if the Lua reads this variable.
    pub(super) fn asks_for(&self, name: &str) -> bool {
        let reference = format!("os.environ/{name}");
        self.upstreams.iter().any(|upstream| {
            upstream.key.as_deref() == Some(name) || upstream.url == SettingText::Environment(name.to_owned())
        }) || self
            .groups
            .iter()
            .flat_map(|group| &group.entries)
            .flat_map(|entry| &entry.tweaks)
            .any(|tweak| tweak.value.contains_text(&reference))
    }
}

fn read_tweaks(
    path: &str,
    params: &Node,
    flavour: Option<&str>,
    sources: NamedAddresses<'_>,
    report: &mut Report,
) -> Vec<Tweak> {
    let mut tweaks = Vec::new();
    for (key, value) in params.entries() {
        let below = join(path, key);
        if flavour == Some("ollama") && OF_OLLAMA_ALONE.contains(&key.as_str()) && !value.is_null() {
            report.mark(below, KeyVerdict::Unsupported, OLLAMA);
            continue;
        }
        if value.is_null() && (PARAMETERS.contains(&key.as_str()) || key == "extra_body") {
            report.mark(below, KeyVerdict::Ignored, "empty");
        } else if PARAMETERS.contains(&key.as_str()) {
            let note = if key == "max_tokens" {
                "sent where the client sends none, which the Messages API forbids: for a cap set max_tokens on the upstream"
            } else {
                "sent where the client sends none"
            };
            report.mark(below.as_str(), KeyVerdict::Mapped, note);
            let value = name_variables(value, &below, sources, report);
            tweaks.push(Tweak { field: key.clone(), value, force: false });
        } else if key == "extra_body" {
            let Content::Map(entries) = &value.content else {
                let note = "not a map, so nothing of it is sent; write extra_body: {field: value}";
                report.mark(below, KeyVerdict::Unsupported, note);
                continue;
            };
            report.mark(below.as_str(), KeyVerdict::Mapped, "always sent");
            tweaks.extend(entries.iter().map(|(field, value)| {
                let value = name_variables(value, &join(&below, field), sources, report);
                Tweak { field: field.clone(), value, force: true }
            }));
        }
    }
    tweaks
}

/// The name of an entry, a note on where it comes from, and its parameters; or the reason why it cannot be served.
fn named_entry<'n>(
    item: &'n Node,
    sources: NamedAddresses<'_>,
) -> Result<(String, String, &'n Node), ImportError> {
    let Some(name) = item.get("model_name").filter(|name| name.text().is_some()) else {
        return Err(item.error("it has no model_name, the name that clients ask for"));
    };
    let Some(params) = item.get("litellm_params") else {
        let what = "it has no litellm_params; model: openai/NAME and api_base: URL go there";
        return Err(item.error(what));
    };
    if params.get("model").and_then(Node::text).is_none() {
        return Err(params.error("its litellm_params have no model, such as openai/NAME"));
    }
    let (name, from) = present(name, sources, "its model_name")?.unwrap_or_default();
    Ok((name, from, params))
}
