//! The commands and their options, as argh reads them and `--help` shows them. A default in a text is a placeholder that
//! `help` fills in.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgValue, FromArgs};

use crate::access::{HostName, Network, Origin};
use crate::activity::RecordMode;
use crate::logger::LogFormat;
use crate::state::UsageGroup;

/// Claude Code, and any Anthropic SDK client, on your own models: takes the Anthropic Messages API, speaks
/// OpenAI-compatible chat completions to vLLM, llama.cpp, SGLang, Ollama or LM Studio.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    name = "sparkgap",
    example = "sparkgap demo\n    Try it without any model.",
    example = "sparkgap --upstream http://192.168.68.155:8888/v1\n    Serve a vLLM; then, in another terminal: sparkgap claude",
    example = "sparkgap check --hooks /etc/sparkgap/hooks\n    Say what the hooks map to what.",
    note = "Without a command it serves. The options of a command: sparkgap COMMAND --help"
)]
pub(super) struct CommandLine {
    #[argh(subcommand)]
    pub(super) command: Command,
}

#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
pub(super) enum Command {
    Serve(Serve),
    Demo(Demo),
    Check(Check),
    Hook(HookRun),
    Import(ImportFile),
    Key(KeyCommand),
    Environment(Environment),
    Claude(Claude),
    Doctor(Doctor),
    Exam(Exam),
    Reload(ReloadCommand),
    Bench(Bench),
    Usage(UsageCommand),
    Requests(RequestsCommand),
    Show(ShowCommand),
    Replay(ReplayCommand),
    Top(Top),
    StatusLine(StatusLine),
    Health(HealthProbe),
    Generate(GenerateText),
    Version(Version),
}

