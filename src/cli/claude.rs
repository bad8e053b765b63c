//! `claude`: replaces this process by Claude Code, whose requests go to sparkgap whatever its settings files say.
//!
//! Knows Claude Code's settings: which files there are, which of them override the environment, and which of their keys
//! send requests elsewhere. `--settings` overrides all files except those of the machine's administrator. If one of
//! those sends requests elsewhere, Claude Code is not started.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::custom_headers::keep_own;
use super::output::{Failed, note, print};
use super::remote::{LOCAL, RemoteEnvironment, ask};
use super::settings_file::{FILE_SIZE_MAX, SettingsFile};
use crate::admin::forms::{ANY_KEY, CUSTOM_HEADERS, leaves_key};
use crate::claude_code::{DETOURS, PROMPT_VARIABLE, prompt_value};
use crate::config;
use crate::json::{self, Value};
use crate::shell::{Variables, quoted};

/// The help for `sparkgap claude`, above Claude Code's own.
const HELP: &str = "Usage: sparkgap claude [--prompt lean|full] [ARGUMENTS]
       sparkgap claude [--prompt lean|full] --settings
       sparkgap claude --settings --undo

Run Claude Code on a sparkgap, whatever its settings files say. All arguments are Claude Code's, except

  sparkgap claude --prompt lean      send the system prompt of about 1,700 tokens, whatever the model's name; full: the one of
                                     about 7,000. It must be the first argument
  sparkgap claude --settings         write the same into your settings file, for editors and for `claude` alone
  sparkgap claude --settings --undo  take that back, and keep what you have changed since

Environment:
  SPARKGAP_URL      where sparkgap is (%local_url%)
  SPARKGAP_API_KEY  the key that sparkgap asks for

`sparkgap env` prints the variables that are set, with the reason for each. ENABLE_TOOL_SEARCH and
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC are left as they are if your environment has them, even empty.

Claude Code's own help:
";

/// Variables that hold a key: a settings file that sets one would send a key of another server here.
const KEYS: [&str; 3] = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", CUSTOM_HEADERS];

/// Variables that put an HTTP proxy between Claude Code and every server, this machine's own included.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Variables that list the hosts to reach without a proxy.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The folders of the administrator's settings on Linux and on macOS.
const MANAGED: [&str; 2] = ["/etc/claude-code", "/Library/Application Support/ClaudeCode"];

/// The most files of the administrator's drop-in folder that are read.
const DROP_INS_MAX: usize = 1000;

/// `sparkgap claude ARGUMENTS`: replaces this process by Claude Code, which gets all the arguments. So the address of
/// sparkgap and the key for it come from `SPARKGAP_URL` and `SPARKGAP_API_KEY`. Returns only if that fails.
///
/// # Errors
/// The reason for which Claude Code does not run. `Ok`: only help was asked for, and Claude Code is not installed.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Failed> {
    let (prompt, arguments) = take_prompt(arguments)?;
    match arguments {
        [settings] if settings == "--settings" => return write_settings(prompt),
        [settings, undo] if settings == "--settings" && undo == "--undo" => return undo_settings(),
        _ => {}
    }
    // Help and version need no sparkgap, and people ask for them before they have one.
    let is_help = arguments.first().is_some_and(|first| first == "--help" || first == "-h");
    let is_version = arguments.first().is_some_and(|first| first == "--version" || first == "-v");
    if is_help {
        print(&format!("{}\n", HELP.replace("%local_url%", LOCAL)));
    }
    let command = if is_help || is_version {
        let mut command = Command::new("claude");
        command.args(arguments);
        command
    } else {
        command(arguments, ask_environment(prompt)?)?
    };
    let error = { command }.exec();
    match error.kind() {
        ErrorKind::NotFound if is_help => {
            print("claude itself is not on your PATH, so its options are not shown\n");
            Ok(())
        }
        ErrorKind::NotFound => Err("claude is not on your PATH: install Claude Code with `npm install -g @anthropic-ai/claude-code`, or see https://code.claude.com/docs".into()),
        _ => Err(format!("cannot run claude: {error}")),
    }
}

/// Asks sparkgap for the environment, adds the choice of a system prompt, and shows the notes.
fn ask_environment(prompt: Option<PromptChoice>) -> Result<RemoteEnvironment, Failed> {
    let mut told = ask(None, None, None, offer_to_wait)?;
    told.variables.extend(prompt);
    told.show_notes();
    Ok(told)
}

