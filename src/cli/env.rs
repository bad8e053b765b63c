//! `env`: the environment for Claude Code, as a running sparkgap tells it.
//!
//! Knows shells and the answer of `GET /env`; `claude` starts Claude Code with the same variables.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::Failed;
use super::arguments::Environment;
use super::claude;
use crate::admin::environment::VARIABLES;
use crate::config::{self, Secret};
use crate::json::{self, Value};
use crate::settings::Settings;
use crate::transport::{Endpoint, Failure, Options, Path, Response, nobody};

/// Where sparkgap is, unless somebody says otherwise.
const LOCAL: &str = "http://127.0.0.1:4000";

/// A longer answer does not come from a sparkgap.
const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// The time for the first byte of the answer: sparkgap itself asks its model servers before it answers, one after the
/// other, and waits up to fifteen seconds for one that is silent.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(45);

/// The time for the whole answer, which a server could otherwise send byte by byte without an end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The value of `ANTHROPIC_AUTH_TOKEN` where sparkgap asks for no key: Claude Code does not start without one.
pub(super) const ANY_KEY: &str = "local";

/// The beginning of every answer for a shell. It is written before anything else is done, so that `eval` fails for a
/// program that is killed before it has written the rest, as it does for every error: in
/// `eval "$(sparkgap env)" && claude` an empty text would count as success, and Claude Code would talk to the cloud.
const FAILURE: &str = "false";

/// What follows [`FAILURE`] where all went well. The list as a whole then has no effect but on the status, which the next
/// line replaces; as a list it does not end a shell with `set -e`.
const NO_FAILURE: &str = " && :;\n";

/// Names and values, in the order of [`VARIABLES`].
pub(super) type Variables = Vec<(&'static str, String)>;

/// Whether these arguments mean the shell lines of `sparkgap env`, be it with options before the command, which is a mistake.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let is_option = |first: &OsString| first.to_str().is_some_and(|first| first.starts_with('-'));
    arguments.first().is_some_and(|first| first == "env" || is_option(first))
        && arguments.iter().any(|argument| argument == "env")
        && !arguments.iter().any(|argument| argument == "--json")
}

/// Begins the answer of `sparkgap env` if these arguments ask for shell lines; returns whether they do.
pub(super) fn begin(arguments: &[OsString]) -> bool {
    let other = |argument: &OsString| {
        argument.to_str().is_some_and(|argument| matches!(argument, "--json" | "--help" | "-h" | "help"))
    };
    let is_shell =
        arguments.split_first().is_some_and(|(first, rest)| first == "env" && !rest.iter().any(other));
    if is_shell {
        // A stdout that takes nothing is reported when the rest is written.
        let _ = write(FAILURE);
    }
    is_shell
}

/// Ends the answer after a failure: the shell gets a `false`. `has_begun`: [`begin`] has written it.
pub(super) fn end_failed(has_begun: bool) {
    // The reason stands on stderr, and the exit code says it too.
    let _ = if has_begun { write("\n") } else { write(&format!("{FAILURE}\n")) };
}

/// `sparkgap env`. The shell lines continue what [`begin`] has written.
pub(super) fn run(options: &Environment) -> Result<(), Failed> {
    let mut variables =
        ask(options.remote.as_deref(), options.base_url.as_deref(), options.api_key.as_deref())?;
    claude::go_without_detours(&mut variables);
    claude::go_without_proxy(&mut variables, &claude::settings_of_files());
    if !options.json {
        claude::check_settings_files(&variables)?;
    }
    if !variables.iter().any(|(name, _)| *name == "CLAUDE_CODE_MAX_CONTEXT_TOKENS") {
        let note = "sparkgap: the server does not report its context window; set window = TOKENS for it in a Lua file\n";
        // Nobody reads the note if stderr cannot be written to.
        let _ = io::stderr().write_all(note.as_bytes());
    }
    let text = if options.json { as_json(&variables) } else { as_shell(&variables) };
    write(&text).map_err(|error| format!("cannot write the environment to stdout: {error}"))
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Asks the sparkgap at `remote` for the variables; `base_url` is the address for Claude Code, where that is another one.
pub(super) fn ask(
    remote: Option<&str>,
    base_url: Option<&str>,
    key: Option<&str>,
) -> Result<Variables, Failed> {
    let remote = address(remote.or(base_url));
    let base_url = base_url.map_or_else(|| remote.clone(), with_scheme);
    let key = self::key(key);
    let options = Options { discovery_timeout: FIRST_BYTE_TIMEOUT, ..Options::default() };
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
    // Only by name: a server must not set anything else in somebody's shell. No backslashes: fish reads them within
    // quotes too, so that one could end the quotes there.
    for (name, _) in VARIABLES {
        let is_told = told.iter().any(|(known, _)| *known == name);
        if let Some(value) = env.get(name).and_then(Value::as_str).filter(|_| !is_told) {
            if value.contains(|c: char| c == '\\' || c.is_control()) {
                return Err(not_ours(&format!("its {name} has a backslash or a control character")));
            }
            told.push((name, value.to_string()));
        }
    }
    Ok(told)
}

/// Where sparkgap is: as `told`, else as `SPARKGAP_URL` says, else on this machine.
pub(super) fn address(told: Option<&str>) -> String {
    let named = told.map(str::to_string).or_else(|| named("SPARKGAP_URL"));
    with_scheme(named.as_deref().unwrap_or(LOCAL))
}

/// The key that it asks for: as `told`, else as `SPARKGAP_API_KEY` says.
pub(super) fn key(told: Option<&str>) -> Option<String> {
    told.map(str::to_string).or_else(|| named("SPARKGAP_API_KEY"))
}

/// The environment variable of that name; an empty one is none.
pub(super) fn named(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The sparkgap at this URL, as the configuration of an upstream.
pub(super) fn server(url: &str, key: Option<&str>) -> config::Upstream {
    config::Upstream {
        name: "sparkgap".into(),
        url: url.to_string(),
        api_key: key.map(Secret::new),
        model: None,
        max_in_flight: None,
        settings: Settings::default(),
    }
}

/// `http://` where there is no scheme; without slashes and `/v1` at the end.
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

/// For `eval`. The comments come last, and every line ends in a semicolon: so an eval that joins the lines (without
/// quotes around it) still sets everything.
fn as_shell(variables: &Variables) -> String {
    let mut text = String::from(NO_FAILURE);
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}={};", in_quotes(value));
    }
    for (name, why) in VARIABLES.iter().filter(|(name, _)| variables.iter().any(|(told, _)| told == name)) {
        let _ = writeln!(text, "# {name}: {why}");
    }
    text.push_str("# The first line makes eval fail where the others do not arrive.\n");
    text
}

/// A word for a shell, in quotes only where it needs them.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-".contains(c);
    if word.chars().all(is_plain) { word.to_string() } else { in_quotes(word) }
}

fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For the `env` of Claude Code's settings.json.
fn as_json(variables: &Variables) -> String {
    let text = |text: &str| Value::from(text).to_json();
    let lines: Vec<String> =
        variables.iter().map(|(name, value)| format!("  {}: {}", text(name), text(value))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn no_value_ends_its_quotes() {
        let variables = vec![("ANTHROPIC_MODEL", "a'; rm -rf ~ $(x)\n#".to_string())];
        let text = format!("{FAILURE}{}", as_shell(&variables));
        assert!(
            text.starts_with("false && :;\nexport ANTHROPIC_MODEL='a'\\''; rm -rf ~ $(x)\n#';\n"),
            "{text}"
        );
        let script = format!("{text}printf %s \"$ANTHROPIC_MODEL\"");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), variables[0].1);
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