/// Serve the Messages API in front of the upstreams (the default command).
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "serve",
    example = "sparkgap serve --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap serve --listen 0.0.0.0:4000 --api-key-file /etc/sparkgap/keys --hooks /etc/sparkgap/hooks",
    note = "Without --upstream and --hooks it looks for a server on the usual local ports (8000, 8888, 8080, 11434, 1234, 30000), and serves the demo if there is none.\nThe environment variable SPARKGAP_UPSTREAM_KEY, or the systemd credential of that name, holds the key for the upstreams of --upstream; SPARKGAP_CLIENT_KEYS holds what a file of --api-key-file does.\nUnder a socket unit --listen has no say: the unit names the address."
)]
pub(super) struct Serve {
    /// address to listen on, or a port of all addresses (%listen%)
    #[argh(option)]
    pub(super) listen: Option<String>,
    /// base URL of an OpenAI-compatible server, or "demo"; may be repeated, the first is the default
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// a PEM file of the authorities that certificates of https upstreams are checked against, instead of the built-in
    /// ones
    #[argh(option, arg_name = "file")]
    pub(super) ca_file: Option<PathBuf>,
    /// a PEM file of the certificate, with its chain, for HTTPS on the listening side; loaded again at SIGHUP
    #[argh(option, arg_name = "file")]
    pub(super) tls_cert: Option<PathBuf>,
    /// a PEM file of the private key of --tls-cert
    #[argh(option, arg_name = "file")]
    pub(super) tls_key: Option<PathBuf>,
    /// a Lua file, or a folder of them: upstreams, aliases and hooks; may be repeated
    #[argh(option, arg_name = "path")]
    pub(super) hooks: Vec<PathBuf>,
    /// let hooks use all of Lua's standard library, files and processes included
    #[argh(switch)]
    pub(super) unsafe_hooks: bool,
    /// a path that stands before every other, such as /llm
    #[argh(option)]
    pub(super) prefix: Option<String>,
    /// the largest request body in bytes (%body_size_max%)
    #[argh(option, arg_name = "bytes")]
    pub(super) body_size_max: Option<usize>,
    /// the memory that all requests may take together, such as 512M or 2G (half of what the machine or its service
    /// manager allows); beyond it they wait, and are then told to come back (529)
    #[argh(option, arg_name = "size", from_str_fn(size))]
    pub(super) memory_max: Option<usize>,
    /// the most connections at a time (%connections_max%); one without a request makes room for a new one
    #[argh(option)]
    pub(super) connections_max: Option<usize>,
    /// the most connections of one address at a time (a quarter of all); not for this machine and trusted proxies
    #[argh(option, arg_name = "number")]
    pub(super) connections_per_address_max: Option<usize>,
    /// a LiteLLM config.yaml to run as it is; see sparkgap import
    #[argh(option, arg_name = "file")]
    pub(super) litellm: Option<PathBuf>,
    /// a file of keys that clients must send, one a line, each followed by its owner's name; read again at SIGHUP.
    /// sparkgap key new NAME makes one
    #[argh(option, arg_name = "file")]
    pub(super) api_key_file: Option<PathBuf>,
    /// let clients of other machines in without a key
    #[argh(switch)]
    pub(super) allow_anonymous: bool,
    /// a host name or address that clients without keys may call this server by, beside localhost and its own address;
    /// may be repeated
    #[argh(option, arg_name = "name")]
    pub(super) allow_host: Vec<HostName>,
    /// the origin of web pages that may use this server, such as http://localhost:3000; may be repeated
    #[argh(option, arg_name = "origin")]
    pub(super) allow_origin: Vec<Origin>,
    /// an address or network of reverse proxies whose X-Forwarded-For names the client; may be repeated
    #[argh(option, arg_name = "addr")]
    pub(super) trusted_proxy: Vec<Network>,
    /// seconds to connect to an upstream (%connect_timeout%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) connect_timeout: Option<Duration>,
    /// seconds until an upstream's first byte (%first_byte_timeout%): its queue and the whole prefill
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) first_byte_timeout: Option<Duration>,
    /// seconds between two bytes of an upstream (%idle_timeout%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) idle_timeout: Option<Duration>,
    /// seconds for a client's whole request head (%head_timeout%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) head_timeout: Option<Duration>,
    /// seconds without a byte of a client's request body, or with less than 1 KiB of it a second (%body_timeout%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) body_timeout: Option<Duration>,
    /// seconds for a client's whole request body (%body_total_timeout%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) body_total_timeout: Option<Duration>,
    /// seconds in which a client takes nothing of its answer (%write_timeout%); then it is dropped, and its upstream request with it
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) write_timeout: Option<Duration>,
    /// seconds that a client's connection may be without a request (%keep_alive%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) keep_alive: Option<Duration>,
    /// seconds of silence before a streamed answer is begun anyway (%open_after%)
    #[argh(option, arg_name = "s", from_str_fn(seconds_or_zero))]
    pub(super) open_after: Option<Duration>,
    /// seconds of silence between two pings (%ping_every%)
    #[argh(option, arg_name = "s", from_str_fn(seconds_or_zero))]
    pub(super) ping_every: Option<Duration>,
    /// seconds of nothing but pings until a client gets the usage so far instead (%usage_every%): Claude Code gives up after 600
    #[argh(option, arg_name = "s", from_str_fn(seconds_or_zero))]
    pub(super) usage_every: Option<Duration>,
    /// seconds that a streaming client waits in all, on pings, while none of several upstreams answers (%wait_for_upstream%)
    #[argh(option, arg_name = "s", from_str_fn(seconds_or_zero))]
    pub(super) wait_for_upstream: Option<Duration>,
    /// least seconds of silence of all streams of one of several upstreams after which it may count as hanging (%hang_after%)
    #[argh(option, arg_name = "s", from_str_fn(seconds))]
    pub(super) hang_after: Option<Duration>,
    /// seconds that requests in progress get when the server is told to stop (%drain%)
    #[argh(option, arg_name = "s", from_str_fn(seconds_or_zero))]
    pub(super) drain: Option<Duration>,
    /// let everyone read /metrics without a key: a scraper that has none
    #[argh(switch)]
    pub(super) metrics_open: bool,
    /// give /metrics the numbers of each client as well, by the owner of its key or by its address
    #[argh(switch)]
    pub(super) metrics_by_client: bool,
    /// a folder for the requests, usage and learned facts that a restart must not forget (systemd's StateDirectory=, else none)
    #[argh(option, arg_name = "dir")]
    pub(super) state: Option<PathBuf>,
    /// off, errors or all (off): keep bodies and answers of requests in the folder of --state, without keys; see sparkgap show
    #[argh(option, arg_name = "which", from_str_fn(record_mode))]
    pub(super) record: Option<RecordMode>,
    /// the most bytes of all recordings, such as 256M (%record_size%); the oldest ones go
    #[argh(option, arg_name = "size", from_str_fn(size))]
    pub(super) record_size: Option<usize>,
    /// keep images in recordings, which otherwise are cut to their size
    #[argh(switch)]
    pub(super) record_images: bool,
    /// error, warn, info, debug or trace (%log_level%); trace shows bodies, unredacted
    #[argh(option, arg_name = "level")]
    pub(super) log_level: Option<log::LevelFilter>,
    /// text or json, one object a line (text)
    #[argh(option, arg_name = "format")]
    pub(super) log_format: Option<LogFormat>,
}

