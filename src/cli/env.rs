//! `env`: the environment for Claude Code, as a running sparkgap tells it.
//!
//! Knows shells and the answer of `GET /env`; `claude` starts Claude Code with the same variables.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::arguments::Environment;
use super::claude;
use super::output::{Failed, note, plain_json};
use super::remote::{RemoteEnvironment, Variables, ask};
use crate::admin::environment::VARIABLES;
use crate::app::in_quotes;
use crate::json::{Object, Value};

/// The beginning of every answer for a shell. It is written before anything else is done, so that `eval` fails for a
/// program that is killed before it has written the rest, as it does for every error: in
/// `eval "$(sparkgap env)" && claude` an empty text would count as success, and Claude Code would talk to the cloud.
const FAILURE: &str = "false";

/// The text after [`FAILURE`] if everything went well. Both together are an and-list, which changes only the status,
/// and the next line replaces that. A shell with `set -e` does not end at a failure inside such a list.
const NO_FAILURE: &str = " && :;\n";

/// True if these arguments mean the shell lines of `sparkgap env`, even if options precede the command, which is a
/// mistake.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let is_option = |first: &OsString| first.to_str().is_some_and(|first| first.starts_with('-'));
    arguments.first().is_some_and(|first| first == "env" || is_option(first))
        && arguments.iter().any(|argument| argument == "env")
        && !arguments.iter().any(|argument| argument == "--json" || argument == "--settings")
}

/// Begins the answer of `sparkgap env` if these arguments ask for shell lines; returns true if they do.
pub(super) fn begin(arguments: &[OsString]) -> bool {
    let other = |argument: &OsString| {
        argument
            .to_str()
            .is_some_and(|argument| matches!(argument, "--json" | "--settings" | "--help" | "-h" | "help"))
    };
    let is_shell =
        arguments.split_first().is_some_and(|(first, rest)| first == "env" && !rest.iter().any(other));
    if is_shell {
        // A stdout that cannot be written to is reported when the rest is written.
        let _ = write(FAILURE);
    }
    is_shell
}

/// Ends the answer after a failure: the shell gets a `false`. `has_begun` is true if [`begin`] has written the `false`.
pub(super) fn end_failed(has_begun: bool) {
    // The reason stands on stderr, and the exit code says it too.
    let _ = if has_begun { write("\n") } else { write(&format!("{FAILURE}\n")) };
}

/// `sparkgap env`. The shell lines continue what [`begin`] has written.
pub(super) fn run(options: &Environment) -> Result<(), Failed> {
    let may_wait = |reason: &str| {
        if options.wait {
            note(&format!("{reason}\nwaiting; press Ctrl-C to give up\n"));
        } else {
            note("sparkgap: with --wait this command waits for the model server\n");
        }
        options.wait
    };
    let (remote, base_url, key) =
        (options.remote.as_deref(), options.base_url.as_deref(), options.api_key.as_deref());
    let mut told = ask(remote, base_url, key, may_wait)?;
    claude::go_without_detours(&mut told.variables);
    claude::go_without_proxy(&mut told.variables, &claude::settings_of_files());
    let is_shell = !options.json && !options.settings;
    if is_shell {
        claude::check_settings_files(&told.variables)?;
    }
    told.show_notes();
    let text = match (options.settings, options.json) {
        (true, _) => as_settings(told),
        (false, true) => as_json(&told.variables),
        (false, false) => as_shell(&told.variables),
    };
    write(&text).map_err(|error| format!("cannot write the environment to stdout: {error}"))
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The variables as shell lines for `eval`. The comments come last, and every line ends in a semicolon. So an `eval`
/// without quotes, which joins the lines, still sets everything.
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

/// The variables as JSON, for the `env` of Claude Code's settings.json.
fn as_json(variables: &Variables) -> String {
    let text = |text: &str| plain_json(&Value::from(text).to_json()).into_owned();
    let lines: Vec<String> =
        variables.iter().map(|(name, value)| format!("  {}: {}", text(name), text(value))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// A whole settings file for Claude Code: the variables, and the settings that no variable stands for.
fn as_settings(told: RemoteEnvironment) -> String {
    let env: Object<'_> =
        told.variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut whole = Object::new();
    whole.push("env", env);
    for (name, value) in told.settings {
        whole.push(name, value);
    }
    format!("{}\n", Value::from(whole).to_json())
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
}
