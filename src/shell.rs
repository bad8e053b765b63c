//! Environment variables as text that a shell or Claude Code's settings file takes, and quoted words.
//!
//! | form | for | in |
//! |---|---|---|
//! | `Sh` | sh, dash, bash, zsh, and fish if no value has a backslash | `eval "$(…)"` |
//! | `Fish` | fish | `eval (…)` |
//! | `PowerShell` | Windows PowerShell and PowerShell 7 | `… \| Invoke-Expression` |
//! | `Settings` | Claude Code's settings.json | `claude --settings FILE` |
//!
//! A text that reports a failure must not look like success to whoever evaluates it: without these variables Claude Code
//! would talk to the cloud. So it fails, says why on stderr, and sets an address that does not exist. Pure.

use std::fmt::Write as _;

use crate::json::{Object, Value};
use crate::shown::{is_command, plain_json};

/// Names and values of environment variables, in the order in which they are written.
pub type Variables = Vec<(&'static str, String)>;

/// The beginning of a script for sh and fish: a text that is cut there is a failure. In `eval "$(sparkgap env)" && claude`
/// an empty text would count as success.
pub const FAILURE: &str = "false";

/// The text after [`FAILURE`] if everything went well. Both together are an and-list, which changes only the status,
/// and the next line replaces that. A shell with `set -e` does not end at a failure inside such a list.
const NO_FAILURE: &str = " && :;\n";

/// The variables that say where Claude Code sends its requests.
pub const CLAUDE_ADDRESS: [&str; 1] = ["ANTHROPIC_BASE_URL"];

/// The variables that say where clients of OpenAI's protocol send theirs; the second one is of older libraries and aider.
pub const OPENAI_ADDRESS: [&str; 2] = ["OPENAI_BASE_URL", "OPENAI_API_BASE"];

/// An address that leads nowhere: names below `invalid` do not exist (RFC 6761). With `https`, an HTTP proxy would see
/// only this name.
const NOWHERE: &str = "https://sparkgap-gave-no-environment.invalid";

/// The characters that PowerShell takes for a single quote.
const POWERSHELL_QUOTES: [char; 5] = ['\'', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}'];

/// A form of text that sets environment variables: see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvForm {
    /// For POSIX shells.
    Sh,
    /// For fish.
    Fish,
    /// For PowerShell.
    PowerShell,
    /// For Claude Code's settings file.
    Settings,
}