/// Serve with the built-in demo upstream: no model server needed.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "demo",
    example = "sparkgap demo\n    then, in another terminal, the line that it prints: it starts Claude Code.",
    example = "sparkgap demo --busy\n    then open http://127.0.0.1:4000/ui in a browser."
)]
pub(super) struct Demo {
    /// address to listen on, or a port of all addresses (%listen%)
    #[argh(option)]
    pub(super) listen: Option<String>,
    /// three boxes with the speed of real ones, and made-up people who work with them: open /ui in a browser
    #[argh(switch)]
    pub(super) busy: bool,
    /// error, warn, info, debug or trace (%log_level%)
    #[argh(option, arg_name = "level")]
    pub(super) log_level: Option<log::LevelFilter>,
}

/// Load the configuration and say what it maps to what; never touches the network. Exit code 1 if it is wrong.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "check",
    example = "sparkgap check --hooks /etc/sparkgap/hooks",
    example = "sparkgap check --upstream http://192.168.68.155:8888/v1 --json"
)]
pub(super) struct Check {
    /// base URL of an OpenAI-compatible server; may be repeated
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// a Lua file, or a folder of them; may be repeated
    #[argh(option, arg_name = "path")]
    pub(super) hooks: Vec<PathBuf>,
    /// a LiteLLM config.yaml to run as it is
    #[argh(option, arg_name = "file")]
    pub(super) litellm: Option<PathBuf>,
    /// a PEM file of the certificate for HTTPS on the listening side
    #[argh(option, arg_name = "file")]
    pub(super) tls_cert: Option<PathBuf>,
    /// a PEM file of the private key of --tls-cert
    #[argh(option, arg_name = "file")]
    pub(super) tls_key: Option<PathBuf>,
    /// let hooks use all of Lua's standard library
    #[argh(switch)]
    pub(super) unsafe_hooks: bool,
    /// say it as JSON
    #[argh(switch)]
    pub(super) json: bool,
}

/// Run all hooks on a saved request and on samples, and show what they change; never touches the network.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "hook",
    example = "sparkgap hook 10-models.lua --request saved.json",
    example = "sparkgap hook 10-models.lua --tool-call call.json",
    note = "A saved request is the JSON body of a POST /v1/messages, such as --log-level trace shows. The other files hold one JSON object, a list of objects, or one in each line. Without a file, a hook that is defined gets a small built-in sample."
)]
pub(super) struct HookRun {
    /// the Lua file, or a folder of them
    #[argh(positional)]
    pub(super) file: PathBuf,
    /// the request's body
    #[argh(option, arg_name = "file")]
    pub(super) request: Option<PathBuf>,
    /// events for on_event, with type and text
    #[argh(option, arg_name = "file")]
    pub(super) event: Option<PathBuf>,
    /// tool calls for on_tool_call, with id, name and input
    #[argh(option, arg_name = "file")]
    pub(super) tool_call: Option<PathBuf>,
    /// errors for on_error, with status, message and upstream
    #[argh(option, arg_name = "file")]
    pub(super) error: Option<PathBuf>,
    /// records for on_log
    #[argh(option, arg_name = "file")]
    pub(super) log: Option<PathBuf>,
    /// a header of the request, as "NAME: VALUE"; may be repeated
    #[argh(option)]
    pub(super) header: Vec<String>,
    /// base URL of an upstream, if the hooks name none; nothing is sent there
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
}

