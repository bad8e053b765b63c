//! The questions to a running sparkgap: its address, its key, and the environment that it gives to Claude Code.

use std::time::Duration;

use super::output::{Failed, note};
use crate::admin::environment::{PREFERENCES, SETTINGS, VARIABLES};
use crate::admin::forms::{CUSTOM_HEADERS, own_variables, prompt_note};
use crate::config::{self, Secret};
use crate::json::{self, Value};
use crate::shell::Variables;
use crate::shown::is_command;
use crate::transport::{CallLimits, Endpoint, Failure, Page, Path, QuestionLimits, trust};

/// The default address of sparkgap, used if neither an option nor `SPARKGAP_URL` names another one.
pub(super) const LOCAL: &str = "http://127.0.0.1:4000";

/// The largest answer, in bytes. A longer one does not come from a sparkgap.
const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// The time for the whole answer: sparkgap itself asks its model servers before it answers, all at the same time, and
/// waits up to ten seconds for one that is silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a sparkgap whose model server is down is asked again, and after which pause: a server that is started anew
/// may need some seconds to open its port.
const MORE_TRIES: u32 = 3;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The pause between two questions while somebody has chosen to wait: a model takes minutes to load.
const WAIT_BETWEEN: Duration = Duration::from_secs(2);

/// The most notes that are shown, and the longest, in characters: they are another machine's text.
const NOTES_MAX: usize = 8;
const NOTE_CHARS_MAX: usize = 500;

/// The answer of `GET /env`, as far as it is known here.
#[derive(Debug)]
pub(super) struct RemoteEnvironment {
    /// In the order of [`VARIABLES`].
    pub(super) variables: Variables,
    /// Keys of Claude Code's settings, in the order of [`SETTINGS`]: texts, or true or false.
    pub(super) settings: Vec<(&'static str, Value<'static>)>,
    /// Sentences for the person, each in one line.
    notes: Vec<String>,
}

impl RemoteEnvironment {
    /// Shows the notes on stderr.
    pub(super) fn show_notes(&self) {
        for text in self.notes.iter().chain(&prompt_note(&self.variables)) {
            note(&format!("sparkgap: {text}\n"));
        }
    }
}

/// The reason for which a sparkgap gives no environment.
#[derive(Debug)]
enum NoEnvironment {
    /// Its model server does not answer, which may pass.
    Down(Failed),
    Other(Failed),
}

/// Asks the sparkgap at `remote` for the environment. `base_url` is the address for Claude Code, if it is a different
/// one. If its model server is down, asks again for some seconds, and for as long as it takes if `may_wait`, which is
/// given the reason, returns true.
pub(super) fn ask(
    remote: Option<&str>,
    base_url: Option<&str>,
    key: Option<&str>,
    may_wait: impl FnOnce(&str) -> bool,
) -> Result<RemoteEnvironment, Failed> {
    trust_named_authorities()?;
    let remote = address(remote.or(base_url));
    let base_url = base_url.map_or_else(|| remote.clone(), with_scheme);
    let key = self::key(key);
    let server = Endpoint::new(&server(&remote, key.as_deref()), &CallLimits::default())?;
    let mut body = fetch_patiently(&server, &remote, may_wait)?;
    let not_ours = |what: &str| format!("{remote} is not a sparkgap that knows `env`: {what}");
    let answer = json::parse(&mut body).map_err(|error| not_ours(&error.to_string()))?;
    let takes_keys = answer.get("takes_keys").and_then(Value::as_bool).unwrap_or(false);
    let own = own_variables(base_url, key.as_deref(), takes_keys);
    read_answer(&answer, own).map_err(|what| match answer.get("env").and_then(Value::as_object) {
        Some(_) => format!("the sparkgap at {remote} gives an environment that no shell is to get: {what}"),
        None => not_ours(&what),
    })
}

/// Trusts the authorities in the file that `SPARKGAP_CA_FILE` names, if it is set: for a sparkgap with a private certificate.
pub(super) fn trust_named_authorities() -> Result<(), Failed> {
    match std::env::var_os("SPARKGAP_CA_FILE").filter(|file| !file.is_empty()) {
        Some(file) => trust(file.as_ref()).map_err(|why| format!("SPARKGAP_CA_FILE: {why}")),
        None => Ok(()),
    }
}

/// Adds the answer's variables to `variables`, and reads its settings and notes.
fn read_answer(answer: &Value<'_>, mut variables: Variables) -> Result<RemoteEnvironment, String> {
    let env = answer.get("env").and_then(Value::as_object).ok_or("no `env` in its answer")?;
    if !matches!(env.get("ANTHROPIC_BASE_URL").and_then(Value::as_str), Some(url) if !url.is_empty()) {
        return Err("no ANTHROPIC_BASE_URL in its `env`".into());
    }
    // Accept only these names: a server must not set anything else in the user's shell. Refuse backslashes: fish
    // interprets them within quotes too, so a backslash could end the quotes.
    for (name, _) in VARIABLES {
        // Headers are never another machine's to choose.
        let is_told = name == CUSTOM_HEADERS || variables.iter().any(|(known, _)| *known == name);
        if let Some(value) = env.get(name).and_then(Value::as_str).filter(|_| !is_told) {
            if value.contains(|c: char| c == '\\' || is_command(c)) {
                return Err(format!("its {name} has a backslash or a control character"));
            }
            if !(PREFERENCES.contains(&name) && std::env::var_os(name).is_some()) {
                variables.push((name, value.to_string()));
            }
        }
    }
    let setting = |name: &'static str| match answer.get("settings")?.get(name)? {
        Value::Bool(flag) => Some((name, Value::Bool(*flag))),
        Value::String(text) => Some((name, Value::from(text.to_string()))),
        _ => None,
    };
    let settings = SETTINGS.iter().filter_map(|(name, _)| setting(name)).collect();
    let notes = answer.get("notes").and_then(Value::as_array).into_iter().flatten();
    let notes = notes.filter_map(Value::as_str).take(NOTES_MAX).map(in_one_line).collect();
    Ok(RemoteEnvironment { variables, settings, notes })
}

