//! The command line: what can be typed, and which part of the program does it.

mod bench;
mod check;
mod doctor;
mod env;
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
use crate::{config, openai, service};

/// Claude Code, and any Anthropic SDK client, on your own models: takes the Anthropic Messages API, speaks
/// OpenAI-compatible chat completions to vLLM, llama.cpp, SGLang, Ollama or LM Studio.
#[derive(FromArgs, Debug)]
#[argh(
    name = "sparkgap",
    example = "sparkgap demo\n    Try it without any model.",
    example = "sparkgap --upstream http://192.168.68.155:8888/v1\n    Serve a vLLM; then: ANTHROPIC_BASE_URL=http://localhost:4000 claude",
    example = "sparkgap check --hooks /etc/sparkgap/hooks\n    Say what the hooks map to what.",
    note = "Without a command it serves. The options of a command: sparkgap COMMAND --help"
)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
enum Command {
    Serve(Serve),
    Demo(Demo),
    Check(Check),
    Hook(HookRun),
    Import(ImportFile),
    Environment(Environment),
    Claude(Claude),
    Doctor(Doctor),
    Bench(Bench),
    Version(Version),
}

/// Serve the Messages API in front of the upstreams (the default command).
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "serve",
    example = "sparkgap serve --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap serve --listen 0.0.0.0:4000 --api-key-file /etc/sparkgap/keys --hooks /etc/sparkgap/hooks",
    note = "Without --upstream and --hooks it looks for a server on the usual local ports, and serves the demo if there is none.\nThe environment variable SPARKGAP_UPSTREAM_KEY, or the systemd credential of that name, holds the key for the upstreams of --upstream; SPARKGAP_CLIENT_KEYS holds what a file of --api-key-file does.\nUnder a socket unit --listen has no say: the unit names the address."
)]
struct Serve {
    /// address to listen on (127.0.0.1:4000)
    #[argh(option, default = "\"127.0.0.1:4000\".into()")]
    listen: String,
    /// base URL of an OpenAI-compatible server, or "demo"; may be repeated, the first is the default
    #[argh(option, arg_name = "url")]
    upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    upstream_key_file: Option<PathBuf>,
    /// a PEM file of the authorities that certificates of https upstreams are checked against, instead of the built-in
    /// ones
    #[argh(option, arg_name = "file")]
    ca_file: Option<PathBuf>,
    /// a Lua file, or a folder of them: upstreams, aliases and hooks; may be repeated
    #[argh(option, arg_name = "path")]
    hooks: Vec<PathBuf>,
    /// let hooks use all of Lua's standard library, files and processes included
    #[argh(switch)]
    unsafe_hooks: bool,
    /// a path that stands before every other, such as /llm
    #[argh(option, default = "String::new()")]
    prefix: String,
    /// the largest request body in bytes (33554432)
    #[argh(option, default = "32 * 1024 * 1024", arg_name = "bytes")]
    body_size_max: usize,
    /// the most connections at a time (1024)
    #[argh(option, default = "1024")]
    connections_max: usize,
    /// a LiteLLM config.yaml to run as it is; see sparkgap import
    #[argh(option, arg_name = "file")]
    litellm: Option<PathBuf>,
    /// a file of keys that clients must send, one a line, each followed by its owner's name if you like
    #[argh(option, arg_name = "file")]
    api_key_file: Option<PathBuf>,
    /// let clients of other machines in without a key
    #[argh(switch)]
    allow_anonymous: bool,
    /// seconds to connect to an upstream (5)
    #[argh(option, default = "5", arg_name = "s", from_str_fn(seconds))]
    connect_timeout: u64,
    /// seconds until an upstream's first byte (1800): its queue and the whole prefill
    #[argh(option, default = "1800", arg_name = "s", from_str_fn(seconds))]
    first_byte_timeout: u64,
    /// seconds between two bytes of an upstream (300)
    #[argh(option, default = "300", arg_name = "s", from_str_fn(seconds))]
    idle_timeout: u64,
    /// seconds for a client's whole request head (10)
    #[argh(option, default = "10", arg_name = "s", from_str_fn(seconds))]
    head_timeout: u64,
    /// seconds without a byte of a client's request body (60)
    #[argh(option, default = "60", arg_name = "s", from_str_fn(seconds))]
    body_timeout: u64,
    /// seconds in which a client takes nothing of its answer (60); then it is dropped, and its upstream request with it
    #[argh(option, default = "60", arg_name = "s", from_str_fn(seconds))]
    write_timeout: u64,
    /// seconds that a client's connection may be without a request (300)
    #[argh(option, default = "300", arg_name = "s", from_str_fn(seconds))]
    keep_alive: u64,
    /// seconds of silence before a streamed answer is begun anyway (8)
    #[argh(option, default = "8", arg_name = "s")]
    open_after: u64,
    /// seconds of silence between two pings (10)
    #[argh(option, default = "10", arg_name = "s")]
    ping_every: u64,
    /// seconds of nothing but pings until a client gets the usage so far instead (120): Claude Code gives up after 600
    #[argh(option, default = "120", arg_name = "s")]
    usage_every: u64,
    /// seconds that requests in progress get when the server is told to stop (30)
    #[argh(option, default = "30", arg_name = "s")]
    drain: u64,
    /// error, warn, info, debug or trace (info); trace shows bodies, unredacted
    #[argh(option, default = "log::LevelFilter::Info", arg_name = "level")]
    log_level: log::LevelFilter,
}