/// Translate a configuration of LiteLLM, claude-code-router or llama-swap to Lua, with a report.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "import",
    example = "sparkgap import litellm_config.yaml --output /etc/sparkgap/hooks/10-models.lua",
    example = "sparkgap import litellm_config.yaml > models.lua    (the report goes to stderr)"
)]
pub(super) struct ImportFile {
    /// the YAML or JSON file
    #[argh(positional)]
    pub(super) file: PathBuf,
    /// where the Lua goes (stdout); an existing file is left alone
    #[argh(option, arg_name = "file")]
    pub(super) output: Option<PathBuf>,
    /// after the summary, report on each key of the file
    #[argh(switch)]
    pub(super) verbose: bool,
    /// print Lua and report as JSON
    #[argh(switch)]
    pub(super) json: bool,
}

/// Make a key for a client.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "key",
    example = "sparkgap key new anna >> keys\n    Append a key for Anna to the file of --api-key-file; what to do with it is on stderr.",
    note = "The file is read at the start, and again at SIGHUP. A key that was taken out ends there for new requests."
)]
pub(super) struct KeyCommand {
    #[argh(subcommand)]
    pub(super) action: KeyAction,
}

#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand)]
pub(super) enum KeyAction {
    New(NewKey),
}

/// Make a key, and print it with its owner's name as a line for the file of keys.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand, name = "new", example = "sparkgap key new anna >> keys")]
pub(super) struct NewKey {
    /// its owner's name, which the log and hooks show
    #[argh(positional)]
    pub(super) name: String,
}

/// Print the environment for Claude Code, or for a client of OpenAI's protocol, as a running sparkgap tells it: shell lines for
/// eval.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "env",
    example = "eval \"$(sparkgap env)\" && claude",
    example = "eval \"$(sparkgap env --remote http://box:4000 || echo false)\" && claude\n    On a laptop: claude does not run if the box is down, or if there is no sparkgap on the laptop.",
    example = "sparkgap env --json\n    For the env of Claude Code's settings.json.",
    example = "eval \"$(sparkgap env --openai)\" && codex\n    For clients of OpenAI's protocol.",
    example = "sparkgap env --settings > settings.json\n    A whole settings file, with what no environment variable can set.",
    note = "The environment variables SPARKGAP_URL and SPARKGAP_API_KEY stand for --remote and --api-key. SPARKGAP_CA_FILE names a PEM file of the authorities that an https address is checked against.\nThe lines are for sh, dash, bash, zsh and fish. After any failure they are only `false`, so that what stands behind && does not run; a settings file of Claude Code that leads elsewhere is such a failure."
)]
pub(super) struct Environment {
    /// where to ask (%local_url%)
    #[argh(option, arg_name = "url")]
    pub(super) remote: Option<String>,
    /// what Claude Code is to call it by, where that is not the same: a tunnel, or a reverse proxy
    #[argh(option, arg_name = "url")]
    pub(super) base_url: Option<String>,
    /// the key that sparkgap asks for
    #[argh(option, arg_name = "key")]
    pub(super) api_key: Option<String>,
    /// print JSON
    #[argh(switch)]
    pub(super) json: bool,
    /// print JSON with Claude Code's settings beside the variables
    #[argh(switch)]
    pub(super) settings: bool,
    /// print the variables of clients of OpenAI's protocol instead of Claude Code's
    #[argh(switch)]
    pub(super) openai: bool,
    /// which system prompt Claude Code sends: lean, about 1,700 tokens, or full, about 7,000 (it decides by the model's name)
    #[argh(option, arg_name = "size")]
    pub(super) prompt: Option<String>,
    /// if the model server is down, wait until it answers
    #[argh(switch)]
    pub(super) wait: bool,
}

