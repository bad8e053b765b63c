//! `model_list` -> upstreams, and groups of entries by `model_name`.
//!
//! Knows LiteLLM's provider prefixes and what of `litellm_params` has a place here; knows no routing.

use super::keys::PARAMETERS;
use super::report::{Report, join};
use super::yaml::{Content, Node, Scalar};
use super::{ImportError, Verdict};
use crate::config::Secret;

/// Text that stands in the file, or the name of the environment variable that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Literal(String),
    Environment(String),
}

impl Text {
    fn read(text: &str) -> Text {
        match text.strip_prefix("os.environ/") {
            Some(name) => Text::Environment(name.to_owned()),
            None => Text::Literal(text.to_owned()),
        }
    }
}

/// One server with one key: what identical pairs of `api_base` and `api_key` become.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) url: Text,
    /// The environment variable that holds its key.
    pub(super) key: Option<String>,
    /// Whether the key stood in the YAML, so that someone must move it.
    pub(super) key_was_literal: bool,
    /// What the provider prefixes say it is, if they agree.
    pub(super) flavour: Option<&'static str>,
}

/// One change of the request's body.
#[derive(Clone, Debug)]
pub(super) struct Tweak {
    pub(super) field: String,
    pub(super) value: Node,
    /// Also where the client sent one (`extra_body`).
    pub(super) force: bool,
}

/// One entry of `model_list` that can be served.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) upstream: usize,
    /// Without the provider prefix. `*` stands for what the `*` of its group's name matched.
    pub(super) model: String,
    pub(super) weight: f64,
    pub(super) tweaks: Vec<Tweak>,
}

/// The entries of one `model_name`; never empty.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) entries: Vec<Entry>,
    /// Made for one name that a pattern covers, since an alias or a fallback names it.
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
    pub(super) upstreams: Vec<Upstream>,
    pub(super) groups: Vec<Group>,
    /// Path, name and reason of each entry that cannot be served.
    pub(super) left_out: Vec<(String, String, String)>,
    pub(super) environment: Vec<(String, Secret)>,
}

/// A provider prefix that means an OpenAI-compatible server.
struct Provider {
    prefix: &'static str,
    flavour: Option<&'static str>,
    /// Where LiteLLM looks without an `api_base`.
    url: Option<&'static str>,
    /// The variable in which LiteLLM looks for a key if it looks there.
    key: Option<&'static str>,
}

const fn provider(
    prefix: &'static str,
    flavour: Option<&'static str>,
    url: Option<&'static str>,
) -> Provider {
    Provider { prefix, flavour, url, key: None }
}

const PROVIDERS: [Provider; 9] = [
    Provider {
        prefix: "openai",
        flavour: None,
        url: Some("https://api.openai.com/v1"),
        key: Some("OPENAI_API_KEY"),
    },
    provider("hosted_vllm", Some("vllm"), None),
    provider("ollama", Some("ollama"), Some("http://localhost:11434")),
    provider("ollama_chat", Some("ollama"), Some("http://localhost:11434")),
    provider("lm_studio", Some("lmstudio"), None),
    provider("llamafile", Some("llama.cpp"), None),
    provider("custom_openai", None, None),
    provider("openai_like", None, None),
    provider("litellm_proxy", None, None),
];

/// Providers whose own API LiteLLM speaks. Any other prefix is taken for a part of the model's name (`Intel/…`).
const FOREIGN: [&str; 28] = [
    "anthropic",
    "azure",
    "azure_ai",
    "bedrock",
    "vertex_ai",
    "vertex_ai_beta",
    "gemini",
    "groq",
    "mistral",
    "deepseek",
    "openrouter",
    "together_ai",
    "fireworks_ai",
    "cohere",
    "cohere_chat",
    "huggingface",
    "replicate",
    "sagemaker",
    "watsonx",
    "xai",
    "perplexity",
    "nvidia_nim",
    "cerebras",
    "databricks",
    "github",
    "vllm",
    "text-completion-openai",
    "anthropic_text",
];

