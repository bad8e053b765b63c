//! `GET /env`: environment variables for Claude Code, made to fit what the upstreams really offer.
//!
//! Knows Claude Code's variables and the gateway; `forms` knows shells, and adds the client's key.

use std::rc::Rc;
use std::sync::Arc;

use crate::claude_code::{
    AUTO_CHECK_SECONDS, AUTO_CHECK_TOKENS, AUTO_PREFILL_MIN, AUTO_WINDOW_MIN, PROMPT_VARIABLE, prompt_value,
};
use crate::config::UpstreamAuth;
use crate::error::Error;
use crate::http::Request;
use crate::json::{Object, Value};
use crate::settings::LateTools;
use crate::shell::Variables;
use crate::transport::Wait;

use super::query::parameter;
use crate::fleet::{Gateway, LISTING_PREFIX, Resolved, Served};
use crate::hooks::Hook;

/// Every variable that is ever sent, and why. A client that fetches `/env` accepts only these variables.
pub const VARIABLES: [(&str, &str); 34] = [
    ("ANTHROPIC_BASE_URL", "where sparkgap is"),
    (
        "ANTHROPIC_AUTH_TOKEN",
        "the key that sparkgap asks for; any text where it asks for none; empty where Claude Code sends your own key or login",
    ),
    ("ANTHROPIC_CUSTOM_HEADERS", "the key that sparkgap asks for, beside your own"),
    ("ANTHROPIC_API_KEY", "empty, so that no key of an Anthropic account is ever sent to this gateway"),
    ("ANTHROPIC_MODEL", "the main model, by a name that is served here"),
    ("ANTHROPIC_DEFAULT_OPUS_MODEL", "what 'opus' means here"),
    ("ANTHROPIC_DEFAULT_OPUS_MODEL_NAME", "its row in /model"),
    ("ANTHROPIC_DEFAULT_OPUS_MODEL_DESCRIPTION", "the same"),
    ("ANTHROPIC_DEFAULT_SONNET_MODEL", "what 'sonnet' means here; auto mode checks tool calls with it"),
    ("ANTHROPIC_DEFAULT_SONNET_MODEL_NAME", "its row in /model"),
    ("ANTHROPIC_DEFAULT_SONNET_MODEL_DESCRIPTION", "the same"),
    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "what 'haiku' means here: titles and other small work"),
    ("ANTHROPIC_DEFAULT_HAIKU_MODEL_NAME", "its row in /model"),
    ("ANTHROPIC_DEFAULT_HAIKU_MODEL_DESCRIPTION", "the same"),
    (
        "ANTHROPIC_DEFAULT_FABLE_MODEL",
        "what 'fable' means here; without it that row of /model is a model of a million tokens",
    ),
    ("ANTHROPIC_DEFAULT_FABLE_MODEL_NAME", "its row in /model"),
    ("ANTHROPIC_DEFAULT_FABLE_MODEL_DESCRIPTION", "the same"),
    ("ANTHROPIC_SMALL_FAST_MODEL", "the haiku model, for older versions of Claude Code"),
    ("CLAUDE_CODE_SUBAGENT_MODEL", "the model of sub-agents"),
    (
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS",
        "the window that the server told: Claude Code takes an unknown model to have a million tokens, and would compact too late",
    ),
    (
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW",
        "the same for names that Claude Code knows, whose windows it takes from a list of its own; 100000 is the least that it accepts",
    ),
    (
        "CLAUDE_CODE_DISABLE_1M_CONTEXT",
        "1: the row Default of /model keeps to that window; it would ask for a million tokens",
    ),
    (
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        "an eighth of the window, at most 32000: what is kept free for an answer",
    ),
    (
        "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS",
        "an eighth of the window, at most 25000: four files that are read at once must leave room to compact",
    ),
    (
        "ENABLE_TOOL_SEARCH",
        "auto:10: declare all tools at the start if the rarer ones take at most a tenth of the window. They take about 9000 tokens, once. A tool that is declared later changes the beginning of the prompt, and the server reads the whole conversation again",
    ),
    (
        "CLAUDE_CODE_ATTRIBUTION_HEADER",
        "0: without the line in the system prompt that changes with every conversation, the prefix cache holds",
    ),
    (
        "API_TIMEOUT_MS",
        "half an hour, as sparkgap itself: a long prompt may wait that long for its first token, streamed or not",
    ),
    (
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS",
        "the same for a stream of nothing but pings, with five minutes on top; without it ten minutes in all",
    ),
    (
        "CLAUDE_CODE_AUTO_MODE_SERVER",
        "0: auto mode lets a model here judge tool calls, rather than wait for a judgement that only Anthropic's servers give",
    ),
    (
        "CLAUDE_CODE_DISABLE_SUBAGENT_HANDBACK",
        "1: a sub-agent's last text is its report; otherwise it must call a tool for that, and the report of a model that does not is lost",
    ),
    ("CLAUDE_CODE_GATEWAY_HINT_HEADERS", "1: requests say whether a person waits for them"),
    ("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1: /model lists what is served here"),
    (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "1: nothing is sent to Anthropic or other hosts. This switches off updates of Claude Code, telemetry, error reports, /feedback, titles of sessions, and what needs a claude.ai account",
    ),
    (
        PROMPT_VARIABLE,
        "which system prompt Claude Code sends, as you chose: 1, about 1700 tokens; 0, about 7000",
    ),
];