/// Run Claude Code with the environment of `sparkgap env`, whatever its settings files say. All arguments are Claude
/// Code's; SPARKGAP_URL and SPARKGAP_API_KEY say where sparkgap is, and with which key to ask it. With --settings alone,
/// writes the environment into Claude Code's settings file; --settings --undo takes it back. --prompt lean or --prompt full as
/// the first argument chooses its system prompt.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand, name = "claude")]
pub(super) struct Claude {
    /// what claude gets, as it is
    #[argh(positional, greedy)]
    pub(super) arguments: Vec<String>,
}

/// Replace the process of the service by a new one, without refusing a client: the new program, options, hooks and keys
/// are then in force, and the old process finishes its answers. If the new one does not start, nothing changes.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "reload",
    example = "systemctl reload sparkgap\n    What the unit's ExecReload= runs: sparkgap reload serve --hooks /etc/sparkgap/hooks",
    note = "It finds the running process by RUNTIME_DIRECTORY, which systemd sets. Without systemd: kill -HUP PID loads the files again."
)]
pub(super) struct ReloadCommand {
    /// what the new process runs: serve and its options, as in ExecStart=
    #[argh(positional, greedy)]
    pub(super) command: Vec<String>,
}

/// Ask the upstreams some questions, and say what is wrong with them and how to mend it. Exit code 1 if anything is.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    example = "sparkgap doctor --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap doctor --hooks /etc/sparkgap/hooks --json",
    note = "Without --upstream and --hooks it looks for a server on the usual local ports: 8000, 8888, 8080, 11434, 1234, 30000.\nAn answer is waited for at most 120 s until its first byte, and 60 s between two bytes; timeout = SECONDS of an upstream in a Lua file replaces both."
)]
pub(super) struct Doctor {
    /// base URL of an OpenAI-compatible server; may be repeated
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// a PEM file of the authorities that certificates of https upstreams are checked against
    #[argh(option, arg_name = "file")]
    pub(super) ca_file: Option<PathBuf>,
    /// a Lua file, or a folder of them; may be repeated
    #[argh(option, arg_name = "path")]
    pub(super) hooks: Vec<PathBuf>,
    /// let hooks use all of Lua's standard library
    #[argh(switch)]
    pub(super) unsafe_hooks: bool,
    /// a model to examine (the one that requests get); may be repeated
    #[argh(option, arg_name = "name")]
    pub(super) model: Vec<String>,
    /// examine all models of each server that chat
    #[argh(switch)]
    pub(super) all: bool,
    /// say it as JSON
    #[argh(switch)]
    pub(super) json: bool,
}

/// Set a model 30 short tasks as Claude Code would, and say how many it passes, passes repaired and fails.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "exam",
    example = "sparkgap exam --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap exam --upstream http://192.168.68.155:8888/v1 --no-repairs\n    The same without repairs: the difference is what they gain.",
    example = "sparkgap exam --hooks /etc/sparkgap/hooks --model qwen3 --json",
    note = "It takes one to ten minutes, by the speed of the model. Tasks that fail are a result: the exit code is 0."
)]
pub(super) struct Exam {
    /// base URL of an OpenAI-compatible server, or "demo"; may be repeated
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// a PEM file of the authorities that certificates of https upstreams are checked against
    #[argh(option, arg_name = "file")]
    pub(super) ca_file: Option<PathBuf>,
    /// a Lua file, or a folder of them, for upstreams and their settings; may be repeated
    #[argh(option, arg_name = "path")]
    pub(super) hooks: Vec<PathBuf>,
    /// the model to examine, by its name at the upstream (the upstream's own)
    #[argh(option, arg_name = "name")]
    pub(super) model: Option<String>,
    /// the longest time of one answer, in seconds (300)
    #[argh(option, arg_name = "seconds", from_str_fn(seconds))]
    pub(super) timeout: Option<Duration>,
    /// repair nothing: show what the model and its server do without sparkgap's repairs
    #[argh(switch)]
    pub(super) no_repairs: bool,
    /// print JSON
    #[argh(switch)]
    pub(super) json: bool,
}