/// Serve with the built-in demo upstream: no model server needed.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "demo",
    example = "sparkgap demo\n    then, as it says: ANTHROPIC_BASE_URL=http://127.0.0.1:4000 ANTHROPIC_API_KEY=local claude"
)]
struct Demo {
    /// address to listen on (127.0.0.1:4000)
    #[argh(option, default = "\"127.0.0.1:4000\".into()")]
    listen: String,
    /// error, warn, info, debug or trace (info)
    #[argh(option, default = "log::LevelFilter::Info", arg_name = "level")]
    log_level: log::LevelFilter,
}

/// Load the configuration and say what it maps to what; never touches the network. Exit code 1 if it is wrong.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "check",
    example = "sparkgap check --hooks /etc/sparkgap/hooks",
    example = "sparkgap check --upstream http://192.168.68.155:8888/v1 --json"
)]
struct Check {
    /// base URL of an OpenAI-compatible server; may be repeated
    #[argh(option, arg_name = "url")]
    upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    upstream_key_file: Option<PathBuf>,
    /// a Lua file, or a folder of them; may be repeated
    #[argh(option, arg_name = "path")]
    hooks: Vec<PathBuf>,
    /// a LiteLLM config.yaml to run as it is
    #[argh(option, arg_name = "file")]
    litellm: Option<PathBuf>,
    /// let hooks use all of Lua's standard library
    #[argh(switch)]
    unsafe_hooks: bool,
    /// say it as JSON
    #[argh(switch)]
    json: bool,
}

/// Run hooks on a saved request and show what they change; never touches the network.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "hook",
    example = "sparkgap hook 10-models.lua --request saved.json",
    note = "A saved request is the JSON body of a POST /v1/messages, such as --log-level trace shows."
)]
struct HookRun {
    /// the Lua file, or a folder of them
    #[argh(positional)]
    file: PathBuf,
    /// the request's body
    #[argh(option, arg_name = "file")]
    request: PathBuf,
    /// a header of the request, as "NAME: VALUE"; may be repeated
    #[argh(option)]
    header: Vec<String>,
    /// base URL of an upstream, if the hooks name none; nothing is sent there
    #[argh(option, arg_name = "url")]
    upstream: Vec<String>,
}

/// Translate a LiteLLM config.yaml to Lua, with a word on every key of it.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "import",
    example = "sparkgap import litellm_config.yaml --output /etc/sparkgap/hooks/10-models.lua",
    example = "sparkgap import litellm_config.yaml > models.lua    (the report goes to stderr)"
)]
struct ImportFile {
    /// the YAML file
    #[argh(positional)]
    file: PathBuf,
    /// where the Lua goes (stdout); an existing file is left alone
    #[argh(option, arg_name = "file")]
    output: Option<PathBuf>,
    /// print Lua and report as JSON
    #[argh(switch)]
    json: bool,
}