/// Variables that a person may prefer otherwise: one that their environment has already, even if empty, is left alone.
pub const PREFERENCES: [&str; 2] = ["ENABLE_TOOL_SEARCH", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"];

/// Every setting that is ever sent, and why: keys of Claude Code's settings that no variable stands for. A client that
/// fetches `/env` accepts only these.
pub const SETTINGS: [(&str, &str); 2] = [
    (
        "skipWebFetchPreflight",
        "WebFetch asks claude.ai about each host first, and fails where that cannot be reached",
    ),
    ("disableAutoMode", "auto mode's check of tool calls does not work here; a note says why"),
];

/// The models that Claude Code requests, by tier, if it is not told another. Main work uses the first.
const OPUS: &str = "claude-opus-5-5";
const SONNET: &str = "claude-sonnet-5-5";
const HAIKU: &str = "claude-haiku-5-5";
const FABLE: &str = "claude-fable-5-2";

/// The answer size that Claude Code assumes for a model that it does not know, in tokens.
const OUTPUT_MAX: u64 = 32_000;

/// The divisor for the part of the window that is kept for an answer. Claude Code compacts when that part and another
/// 13,000 tokens are left. With a quarter, a window of 32,768 tokens would be too small for Claude Code's first
/// request.
const OUTPUT_SHARE: u64 = 8;

/// The answer size of one file that Claude Code reads if it is not told another, in tokens.
const FILE_READ_MAX: u64 = 25_000;

/// The divisor for the part of the window that one file may take. Claude Code reads four at once: they take at most half
/// of the window, so that a conversation that is then over its limit can still be compacted.
const FILE_READ_SHARE: u64 = 8;

/// The smallest value of `CLAUDE_CODE_AUTO_COMPACT_WINDOW`: Claude Code warns of a smaller one and takes this.
const COMPACT_WINDOW_MIN: u64 = 100_000;

/// The window that Claude Code takes a name with `[1m]` to have, in tokens.
const LARGE_WINDOW: u64 = 1_000_000;

/// The same as sparkgap's own limit for a first byte; also the longest silence of a stream that Claude Code accepts.
const PATIENCE_MS: &str = "1800000";

/// The variables of each tier's row in `/model`: the model, its title, its description.
const OPUS_ROW: [&str; 3] = [
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL_NAME",
    "ANTHROPIC_DEFAULT_OPUS_MODEL_DESCRIPTION",
];
const SONNET_ROW: [&str; 3] = [
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL_NAME",
    "ANTHROPIC_DEFAULT_SONNET_MODEL_DESCRIPTION",
];
const HAIKU_ROW: [&str; 3] = [
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL_NAME",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL_DESCRIPTION",
];
const FABLE_ROW: [&str; 3] = [
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL_NAME",
    "ANTHROPIC_DEFAULT_FABLE_MODEL_DESCRIPTION",
];

/// Tool search only where the rarer tools would take more than this share of the window, in percent. Claude Code's own
/// rarer tools have about 9,000 tokens, so windows from about 100,000 tokens on have all of them from the start; there
/// they take at most a sixth of what a conversation has before it is compacted. In a smaller window, and with many tools
/// of MCP servers, tool search stays: the start would take too much.
const TOOL_SEARCH: &str = "auto:10";

/// The longest `host` header in bytes. A longer one is invalid.
const HOST_SIZE_MAX: usize = 255;

/// The environment for one client.
pub struct ClientEnvironment {
    /// The address by which the client reached us.
    pub(super) base_url: String,
    /// The variables in the order of [`VARIABLES`], without the address and the key.
    pub(super) variables: Variables,
    /// Keys of Claude Code's settings, in the order of [`SETTINGS`].
    pub(super) settings: Vec<(&'static str, Value<'static>)>,
    /// Sentences for the person, each in one line.
    pub(super) notes: Vec<String>,
    /// True if an upstream gets its clients' own keys.
    pub(super) takes_keys: bool,
}

/// The address by which the client of this request reached us. `is_secure`: its connection is HTTPS.
///
/// # Errors
/// 400: the `host` header is missing or not valid in a URL.
pub fn address(request: &Request, (is_secure, prefix): (bool, &str)) -> Result<String, Error> {
    let host = request.host().unwrap_or_default();
    let forwarded = if is_secure { Some("https") } else { request.header("x-forwarded-proto") };
    let address = base_url(host, forwarded, prefix);
    address.ok_or_else(|| Error::invalid("host: the header must name the host that you reached us by"))
}

/// Makes the environment for the client of this request. `way`: whether its connection is HTTPS, and the prefix of every path.
///
/// # Errors
/// 400: the `host` header is missing or not valid in a URL, or `prompt` in the query is neither `lean` nor `full`. 502, 504: an
/// upstream for Claude Code's main work does not
/// answer, so its model or its window is not known.
pub fn of_client(
    gateway: &Gateway,
    request: &Request,
    way: (bool, &str),
    wait: &Rc<dyn Wait>,
) -> Result<ClientEnvironment, Error> {
    let base_url = address(request, way)?;
    let prompt = match parameter(request.query.as_deref(), "prompt") {
        None => None,
        Some(size) => {
            let value = prompt_value(size);
            Some(value.ok_or_else(|| Error::invalid("prompt: expected lean or full, as in ?prompt=lean"))?)
        }
    };
    // A client that has left is noticed when the answer is written.
    let _ = gateway.refresh_all(wait);
    check_upstreams(gateway)?;
    let tiers = Tiers::of(gateway);
    let mut settings = vec![("skipWebFetchPreflight", true.into())];
    let mut notes: Vec<String> = tiers.unknown_window_note().into_iter().collect();
    if let Some(note) = tiers.no_auto_mode_note() {
        settings.push(("disableAutoMode", "disable".into()));
        notes.push(note);
    }
    let takes = |served: &&Arc<Served>| served.upstream().config().auth == UpstreamAuth::Client;
    let taker = gateway.upstreams().iter().find(takes);
    notes.extend(taker.map(|taker| {
        format!(
            "models on upstream {} get your own key: log in with /login in Claude Code, or set ANTHROPIC_API_KEY",
            taker.name()
        )
    }));
    let (mut variables, takes_keys) = (variables(gateway, &tiers), taker.is_some());
    variables.extend(prompt.map(|value| (PROMPT_VARIABLE, value.to_owned())));
    Ok(ClientEnvironment { base_url, variables, settings, notes, takes_keys })
}

impl ClientEnvironment {
    /// The answer of `GET /env`: everything with the reason for it, and without a key.
    pub fn into_value(self) -> Value<'static> {
        let mut variables = vec![("ANTHROPIC_BASE_URL", self.base_url)];
        variables.extend(self.variables);
        let reasons = VARIABLES.iter().chain(&SETTINGS);
        let is_sent = |(name, _): &&(&str, &str)| {
            variables.iter().any(|(sent, _)| sent == name)
                || self.settings.iter().any(|(sent, _)| sent == name)
        };
        let why: Object<'_> =
            reasons.filter(is_sent).map(|(name, why)| ((*name).into(), (*why).into())).collect();
        let env: Object<'_> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let settings: Object<'_> =
            self.settings.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let notes: Vec<Value<'static>> = self.notes.into_iter().map(Value::from).collect();
        Value::object([
            ("env", env.into()),
            ("settings", settings.into()),
            ("notes", notes.into()),
            ("why", why.into()),
            ("takes_keys", self.takes_keys.into()),
        ])
    }
}