/// Measure times to the first token and tokens a second, through a running sparkgap and straight to its upstreams.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "bench",
    example = "sparkgap bench --upstream http://192.168.68.155:8888/v1",
    example = "sparkgap bench --hooks /etc/sparkgap/hooks --rounds 20 --json",
    note = "Name the upstreams as for the running sparkgap; without them they cannot be asked straight.\nThe environment variable SPARKGAP_URL stands for --base-url, SPARKGAP_API_KEY holds the key that sparkgap asks for."
)]
pub(super) struct Bench {
    /// where sparkgap is (%local_url%)
    #[argh(option, arg_name = "url")]
    pub(super) base_url: Option<String>,
    /// base URL of the upstream; may be repeated
    #[argh(option, arg_name = "url")]
    pub(super) upstream: Vec<String>,
    /// a file that holds the key for the upstreams of --upstream
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// the Lua file or folder that sparkgap runs with; may be repeated
    #[argh(option, arg_name = "path")]
    pub(super) hooks: Vec<PathBuf>,
    /// a model or alias to ask for (all of them); may be repeated
    #[argh(option, arg_name = "name")]
    pub(super) model: Vec<String>,
    /// how often each question is asked (%rounds%)
    #[argh(option)]
    pub(super) rounds: Option<u64>,
    /// sizes of prompts, in tokens (%sizes%)
    #[argh(option)]
    pub(super) sizes: Option<String>,
    /// also ask this model of the real Anthropic API, which costs money; its key: ANTHROPIC_API_KEY
    #[argh(option, arg_name = "model")]
    pub(super) anthropic: Option<String>,
    /// where that API is (%anthropic_url%)
    #[argh(option, arg_name = "url")]
    pub(super) anthropic_url: Option<String>,
    /// print JSON
    #[argh(switch)]
    pub(super) json: bool,
}

/// Say who used how many tokens: sums from the state folder, by days of UTC.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "usage",
    example = "sparkgap usage\n    Each client's requests and tokens of the last 7 days.",
    example = "sparkgap usage --by day --since 30d --csv > usage.csv",
    example = "sudo sparkgap usage --by model\n    The folder of the service can be read by root only.",
    note = "Only requests that reached an upstream are counted. A cost needs the key price in the alias; hooks/README.md shows it."
)]
pub(super) struct UsageCommand {
    /// client, model or day (client)
    #[argh(option, arg_name = "what", from_str_fn(usage_group), default = "UsageGroup::Client")]
    pub(super) by: UsageGroup,
    /// how far to look back, such as 12h, 7d or 30d, to the beginning of that day (7d)
    #[argh(option, arg_name = "time", from_str_fn(look_back), default = "days(7)")]
    pub(super) since: Duration,
    /// the folder of serve --state (/var/lib/sparkgap, that of the service)
    #[argh(option, arg_name = "dir")]
    pub(super) state: Option<PathBuf>,
    /// print a JSON object for each line
    #[argh(switch)]
    pub(super) json: bool,
    /// print CSV
    #[argh(switch)]
    pub(super) csv: bool,
}

/// List requests that have ended, the newest last, from the state folder.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "requests",
    example = "sparkgap requests --failed --since 1h",
    example = "sparkgap requests --session 0b5e6f9c-1d2a-4c3b-8e7f-9a0b1c2d3e4f --json",
    note = "It shows the newest 1,000 of those that are kept: at most 30 days, 1,000,000 requests and 512 MiB."
)]
pub(super) struct RequestsCommand {
    /// only those that failed, or whose client left
    #[argh(switch)]
    pub(super) failed: bool,
    /// only those of this session of Claude Code
    #[argh(option, arg_name = "id")]
    pub(super) session: Option<String>,
    /// how far to look back, such as 30m, 12h or 7d (1d)
    #[argh(option, arg_name = "time", from_str_fn(look_back), default = "days(1)")]
    pub(super) since: Duration,
    /// the folder of serve --state (/var/lib/sparkgap, that of the service)
    #[argh(option, arg_name = "dir")]
    pub(super) state: Option<PathBuf>,
    /// print a JSON object for each
    #[argh(switch)]
    pub(super) json: bool,
}