/// Words that people write where a client insists on a key and the server wants none.
const NO_KEY: [&str; 11] = [
    "",
    "none",
    "null",
    "empty",
    "dummy",
    "fake",
    "fake-key",
    "no-key",
    "not-needed",
    "sk-no-key-required",
    "anything",
];

/// Reads `model_list`.
pub(super) fn read(root: &Node, report: &mut Report) -> Result<Models, ImportError> {
    let Some(list) = root.get("model_list") else {
        return Err(
            root.error("no model_list; expected a LiteLLM configuration (model_list: - model_name: …)")
        );
    };
    let Content::List(items) = &list.content else {
        return Err(list.error("model_list is no list; each entry begins with - model_name: …"));
    };
    let mut models = Models::default();
    let mut weighings = Vec::new();
    for (i, item) in items.iter().enumerate() {
        models.entry(&format!("model_list[{i}]"), item, &mut weighings, report)?;
    }
    if models.groups.is_empty() {
        let reasons: Vec<String> =
            models.left_out.iter().map(|(path, _, why)| format!("{path}: {why}")).collect();
        let message = format!("no entry of model_list can be served; {}", reasons.join("; "));
        return Err(list.error(message.trim_end_matches("; ")));
    }
    weigh(&mut models, &weighings, report);
    name_upstreams(&mut models.upstreams);
    models.name_keys();
    Ok(models)
}

/// Where an entry stood and the numbers that may weigh it.
struct Weighing {
    path: String,
    group: usize,
    entry: usize,
    /// `weight`, `rpm`, `tpm`.
    numbers: [Option<f64>; 3],
}

const WEIGHT_KEYS: [&str; 3] = ["weight", "rpm", "tpm"];

impl Models {
    fn entry(
        &mut self,
        path: &str,
        item: &Node,
        weighings: &mut Vec<Weighing>,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let Some(name) = item.get("model_name").and_then(Node::text) else {
            return Err(item.error(format!("{path} has no model_name, the name that clients ask for")));
        };
        let Some(params) = item.get("litellm_params") else {
            return Err(item.error(format!(
                "{path} has no litellm_params; model: openai/NAME and api_base: URL go there"
            )));
        };
        let Some(model) = params.get("model").and_then(Node::text) else {
            return Err(params.error(format!("{path}.litellm_params has no model, such as openai/NAME")));
        };
        let entry = match self.read_entry(path, name, model, params, report)? {
            Ok(entry) => entry,
            Err(why) => {
                report.mark(path, Verdict::Unsupported, "the entry is left out, see its model");
                for key in
                    ["litellm_params", "model_info"].iter().filter_map(|key| Some((key, item.get(key)?)))
                {
                    for (below, _) in key.1.entries() {
                        let below = join(&join(path, key.0), below);
                        report.mark(below, Verdict::Unsupported, "the entry is left out, see its model");
                    }
                }
                report.mark(format!("{path}.litellm_params.model"), Verdict::Unsupported, why.clone());
                self.left_out.push((path.to_owned(), name.to_owned(), why));
                return Ok(());
            }
        };
        let numbers =
            [read_weight(params, "weight")?, read_weight(params, "rpm")?, read_weight(params, "tpm")?];
        let group = match self.groups.iter().position(|group| group.name == name) {
            Some(group) => group,
            None => {
                self.groups.push(Group { name: name.to_owned(), entries: Vec::new(), made_up: false });
                self.groups.len() - 1
            }
        };
        report.mark(format!("{path}.model_name"), Verdict::Mapped, "an alias of this name");
        if let Some(group_of) = self.groups.get_mut(group) {
            let place = group_of.entries.len();
            weighings.push(Weighing { path: path.to_owned(), group, entry: place, numbers });
            group_of.entries.push(entry);
        }
        Ok(())
    }

