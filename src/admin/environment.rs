//! `GET /env`: environment variables for Claude Code, made to fit what the upstreams really offer.
//!
//! Knows Claude Code's variables and the gateway; knows nothing of shells. The client's key is never part of the
//! answer.

use std::rc::Rc;

use crate::error::Error;
use crate::http::Request;
use crate::json::{Object, Value};
use crate::transport::Wait;

use crate::fleet::{Gateway, LISTING_PREFIX, Resolved};
use crate::hooks::Hook;

/// Every variable that is ever sent, and why. A client that fetches `/env` accepts only these variables.
pub const VARIABLES: [(&str, &str); 16] = [
    ("ANTHROPIC_BASE_URL", "where sparkgap is"),
    ("ANTHROPIC_AUTH_TOKEN", "the key that sparkgap asks for; any text where it asks for none"),
    ("ANTHROPIC_API_KEY", "empty, so that no key of an Anthropic account is ever sent to this gateway"),
    ("ANTHROPIC_MODEL", "the main model, by a name that is served here"),
    ("ANTHROPIC_DEFAULT_OPUS_MODEL", "what 'opus' means here"),
    ("ANTHROPIC_DEFAULT_SONNET_MODEL", "what 'sonnet' means here; auto mode checks tool calls with it"),
    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "what 'haiku' means here: titles and other small work"),
    ("ANTHROPIC_SMALL_FAST_MODEL", "the same for older versions of Claude Code"),
    ("CLAUDE_CODE_SUBAGENT_MODEL", "the model of sub-agents"),
    (
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS",
        "the window that the server told: Claude Code takes an unknown model to have a million tokens, and would compact too late",
    ),
    (
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        "an eighth of the window, at most 32000: what is kept free for an answer",
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
    ("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1: /model lists what is served here"),
];

/// The models that Claude Code requests, by tier, if it is not told another. Main work uses the first.
const OPUS: &str = "claude-opus-5-5";
const SONNET: &str = "claude-sonnet-5-5";
const HAIKU: &str = "claude-haiku-5-5";

/// The answer size that Claude Code assumes for a model that it does not know, in tokens.
const OUTPUT_MAX: u64 = 32_000;

/// The divisor for the part of the window that is kept for an answer. Claude Code compacts when that part and another
/// 13,000 tokens are left. With a quarter, a window of 32,768 tokens would be too small for Claude Code's first
/// request.
const OUTPUT_SHARE: u64 = 8;

/// The same as sparkgap's own limit for a first byte; also the longest silence of a stream that Claude Code accepts.
const PATIENCE_MS: &str = "1800000";

/// The longest `host` header in bytes. A longer one is invalid.
const HOST_SIZE_MAX: usize = 255;

/// The whole answer: the variables, and the reason for each.
///
/// # Errors
/// 400: the `host` header is missing or not valid in a URL. 502, 504: an upstream for Claude Code's main work does not
/// answer, so its model or its window is not known.
pub fn tell(
    gateway: &Gateway,
    request: &Request,
    prefix: &str,
    wait: &Rc<dyn Wait>,
) -> Result<Value<'static>, Error> {
    let host = request.host().unwrap_or_default();
    let Some(base) = base_url(host, request.header("x-forwarded-proto"), prefix) else {
        return Err(Error::invalid("host: the header must name the host that you reached us by"));
    };
    check_upstreams(gateway, wait)?;
    let variables = variables(gateway, base);
    let why = |name: &&'static str| {
        let (name, why) = VARIABLES.iter().find(|(known, _)| known == name)?;
        Some(((*name).into(), (*why).into()))
    };
    let why: Object<'_> = variables.iter().map(|(name, _)| name).filter_map(why).collect();
    let env: Object<'_> = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Ok(Value::object([("env", env.into()), ("why", why.into())]))
}