/// Print the environment for Claude Code, as a running sparkgap tells it: shell lines for eval.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "env",
    example = "eval \"$(sparkgap env)\" && claude",
    example = "eval \"$(sparkgap env --remote http://box:4000)\"\n    On a laptop.",
    example = "sparkgap env --json\n    For the env of Claude Code's settings.json.",
    note = "The environment variables SPARKGAP_URL and SPARKGAP_API_KEY stand for --remote and --api-key."
)]
struct Environment {
    /// where to ask (http://127.0.0.1:4000)
    #[argh(option, arg_name = "url")]
    remote: Option<String>,
    /// what Claude Code is to call it by, where that is not the same: a tunnel, or a reverse proxy
    #[argh(option, arg_name = "url")]
    base_url: Option<String>,
    /// the key that sparkgap asks for
    #[argh(option, arg_name = "key")]
    api_key: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Run Claude Code with the environment of `sparkgap env`. All arguments are Claude Code's.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "claude")]
struct Claude {
    /// what claude gets, as it is
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Ask the upstreams some questions, and say what is wrong with them and how to mend it. Exit code 1 if anything is.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    example = "sparkgap doctor --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap doctor --hooks /etc/sparkgap/hooks --json",
    note = "Without --upstream and --hooks it looks for a server on the usual local ports."
)]
struct Doctor {
    /// base URL of an OpenAI-compatible server; may be repeated
    #[argh(option, arg_name = "url")]
    upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    upstream_key_file: Option<PathBuf>,
    /// a PEM file of the authorities that certificates of https upstreams are checked against
    #[argh(option, arg_name = "file")]
    ca_file: Option<PathBuf>,
    /// a Lua file, or a folder of them; may be repeated
    #[argh(option, arg_name = "path")]
    hooks: Vec<PathBuf>,
    /// let hooks use all of Lua's standard library
    #[argh(switch)]
    unsafe_hooks: bool,
    /// say it as JSON
    #[argh(switch)]
    json: bool,
}

/// Measure times to the first token and tokens a second, through a running sparkgap and straight to its upstreams.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "bench",
    example = "sparkgap bench --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap bench --hooks /etc/sparkgap/hooks --rounds 20 --json",
    note = "Name the upstreams as for the running sparkgap; without them they cannot be asked straight. Its key: SPARKGAP_API_KEY."
)]
struct Bench {
    /// where sparkgap is (http://127.0.0.1:4000)
    #[argh(option, arg_name = "url", default = "env::LOCAL.into()")]
    base_url: String,
    /// base URL of the upstream; may be repeated
    #[argh(option, arg_name = "url")]
    upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    upstream_key_file: Option<PathBuf>,
    /// the Lua file or folder that sparkgap runs with; may be repeated
    #[argh(option, arg_name = "path")]
    hooks: Vec<PathBuf>,
    /// a model or alias to ask for (all of them); may be repeated
    #[argh(option, arg_name = "name")]
    model: Vec<String>,
    /// how often each question is asked (5)
    #[argh(option, default = "5")]
    rounds: u64,
    /// sizes of prompts, in tokens (100,1000,4000)
    #[argh(option, default = "\"100,1000,4000\".into()")]
    sizes: String,
    /// also ask this model of the real Anthropic API, which costs money; its key: ANTHROPIC_API_KEY
    #[argh(option, arg_name = "model")]
    anthropic: Option<String>,
    /// where that API is (https://api.anthropic.com)
    #[argh(option, arg_name = "url", default = "\"https://api.anthropic.com\".into()")]
    anthropic_url: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Print the version.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "version")]
struct Version {}

/// A limit in seconds. None at all would end whatever it limits before it has begun.
fn seconds(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|seconds| *seconds > 0);
    number.ok_or_else(|| format!("'{text}' is no number of seconds of at least 1"))
}

/// What went wrong, for the one line that is printed before the end.
type Failed = String;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
    // Before any parsing: what follows is Claude Code's alone, be it unknown here or no UTF-8.
    if let Some((_, theirs)) = arguments.split_first().filter(|(first, _)| *first == "claude") {
        return fail(&env::claude(theirs));
    }
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
            Err(env::claude(&options.arguments.into_iter().map(OsString::from).collect::<Vec<_>>()))
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

/// The upstreams of `--upstream`, the first under the name `default`.
fn upstreams(urls: &[String], key_file: Option<&Path>) -> Result<Vec<config::Upstream>, Failed> {
    let key = upstream_key(key_file)?;
    let upstream = |(i, url): (usize, &String)| {
        let url = config::base_url(url).map_err(|why| format!("--upstream: {why}"))?;
        let name = if i == 0 { "default".to_string() } else { format!("upstream{}", i + 1) };
        Ok(config::Upstream {
            name,
            url,
            api_key: key.clone(),
            model: None,
            max_in_flight: None,
            settings: openai::Settings::default(),
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