impl EnvForm {
    /// The form that a path such as `/env.sh` asks for by its ending.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "sh" => Some(EnvForm::Sh),
            "fish" => Some(EnvForm::Fish),
            "ps1" => Some(EnvForm::PowerShell),
            "json" => Some(EnvForm::Settings),
            _ => None,
        }
    }

    /// The type of the text for `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            EnvForm::Settings => "application/json",
            EnvForm::Sh | EnvForm::Fish | EnvForm::PowerShell => "text/plain; charset=utf-8",
        }
    }

    /// The text that sets these variables, and shows `notes` on stderr. Every line of a script for sh and fish ends in a
    /// semicolon, so that an `eval` without quotes, which joins the lines, still sets everything. A settings file has no
    /// place for notes.
    pub fn script(self, variables: &Variables, notes: &[String]) -> String {
        let mut text = match self {
            EnvForm::Settings => return settings_file(variables.clone(), Vec::new()),
            EnvForm::Sh => format!("{FAILURE}{NO_FAILURE}"),
            EnvForm::Fish => format!("{FAILURE};\n"),
            EnvForm::PowerShell => String::new(),
        };
        for (name, value) in variables {
            self.assign(&mut text, name, value);
        }
        for note in notes {
            self.write_note(&mut text, note);
        }
        if self == EnvForm::Fish {
            // Its `set` leaves the status as it was.
            text.push_str("true;\n");
        }
        text
    }

    /// The text for whoever evaluates an answer that is an error. `addresses` are the variables that then lead nowhere.
    pub fn failure(self, reason: &str, addresses: &[&'static str]) -> String {
        if self == EnvForm::Settings {
            let error = Value::object([("message", Value::from(reason.to_string()))]);
            let env: Object<'_> = addresses.iter().map(|name| ((*name).into(), NOWHERE.into())).collect();
            let env = Value::from(env);
            return format!("{}\n", Value::object([("error", error), ("env", env)]).to_json());
        }
        let mut text = String::new();
        // A text that is cut somewhere has at least this.
        addresses.iter().for_each(|name| self.assign(&mut text, name, NOWHERE));
        if self == EnvForm::PowerShell {
            let _ = writeln!(text, "throw {}", self.in_quotes(&in_one_line(&format!("sparkgap: {reason}"))));
            return text;
        }
        self.write_note(&mut text, reason);
        text.push_str("false\n");
        text
    }

    fn assign(self, text: &mut String, name: &str, value: &str) {
        let value = match value.contains('\n') && self != EnvForm::Settings {
            true => self.in_lines(value),
            false => self.in_quotes(value),
        };
        let _ = match self {
            EnvForm::PowerShell => writeln!(text, "$env:{name} = {value}"),
            EnvForm::Fish => writeln!(text, "set -gx {name} {value};"),
            EnvForm::Sh | EnvForm::Settings => writeln!(text, "export {name}={value};"),
        };
    }

    /// A text of several lines, written in one: an `eval` without quotes would join them.
    fn in_lines(self, text: &str) -> String {
        let lines: Vec<String> = text.lines().map(|line| self.in_quotes(line)).collect();
        match self {
            EnvForm::PowerShell => format!("({}) -join \"`n\"", lines.join(", ")),
            EnvForm::Fish => format!("(printf '%s\\n' {} | string collect)", lines.join(" ")),
            EnvForm::Sh | EnvForm::Settings => format!("\"$(printf '%s\\n' {})\"", lines.join(" ")),
        }
    }

    /// A line of a script that adds a header to those of a variable, whatever it holds where the script runs: one header a
    /// line. Another one of the same name is replaced. `None`: a settings file cannot do that.
    pub fn add_header(self, name: &str, header: &str) -> Option<String> {
        let title = header.split(':').next().unwrap_or_default();
        let added = self.in_quotes(header);
        let either = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
            false => c.to_string(),
        };
        let title: String = title.chars().map(either).collect();
        let others = format!("sed '/^[[:blank:]]*{title}[[:blank:]]*:/d;/^$/d'");
        match self {
            EnvForm::Settings => None,
            // Also for fish, which knows no `${NAME-}`. The added line comes first, whatever `printenv` says.
            EnvForm::Sh => {
                Some(format!("export {name}=\"$(printf '%s\\n' {added}; printenv {name} | {others})\";\n"))
            }
            EnvForm::Fish => Some(format!(
                "set -gx {name} (string join \\n -- {added} (printf '%s\\n' \"${name}\" | {others}) | string collect);\n"
            )),
            EnvForm::PowerShell => Some(format!(
                "$env:{name} = (@({added}) + @(\"$env:{name}\" -split \"\\r?\\n\" | Where-Object {{ $_ -and $_ -notmatch '^\\s*{title}\\s*:' }})) -join \"`n\"\n"
            )),
        }
    }

    /// Shows a sentence on stderr.
    fn write_note(self, text: &mut String, note: &str) {
        let note = self.in_quotes(&in_one_line(&format!("sparkgap: {note}")));
        let _ = match self {
            EnvForm::PowerShell => writeln!(text, "[Console]::Error.WriteLine({note})"),
            EnvForm::Sh | EnvForm::Fish | EnvForm::Settings => {
                writeln!(text, "printf '%s\\n' {note} >&2;")
            }
        };
    }

    /// A text in single quotes, which this shell reads as the same text.
    fn in_quotes(self, text: &str) -> String {
        match self {
            EnvForm::Sh | EnvForm::Settings => in_quotes(text),
            EnvForm::Fish => format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")),
            EnvForm::PowerShell => {
                let twice = |c: char| 1 + usize::from(POWERSHELL_QUOTES.contains(&c));
                let text: String = text.chars().flat_map(|c| std::iter::repeat_n(c, twice(c))).collect();
                format!("'{text}'")
            }
        }
    }
}

