//! The manual page, in the language of `man` (roff).

use std::fmt::Write as _;

use argh::CommandInfoWithArgs;

use super::{commands, options};

/// The page sparkgap(1).
pub(super) fn page(program: &CommandInfoWithArgs) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH SPARKGAP 1 \"\" \"sparkgap {version}\" \"User Commands\"\n\
         .SH NAME\nsparkgap \\- the Anthropic Messages API in front of OpenAI\\-compatible servers\n\
         .SH SYNOPSIS\n.B sparkgap\n[\\fICOMMAND\\fR] [\\fIOPTIONS\\fR]\n\
         .SH DESCRIPTION\n{}\n",
        line(program.description)
    );
    notes(&mut page, program);
    page.push_str(".SH COMMANDS\n");
    for command in commands(program) {
        describe(&mut page, command.name, command);
        for below in commands(command) {
            describe(&mut page, &format!("{} {}", command.name, below.name), below);
        }
    }
    page.push_str(
        ".SH EXIT STATUS\n0 on success, 1 on any failure; the reason is on standard error.\n\
         .SH FILES\n.TP\n.I /etc/sparkgap\nThe configuration of the service: sparkgap.env, hooks, and credentials.\n",
    );
    page.push_str(".SH EXAMPLES\n");
    examples(&mut page, program);
    page
}

/// A command with its arguments, options, notes and examples.
fn describe(page: &mut String, name: &str, command: &CommandInfoWithArgs) {
    let _ = writeln!(page, ".SS sparkgap {}\n{}", escaped(name), line(command.description));
    for positional in command.positionals.iter().filter(|positional| !positional.hidden) {
        let _ = writeln!(page, ".TP\n.I {}\n{}", escaped(positional.name), line(positional.description));
    }
    for option in options(command) {
        let value = option.value.map(|value| format!(" \\fI{}\\fR", escaped(value))).unwrap_or_default();
        let _ = writeln!(page, ".TP\n\\fB{}\\fR{value}\n{}", escaped(option.name), line(&option.text));
    }
    notes(page, command);
    if !command.examples.is_empty() {
        page.push_str(".PP\nExamples:\n");
        examples(page, command);
    }
}

fn notes(page: &mut String, command: &CommandInfoWithArgs) {
    for note in command.notes.iter().flat_map(|note| note.lines()) {
        let _ = writeln!(page, ".PP\n{}", line(note));
    }
}

fn examples(page: &mut String, command: &CommandInfoWithArgs) {
    for example in command.examples {
        page.push_str(".PP\n.nf\n");
        for text in example.lines() {
            let _ = writeln!(page, "{}", line(text));
        }
        page.push_str(".fi\n");
    }
}

/// A text as one line of input. A dot or quote at its start would be a command.
fn line(text: &str) -> String {
    let text = escaped(text.trim_end());
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Dashes and backslashes that are printed as they are.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_command_of_roff() {
        for (text, expected) in
            [(".SH x", "\\&.SH x"), ("'a", "\\&'a"), ("a\\n", "a\\en"), ("--listen", "\\-\\-listen")]
        {
            assert_eq!(line(text), expected);
        }
    }
}