/// The variable that chooses Claude Code's system prompt, and its value.
type PromptChoice = (&'static str, String);

/// The variable for the size of Claude Code's system prompt: `lean` or `full`.
pub(super) fn prompt_choice(size: &str) -> Result<PromptChoice, Failed> {
    let value = prompt_value(size).ok_or("--prompt: expected lean or full")?;
    Ok((PROMPT_VARIABLE, value.to_owned()))
}

/// Splits `--prompt SIZE` from the beginning of the arguments. Elsewhere it would be Claude Code's.
fn take_prompt(arguments: &[OsString]) -> Result<(Option<PromptChoice>, &[OsString]), Failed> {
    let Some((first, rest)) = arguments.split_first() else { return Ok((None, arguments)) };
    let choice = |size: &OsStr| prompt_choice(size.to_str().unwrap_or_default()).map(Some);
    if first == "--prompt" {
        let (size, rest) = rest.split_first().ok_or("--prompt: expected lean or full after it")?;
        return Ok((choice(size)?, rest));
    }
    match first.to_str().and_then(|first| first.strip_prefix("--prompt=")) {
        Some(size) => Ok((choice(OsStr::new(size))?, rest)),
        None => Ok((None, arguments)),
    }
}

/// `sparkgap claude --settings`: writes the environment into the person's settings file.
fn write_settings(prompt: Option<PromptChoice>) -> Result<(), Failed> {
    let file = settings_file()?;
    let RemoteEnvironment { mut variables, mut settings, .. } = ask_environment(prompt)?;
    for folder in MANAGED {
        check_managed(Path::new(folder), &variables)?;
    }
    settings.push(status_line());
    let mut base_url = String::new();
    file.change(|own| {
        go_without_proxy(&mut variables, std::slice::from_ref(&own));
        keep_own(&mut variables, std::iter::once(&own));
        base_url = variables.first().map(|(_, url)| url.clone()).unwrap_or_default();
        merged(own, &variables, settings, true)
    })?;
    print(&format!(
        "{} is changed: claude asks {base_url} from now on, in an editor too.\nTake it back: sparkgap claude --settings --undo\n",
        file.path().display()
    ));
    Ok(())
}

/// The setting that has Claude Code run `sparkgap statusline`: always this program's own path, never a text of a server.
pub(super) fn status_line() -> (&'static str, Value<'static>) {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::to_str).unwrap_or("sparkgap");
    let command = format!("{} statusline", quoted(program));
    ("statusLine", Value::object([("type", "command".into()), ("command", command.into())]))
}

/// `sparkgap claude --settings --undo`.
fn undo_settings() -> Result<(), Failed> {
    let file = settings_file()?;
    file.undo()?;
    print(&format!("{} is as it was without sparkgap\n", file.path().display()));
    Ok(())
}

fn settings_file() -> Result<SettingsFile, Failed> {
    let folder = person_folder()
        .ok_or("set HOME or CLAUDE_CONFIG_DIR: they name the folder of Claude Code's settings")?;
    Ok(SettingsFile::of(&folder))
}

/// Offers the person at the terminal to wait for a model server that is down; without a terminal nobody can answer.
fn offer_to_wait(reason: &str) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    note(&format!("{reason}\nWait until it answers? [Y/n] "));
    let mut answer = String::new();
    let is_read = std::io::stdin().read_line(&mut answer).is_ok_and(|count| count > 0);
    let waits = is_read && matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes");
    if waits {
        note("waiting; press Ctrl-C to give up\n");
    }
    waits
}

fn command(arguments: &[OsString], told: RemoteEnvironment) -> Result<Command, Failed> {
    let RemoteEnvironment { mut variables, settings, .. } = told;
    for folder in MANAGED {
        check_managed(Path::new(folder), &variables)?;
    }
    let (own, arguments) = take_settings(arguments)?;
    let own = own.map_or_else(|| Ok(Value::object([])), |own| own_settings(&own))?;
    let mut all = settings_of_files();
    all.push(own.clone());
    go_without_proxy(&mut variables, &all);
    keep_own(&mut variables, std::iter::once(&own).chain(&settings_by_precedence()));
    let shows_key = all.iter().any(|settings| has_other_key(settings, &variables));
    let settings = merged(own, &variables, settings, shows_key)?.to_json();
    let mut command = Command::new("claude");
    command.arg("--settings").arg(settings).args(arguments).envs(variables);
    for name in DETOURS {
        command.env_remove(name);
    }
    Ok(command)
}

