//! The questions to a running sparkgap: its address, its key, and the environment that it gives to Claude Code.

use std::time::{Duration, Instant};

use super::output::Failed;
use crate::admin::environment::VARIABLES;
use crate::config::{self, Secret};
use crate::json::{self, Value};
use crate::shown::is_command;
use crate::transport::{CallLimits, Endpoint, Failure, Path, Response, nobody};

/// The default address of sparkgap, used if neither an option nor `SPARKGAP_URL` names another one.
pub(super) const LOCAL: &str = "http://127.0.0.1:4000";

/// The largest answer, in bytes. A longer one does not come from a sparkgap.
const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// The time for the first byte of the answer: sparkgap itself asks its model servers before it answers, one after the
/// other, and waits up to fifteen seconds for one that is silent.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(45);

/// The time for the whole answer, which a server could otherwise send byte by byte without an end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The value of `ANTHROPIC_AUTH_TOKEN` if sparkgap needs no key: Claude Code does not start without a token.
pub(super) const ANY_KEY: &str = "local";

/// Names and values, in the order of [`VARIABLES`].
pub(super) type Variables = Vec<(&'static str, String)>;

/// Asks the sparkgap at `remote` for the variables. `base_url` is the address for Claude Code, if it is a different
/// one.
pub(super) fn ask(
    remote: Option<&str>,
    base_url: Option<&str>,
    key: Option<&str>,
) -> Result<Variables, Failed> {
    let remote = address(remote.or(base_url));
    let base_url = base_url.map_or_else(|| remote.clone(), with_scheme);
    let key = self::key(key);
    let options = CallLimits { discovery_timeout: FIRST_BYTE_TIMEOUT, ..CallLimits::default() };
    let server = Endpoint::new(&server(&remote, key.as_deref()), &options)?;
    let mut told = vec![
        ("ANTHROPIC_BASE_URL", base_url),
        ("ANTHROPIC_AUTH_TOKEN", key.unwrap_or_else(|| ANY_KEY.to_string())),
        ("ANTHROPIC_API_KEY", String::new()),
    ];
    let mut body = fetch(&server, &remote)?;
    let not_ours = |what: &str| format!("{remote} is not a sparkgap that knows `env`: {what}");
    let answer = json::parse(&mut body).map_err(|error| not_ours(&error.to_string()))?;
    let env =
        answer.get("env").and_then(Value::as_object).ok_or_else(|| not_ours("no `env` in its answer"))?;
    if !matches!(env.get("ANTHROPIC_BASE_URL").and_then(Value::as_str), Some(url) if !url.is_empty()) {
        return Err(not_ours("no ANTHROPIC_BASE_URL in its `env`"));
    }
    // Accept only these names: a server must not set anything else in the user's shell. Refuse backslashes: fish
    // interprets them within quotes too, so a backslash could end the quotes.
    for (name, _) in VARIABLES {
        let is_told = told.iter().any(|(known, _)| *known == name);
        if let Some(value) = env.get(name).and_then(Value::as_str).filter(|_| !is_told) {
            if value.contains(|c: char| c == '\\' || is_command(c)) {
                return Err(not_ours(&format!("its {name} has a backslash or a control character")));
            }
            told.push((name, value.to_string()));
        }
    }
    Ok(told)
}

/// The address of sparkgap: `told` (the option), otherwise `SPARKGAP_URL`, otherwise the default one on this machine.
pub(super) fn address(told: Option<&str>) -> String {
    let named = told.map(str::to_string).or_else(|| named("SPARKGAP_URL"));
    with_scheme(named.as_deref().unwrap_or(LOCAL))
}

/// The key that sparkgap asks for: `told` (the option), otherwise `SPARKGAP_API_KEY`.
pub(super) fn key(told: Option<&str>) -> Option<String> {
    told.map(str::to_string).or_else(|| named("SPARKGAP_API_KEY"))
}

/// The environment variable of that name; an empty one counts as missing.
pub(super) fn named(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The sparkgap at this URL, as the configuration of an upstream.
pub(super) fn server(url: &str, key: Option<&str>) -> config::UpstreamConfig {
    config::UpstreamConfig { api_key: key.map(Secret::new), ..config::UpstreamConfig::new("sparkgap", url) }
}

/// The URL with `http://` if it has no scheme, and without slashes and `/v1` at its end.
fn with_scheme(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let url = url.strip_suffix("/v1").unwrap_or(url);
    if url.contains("://") { url.to_string() } else { format!("http://{url}") }
}

fn fetch(server: &Endpoint, url: &str) -> Result<Vec<u8>, Failed> {
    let response = server.get(Path::Root("/env"), &nobody()).map_err(|failure| {
        format!("no sparkgap answers at {url} ({failure}).\nStart one: sparkgap serve --upstream URL, or sparkgap demo. Or say where it is: SPARKGAP_URL=http://box:4000, or sparkgap env --remote http://box:4000")
    })?;
    let status = response.status;
    let body =
        read(response).map_err(|error| format!("the answer of the sparkgap at {url} broke off: {error}"))?;
    match status {
        200 => Ok(body),
        401 => Err(format!(
            "the sparkgap at {url} asks for a key: put it into the environment variable SPARKGAP_API_KEY"
        )),
        403 => Err(format!(
            "the sparkgap at {url} does not serve that name without keys: start it with --allow-host NAME or --api-key-file"
        )),
        404 => Err(format!("{url} is not a sparkgap, or one that is older than its `env` command")),
        status => Err(match message(body) {
            Some(message) => format!("the sparkgap at {url} has no environment to give: {message}"),
            None => format!("the sparkgap at {url} answers with status {status}"),
        }),
    }
}

/// Reads the whole answer, which has a limit in bytes and in time.
fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let begun = Instant::now();
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = response.read(&mut piece)?;
        let Some(piece) = piece.get(..count).filter(|piece| !piece.is_empty()) else { return Ok(body) };
        body.extend_from_slice(piece);
        if body.len() > ANSWER_SIZE_MAX {
            return Err(Failure::TooLarge(ANSWER_SIZE_MAX));
        }
        if begun.elapsed() > ANSWER_TIMEOUT {
            return Err(Failure::Timeout("while reading the answer"));
        }
    }
}

/// The text of an error of the Messages API.
fn message(mut body: Vec<u8>) -> Option<String> {
    let answer = json::parse(&mut body).ok()?;
    Some(answer.get("error")?.get("message").and_then(Value::as_str)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_scheme() {
        for (text, expected) in [
            ("box:4000", "http://box:4000"),
            ("http://box:4000/", "http://box:4000"),
            ("https://box/llm/v1", "https://box/llm"),
        ] {
            assert_eq!(with_scheme(text), expected);
        }
    }
}