/// A text of another machine, made fit for a terminal.
fn in_one_line(text: &str) -> String {
    text.chars().filter(|c| !is_command(*c)).take(NOTE_CHARS_MAX).collect()
}

/// Asks until there is an answer, or no hope of one.
fn fetch_patiently(
    server: &Endpoint,
    url: &str,
    may_wait: impl FnOnce(&str) -> bool,
) -> Result<Vec<u8>, Failed> {
    for _ in 0..MORE_TRIES {
        match fetch(server, url) {
            Err(NoEnvironment::Down(_)) => std::thread::sleep(TRY_AGAIN_AFTER),
            Err(NoEnvironment::Other(failed)) => return Err(failed),
            Ok(body) => return Ok(body),
        }
    }
    match fetch(server, url) {
        Ok(body) => return Ok(body),
        Err(NoEnvironment::Down(failed)) if may_wait(&failed) => {}
        Err(NoEnvironment::Down(failed) | NoEnvironment::Other(failed)) => return Err(failed),
    }
    loop {
        std::thread::sleep(WAIT_BETWEEN);
        match fetch(server, url) {
            Err(NoEnvironment::Down(_)) => {}
            Err(NoEnvironment::Other(failed)) => return Err(failed),
            Ok(body) => return Ok(body),
        }
    }
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

fn fetch(server: &Endpoint, url: &str) -> Result<Vec<u8>, NoEnvironment> {
    let limits = QuestionLimits { time: ANSWER_TIMEOUT, size: ANSWER_SIZE_MAX };
    let page = server.question(Path::Root("/env"), limits).map_err(|failure| {
        if let Failure::Tls(_) = failure {
            return NoEnvironment::Other(format!(
                "no sparkgap answers at {url} ({failure}).\nIf its certificate is your own, name the file of its authority: SPARKGAP_CA_FILE=FILE"
            ));
        }
        NoEnvironment::Other(format!("no sparkgap answers at {url} ({failure}).\nStart one: sparkgap serve --upstream URL, or sparkgap demo. Or say where it is: SPARKGAP_URL=http://box:4000, or sparkgap env --remote http://box:4000"))
    })?;
    let Page { status, body, .. } = page;
    Err(NoEnvironment::Other(match status {
        200 => return Ok(body),
        401 => format!(
            "the sparkgap at {url} asks for a key: put it into the environment variable SPARKGAP_API_KEY"
        ),
        403 => format!(
            "the sparkgap at {url} does not serve that name without keys: start it with --allow-host NAME or --api-key-file"
        ),
        404 => format!("{url} is not a sparkgap, or one that is older than its `env` command"),
        status => match message(body) {
            Some(message) => {
                let failed = format!("the sparkgap at {url} has no environment to give: {message}");
                return Err(if status >= 500 {
                    NoEnvironment::Down(failed)
                } else {
                    NoEnvironment::Other(failed)
                });
            }
            None => format!("the sparkgap at {url} answers with status {status}"),
        },
    }))
}

/// The text of an error of the Messages API.
pub(super) fn message(mut body: Vec<u8>) -> Option<String> {
    let answer = json::parse(&mut body).ok()?;
    Some(answer.get("error")?.get("message").and_then(Value::as_str)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_notes_are_only_what_is_known() {
        let text = r#"{"env":{"ANTHROPIC_BASE_URL":"http://box"},
            "settings":{"skipWebFetchPreflight":true,"disableAutoMode":"disable","apiKeyHelper":"rm -rf ~"},
            "notes":["one\u001b[2J\nline",7,"two"]}"#;
        let answer = json::parse(&mut text.as_bytes().to_vec()).unwrap().into_owned();
        let told = read_answer(&answer, own_variables("http://box".into(), None, false)).unwrap();
        let settings = told.settings.iter().map(|(name, value)| format!("{name}={}", value.to_json()));
        assert_eq!(
            settings.collect::<Vec<_>>(),
            ["skipWebFetchPreflight=true", "disableAutoMode=\"disable\""]
        );
        assert_eq!(told.notes, ["one[2Jline", "two"]);
        let text = r#"{"env":{"ANTHROPIC_BASE_URL":"http://box"},"settings":[],"notes":{}}"#;
        let answer = json::parse(&mut text.as_bytes().to_vec()).unwrap().into_owned();
        let told = read_answer(&answer, Variables::new()).unwrap();
        assert!(told.settings.is_empty() && told.notes.is_empty(), "an older sparkgap");
    }

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