/// Sets the variables of this environment that would send Claude Code's requests elsewhere to an empty text, since a
/// shell keeps every variable that is not overwritten. Claude Code takes an empty variable as not set.
pub(super) fn go_without_detours(variables: &mut Variables) {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    variables.extend(DETOURS.into_iter().filter(is_set).map(|name| (name, String::new())));
}

/// If an HTTP proxy is set, adds a sparkgap of this network to the hosts that are reached without it. Otherwise the
/// conversation would leave the network through the proxy.
pub(super) fn go_without_proxy(variables: &mut Variables, settings: &[Value<'static>]) {
    let set = |name: &str| {
        let files =
            settings.iter().filter_map(|file| file.get("env")?.get(name)?.as_str().map(str::to_string));
        std::env::var(name).into_iter().chain(files).filter(|value| !value.is_empty()).collect::<Vec<_>>()
    };
    let base_url =
        variables.iter().find(|(name, _)| *name == "ANTHROPIC_BASE_URL").map(|(_, url)| url.as_str());
    let Some(url) = base_url.filter(|url| config::host_outside(url).is_none()) else { return };
    if PROXIES.iter().all(|name| set(name).is_empty()) {
        return;
    }
    let host = config::host(url);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let mut hosts: Vec<String> = NO_PROXY.iter().flat_map(|name| set(name)).collect();
    hosts.dedup();
    hosts.extend((bare != host).then(|| host.to_string()));
    hosts.push(bare);
    for name in NO_PROXY {
        variables.push((name, hosts.join(",")));
    }
}

/// Splits the arguments into the user's own `--settings`, the last of which counts, and all others.
fn take_settings(arguments: &[OsString]) -> Result<(Option<OsString>, Vec<OsString>), Failed> {
    let (mut own, mut others) = (None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            others.push(argument.clone());
            others.extend(rest.by_ref().cloned());
        } else if argument == "--settings" {
            own = Some(rest.next().cloned().ok_or("--settings needs a file or JSON after it")?);
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--settings=")) {
            own = Some(value.into());
        } else {
            others.push(argument.clone());
        }
    }
    Ok((own, others))
}

/// The settings to pass on: the user's own ones with the variables in their `env`, and with `others` where the user has
/// none. Everybody on a machine can see the
/// arguments of its processes, so the key is passed in the environment, unless `shows_key`: then a settings file holds
/// another key, which would override the environment.
fn merged(
    mut settings: Value<'static>,
    variables: &Variables,
    others: Vec<(&'static str, Value<'static>)>,
    shows_key: bool,
) -> Result<Value<'static>, Failed> {
    let wrong = || "--settings holds no JSON object; sparkgap adds its environment to one".to_string();
    let whole = settings.as_object_mut().ok_or_else(wrong)?;
    let mut env = whole.get("env").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in variables {
        let is_secret = (*name == "ANTHROPIC_AUTH_TOKEN" && value != ANY_KEY) || *name == CUSTOM_HEADERS;
        if !is_secret || shows_key {
            env.set(*name, value.clone());
        }
    }
    for name in DETOURS {
        env.set(name, "");
    }
    whole.set("env", env);
    for (name, value) in others {
        if whole.get(name).is_none() {
            whole.set(name, value);
        }
    }
    // This setting names a program that prints the key of another server: Claude Code would send that key beside ours.
    if !leaves_key(variables) {
        whole.set("apiKeyHelper", "");
    }
    Ok(settings)
}

/// The settings after `--settings`: JSON, or the name of a file.
fn own_settings(own: &OsStr) -> Result<Value<'static>, Failed> {
    let text = own.to_str().unwrap_or_default().trim();
    let mut bytes = if text.starts_with('{') && text.ends_with('}') {
        text.as_bytes().to_vec()
    } else if own.is_empty() {
        b"{}".to_vec()
    } else {
        read(Path::new(own)).map_err(|error| format!("--settings {}: {error}", own.display()))?
    };
    let parsed = json::parse(&mut bytes).map_err(|error| format!("--settings {}: {error}", own.display()))?;
    Ok(parsed.into_owned())
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(std::io::Error::other(format!("it is over {FILE_SIZE_MAX} bytes")));
    }
    Ok(bytes)
}

