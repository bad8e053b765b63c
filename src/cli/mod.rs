//! The command line: which part of the program does what was typed.

mod arguments;
mod bench;
mod check;
mod claude;
mod doctor;
mod env;
mod found;
mod hook;
mod import;
mod progress;
mod serve;
mod status;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;

use crate::hooks::{self, Hooks, Loaded};
use crate::{config, service, settings};
use arguments::{Arguments, Command};

/// What went wrong, for the one line that is printed before the end.
type Failed = String;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
    // Before any parsing: what follows is Claude Code's alone, be it unknown here or no UTF-8.
    if let Some((_, theirs)) = arguments.split_first().filter(|(first, _)| *first == "claude") {
        return fail(&claude::run(theirs));
    }
    // Also before it: a mistake in the arguments must not look like success to a shell that evaluates the answer.
    let is_meant = env::is_meant(&arguments);
    let has_begun = is_meant && env::begin(&arguments);
    let code = parse_and_run(arguments);
    if is_meant && code != ExitCode::SUCCESS {
        env::end_failed(has_begun);
    }
    code
}

fn parse_and_run(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let Ok(arguments) = arguments else {
        return fail("sparkgap: an argument is not UTF-8");
    };
    let arguments = with_command(arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let parsed = match Arguments::from_args(&["sparkgap"], &arguments) {
        Ok(parsed) => parsed,
        Err(early) if early.status.is_ok() => {
            print(&early.output);
            return ExitCode::SUCCESS;
        }
        Err(early) => return fail(early.output.trim_end()),
    };
    let done = match parsed.command {
        Command::Serve(options) => serve::serve(&options),
        Command::Demo(options) => serve::demo(options),
        Command::Check(options) => check::check(&options),
        Command::Hook(options) => hook::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Environment(options) => env::run(&options),
        // Not from the command line: that is seen to above.
        Command::Claude(options) => {
            Err(claude::run(&options.arguments.into_iter().map(OsString::from).collect::<Vec<_>>()))
        }
        Command::Doctor(options) => doctor::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Version(_) => {
            print(&format!("sparkgap {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => fail(&failed),
    }
}

/// `serve` is the default; `--version` is what people try first.
fn with_command(mut arguments: Vec<String>) -> Vec<String> {
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h" | "help") => arguments = vec!["--help".into()],
        Some("--version" | "-V") => arguments = vec!["version".into()],
        Some(first) if !first.starts_with('-') => {}
        _ => arguments.insert(0, "serve".into()),
    }
    arguments
}

/// Writes to stdout. A reader that has gone needs no word.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn fail(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// The key for the upstreams of `--upstream`: from `--upstream-key-file`, else from the environment, else from the
/// service manager.
fn upstream_key(file: Option<&Path>) -> Result<Option<config::Secret>, Failed> {
    let key = match file {
        Some(file) => {
            let unread = |error| format!("--upstream-key-file {}: {error}", file.display());
            Some(std::fs::read_to_string(file).map_err(unread)?.trim_end().to_string())
        }
        None => service::variable("SPARKGAP_UPSTREAM_KEY"),
    };
    Ok(key.filter(|key| !key.is_empty()).map(config::Secret::new))
}

/// The upstreams of `--upstream`, the first under the name `default`, each with the key for them.
fn upstreams(urls: &[String], key_file: Option<&Path>) -> Result<Vec<config::Upstream>, Failed> {
    upstreams_with(urls, upstream_key(key_file)?.as_ref())
}

/// The same for addresses that nobody named: a server that was only found on a local port. It may be anybody's, so it
/// gets no key.
fn found_upstreams(urls: &[String]) -> Result<Vec<config::Upstream>, Failed> {
    upstreams_with(urls, None)
}

fn upstreams_with(urls: &[String], key: Option<&config::Secret>) -> Result<Vec<config::Upstream>, Failed> {
    let upstream = |(i, url): (usize, &String)| {
        let url = config::base_url(url).map_err(|why| format!("--upstream: {why}"))?;
        let name = if i == 0 { "default".to_string() } else { format!("upstream{}", i + 1) };
        Ok(config::Upstream {
            name,
            url,
            api_key: key.cloned(),
            model: None,
            max_in_flight: None,
            settings: settings::Settings::default(),
        })
    };
    urls.iter().enumerate().map(upstream).collect()
}

fn load(
    hooks: &[PathBuf],
    upstreams: Vec<config::Upstream>,
    options: hooks::Options,
) -> Result<Loaded, Failed> {
    Hooks::load(hooks, upstreams, options).map_err(|error| {
        let mut text = String::from("the configuration was not taken:");
        for mistake in &error.mistakes {
            let _ = write!(text, "\n  {mistake}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, argh::EarlyExit> {
        let arguments = with_command(arguments.iter().map(ToString::to_string).collect());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Arguments::from_args(&["sparkgap"], &arguments)
    }

    #[test]
    fn serve_is_the_default() {
        for arguments in [&[][..], &["serve"], &["--upstream", "demo"]] {
            assert!(
                matches!(parse(arguments), Ok(Arguments { command: Command::Serve(_) })),
                "{arguments:?}"
            );
        }
        assert!(matches!(parse(&["demo"]), Ok(Arguments { command: Command::Demo(_) })));
    }

    #[test]
    fn help_has_examples() {
        for command in [
            &["--help"][..],
            &["serve", "--help"],
            &["demo", "--help"],
            &["check", "--help"],
            &["hook", "--help"],
            &["import", "--help"],
            &["env", "--help"],
            &["doctor", "--help"],
            &["bench", "--help"],
        ] {
            let help = parse(command).expect_err("help ends early");
            assert!(help.status.is_ok() && help.output.contains("Examples:"), "{command:?}: {}", help.output);
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
        ] {
            assert!(parse(arguments).is_err_and(|early| early.status.is_err()), "{arguments:?}");
        }
    }

    #[test]
    fn a_key_file_loses_its_line_end() {
        let file = std::env::temp_dir().join(format!("sparkgap-key-{}", std::process::id()));
        std::fs::write(&file, "sk-1\n").unwrap();
        let named = upstreams(&["http://127.0.0.1:1".to_string()], Some(&file)).unwrap();
        assert_eq!(named[0].api_key, Some(config::Secret::new("sk-1")));
        std::fs::remove_file(&file).unwrap();
        let failed = upstreams(&[], Some(&file)).unwrap_err();
        assert!(failed.starts_with("--upstream-key-file "), "{failed}");
    }

    #[test]
    fn the_first_upstream_is_the_default() {
        let urls = ["http://127.0.0.1:1/v1".to_string(), "http://127.0.0.1:2".to_string()];
        let named = upstreams(&urls, None).unwrap();
        let names: Vec<(&str, &str)> = named.iter().map(|u| (u.name.as_str(), u.url.as_str())).collect();
        assert_eq!(names, [("default", "http://127.0.0.1:1/v1"), ("upstream2", "http://127.0.0.1:2/v1")]);
        assert!(upstreams(&["127.0.0.1:1".to_string()], None).is_err());
    }
}