    /// The entry, or why it cannot be served.
    fn read_entry(
        &mut self,
        path: &str,
        name: &str,
        model: &str,
        params: &Node,
        report: &mut Report,
    ) -> Result<Result<Entry, String>, ImportError> {
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Ok(Err("its model_name has a blank, which no client can ask for; rename it".to_owned()));
        }
        let path = &format!("{path}.litellm_params");
        let base = params.get("api_base").or_else(|| params.get("base_url")).filter(|node| !node.is_null());
        let has_base = base.is_some();
        let (provider, model, note) = match split_model(model, params.get("custom_llm_provider"), has_base) {
            Ok(split) => split,
            Err(why) => return Ok(Err(why)),
        };
        let url = match base {
            Some(node) => read_url(node, provider)?,
            None => match provider.url {
                Some(url) => Text::Literal(with_v1(url)),
                None => {
                    return Ok(Err(format!(
                        "{}/ without an api_base: add api_base: http://HOST:PORT/v1",
                        provider.prefix
                    )));
                }
            },
        };
        let flavour =
            if provider.prefix == "openai" && !has_base { Some("openai") } else { provider.flavour };
        let upstream =
            self.upstream(path, url, flavour, params, provider.key.filter(|_| !has_base), report)?;
        for key in
            ["api_base", "base_url", "custom_llm_provider"].iter().filter(|key| params.get(key).is_some())
        {
            report.mark(format!("{path}.{key}"), Verdict::Mapped, "one upstream for each address and key");
        }
        report.mark(format!("{path}.model"), Verdict::Mapped, note);
        let tweaks = read_tweaks(path, params, report)?;
        Ok(Ok(Entry { upstream, model, weight: 1.0, tweaks }))
    }

    /// The upstream of this address and key, made if it is new.
    fn upstream(
        &mut self,
        path: &str,
        url: Text,
        flavour: Option<&'static str>,
        params: &Node,
        default_key: Option<&str>,
        report: &mut Report,
    ) -> Result<usize, ImportError> {
        let path = format!("{path}.api_key");
        let mut literal = None;
        let mut key = default_key.map(str::to_owned);
        if let Some(node) = params.get("api_key") {
            if matches!(node.content, Content::List(_) | Content::Map(_)) {
                return Err(node.error(format!("{path} is no text; write none, a key or os.environ/NAME")));
            }
            match Text::read(node.text().unwrap_or_default()) {
                Text::Environment(name) => {
                    report.mark(&path, Verdict::Mapped, format!("env \"{name}\""));
                    key = Some(name);
                }
                Text::Literal(text) if NO_KEY.contains(&text.to_ascii_lowercase().as_str()) => {
                    report.mark(&path, Verdict::Mapped, "no key is sent");
                    key = None;
                }
                Text::Literal(text) => literal = Some(Secret::new(text)),
            }
        }
        // A literal key is known by the variable that it moves to, which is named last: until then by its index here.
        if let Some(secret) = literal {
            let slot = match self.environment.iter().position(|(_, other)| *other == secret) {
                Some(slot) => slot,
                None => {
                    self.environment.push((path.clone(), secret));
                    self.environment.len() - 1
                }
            };
            key = Some(format!("\0{slot}"));
            let note = "keys do not belong in files that get shared: the Lua asks the environment for it";
            report.mark(&path, Verdict::Mapped, note);
        }
        let key_was_literal = key.as_ref().is_some_and(|key| key.starts_with('\0'));
        if let Some(i) = self.upstreams.iter().position(|other| other.url == url && other.key == key) {
            if let Some(other) = self.upstreams.get_mut(i).filter(|other| other.flavour != flavour) {
                // Two prefixes that do not agree: sparkgap finds out for itself.
                other.flavour = None;
            }
            return Ok(i);
        }
        self.upstreams.push(Upstream { name: String::new(), url, key, key_was_literal, flavour });
        Ok(self.upstreams.len() - 1)
    }

    /// Gives the variables for literal keys their names, after the first upstream that uses each.
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

    /// Whether the Lua asks for this variable.
    pub(super) fn asks_for(&self, name: &str) -> bool {
        self.upstreams.iter().any(|upstream| {
            upstream.key.as_deref() == Some(name) || upstream.url == Text::Environment(name.to_owned())
        })
    }
}