/// Refuses to answer while an upstream of the main models has not answered yet and the configuration lacks what only
/// that upstream can report. Claude Code would otherwise assume a window of a million tokens for as long as it runs.
fn check_upstreams(gateway: &Gateway) -> Result<(), Error> {
    for tier in [OPUS, SONNET] {
        let Ok(found) = gateway.resolve(tier) else { continue };
        let upstream = found.served.upstream();
        // If the resolved model has Claude Code's own name, no model is known: that name is the last resort.
        let is_known = found.window().is_some() && (found.model != tier || upstream.model().is_some());
        if is_known || !upstream.is_stale() {
            continue;
        }
        if let Some(failure) = upstream.failure() {
            let mut error = failure.to_error(upstream.name());
            error.message.push_str(
                ", so its model and its context window are not known: start it, or set model and window for it in a Lua file",
            );
            return Err(error);
        }
    }
    Ok(())
}

/// The base URL under which the client reached us. Only characters that are harmless in a shell or a file are allowed.
fn base_url(host: &str, forwarded_proto: Option<&str>, prefix: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.len() > HOST_SIZE_MAX || !host.chars().all(is_plain) {
        return None;
    }
    let scheme = if forwarded_proto == Some("https") { "https" } else { "http" };
    Some(format!("{scheme}://{host}{prefix}"))
}