/// The settings in a file. `None` if the file is missing or cannot be read: Claude Code does not read it either then.
fn settings(file: &Path) -> Option<Value<'static>> {
    let mut bytes = read(file).ok()?;
    // Editors on Windows write a byte order mark at the beginning; Claude Code skips it.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    json::parse(&mut bytes).ok().map(Value::into_owned)
}

/// The folder of the person's settings.
fn person_folder() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("CLAUDE_CONFIG_DIR").or_else(|| Some(named("HOME")?.join(".claude")))
}

/// The settings files of the user and of the project: those of this folder and of the folders above it, since Claude
/// Code reads those at the root of a repository.
fn files() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        person_folder().into_iter().map(|folder| folder.join("settings.json")).collect();
    if let Ok(here) = std::env::current_dir() {
        for folder in here.ancestors() {
            let folder = folder.join(".claude");
            found.extend(["settings.json", "settings.local.json"].map(|name| folder.join(name)));
        }
    }
    found
}

/// The settings in these files.
pub(super) fn settings_of_files() -> Vec<Value<'static>> {
    files().iter().filter_map(|file| settings(file)).collect()
}

/// The settings in these files, the one that Claude Code heeds first at the beginning.
pub(super) fn settings_by_precedence() -> Vec<Value<'static>> {
    let mut files = files();
    let of_person = person_folder().map(|_| files.remove(0));
    // Of each folder, the local file goes before the shared one.
    files.chunks_mut(2).for_each(|pair| pair.reverse());
    files.iter().chain(&of_person).filter_map(|file| settings(file)).collect()
}

/// True if settings give another key than these variables do.
fn has_other_key(settings: &Value<'_>, variables: &Variables) -> bool {
    let env = settings.get("env");
    KEYS.iter().any(|name| {
        let ours = variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        // A key that we leave to the person is not another one.
        let given = env.and_then(|env| env.get(name)).filter(|_| ours.is_some());
        given.is_some_and(|value| value.as_str().is_none_or(|value| ours != Some(value)))
    })
}

/// The variable by which settings send requests to another server than these variables do.
fn detour<'s>(settings: &'s Value<'_>, variables: &Variables) -> Option<&'s str> {
    let env = settings.get("env").and_then(Value::as_object)?;
    let told =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let leads_elsewhere = |(name, value): &(&str, &Value<'_>)| {
        let value = match value {
            Value::String(text) => text.trim(),
            Value::Bool(true) | Value::Number(_) | Value::BigInteger(_) => "1",
            _ => "",
        };
        match *name {
            "ANTHROPIC_BASE_URL" => told(name).is_none_or(|ours| ours != value.trim_end_matches('/')),
            // Claude Code itself takes these values as off, and any other as on.
            _ if DETOURS.contains(name) => {
                !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off")
            }
            _ => false,
        }
    };
    env.iter().find(leads_elsewhere).map(|(name, _)| name)
}

/// Fails if settings of the machine's administrator send requests elsewhere: nothing that is passed on overrides them.
fn check_managed(folder: &Path, variables: &Variables) -> Result<(), Failed> {
    let mut files = vec![folder.join("managed-settings.json")];
    if let Ok(drop_ins) = folder.join("managed-settings.d").read_dir() {
        let drop_ins = drop_ins.take(DROP_INS_MAX).flatten().map(|entry| entry.path());
        files.extend(drop_ins.filter(|file| file.extension().is_some_and(|extension| extension == "json")));
    }
    for file in files {
        let Some(settings) = settings(&file) else { continue };
        let env = settings.get("env");
        let key = KEYS.into_iter().find(|name| {
            let managed = env.and_then(|env| env.get(name)).and_then(Value::as_str);
            managed
                .is_some_and(|managed| variables.iter().any(|(known, ours)| known == name && ours != managed))
        });
        let other = ["forceLoginMethod", "forceLoginGatewayUrl", "apiKeyHelper"].into_iter();
        let other = other.filter(|name| *name != "apiKeyHelper" || !leaves_key(variables));
        let other = other.filter(|name| settings.get(name).is_some()).find(|name| {
            // With a token, Claude Code asks for no login at Anthropic; a login at a gateway would send requests
            // elsewhere.
            *name != "forceLoginMethod" || settings.get(name).and_then(Value::as_str) == Some("gateway")
        });
        if let Some(name) = detour(&settings, variables).or(key).or(other) {
            return Err(format!(
                "{} sets {name}, which beats everything that sparkgap can tell Claude Code: your conversations or your key would go elsewhere than to sparkgap. Ask your administrator to take it out, or run claude without sparkgap",
                file.display()
            ));
        }
    }
    Ok(())
}