/// Show a recorded request: the client's body, the upstream's body, the upstream's answer and the client's answer.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "show",
    example = "sparkgap show last",
    example = "sparkgap show req_0123456789abcdefghijklmn --har > request.har",
    example = "sparkgap show last --curl | sh\n    Send the same body to the model server without sparkgap.",
    note = "serve --record errors (or all) makes recordings; `sparkgap requests` marks the requests that have one.\nKeys are replaced by stars, but a recording holds conversations: look at it before you pass it on."
)]
pub(super) struct ShowCommand {
    /// the request's id, or `last` for the newest recording
    #[argh(positional)]
    pub(super) id: String,
    /// print it as HAR, which browsers and other tools read
    #[argh(switch)]
    pub(super) har: bool,
    /// print a curl command that sends the recorded body to the upstream
    #[argh(switch)]
    pub(super) curl: bool,
    /// print how the upstream's body differs from that of the turn before
    #[argh(switch)]
    pub(super) diff: bool,
    /// the folder of serve --state (/var/lib/sparkgap, that of the service)
    #[argh(option, arg_name = "dir")]
    pub(super) state: Option<PathBuf>,
}

/// Send a recorded request to its upstream again and compare the answers, or translate the recorded answer again.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "replay",
    example = "sparkgap replay last --offline\n    Translate the recorded answer again: exit code 1 if the client's bytes differ.",
    example = "sparkgap replay last --to http://192.168.68.155:8888/v1",
    example = "sparkgap replay last --offline --save tests/golden/my_case\n    Write a test case: the request, the upstream's answer, and what the client gets.",
    note = "Without --to the upstream of that time is asked; SPARKGAP_UPSTREAM_KEY or --upstream-key-file holds its key, since recordings hold none."
)]
pub(super) struct ReplayCommand {
    /// the request's id, or `last` for the newest recording
    #[argh(positional)]
    pub(super) id: String,
    /// base URL of the server to ask
    #[argh(option, arg_name = "url")]
    pub(super) to: Option<String>,
    /// a file that holds the key for that server
    #[argh(option, arg_name = "file")]
    pub(super) upstream_key_file: Option<PathBuf>,
    /// ask no server: translate the recorded answer again
    #[argh(switch)]
    pub(super) offline: bool,
    /// with --offline: write a test case of it to this new folder
    #[argh(option, arg_name = "dir")]
    pub(super) save: Option<PathBuf>,
    /// the folder of serve --state (/var/lib/sparkgap, that of the service)
    #[argh(option, arg_name = "dir")]
    pub(super) state: Option<PathBuf>,
}

/// Show boxes, requests in progress and the last requests of a running sparkgap, anew each second.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "top",
    example = "sparkgap top",
    example = "sparkgap top http://box:4000 --once",
    note = "The environment variable SPARKGAP_URL stands for URL, SPARKGAP_API_KEY holds the key that sparkgap asks for. The owner of a key with a name is shown their own requests only."
)]
pub(super) struct Top {
    /// its URL; without one, the usual port of this machine is asked
    #[argh(positional)]
    pub(super) url: Option<String>,
    /// print it once; also if the output is not a terminal
    #[argh(switch)]
    pub(super) once: bool,
    /// print a JSON object for each second
    #[argh(switch)]
    pub(super) json: bool,
}

/// Print one line for the status line of Claude Code, which gives JSON on stdin: box, context fill, cached share of the last
/// turn, tokens a second, requests that wait.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "statusline",
    example = "sparkgap claude --settings\n    Write it into your settings file, with the rest of the environment.",
    note = "It asks the sparkgap of ANTHROPIC_BASE_URL, or of SPARKGAP_URL. If none answers within 150 ms it prints only what Claude Code itself has told."
)]
pub(super) struct StatusLine {
    /// its URL
    #[argh(positional)]
    pub(super) url: Option<String>,
}