/// Refuses to answer while an upstream of the main models has not answered yet and the configuration lacks what only
/// that upstream can report. Claude Code would otherwise assume a window of a million tokens for as long as it runs.
fn check_upstreams(gateway: &Gateway, wait: &Rc<dyn Wait>) -> Result<(), Error> {
    for tier in [OPUS, SONNET] {
        let Ok(found) = gateway.resolve(tier, None, None, None) else { continue };
        let upstream = found.served.upstream();
        // If the resolved model has Claude Code's own name, no model is known: that name is the last resort.
        let is_known = found.window().is_some() && (found.model != tier || upstream.model().is_some());
        if is_known || !upstream.is_stale() {
            continue;
        }
        if let Err(failure) = upstream.discover(wait) {
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

/// The variables in the order of [`VARIABLES`], without those for which nothing is known.
fn variables(gateway: &Gateway, base: String) -> Vec<(&'static str, String)> {
    let mut found = vec![("ANTHROPIC_BASE_URL", base)];
    let [opus, sonnet, haiku] =
        [OPUS, SONNET, HAIKU].map(|tier| gateway.resolve(tier, None, None, None).ok());
    let main = opus.as_ref().or(sonnet.as_ref()).or(haiku.as_ref());
    // A function `on_request` may depend on the names that Claude Code uses, so they are not replaced.
    if let Some(main) = main.filter(|_| !gateway.hooks().defines(Hook::Request)) {
        let name = |tier: &Option<Resolved>, own: &str| match tier {
            Some(tier) => name_of(gateway, tier, own),
            None => name_of(gateway, main, OPUS),
        };
        let (opus, sonnet, haiku) = (name(&opus, OPUS), name(&sonnet, SONNET), name(&haiku, HAIKU));
        found.push(("ANTHROPIC_MODEL", opus.clone()));
        found.push(("ANTHROPIC_DEFAULT_OPUS_MODEL", opus));
        found.push(("ANTHROPIC_DEFAULT_SONNET_MODEL", sonnet.clone()));
        found.push(("ANTHROPIC_DEFAULT_HAIKU_MODEL", haiku.clone()));
        found.push(("ANTHROPIC_SMALL_FAST_MODEL", haiku));
        found.push(("CLAUDE_CODE_SUBAGENT_MODEL", sonnet));
    }
    // One number serves all conversations, so it is the smaller window. The haiku model holds no conversation of its
    // own.
    let talking = [&opus, &sonnet];
    let least = |of: fn(&Resolved) -> Option<u64>| talking.into_iter().flatten().filter_map(of).min();
    if let Some(window) = least(Resolved::window) {
        let output = (window / OUTPUT_SHARE).min(OUTPUT_MAX);
        let output = least(|tier| tier.settings.max_tokens).map_or(output, |most| most.min(output));
        found.push(("CLAUDE_CODE_MAX_CONTEXT_TOKENS", window.to_string()));
        found.push(("CLAUDE_CODE_MAX_OUTPUT_TOKENS", output.to_string()));
    }
    found.push(("CLAUDE_CODE_ATTRIBUTION_HEADER", "0".into()));
    found.push(("API_TIMEOUT_MS", PATIENCE_MS.into()));
    found.push(("CLAUDE_STREAM_IDLE_TIMEOUT_MS", PATIENCE_MS.into()));
    found.push(("CLAUDE_CODE_AUTO_MODE_SERVER", "0".into()));
    found.push(("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1".into()));
    found
}

/// A name that leads to this model: the model's own, otherwise an alias, otherwise Claude Code's own name for the tier,
/// which led here.
fn name_of(gateway: &Gateway, wanted: &Resolved, own: &str) -> String {
    let listed = format!("{LISTING_PREFIX}{}", wanted.model);
    let aliases = gateway.aliases().iter().map(|alias| alias.pattern.as_str());
    let mut names =
        [wanted.model.as_str(), &listed].into_iter().chain(aliases.filter(|pattern| !pattern.contains('*')));
    let leads_there = |name: &&str| {
        let found = gateway.resolve(name, None, None, None);
        found.is_ok_and(|found| found.is(&wanted.served, &wanted.model))
    };
    names.find(leads_there).unwrap_or(own).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::hooks::{Hooks, LoadOptions};
    use crate::settings::Settings;
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
        let variables = variables(gateway, "http://box:4000".into());
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
        for (name, _) in variables(&gateway, String::new()) {
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