/// The variable in which settings list the hosts to reach without a proxy, if the list lacks sparkgap's host and
/// [`go_without_proxy`] has found that the list must have it.
fn proxied(settings: &Value<'_>, variables: &Variables) -> Option<&'static str> {
    let (_, ours) = variables.iter().find(|(name, _)| NO_PROXY.contains(name))?;
    let host = ours.rsplit(',').next()?;
    let is_ours = |entry: &str| {
        let is_ending = entry.starts_with('.') && host.ends_with(entry);
        entry == "*" || entry.eq_ignore_ascii_case(host) || is_ending
    };
    let env = settings.get("env")?;
    let lacks_host = |name: &&str| {
        let list = env.get(name).and_then(Value::as_str).filter(|list| !list.is_empty());
        list.is_some_and(|list| !list.split([',', ' ']).any(is_ours))
    };
    NO_PROXY.into_iter().find(lacks_host)
}

/// Fails if a settings file would override the environment that a shell is to get.
pub(super) fn check_settings_files(variables: &Variables) -> Result<(), Failed> {
    for folder in MANAGED {
        check_managed(Path::new(folder), variables)?;
    }
    for file in files() {
        let Some(settings) = settings(&file) else { continue };
        if let Some(name) = detour(&settings, variables) {
            return Err(format!(
                "{} sets {name}, which beats the environment: Claude Code would send your conversations and your key elsewhere than to sparkgap. Take it out of the file, or start Claude Code with `sparkgap claude`, which beats the file",
                file.display()
            ));
        }
        if let Some(name) = proxied(&settings, variables) {
            return Err(format!(
                "{} sets {name} without the host of sparkgap, which beats the environment: Claude Code would send your conversations through a proxy. Add the host there, or start Claude Code with `sparkgap claude`, which beats the file",
                file.display()
            ));
        }
        if has_other_key(&settings, variables) {
            note(&format!(
                "sparkgap: {} sets another key, which beats the one for sparkgap: take it out of the file, or start Claude Code with `sparkgap claude`\n",
                file.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        vec![
            ("ANTHROPIC_BASE_URL", "http://box:4000".to_string()),
            ("ANTHROPIC_AUTH_TOKEN", "sk-our-lan".to_string()),
            ("ANTHROPIC_API_KEY", String::new()),
        ]
    }

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn value(text: &str) -> Value<'static> {
        json::parse(&mut text.as_bytes().to_vec()).unwrap().into_owned()
    }

    #[test]
    fn the_own_settings_are_taken_out_wherever_they_stand() {
        for (words, own, others) in [
            (&["-p", "hi"][..], None, &["-p", "hi"][..]),
            (&["--settings", "a.json", "-p"], Some("a.json"), &["-p"]),
            (&["-p", "--settings={}"], Some("{}"), &["-p"]),
            (&["--settings", "a", "--settings", "b"], Some("b"), &[]),
            (&["--", "--settings", "a"], None, &["--", "--settings", "a"]),
        ] {
            let (taken, rest) = take_settings(&arguments(words)).unwrap();
            assert_eq!((taken, rest), (own.map(OsString::from), arguments(others)), "{words:?}");
        }
        assert!(take_settings(&arguments(&["--settings"])).is_err());
    }

    #[test]
    fn our_variables_beat_the_persons_own_and_the_key_is_shown_only_where_it_must_be() {
        let own = r#"{"model":"opus","env":{"ANTHROPIC_BASE_URL":"http://other","X":"1"}}"#;
        let others = vec![("skipWebFetchPreflight", true.into()), ("model", "other".into())];
        for shows_key in [false, true] {
            let merged = merged(value(own), &variables(), others.clone(), shows_key).unwrap();
            assert_eq!(merged.get("skipWebFetchPreflight"), Some(&Value::Bool(true)));
            assert_eq!(merged.get("model").and_then(Value::as_str), Some("opus"), "the person's own wins");
            let env = merged.get("env").unwrap();
            let text = |name: &str| env.get(name).and_then(Value::as_str);
            assert_eq!(text("ANTHROPIC_BASE_URL"), Some("http://box:4000"));
            assert_eq!(text("CLAUDE_CODE_USE_BEDROCK"), Some(""));
            assert_eq!(text("X"), Some("1"));
            assert_eq!(text("ANTHROPIC_AUTH_TOKEN"), shows_key.then_some("sk-our-lan"));
            assert_eq!(merged.get("model").and_then(Value::as_str), Some("opus"));
        }
        // Where the person's own key goes on, it and the program that prints it stay as they are.
        let left = vec![
            ("ANTHROPIC_AUTH_TOKEN", String::new()),
            (CUSTOM_HEADERS, "x-sparkgap-key: sk-our-lan".to_string()),
        ];
        let own = value(r#"{"apiKeyHelper":"mine","env":{"ANTHROPIC_API_KEY":"sk-ant-mine"}}"#);
        assert!(!has_other_key(&own, &left) && has_other_key(&own, &variables()));
        let kept = merged(own, &left, Vec::new(), false).unwrap();
        assert_eq!(kept.get("apiKeyHelper").and_then(Value::as_str), Some("mine"));
        let env = kept.get("env").unwrap();
        assert_eq!(env.get("ANTHROPIC_API_KEY").and_then(Value::as_str), Some("sk-ant-mine"));
        assert_eq!(env.get(CUSTOM_HEADERS), None, "it is secret");
        assert!(merged(value("[]"), &variables(), Vec::new(), false).is_err());
        for wrong in ["{\"env\":", "/no/such/file.json", "{]}"] {
            let failed = own_settings(OsStr::new(wrong)).unwrap_err();
            assert!(failed.starts_with("--settings "), "{failed}");
        }
    }

    #[test]
    fn what_an_administrator_leads_elsewhere_is_refused_by_file_and_name() {
        let folder = std::env::temp_dir().join(format!("sparkgap-managed-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("managed-settings.d")).unwrap();
        for file in ["managed-settings.json", "managed-settings.d/10-gateway.json"] {
            let file = folder.join(file);
            for (text, name) in [
                (r#"{"env":{"ANTHROPIC_BASE_URL":"http://other"}}"#, "ANTHROPIC_BASE_URL"),
                (r#"{"env":{"ANTHROPIC_AUTH_TOKEN":"sk-other"}}"#, "ANTHROPIC_AUTH_TOKEN"),
                (r#"{"env":{"ANTHROPIC_API_KEY":"sk-other"}}"#, "ANTHROPIC_API_KEY"),
                (r#"{"env":{"CLAUDE_CODE_USE_BEDROCK":"1"}}"#, "CLAUDE_CODE_USE_BEDROCK"),
                (r#"{"env":{"CLAUDE_CODE_USE_VERTEX":true}}"#, "CLAUDE_CODE_USE_VERTEX"),
                (r#"{"apiKeyHelper":"echo sk-other"}"#, "apiKeyHelper"),
                (r#"{"forceLoginMethod":"gateway"}"#, "forceLoginMethod"),
                ("\u{feff}{\"env\":{\"ANTHROPIC_BASE_URL\":\"\"}}", "ANTHROPIC_BASE_URL"),
            ] {
                std::fs::write(&file, text).unwrap();
                let failed = check_managed(&folder, &variables()).unwrap_err();
                let expected = format!("{} sets {name}, ", file.display());
                assert!(failed.starts_with(&expected), "{text}: {failed}");
            }
            for text in [
                r#"{"env":{"ANTHROPIC_BASE_URL":"http://box:4000/","CLAUDE_CODE_USE_BEDROCK":"0","X":"1"}}"#,
                r#"{"permissions":{},"forceLoginMethod":"console"}"#,
                "no JSON",
            ] {
                std::fs::write(&file, text).unwrap();
                assert_eq!(check_managed(&folder, &variables()), Ok(()), "{text}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(check_managed(&folder, &variables()), Ok(()), "there is none");
    }
}
