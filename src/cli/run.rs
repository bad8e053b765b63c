//! From the process's arguments to a command, and to the exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use argh::FromArgs;

use super::arguments::{Command, CommandLine};
use super::output::{note, print};
use super::{
    bench, check, claude, doctor, env, exam, generate, health, help, hook, import, key, reload, replay,
    requests, serve, show, statusline, top, usage,
};
use crate::app::ServeFailure;
use crate::logger;

/// The exit code of a command that has failed.
const FAILURE: u8 = 1;

/// The exit codes of a server that would fail again with the same options, or the same configuration, by the names of
/// sysexits(3). systemd does not restart it then.
const EX_USAGE: u8 = 64;
const EX_CONFIG: u8 = 78;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
    // This comes before any parsing: all arguments after `claude` go to Claude Code, even if they are unknown here or
    // not UTF-8.
    if let Some((_, theirs)) = arguments.split_first().filter(|(first, _)| *first == "claude") {
        return claude::run(theirs).map_or_else(|failed| fail(&failed), |()| ExitCode::SUCCESS);
    }
    // This comes before parsing too: a mistake in the arguments must not look like success to a shell that evaluates
    // the answer.
    let is_meant = env::is_meant(&arguments);
    let has_begun = is_meant && env::begin(&arguments);
    let code = parse_and_run(arguments);
    if is_meant && code != ExitCode::SUCCESS {
        env::end_failed(has_begun);
    }
    logger::flush();
    code
}

fn parse_and_run(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let Ok(arguments) = arguments else {
        return fail("sparkgap: an argument is not UTF-8");
    };
    let arguments = with_command(arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let parsed = match CommandLine::from_args(&["sparkgap"], &arguments) {
        Ok(parsed) => parsed,
        Err(early) if early.status.is_ok() => {
            print(&help::with_defaults(&early.output));
            return ExitCode::SUCCESS;
        }
        Err(early) => {
            let is_server = matches!(arguments.first(), Some(&"serve" | &"demo"));
            return fail_with(if is_server { EX_USAGE } else { FAILURE }, early.output.trim_end());
        }
    };
    let done = match parsed.command {
        Command::Serve(typed) => return end_of_server(serve::serve(typed)),
        Command::Demo(typed) => return end_of_server(serve::demo(typed)),
        Command::Check(typed) => check::check(typed),
        Command::Hook(typed) => hook::run(&typed),
        Command::Import(typed) => import::run(&typed),
        Command::Key(typed) => key::run(&typed),
        Command::Environment(typed) => env::run(&typed),
        // `run` has handled this command before parsing; the arm exists only because argh needs the command for its
        // help.
        Command::Claude(typed) => {
            claude::run(&typed.arguments.into_iter().map(OsString::from).collect::<Vec<_>>())
        }
        Command::Doctor(typed) => doctor::run(&typed),
        Command::Exam(typed) => exam::run(typed),
        Command::Reload(typed) => reload::run(&typed),
        Command::Bench(typed) => bench::run(&typed),
        Command::Usage(typed) => usage::run(typed),
        Command::Requests(typed) => requests::run(typed),
        Command::Show(typed) => show::run(&typed),
        Command::Replay(typed) => replay::run(&typed),
        Command::Top(typed) => top::run(&typed),
        Command::StatusLine(typed) => statusline::run(&typed),
        Command::Health(typed) => health::run(&typed),
        Command::Generate(typed) => {
            print(&generate::text(typed.kind));
            Ok(())
        }
        Command::Version(_) => {
            print(&format!("sparkgap {}\n", env!("SPARKGAP_VERSION")));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => fail(&failed),
    }
}

/// Adds the default command, `serve`, and accepts `--version`, since people try that first.
fn with_command(mut arguments: Vec<String>) -> Vec<String> {
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h" | "help") => arguments = vec!["--help".into()],
        Some("--version" | "-V") => arguments = vec!["version".into()],
        Some(first) if !first.starts_with('-') => {}
        _ => arguments.insert(0, "serve".into()),
    }
    arguments
}

/// The exit code of a server that has ended.
fn end_of_server(ended: Result<(), ServeFailure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeFailure::Configuration(text)) => fail_with(EX_CONFIG, &text),
        Err(ServeFailure::System(text)) => fail(&text),
    }
}

fn fail(text: &str) -> ExitCode {
    fail_with(FAILURE, text)
}

fn fail_with(code: u8, text: &str) -> ExitCode {
    // The log's lines came before.
    logger::flush();
    note(&logger::as_errors(&format!("{text}\n")));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, argh::EarlyExit> {
        let arguments = with_command(arguments.iter().map(ToString::to_string).collect());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        CommandLine::from_args(&["sparkgap"], &arguments)
    }

    #[test]
    fn serve_is_the_default() {
        for arguments in [&[][..], &["serve"], &["--upstream", "demo"]] {
            assert!(
                matches!(parse(arguments), Ok(CommandLine { command: Command::Serve(_) })),
                "{arguments:?}"
            );
        }
        assert!(matches!(parse(&["demo"]), Ok(CommandLine { command: Command::Demo(_) })));
    }

    #[test]
    fn help_has_examples_and_the_defaults() {
        for command in [
            "",
            "serve",
            "demo",
            "check",
            "hook",
            "import",
            "key",
            "env",
            "doctor",
            "exam",
            "bench",
            "health",
            "generate",
            "reload",
            "usage",
            "requests",
            "show",
            "replay",
            "top",
            "statusline",
        ] {
            let arguments: Vec<&str> =
                [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
            let early = parse(&arguments).expect_err("help ends early");
            let help = help::with_defaults(&early.output);
            assert!(early.status.is_ok() && help.contains("Examples:"), "{command}: {help}");
            assert!(!help.contains('%'), "{command}: a placeholder is left: {help}");
            // The usage is one long line, and so are examples and notes; the options are wrapped.
            let options = help.split("Options:").nth(1).and_then(|rest| rest.split("\n\n").next());
            for line in options.unwrap_or_default().lines() {
                assert!(line.chars().count() <= 80, "{command}: {line}");
            }
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        for arguments in [
            &["--upstrem", "x"][..],
            &["server"],
            &["serve", "--log-level", "loud"],
            &["check", "x"],
            &["--write-timeout", "0"],
            &["--connect-timeout", "1.5"],
            &["--first-byte-timeout", "4294967296"],
            &["--open-after", "18446744073709551615"],
            &["usage", "--since", "soon"],
            &["usage", "--by", "key"],
            &["requests", "--since", "-1d"],
        ] {
            assert!(parse(arguments).is_err_and(|early| early.status.is_err()), "{arguments:?}");
        }
    }
}