/// The models that Claude Code's own names lead to; `None` for a name that no alias serves.
struct Tiers {
    opus: Option<Resolved>,
    sonnet: Option<Resolved>,
    haiku: Option<Resolved>,
    fable: Option<Resolved>,
}

impl Tiers {
    fn of(gateway: &Gateway) -> Self {
        let [opus, sonnet, haiku, fable] =
            [OPUS, SONNET, HAIKU, FABLE].map(|tier| gateway.resolve(tier).ok());
        Tiers { opus, sonnet, haiku, fable }
    }

    /// The model of the main work.
    fn main(&self) -> Option<&Resolved> {
        self.opus.as_ref().or(self.sonnet.as_ref()).or(self.haiku.as_ref())
    }

    /// The least of a number over the models that hold conversations. One number serves all conversations. The haiku
    /// model holds none of its own; the fable model holds one only if a person chooses it.
    fn least(&self, of: fn(&Resolved) -> Option<u64>) -> Option<u64> {
        [&self.opus, &self.sonnet].into_iter().flatten().filter_map(of).min()
    }

    /// True if a tool that comes late does not cost the prefix cache, so that tool search has no price.
    fn late_tools_are_free(&self) -> bool {
        let as_text = |tier: &Resolved| {
            tier.settings.late_tools == LateTools::Text && tier.flavour.dialect().passes_undeclared_calls
        };
        [&self.opus, &self.sonnet].into_iter().flatten().all(as_text)
    }

