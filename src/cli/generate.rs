//! `generate`: the manual page and the completions of shells, from the definitions that `--help` is made of.

mod manual;
mod shells;

use argh::{ArgsInfo as _, CommandInfoWithArgs, FlagInfo, FlagInfoKind};

use super::arguments::{CommandLine, TextKind};
use super::help;

/// The command that is meant where none is typed.
const DEFAULT_COMMAND: &str = "serve";

/// The text of this kind.
pub(super) fn text(kind: TextKind) -> String {
    let program = CommandLine::get_args_info();
    match kind {
        TextKind::Man => manual::page(&program),
        TextKind::Bash => shells::bash(&program),
        TextKind::Zsh => shells::zsh(&program),
        TextKind::Fish => shells::fish(&program),
    }
}

/// The commands of a program, or those below a command such as `key`.
fn commands(of: &CommandInfoWithArgs) -> impl Iterator<Item = &CommandInfoWithArgs> {
    of.commands.iter().map(|sub| &sub.command)
}

/// The options of a command, with the defaults in their texts.
fn options(command: &CommandInfoWithArgs) -> Vec<DescribedOption> {
    let defaults = help::defaults();
    let visible = command.flags.iter().filter(|flag| !flag.hidden);
    visible.map(|flag| DescribedOption::new(flag, help::filled(flag.description, &defaults))).collect()
}

/// An option as shells and the manual need it.
struct DescribedOption {
    /// With its two dashes.
    name: &'static str,
    /// The name of its value; `None` for a switch.
    value: Option<&'static str>,
    text: String,
    is_repeatable: bool,
}

impl DescribedOption {
    fn new(flag: &FlagInfo<'static>, text: String) -> Self {
        let value = match flag.kind {
            FlagInfoKind::Switch => None,
            FlagInfoKind::Option { arg_name } => Some(arg_name),
        };
        let is_repeatable = matches!(flag.optionality, argh::Optionality::Repeating);
        DescribedOption { name: flag.long, value, text, is_repeatable }
    }

    /// True if its value is a file or a folder.
    fn takes_file(&self) -> bool {
        matches!(self.value, Some("file" | "path"))
    }

    /// The values that it takes, if they are few.
    fn values(&self) -> &'static str {
        if self.value == Some("level") { "error warn info debug trace" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_every_command_and_option_and_no_placeholder() {
        let program = CommandLine::get_args_info();
        for kind in [TextKind::Man, TextKind::Bash, TextKind::Zsh, TextKind::Fish] {
            let text = text(kind);
            assert!(!text.contains("%listen%") && !text.contains("%local_url%"), "{kind:?}");
            // roff writes a dash as `\-`, and fish names an option without its dashes.
            let plain = text.replace("\\-", "-");
            for command in commands(&program) {
                assert!(plain.contains(command.name), "{kind:?}: {}", command.name);
                for option in options(command) {
                    let name = option.name.trim_start_matches('-');
                    assert!(plain.contains(name), "{kind:?}: {} {name}", command.name);
                }
            }
        }
    }

    #[test]
    fn files_and_levels_are_completed_as_such() {
        let bash = text(TextKind::Bash);
        assert!(bash.contains("--ca-file") && bash.contains("error warn info debug trace"), "{bash}");
        assert!(text(TextKind::Zsh).contains("--ca-file[a PEM file"));
        assert!(text(TextKind::Fish).contains("-l log-level -x -a 'error warn info debug trace'"));
    }
}