/// The provider, the model's name without its prefix, and a note for the report; or why it cannot be served.
fn split_model(
    model: &str,
    custom: Option<&Node>,
    has_base: bool,
) -> Result<(&'static Provider, String, String), String> {
    let find = |prefix: &str| PROVIDERS.iter().find(|provider| provider.prefix == prefix);
    let custom = custom.and_then(Node::text);
    let (prefix, rest) = match custom {
        Some(prefix) => {
            (prefix, model.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model))
        }
        None => model.split_once('/').unwrap_or(("", model)),
    };
    if model.starts_with("os.environ/") {
        return Err(
            "the model's name comes from the environment; write it here, such as openai/NAME".to_owned()
        );
    }
    if let Some(provider) = find(prefix) {
        if rest.is_empty() {
            return Err(format!("no model after {prefix}/; write its name at the upstream"));
        }
        return Ok((provider, rest.to_owned(), format!("{prefix}/ is an OpenAI-compatible server")));
    }
    if prefix == "anthropic" {
        return Err("anthropic/ is no OpenAI-compatible server; point that client's ANTHROPIC_BASE_URL at Anthropic itself, or use a local model".to_owned());
    }
    if custom.is_some() || FOREIGN.contains(&prefix) {
        return Err(format!(
            "{prefix}/ has an API of its own; use its OpenAI-compatible address if it has one: model: openai/NAME with api_base"
        ));
    }
    let openai = find("openai")
        .filter(|_| has_base || ["gpt-", "o1", "o3", "o4"].iter().any(|p| model.starts_with(p)));
    match openai {
        Some(provider) => Ok((provider, model.to_owned(), "no provider's prefix: taken as openai/".to_owned())),
        None => Err("no provider's prefix and no api_base: write model: openai/NAME and api_base: http://HOST:PORT/v1".to_owned()),
    }
}

fn read_url(node: &Node, provider: &Provider) -> Result<Text, ImportError> {
    let Some(text) = node.text() else {
        return Err(node.error("api_base is no text; expected http://HOST:PORT/v1"));
    };
    match Text::read(text) {
        Text::Environment(name) => Ok(Text::Environment(name)),
        Text::Literal(url) => {
            let good = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
            if good.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) || url.contains(bad) {
                return Err(
                    node.error(format!("api_base {url:?} is no address; expected http://HOST:PORT/v1"))
                );
            }
            let url = url.trim_end_matches('/').trim_end_matches("/chat/completions");
            // Ollama's own API is at the root; the one that we speak is below /v1.
            let url = if provider.flavour == Some("ollama") { url.trim_end_matches("/api") } else { url };
            Ok(Text::Literal(with_v1(url)))
        }
    }
}

/// An address without a path means the one where these servers have their API.
fn with_v1(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains('/') => format!("{url}/v1"),
        _ => url.to_owned(),
    }
}

fn read_weight(params: &Node, key: &str) -> Result<Option<f64>, ImportError> {
    let Some(node) = params.get(key).filter(|node| !node.is_null()) else { return Ok(None) };
    #[allow(clippy::cast_precision_loss, reason = "a share of requests needs no 53 bits")]
    match node.scalar() {
        Some(Scalar::Int(n)) if n >= 0 => Ok(Some(n as f64)),
        Some(Scalar::Float(n)) if n >= 0.0 => Ok(Some(n)),
        _ => Err(node.error(format!("{key} is no number from 0 up"))),
    }
}

