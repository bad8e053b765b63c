//! `env` and `claude`: the environment for Claude Code, as a running sparkgap tells it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::arguments::Environment;
use super::{Failed, print};
use crate::config::{self, Secret};
use crate::json::{self, Value};
use crate::openai::Settings;
use crate::proxy::VARIABLES;
use crate::upstream::{Options, Path, Upstream, nobody};

/// Where sparkgap is, unless somebody says otherwise.
const LOCAL: &str = "http://127.0.0.1:4000";

/// A longer answer is not of a sparkgap.
const ANSWER_SIZE_MAX: u64 = 64 * 1024;

/// What stands for a key where sparkgap asks for none: Claude Code does not start without one.
const ANY_KEY: &str = "local";

type Variables = Vec<(&'static str, String)>;

/// `sparkgap env`.
pub(super) fn run(options: &Environment) -> Result<(), Failed> {
    let variables = ask(options.remote.as_deref(), options.base_url.as_deref(), options.api_key.as_deref())?;
    if !variables.iter().any(|(name, _)| *name == "CLAUDE_CODE_MAX_CONTEXT_TOKENS") {
        let note = "sparkgap: the server does not tell its context window; set window = TOKENS for it in a Lua file\n";
        // Nobody is there to tell if stderr cannot be written to.
        let _ = io::stderr().write_all(note.as_bytes());
    }
    print(&if options.json { as_json(&variables) } else { as_shell(&variables) });
    Ok(())
}

/// `sparkgap claude ARGS`: becomes Claude Code. Where to ask and the key are in the environment, as all arguments are
/// Claude Code's. Comes back only if that fails.
pub(super) fn claude(arguments: &[OsString]) -> Failed {
    let variables = match ask(None, None, None) {
        Ok(variables) => variables,
        Err(failed) => return failed,
    };
    let error = Command::new("claude").args(arguments).envs(variables).exec();
    match error.kind() {
        ErrorKind::NotFound => "claude is not on your PATH: install Claude Code with `npm install -g @anthropic-ai/claude-code`, or see https://code.claude.com/docs".into(),
        _ => format!("cannot run claude: {error}"),
    }
}

/// Asks the sparkgap at `remote` for the variables; `base_url`: what Claude Code is to call it by, if not the same.
fn ask(remote: Option<&str>, base_url: Option<&str>, key: Option<&str>) -> Result<Variables, Failed> {
    let remote = address(remote.or(base_url));
    let base_url = base_url.map_or_else(|| remote.clone(), with_scheme);
    let key = self::key(key);
    let server = server(&remote, key.as_deref())?;
    let mut told = vec![
        ("ANTHROPIC_BASE_URL", base_url),
        ("ANTHROPIC_AUTH_TOKEN", key.unwrap_or_else(|| ANY_KEY.to_string())),
        ("ANTHROPIC_API_KEY", String::new()),
    ];
    let mut body = fetch(&server, &remote)?;
    let not_ours = |what: &str| format!("{remote} is not a sparkgap that knows of `env`: {what}");
    let answer = json::parse(&mut body).map_err(|error| not_ours(&error.to_string()))?;
    let env =
        answer.get("env").and_then(Value::as_object).ok_or_else(|| not_ours("no `env` in its answer"))?;
    // By name: whoever answers there must not set anything else in somebody's shell.
    for (name, _) in VARIABLES {
        let is_told = told.iter().any(|(known, _)| *known == name);
        if let Some(value) = env.get(name).and_then(Value::as_str).filter(|_| !is_told) {
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

/// The sparkgap there, as an upstream of ours.
pub(super) fn server(url: &str, key: Option<&str>) -> Result<Upstream, Failed> {
    let config = config::Upstream {
        name: "sparkgap".into(),
        url: url.to_string(),
        api_key: key.map(Secret::new),
        model: None,
        max_in_flight: None,
        settings: Settings::default(),
    };
    Upstream::new(config, &Options::default())
}

/// `http://` where there is no scheme; without slashes and `/v1` at the end.
fn with_scheme(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let url = url.strip_suffix("/v1").unwrap_or(url);
    if url.contains("://") { url.to_string() } else { format!("http://{url}") }
}

fn fetch(server: &Upstream, url: &str) -> Result<Vec<u8>, Failed> {
    let response = server.get(Path::Root("/env"), &nobody()).map_err(|failure| {
        format!("no sparkgap answers at {url} ({failure}).\nStart one: sparkgap serve --upstream URL, or sparkgap demo. Or say where it is: SPARKGAP_URL=http://box:4000, or sparkgap env --remote http://box:4000")
    })?;
    match response.status {
        200 => {}
        401 => {
            return Err(format!(
                "the sparkgap at {url} asks for a key: put it into the environment variable SPARKGAP_API_KEY"
            ));
        }
        403 => {
            return Err(format!(
                "the sparkgap at {url} does not serve that name without keys: start it with --allow-host NAME or --api-key-file"
            ));
        }
        404 => return Err(format!("{url} is not a sparkgap, or one that is older than its `env` command")),
        status => return Err(format!("the sparkgap at {url} answers with status {status}")),
    }
    let mut body = Vec::new();
    let read = response.take(ANSWER_SIZE_MAX).read_to_end(&mut body);
    read.map_err(|error| format!("the sparkgap at {url} broke off: {error}"))?;
    Ok(body)
}

/// For `eval`. The comments come last, and every line ends in a semicolon: so an eval that joins the lines (without
/// quotes around it) still sets everything.
fn as_shell(variables: &Variables) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}='{}';", value.replace('\'', r"'\''"));
    }
    for (name, why) in VARIABLES.iter().filter(|(name, _)| variables.iter().any(|(told, _)| told == name)) {
        let _ = writeln!(text, "# {name}: {why}");
    }
    text
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
    use super::*;

    #[test]
    fn no_value_ends_its_quotes() {
        let variables = vec![("ANTHROPIC_MODEL", "a'; rm -rf ~ $(x)\n#".to_string())];
        let text = as_shell(&variables);
        assert!(text.starts_with("export ANTHROPIC_MODEL='a'\\''; rm -rf ~ $(x)\n#';\n"), "{text}");
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
