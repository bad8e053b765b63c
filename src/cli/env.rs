//! `env`: the environment for Claude Code, as a running sparkgap tells it.
//!
//! Knows the answer of `GET /env`, and when a shell must get a failure; `shell` knows the quotes. `claude` starts Claude Code with the same variables.

use std::ffi::OsString;
use std::io::{self, Write as _};

use super::arguments::Environment;
use super::claude;
use super::custom_headers::keep_own;
use super::output::{Failed, note};
use super::remote::ask;
use crate::admin::forms::{CUSTOM_HEADERS, comments, openai_variables};
use crate::json::Value;
use crate::shell::{EnvForm, FAILURE, Variables, settings_file};
use crate::shown::plain_json;

/// True if these arguments mean the shell lines of `sparkgap env`, even if options precede the command, which is a
/// mistake.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let is_option = |first: &OsString| first.to_str().is_some_and(|first| first.starts_with('-'));
    arguments.first().is_some_and(|first| first == "env" || is_option(first))
        && arguments.iter().any(|argument| argument == "env")
        && !arguments.iter().any(|argument| argument == "--json" || argument == "--settings")
}

/// Begins the answer of `sparkgap env` if these arguments ask for shell lines; returns true if they do. It is begun before
/// anything else is done, so that `eval` fails for a program that is killed before it has written the rest, as it does
/// for every error.
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
    let prompt = prompt_variable(options)?;
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
    let is_shell = !options.json && !options.settings;
    if options.openai {
        (told.variables, told.settings) = (of_openai(&told.variables), Vec::new());
    } else {
        told.variables.extend(prompt);
        claude::go_without_detours(&mut told.variables);
        claude::go_without_proxy(&mut told.variables, &claude::settings_of_files());
        keep_own(&mut told.variables, claude::settings_by_precedence().iter());
        if is_shell {
            claude::check_settings_files(&told.variables)?;
        }
        told.show_notes();
    }
    let text = match (options.settings, options.json) {
        (true, _) => {
            if !options.openai {
                told.settings.push(claude::status_line());
            }
            settings_file(told.variables, told.settings)
        }
        (false, true) => as_json(&told.variables),
        (false, false) => as_shell(&told.variables),
    };
    write(&text).map_err(|error| format!("cannot write the environment to stdout: {error}"))
}

/// The variable that chooses Claude Code's system prompt, if an option does.
fn prompt_variable(options: &Environment) -> Result<Option<(&'static str, String)>, Failed> {
    match options.prompt.as_deref() {
        Some(_) if options.openai => Err("--prompt is for Claude Code, --openai for other clients".into()),
        Some(size) => claude::prompt_choice(size).map(Some),
        None => Ok(None),
    }
}

/// The variables of OpenAI's clients, by the address and the key of those of Claude Code.
fn of_openai(variables: &Variables) -> Variables {
    let value = |name| variables.iter().find(|(told, _)| *told == name).map(|(_, value)| value.as_str());
    let header = value(CUSTOM_HEADERS).and_then(|header| header.split_once(": ")).map(|(_, key)| key);
    let key = header.or(value("ANTHROPIC_AUTH_TOKEN").filter(|key| !key.is_empty()));
    openai_variables(value("ANTHROPIC_BASE_URL").unwrap_or_default(), key)
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The variables as shell lines for `eval`, without the beginning, which is written already.
fn as_shell(variables: &Variables) -> String {
    let text = EnvForm::Sh.script(variables, &[]) + &comments(variables);
    let rest = text.strip_prefix(FAILURE).unwrap_or(&text);
    format!("{rest}# The first line makes eval fail where the others do not arrive.\n")
}

/// The variables as JSON, for the `env` of Claude Code's settings.json.
fn as_json(variables: &Variables) -> String {
    let text = |text: &str| plain_json(&Value::from(text).to_json()).into_owned();
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
            text.starts_with(
                "false && :;\nexport ANTHROPIC_MODEL=\"$(printf '%s\\n' 'a'\\''; rm -rf ~ $(x)' '#')\";\n"
            ),
            "{text}"
        );
        let script = format!("{text}printf %s \"$ANTHROPIC_MODEL\"");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), variables[0].1);
    }
}