    /// The reason for which Claude Code is not told a window, if it is not.
    fn unknown_window_note(&self) -> Option<String> {
        let main = self.main().filter(|_| self.least(Resolved::window).is_none())?;
        Some(format!(
            "upstream {} does not report the context window of {}, so Claude Code assumes a million tokens and compacts too late: set window = TOKENS for this upstream in a Lua file",
            main.served.name(),
            main.model
        ))
    }

    /// The reason for which auto mode cannot work, if it cannot. The sonnet model checks its tool calls.
    fn no_auto_mode_note(&self) -> Option<String> {
        let judge = self.sonnet.as_ref().or(self.main())?;
        let upstream = judge.served.upstream();
        let (name, model) = (upstream.name(), &judge.model);
        let check = format!("its check of a tool call has about {AUTO_CHECK_TOKENS} tokens");
        let small = judge.window().filter(|window| *window < AUTO_WINDOW_MIN);
        let slow = judge.prefill().filter(|rate| *rate < AUTO_PREFILL_MIN);
        let reason = match (upstream.config().auto_mode, small, slow) {
            (Some(true), ..) | (None, None, None) => return None,
            (Some(false), ..) => format!("upstream {name} has auto_mode = false"),
            (None, Some(window), _) => format!("{check}, and the window of {model} has {window}"),
            (None, None, Some(rate)) => format!(
                "{check}, for which Claude Code waits {AUTO_CHECK_SECONDS} s, and {model} reads {rate} new tokens in a second. Set auto_mode = true for upstream {name} in a Lua file to have it all the same"
            ),
        };
        Some(format!("auto mode is not offered (setting disableAutoMode): {reason}"))
    }
}