/// LiteLLM's rule: the first of weight, rpm and tpm that the first entry of a group has weighs all of its entries, and
/// an entry without it is never drawn.
fn weigh(models: &mut Models, weighings: &[Weighing], report: &mut Report) {
    for (g, group) in models.groups.iter_mut().enumerate() {
        let alone = group.entries.len() == 1;
        let of_group = || weighings.iter().filter(move |weighing| weighing.group == g);
        let kind = of_group().next().and_then(|first| first.numbers.iter().position(Option::is_some));
        for weighing in of_group() {
            for (k, (key, number)) in WEIGHT_KEYS.iter().zip(weighing.numbers).enumerate() {
                let Some(number) = number else { continue };
                let path = format!("{}.litellm_params.{key}", weighing.path);
                if kind == Some(k) && !alone {
                    let note = format!("its share of {} by the client's session", group.name);
                    report.mark(path, Verdict::Mapped, note);
                    if let Some(entry) = group.entries.get_mut(weighing.entry) {
                        entry.weight = number;
                    }
                } else if *key == "weight" {
                    let why = if alone {
                        "the only entry of its name"
                    } else {
                        "the first entry of its name has none"
                    };
                    report.mark(path, Verdict::Ignored, why);
                }
            }
            if kind.is_some_and(|k| weighing.numbers.get(k).is_none_or(Option::is_none))
                && !alone
                && let Some(entry) = group.entries.get_mut(weighing.entry)
            {
                entry.weight = 0.0;
            }
        }
    }
}

fn read_tweaks(path: &str, params: &Node, report: &mut Report) -> Result<Vec<Tweak>, ImportError> {
    let mut tweaks = Vec::new();
    for (key, value) in params.entries() {
        let below = join(path, key);
        if value.is_null() && (PARAMETERS.contains(&key.as_str()) || key == "extra_body") {
            report.mark(below, Verdict::Ignored, "empty");
        } else if PARAMETERS.contains(&key.as_str()) {
            let note = if key == "max_tokens" {
                "sent where the client sends none, which the Messages API forbids: for a cap set max_tokens on the upstream"
            } else {
                "sent where the client sends none"
            };
            report.mark(below, Verdict::Mapped, note);
            tweaks.push(Tweak { field: key.clone(), value: value.clone(), force: false });
        } else if key == "extra_body" {
            let Content::Map(entries) = &value.content else {
                return Err(value.error("extra_body is no map; write extra_body: {field: value}"));
            };
            report.mark(below, Verdict::Mapped, "always sent");
            tweaks.extend(entries.iter().map(|(field, value)| Tweak {
                field: field.clone(),
                value: value.clone(),
                force: true,
            }));
        }
    }
    Ok(tweaks)
}

/// Names after the host, with the port where the host is an address or has several; numbered where that is not enough.
fn name_upstreams(upstreams: &mut [Upstream]) {
    let wished: Vec<(String, String)> =
        upstreams.iter().map(|upstream| host_and_authority(&upstream.url)).collect();
    let mut taken: Vec<String> = Vec::new();
    for (upstream, (host, authority)) in upstreams.iter_mut().zip(&wished) {
        let is_address = host.starts_with('[') || host.chars().all(|c| c.is_ascii_digit() || c == '.');
        let alone = wished.iter().all(|(h, a)| h != host || a == authority);
        let base = if alone && !is_address { host } else { authority };
        let name = (1..)
            .map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") })
            .find(|name| !taken.contains(name))
            .unwrap_or(base.clone());
        taken.push(name.clone());
        upstream.name = name;
    }
}

fn host_and_authority(url: &Text) -> (String, String) {
    match url {
        Text::Environment(name) => {
            let name = name.to_ascii_lowercase();
            (name.clone(), name)
        }
        Text::Literal(url) => {
            let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            let authority = rest.split('/').next().unwrap_or(rest);
            let authority = authority.rsplit('@').next().unwrap_or(authority);
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => host,
                _ => authority,
            };
            (host.to_owned(), authority.to_owned())
        }
    }
}