/// The text of a settings file for Claude Code: the variables, and settings that no variable stands for.
pub fn settings_file(variables: Variables, settings: Vec<(&'static str, Value<'static>)>) -> String {
    let env: Object<'_> = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut whole = Object::new();
    whole.push("env", env);
    for (name, value) in settings {
        whole.push(name, value);
    }
    format!("{}\n", plain_json(&Value::from(whole).to_pretty_json()))
}

/// A sentence without characters that command a terminal.
fn in_one_line(text: &str) -> String {
    text.chars().filter(|c| !is_command(*c)).collect()
}

/// A word for a POSIX shell, in quotes only if it needs them.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-".contains(c);
    if word.chars().all(is_plain) { word.to_string() } else { in_quotes(word) }
}

/// A word for a POSIX shell, in single quotes; also for fish, if the word has no backslash.
pub fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_has_its_own_quotes() {
        for (form, expected) in [
            (EnvForm::Sh, r"export A='it'\''s a\b’';"),
            (EnvForm::Fish, r"set -gx A 'it\'s a\\b’';"),
            (EnvForm::PowerShell, r"$env:A = 'it''s a\b’’'"),
        ] {
            let text = form.script(&vec![("A", r"it's a\b’".to_string())], &[]);
            assert!(text.lines().any(|line| line == expected), "{text}");
        }
    }

    #[test]
    fn lines_and_added_headers_are_written_in_one_line() {
        for (form, lines, added) in [
            (
                EnvForm::Sh,
                r#"export A="$(printf '%s\n' 'b: c' 'd: e')";"#,
                r#"export A="$(printf '%s\n' 'x-a: k'; printenv A | sed "#,
            ),
            (
                EnvForm::Fish,
                r"set -gx A (printf '%s\n' 'b: c' 'd: e' | string collect);",
                r"set -gx A (string join \n -- 'x-a: k' (",
            ),
            (EnvForm::PowerShell, r#"$env:A = ('b: c', 'd: e') -join "`n""#, r"$env:A = (@('x-a: k') + @("),
        ] {
            let text = form.script(&vec![("A", "b: c\nd: e".to_string())], &[]);
            assert!(text.lines().any(|line| line == lines), "{text}");
            let text = form.add_header("A", "x-a: k").unwrap();
            assert!(text.starts_with(added) && text.matches('\n').count() == 1, "{text}");
            assert!(text.contains("[Xx]-[Aa]"), "{text}");
        }
        assert_eq!(EnvForm::Settings.add_header("A", "x-a: k"), None);
    }

    #[test]
    fn a_failure_is_no_success_in_any_form() {
        for (form, expected) in [
            (
                EnvForm::Sh,
                format!(
                    "export ANTHROPIC_BASE_URL='{NOWHERE}';\nprintf '%s\\n' 'sparkgap: no'\\''x' >&2;\nfalse\n"
                ),
            ),
            (
                EnvForm::Fish,
                format!(
                    "set -gx ANTHROPIC_BASE_URL '{NOWHERE}';\nprintf '%s\\n' 'sparkgap: no\\'x' >&2;\nfalse\n"
                ),
            ),
            (
                EnvForm::PowerShell,
                format!("$env:ANTHROPIC_BASE_URL = '{NOWHERE}'\nthrow 'sparkgap: no''x'\n"),
            ),
            (
                EnvForm::Settings,
                format!(
                    "{{\"error\":{{\"message\":\"no'\\nx\"}},\"env\":{{\"ANTHROPIC_BASE_URL\":\"{NOWHERE}\"}}}}\n"
                ),
            ),
        ] {
            assert_eq!(form.failure("no'\nx", &CLAUDE_ADDRESS), expected);
        }
    }

    #[test]
    fn the_settings_form_is_json_for_people() {
        let text = settings_file(vec![("A", "1".into())], vec![("flag", true.into())]);
        assert_eq!(text, "{\n  \"env\": {\n    \"A\": \"1\"\n  },\n  \"flag\": true\n}\n");
    }
}