/// The variables in the order of [`VARIABLES`], without those for which nothing is known.
fn variables(gateway: &Gateway, tiers: &Tiers) -> Variables {
    let mut found = Vec::new();
    // A function `on_request` may depend on the names that Claude Code uses, so they are not replaced.
    if let Some(main) = tiers.main().filter(|_| !gateway.hooks().defines(Hook::Request)) {
        models(gateway, tiers, main, &mut found);
    }
    if let Some(window) = tiers.least(Resolved::window) {
        let output = (window / OUTPUT_SHARE).min(OUTPUT_MAX);
        let output = tiers.least(|tier| tier.settings.max_tokens).map_or(output, |most| most.min(output));
        found.push(("CLAUDE_CODE_MAX_CONTEXT_TOKENS", window.to_string()));
        found.push(("CLAUDE_CODE_AUTO_COMPACT_WINDOW", window.max(COMPACT_WINDOW_MIN).to_string()));
        if window < LARGE_WINDOW {
            found.push(("CLAUDE_CODE_DISABLE_1M_CONTEXT", "1".into()));
        }
        found.push(("CLAUDE_CODE_MAX_OUTPUT_TOKENS", output.to_string()));
        let file = (window / FILE_READ_SHARE).min(FILE_READ_MAX);
        found.push(("CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS", file.to_string()));
        if !tiers.late_tools_are_free() {
            found.push(("ENABLE_TOOL_SEARCH", TOOL_SEARCH.into()));
        }
    }
    let fixed = [
        ("CLAUDE_CODE_ATTRIBUTION_HEADER", "0"),
        ("API_TIMEOUT_MS", PATIENCE_MS),
        ("CLAUDE_STREAM_IDLE_TIMEOUT_MS", PATIENCE_MS),
        ("CLAUDE_CODE_AUTO_MODE_SERVER", "0"),
        ("CLAUDE_CODE_DISABLE_SUBAGENT_HANDBACK", "1"),
        ("CLAUDE_CODE_GATEWAY_HINT_HEADERS", "1"),
        ("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ];
    found.extend(fixed.map(|(name, value)| (name, value.to_string())));
    found
}

/// The variables that name models and describe their rows in `/model`.
fn models(gateway: &Gateway, tiers: &Tiers, main: &Resolved, found: &mut Variables) {
    let name = |tier: &Option<Resolved>, own: &str| match tier {
        Some(tier) => name_of(gateway, tier, own),
        None => name_of(gateway, main, OPUS),
    };
    let [opus, sonnet, haiku, fable] =
        [(&tiers.opus, OPUS), (&tiers.sonnet, SONNET), (&tiers.haiku, HAIKU), (&tiers.fable, FABLE)]
            .map(|(tier, own)| (name(tier, own), row(tier.as_ref().unwrap_or(main))));
    found.push(("ANTHROPIC_MODEL", opus.0.clone()));
    let small = haiku.0.clone();
    let agents = sonnet.0.clone();
    for ([model, title, description], (name, row)) in
        [(OPUS_ROW, opus), (SONNET_ROW, sonnet), (HAIKU_ROW, haiku), (FABLE_ROW, fable)]
    {
        found.push((model, name));
        found.push((title, row.0));
        found.push((description, row.1));
    }
    found.push(("ANTHROPIC_SMALL_FAST_MODEL", small));
    found.push(("CLAUDE_CODE_SUBAGENT_MODEL", agents));
}

/// The title and the description of a model's row in `/model`. The title leaves out the folders of the model's name.
fn row(model: &Resolved) -> (String, String) {
    let title = model.model.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&model.model);
    (title.to_string(), describe(model))
}

/// The window of a model, if it is known, and its upstream: what a person compares when choosing one.
pub(super) fn describe(model: &Resolved) -> String {
    let window = model.window().map(|window| format!("{window} tokens, ")).unwrap_or_default();
    format!("{window}on upstream {}", model.served.name())
}

/// A name that leads to this model: the model's own, otherwise an alias, otherwise Claude Code's own name for the tier,
/// which led here.
fn name_of(gateway: &Gateway, wanted: &Resolved, own: &str) -> String {
    let listed = format!("{LISTING_PREFIX}{}", wanted.model);
    let aliases = gateway.aliases().iter().map(|alias| alias.pattern.as_str());
    let mut names =
        [wanted.model.as_str(), &listed].into_iter().chain(aliases.filter(|pattern| !pattern.contains('*')));
    let leads_there = |name: &&str| {
        let found = gateway.resolve(name);
        found.is_ok_and(|found| found.is(&wanted.served, &wanted.model))
    };
    names.find(leads_there).unwrap_or(own).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;
    use crate::dialect::ServerKind;
    use crate::hooks::{Hooks, LoadOptions};
    use crate::openai::Counts;
    use crate::settings::Settings;
    use crate::translate::Asked;
    use crate::transport;

    fn gateway(upstreams: &[(&str, &str, u64)], lua: &str) -> Gateway {
        let upstream = |(name, model, window): &(&str, &str, u64)| config::UpstreamConfig {
            model: Some((*model).into()),
            settings: Settings { window: Some(*window), ..Settings::default() },
            ..config::UpstreamConfig::new(*name, "http://127.0.0.1:9/v1")
        };
        let texts = vec![("test.lua".to_string(), lua.to_string())];
        let options = LoadOptions { texts, ..LoadOptions::default() };
        let loaded = Hooks::load(&[], upstreams.iter().map(upstream).collect(), options).unwrap();
        Gateway::new(loaded, &transport::CallLimits::default()).unwrap()
    }

    fn told(gateway: &Gateway) -> impl Fn(&str) -> String + use<> {
        let variables = variables(gateway, &Tiers::of(gateway));
        move |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        }
    }

    #[test]
    fn one_server_is_every_tier() {
        let told = told(&gateway(&[("default", "qwen3", 131_072)], "return { api = 1 }"));
        for name in ["ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"] {
            assert_eq!(told(name), "qwen3", "{name}");
        }
        assert_eq!(told("CLAUDE_CODE_MAX_CONTEXT_TOKENS"), "131072");
        assert_eq!(told("CLAUDE_CODE_MAX_OUTPUT_TOKENS"), "16384");
        assert_eq!(told("CLAUDE_CODE_ATTRIBUTION_HEADER"), "0");
        assert_eq!(told("CLAUDE_CODE_AUTO_MODE_SERVER"), "0");
        assert_eq!(told("ANTHROPIC_DEFAULT_FABLE_MODEL"), "qwen3");
        assert_eq!(told("ENABLE_TOOL_SEARCH"), "auto:10");
    }

    #[test]
    fn every_limit_keeps_to_the_window() {
        for (window, compact, file, disables) in [
            (32_768, "100000", "4096", "1"),
            (131_072, "131072", "16384", "1"),
            (262_144, "262144", "25000", "1"),
            (1_000_000, "1000000", "25000", ""),
        ] {
            let told = told(&gateway(&[("default", "qwen3", window)], "return { api = 1 }"));
            assert_eq!(told("CLAUDE_CODE_AUTO_COMPACT_WINDOW"), compact, "{window}");
            assert_eq!(told("CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS"), file, "{window}");
            assert_eq!(told("CLAUDE_CODE_DISABLE_1M_CONTEXT"), disables, "{window}");
        }
    }

    #[test]
    fn tool_search_stays_where_late_tools_cost_nothing() {
        for (flavour, expected) in [(ServerKind::Vllm, ""), (ServerKind::LlamaCpp, "auto:10")] {
            let settings = Settings {
                window: Some(131_072),
                flavour: Some(flavour),
                late_tools: LateTools::Text,
                ..Settings::default()
            };
            let upstream = config::UpstreamConfig {
                settings,
                ..config::UpstreamConfig::new("spark", "http://127.0.0.1:9/v1")
            };
            let loaded = Hooks::load(&[], vec![upstream], LoadOptions::default()).unwrap();
            let gateway = Gateway::new(loaded, &transport::CallLimits::default()).unwrap();
            assert_eq!(told(&gateway)("ENABLE_TOOL_SEARCH"), expected, "{flavour:?}");
        }
    }

    #[test]
    fn rows_of_the_menu_say_what_a_model_is() {
        let told = told(&gateway(&[("spark", "Intel/Qwen3.6-35B", 131_072)], "return { api = 1 }"));
        assert_eq!(told("ANTHROPIC_DEFAULT_OPUS_MODEL"), "Intel/Qwen3.6-35B");
        assert_eq!(told("ANTHROPIC_DEFAULT_OPUS_MODEL_NAME"), "Qwen3.6-35B");
        assert_eq!(told("ANTHROPIC_DEFAULT_FABLE_MODEL_DESCRIPTION"), "131072 tokens, on upstream spark");
    }

    /// One upstream with this window and the operator's word on auto mode.
    fn spark(window: u64, auto_mode: Option<bool>) -> Gateway {
        let upstream = config::UpstreamConfig {
            model: Some("qwen3".into()),
            auto_mode,
            settings: Settings { window: Some(window), ..Settings::default() },
            ..config::UpstreamConfig::new("spark", "http://127.0.0.1:9/v1")
        };
        let loaded = Hooks::load(&[], vec![upstream], LoadOptions::default()).unwrap();
        Gateway::new(loaded, &transport::CallLimits::default()).unwrap()
    }

    #[test]
    fn auto_mode_is_offered_where_its_check_fits() {
        let note = |window: u64, auto_mode: Option<bool>| {
            Tiers::of(&spark(window, auto_mode)).no_auto_mode_note().unwrap_or_default()
        };
        assert_eq!(note(48_000, None), "");
        assert_eq!(note(47_999, Some(true)), "");
        let small = note(47_999, None);
        assert!(
            small.contains("disableAutoMode") && small.contains("36000 tokens, and the window of qwen3"),
            "{small}"
        );
        let off = note(131_072, Some(false));
        assert!(off.contains("upstream spark has auto_mode = false"), "{off}");
    }

    #[test]
    fn auto_mode_is_not_offered_where_its_check_would_take_too_long() {
        let note = |seconds: u64, auto_mode: Option<bool>| {
            let gateway = spark(131_072, auto_mode);
            let judge = gateway.resolve(SONNET).unwrap();
            let counts = Counts { prompt: 21_000, cached: 1_000, completion: 9, ..Counts::default() };
            for _ in 0..3 {
                judge.learn_answer(counts, &Asked::default(), Some(Duration::from_secs(seconds)));
            }
            Tiers::of(&gateway).no_auto_mode_note().unwrap_or_default()
        };
        let slow = note(40, None);
        for part in ["disableAutoMode", "waits 60 s", "qwen3 reads 500 new tokens", "auto_mode = true"] {
            assert!(slow.contains(part), "{slow}");
        }
        assert_eq!((note(33, None), note(40, Some(true))), (String::new(), String::new()));
        assert!(note(40, Some(false)).contains("auto_mode = false"));
    }

    #[test]
    fn a_window_that_nobody_knows_is_told_with_its_upstream() {
        let upstream = config::UpstreamConfig::new("spark", "http://127.0.0.1:9/v1");
        let loaded = Hooks::load(&[], vec![upstream], LoadOptions::default()).unwrap();
        let gateway = Gateway::new(loaded, &transport::CallLimits::default()).unwrap();
        let tiers = Tiers::of(&gateway);
        let note = tiers.unknown_window_note().unwrap();
        assert!(note.starts_with("upstream spark does not report the context window"), "{note}");
        let sent = variables(&gateway, &tiers);
        assert!(
            !sent.iter().any(|(name, _)| *name == "ENABLE_TOOL_SEARCH"),
            "its share of a window is unknown"
        );
    }

    #[test]
    fn each_tier_goes_where_claude_code_s_own_name_goes() {
        let lua = r#"return { api = 1, aliases = {
            { "claude-*haiku*", upstream = "small" }, { "dense", upstream = "big", model = "d" },
            { "claude-*opus*", upstream = "big", model = "d" }, { "*", upstream = "big" } } }"#;
        let told = told(&gateway(&[("big", "moe", 1_000_000), ("small", "tiny", 16_384)], lua));
        assert_eq!(told("ANTHROPIC_MODEL"), "dense");
        assert_eq!(told("ANTHROPIC_DEFAULT_SONNET_MODEL"), "moe");
        // Only Claude Code's own name leads to the small one.
        assert_eq!(told("ANTHROPIC_SMALL_FAST_MODEL"), "claude-haiku-5-5");
        assert_eq!(told("CLAUDE_CODE_MAX_CONTEXT_TOKENS"), "1000000");
        assert_eq!(told("CLAUDE_CODE_MAX_OUTPUT_TOKENS"), "32000");
    }

    #[test]
    fn hooks_on_requests_keep_the_names_they_may_go_by() {
        let told =
            told(&gateway(&[("a", "m", 65_536)], "return { api = 1, on_request = function(req) end }"));
        assert_eq!(told("ANTHROPIC_MODEL"), "");
        assert_eq!(told("CLAUDE_CODE_MAX_CONTEXT_TOKENS"), "65536");
    }

    #[test]
    fn whatever_is_told_is_known() {
        let gateway = gateway(&[("a", "m", 65_536)], "return { api = 1 }");
        let mut known = VARIABLES.iter().map(|(name, _)| *name);
        for (name, _) in variables(&gateway, &Tiers::of(&gateway)) {
            assert!(known.any(|known| known == name), "{name} is not in the table, or not in its order");
        }
    }

    #[test]
    fn only_a_plain_host_stands_in_the_base_url() {
        for (host, proto, expected) in [
            ("box:4000", None, Some("http://box:4000/llm")),
            ("[::1]:4000", None, Some("http://[::1]:4000/llm")),
            ("llm.example", Some("https"), Some("https://llm.example/llm")),
            ("box", Some("javascript"), Some("http://box/llm")),
            ("", None, None),
            ("box'; rm -rf ~", None, None),
            ("me@box", None, None),
            ("a/b", None, None),
            ("box\u{e9}", None, None),
        ] {
            assert_eq!(base_url(host, proto, "/llm").as_deref(), expected, "{host}");
        }
        assert_eq!(base_url(&"a".repeat(256), None, ""), None);
    }
}