/// Ask a running sparkgap whether it is well, for probes. Exit code 1 if it is not well, or if none runs at that address.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "health",
    example = "sparkgap health",
    example = "sparkgap health --ready http://127.0.0.1:4000\n    Fails, too, while it stops or if no model server is up.",
    note = "The environment variable SPARKGAP_URL stands for URL."
)]
pub(super) struct HealthProbe {
    /// its URL; without one, the usual port of this machine is asked
    #[argh(positional)]
    pub(super) url: Option<String>,
    /// ask whether it can serve requests now, and not only whether it runs
    #[argh(switch)]
    pub(super) ready: bool,
}

/// Print the manual page, or completions for a shell.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(
    subcommand,
    name = "generate",
    example = "sparkgap generate man > /usr/local/share/man/man1/sparkgap.1",
    example = "sparkgap generate bash > ~/.local/share/bash-completion/completions/sparkgap",
    example = "sparkgap generate zsh > ~/.zfunc/_sparkgap",
    example = "sparkgap generate fish > ~/.config/fish/completions/sparkgap.fish"
)]
pub(super) struct GenerateText {
    /// man, bash, zsh or fish
    #[argh(positional)]
    pub(super) kind: TextKind,
}

/// A text that is generated from the definitions in this file.
#[derive(Clone, Copy, Debug, FromArgValue)]
pub(super) enum TextKind {
    /// The manual page.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// Print the version, and the commit that it was built from.
#[derive(ArgsInfo, FromArgs, Debug)]
#[argh(subcommand, name = "version")]
pub(super) struct Version {}

/// A limit in seconds, more than zero: a limit of zero would end everything before it has begun.
fn seconds(text: &str) -> Result<Duration, String> {
    read_seconds(text, 1)
}

/// A time in seconds that may be zero.
fn seconds_or_zero(text: &str) -> Result<Duration, String> {
    read_seconds(text, 0)
}

/// At most 2^32 - 1 seconds, 136 years, so that the clock can hold the present time plus any such limit.
fn read_seconds(text: &str, min: u32) -> Result<Duration, String> {
    let number = text.parse::<u32>().ok().filter(|seconds| *seconds >= min);
    let number = number
        .ok_or_else(|| format!("'{text}' is not a number of seconds between {min} and {}", u32::MAX))?;
    Ok(Duration::from_secs(number.into()))
}

/// A time to look back, with its unit.
fn look_back(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("'{text}' is not a time such as 30m, 12h or 7d"))
}

/// This many days.
fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// The column that usage is summed up by.
fn usage_group(text: &str) -> Result<UsageGroup, String> {
    let found = UsageGroup::NAMES.iter().find(|(_, name)| *name == text);
    found.map(|(group, _)| *group).ok_or_else(|| format!("'{text}' is not client, model or day"))
}

/// The requests that are recorded.
fn record_mode(text: &str) -> Result<RecordMode, String> {
    RecordMode::from_name(text).ok_or_else(|| format!("'{text}' is not off, errors or all"))
}

/// A size in bytes, with `K`, `M` or `G` for a power of 1,024. Less than 16M would be too little for any request.
fn size(text: &str) -> Result<usize, String> {
    const SIZE_MIN: usize = 16 * 1024 * 1024;
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1),
    };
    let number = digits.and_then(|digits| digits.parse::<usize>().ok());
    let bytes = number.and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes >= SIZE_MIN);
    bytes.ok_or_else(|| format!("'{text}' is not a size of at least 16M, such as 512M or 2G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("16M", Some(16 << 20)),
            ("2g", Some(2 << 30)),
            ("33554432", Some(32 << 20)),
            ("20000K", Some(20_000 << 10)),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
        for text in ["", "M", "1M", "0", "-1G", "1.5G", "2GB", "99999999999999G", "é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
