//! `GET /env`, `sparkgap env` and `sparkgap claude`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::server::{Server, output, output_in};
use super::upstream::Upstream;

/// A file that is removed at the end of its test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        // Two tests may have files of one name at a time.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("sparkgap-env-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        File(file)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn the_environment_is_what_the_upstream_offers() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--allow-host", "box"]);
    let answer = server.connect().ask(b"GET /env HTTP/1.1\r\nhost: box:4000\r\n\r\n").json();
    let expected = json!({
        "ANTHROPIC_BASE_URL": "http://box:4000",
        "ANTHROPIC_MODEL": "qwen3",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "qwen3",
        "ANTHROPIC_DEFAULT_OPUS_MODEL_NAME": "qwen3",
        "ANTHROPIC_DEFAULT_OPUS_MODEL_DESCRIPTION": "8192 tokens, on upstream default",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "qwen3",
        "ANTHROPIC_DEFAULT_SONNET_MODEL_NAME": "qwen3",
        "ANTHROPIC_DEFAULT_SONNET_MODEL_DESCRIPTION": "8192 tokens, on upstream default",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "qwen3",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL_NAME": "qwen3",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL_DESCRIPTION": "8192 tokens, on upstream default",
        "ANTHROPIC_DEFAULT_FABLE_MODEL": "qwen3",
        "ANTHROPIC_DEFAULT_FABLE_MODEL_NAME": "qwen3",
        "ANTHROPIC_DEFAULT_FABLE_MODEL_DESCRIPTION": "8192 tokens, on upstream default",
        "ANTHROPIC_SMALL_FAST_MODEL": "qwen3",
        "CLAUDE_CODE_SUBAGENT_MODEL": "qwen3",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "8192",
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": "100000",
        "CLAUDE_CODE_DISABLE_1M_CONTEXT": "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1024",
        "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS": "1024",
        "ENABLE_TOOL_SEARCH": "auto:10",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "API_TIMEOUT_MS": "1800000",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
        "CLAUDE_CODE_AUTO_MODE_SERVER": "0",
        "CLAUDE_CODE_DISABLE_SUBAGENT_HANDBACK": "1",
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    });
    assert_eq!(answer["env"], expected);
    assert_eq!(answer["settings"], json!({"skipWebFetchPreflight": true, "disableAutoMode": "disable"}));
    let notes = answer["notes"].as_array().unwrap();
    assert!(
        notes.len() == 1 && notes[0].as_str().unwrap().starts_with("auto mode is not offered"),
        "{notes:?}"
    );
    let why = answer["why"].as_object().unwrap();
    assert!(expected.as_object().unwrap().keys().all(|name| why.contains_key(name)), "{why:?}");
}

#[test]
fn the_environment_needs_a_host_that_can_stand_in_a_url() {
    let upstream = Upstream::start();
    let keys = File::new("keys", "sk-1\n");
    let server = Server::start_with(&upstream, &["--api-key-file", keys.0.to_str().unwrap()]);
    for host in ["host: a'b\r\n", "host:\r\n", ""] {
        let request = format!("GET /env HTTP/1.1\r\n{host}x-api-key: sk-1\r\n\r\n");
        let answer = server.connect().ask(request.as_bytes());
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "invalid_request_error"), "{host}");
    }
    // The target is what the client means, whatever a proxy on the way has put into the header.
    let request = b"GET http://box:4000/env HTTP/1.1\r\nhost: other\r\nx-api-key: sk-1\r\n\r\n";
    let answer = server.connect().ask(request).json();
    assert_eq!(answer["env"]["ANTHROPIC_BASE_URL"], "http://box:4000");
}

#[test]
fn the_lines_for_the_shell_are_set_with_and_without_quotes() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let remote = format!("{}", server.address);
    let (code, text, stderr) = output(&["env", "--remote", &remote, "--api-key", "it's"]);
    assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert!(stderr.starts_with("sparkgap: auto mode is not offered (setting disableAutoMode)"), "{stderr}");
    for eval in ["eval \"$1\"", "eval $1"] {
        let script = format!(
            "{eval}; printf '%s %s %s' \"$ANTHROPIC_BASE_URL\" \"$ANTHROPIC_AUTH_TOKEN\" \"$CLAUDE_CODE_MAX_CONTEXT_TOKENS\""
        );
        let done = Command::new("/bin/sh").args(["-c", &script, "sh", &text]).env_clear().output().unwrap();
        let set = String::from_utf8(done.stdout).unwrap();
        assert_eq!(set, format!("http://{remote} it's 8192"), "{eval}");
    }
    assert_eq!(text.lines().next(), Some("false && :;"), "a half answer is a failure");
    for line in text.lines().skip(1) {
        assert!(line.starts_with("export ") && line.ends_with(';') || line.starts_with("# "), "{line}");
    }
    let (_, text, _) = output(&["env", "--json", "--remote", &remote, "--base-url", "https://llm.example"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["ANTHROPIC_BASE_URL"], &json["ANTHROPIC_API_KEY"]),
        (&json!("https://llm.example"), &json!(""))
    );
}

#[test]
fn the_size_of_the_system_prompt_can_be_chosen() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    for (size, value) in [("lean", "1"), ("full", "0")] {
        let (_, text, _) = output(&["env", "--json", "--remote", &url, "--prompt", size]);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT"], value);
    }
    let (_, text, stderr) = output(&["env", "--remote", &url]);
    assert!(!text.contains("export CLAUDE_CODE_SIMPLE"), "{text}");
    let line = "# CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT: not set; Claude Code sends its lean system prompt, about 1700 tokens, for qwen3";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(!stderr.contains("system prompt"), "{stderr}");
    for wrong in [&["--prompt", "short"][..], &["--prompt", "lean", "--openai"]] {
        let (code, text, stderr) = output(&[&["env", "--remote", &url], wrong].concat());
        assert!(
            code == Some(1) && text.starts_with("false") && stderr.contains("--prompt"),
            "{text} {stderr}"
        );
    }
}

#[test]
fn claude_and_the_forms_take_the_size_of_the_prompt_too() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let script =
        "#!/bin/sh\necho \"$CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT\"\nfor one in \"$@\"; do echo \"$one\"; done\n";
    let claude = File::new("claude", script);
    let path = format!("{}:/usr/bin:/bin", claude.0.parent().unwrap().display());
    let ours = [("SPARKGAP_URL", url.as_str()), ("PATH", &path)];
    for (arguments, value) in [
        (&["claude", "--prompt", "lean", "-p", "x"][..], "1"),
        (&["claude", "--prompt=full", "-p", "x"], "0"),
    ] {
        let (code, stdout, stderr) = output_in(arguments, &ours);
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!((code, lines[0]), (Some(0), value), "{stderr}");
        let settings: Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(
            settings["env"]["CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT"], value,
            "also against a settings file"
        );
        assert_eq!(&lines[3..], ["-p", "x"]);
    }
    // Behind other arguments it is Claude Code's own.
    let (_, stdout, _) = output_in(&["claude", "-p", "--prompt", "lean"], &ours);
    assert!(stdout.starts_with('\n') && stdout.contains("--prompt\nlean"), "{stdout}");
    for wrong in [&["claude", "--prompt", "short"][..], &["claude", "--prompt"], &["claude", "--prompt="]] {
        let (code, _, stderr) = output_in(wrong, &ours);
        assert!(code == Some(1) && stderr.contains("--prompt: expected lean or full"), "{stderr}");
    }
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
        let answer = server.connect().ask(request.as_bytes());
        (answer.status, String::from_utf8(answer.body.clone()).unwrap())
    };
    let (status, text) = get("/env.sh?prompt=lean");
    assert!(status == 200 && text.contains("export CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT='1';"), "{text}");
    assert!(text.contains("# CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT: which system prompt"), "{text}");
    for path in ["/env.json?prompt=full", "/env?prompt=full"] {
        let (_, text) = get(path);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["env"]["CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT"], "0", "{text}");
    }
    for path in ["/env.sh?prompt=short", "/env?prompt="] {
        let (status, text) = get(path);
        assert!(status == 400 && text.contains("lean or full"), "{status} {text}");
    }
}

#[test]
fn a_name_with_the_full_prompt_is_told() {
    let upstream = Upstream::start();
    let lua = r#"return { api = 1, aliases = { { "claude-sonnet-4-5", upstream = "default", model = "qwen3" },
        { "claude-*", upstream = "default", model = "qwen3" } } }"#;
    let hooks = super::server::hooks_file("full_prompt", lua);
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    let url = format!("http://{}", server.address);
    let (_, text, stderr) = output(&["env", "--remote", &url]);
    assert!(
        stderr.contains("its full system prompt, about 7000 tokens, for claude-sonnet-4-5"),
        "{text} {stderr}"
    );
    let (_, _, stderr) = output(&["env", "--remote", &url, "--prompt", "lean"]);
    assert!(!stderr.contains("full system prompt"), "{stderr}");
}

#[test]
fn the_shell_loses_what_would_lead_claude_code_elsewhere() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let set =
        [("SPARKGAP_URL", url.as_str()), ("CLAUDE_CODE_USE_BEDROCK", "1"), ("ANTHROPIC_UNIX_SOCKET", "/x")];
    let (code, text, stderr) = output_in(&["env"], &set);
    assert_eq!(code, Some(0), "{stderr}");
    for line in ["export CLAUDE_CODE_USE_BEDROCK='';", "export ANTHROPIC_UNIX_SOCKET='';"] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    assert!(!text.contains("CLAUDE_CODE_USE_VERTEX"), "it is not set: {text}");
    let (_, text, _) = output_in(&["env", "--json"], &set);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["CLAUDE_CODE_USE_BEDROCK"], "");
}

#[test]
fn a_proxy_of_a_settings_file_is_passed_by() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let settings = File::new("settings.json", r#"{"env":{"HTTP_PROXY":"http://proxy.example:3128"}}"#);
    let folder = settings.0.parent().unwrap().to_str().unwrap();
    let (code, text, _) = output_in(&["env"], &[("SPARKGAP_URL", &url), ("CLAUDE_CONFIG_DIR", folder)]);
    assert!(code == Some(0) && text.contains("export NO_PROXY='127.0.0.1';"), "{text}");
    for (list, expected) in
        [("corp", "false\n"), ("corp,127.0.0.1", "false &&"), ("*", "false &&"), ("", "false &&")]
    {
        let text = json!({"env": {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": list}}).to_string();
        fs::write(&settings.0, text).unwrap();
        let (_, text, stderr) = output_in(&["env"], &[("SPARKGAP_URL", &url), ("CLAUDE_CONFIG_DIR", folder)]);
        assert!(text.starts_with(expected), "{list}: {text}{stderr}");
        assert_eq!(stderr.contains("sets no_proxy without the host of sparkgap"), list == "corp", "{stderr}");
    }
}

#[test]
fn mistakes_around_env_give_the_shell_a_failure() {
    for (arguments, status) in [
        (&["env", "-h"][..], 1),
        (&["env", "--api-key", "help", "--remote", "http://127.0.0.1:1"], 1),
        // An option of serve that it does not know.
        (&["--remote", "http://127.0.0.1:1", "env"], 64),
    ] {
        let (code, text, _) = output(arguments);
        assert_eq!((code, text.as_str()), (Some(status), "false\n"), "{arguments:?}");
    }
}

#[test]
fn a_key_is_asked_for_and_taken() {
    let upstream = Upstream::start();
    let keys = File::new("keys", "sk-1 anna\n");
    let server = Server::start_with(&upstream, &["--api-key-file", keys.0.to_str().unwrap()]);
    let url = format!("http://{}", server.address);
    let (code, stdout, stderr) = output(&["env", "--remote", &url]);
    assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
    assert!(stderr.contains("SPARKGAP_API_KEY"), "{stderr}");
    let (code, stdout, _) = output_in(&["env"], &[("SPARKGAP_API_KEY", "sk-1"), ("SPARKGAP_URL", &url)]);
    assert!(code == Some(0) && stdout.contains("export ANTHROPIC_AUTH_TOKEN='sk-1';"), "{stdout}");
}

#[test]
fn an_answer_sets_only_known_variables() {
    let other = Upstream::start();
    other.set_page("/llm/env", 200, "{}");
    // A server that is not sparkgap is reported as such, and unknown variables in an answer are ignored.
    let url = other.url();
    let url = url.trim_end_matches("/v1");
    for remote in [url.to_string(), format!("{url}/llm")] {
        let (code, stdout, stderr) = output(&["env", "--remote", &remote]);
        assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
        assert!(stderr.contains("is not a sparkgap"), "{stderr}");
    }
    let command = r#"{"env":{"ANTHROPIC_MODEL":"m\u001b[2J","ANTHROPIC_BASE_URL":"http://elsewhere"}}"#;
    other.set_page("/env", 200, command);
    let (code, stdout, stderr) = output(&["env", "--remote", url]);
    assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
    assert!(stderr.contains("no shell is to get: its ANTHROPIC_MODEL has a backslash or"), "{stderr}");
    other.set_page("/env", 200, r#"{"env":{"PATH":"/tmp","ANTHROPIC_MODEL":"m","ANTHROPIC_BASE_URL":"http://elsewhere","LD_PRELOAD":"x"}}"#);
    let (code, stdout, _) = output(&["env", "--remote", url]);
    assert!(code == Some(0) && stdout.contains("ANTHROPIC_MODEL='m'"), "{stdout}");
    for word in ["PATH", "LD_PRELOAD", "elsewhere"] {
        assert!(!stdout.contains(word), "{stdout}");
    }
}

#[test]
fn claude_gets_its_arguments_and_the_environment() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let script = "#!/bin/sh\nprintf '%s|' \"$ANTHROPIC_BASE_URL\" \"$ANTHROPIC_MODEL\" \"$ANTHROPIC_API_KEY\" \"$KEPT\" \"$@\"\nexit 7\n";
    let claude = File::new("claude", script);
    let path = format!("{}:/usr/bin:/bin", claude.0.parent().unwrap().display());
    let arguments = ["claude", "-p", "say \"it\"", "--help", "--unknown", "--"]; // --help is not the first
    let (code, stdout, _) = output_in(
        &arguments,
        &[("PATH", &path), ("SPARKGAP_URL", &url), ("KEPT", "yes"), ("ANTHROPIC_API_KEY", "real")],
    );
    let (told, theirs) = stdout.split_once("|--settings|").unwrap();
    assert_eq!(told, format!("{url}|qwen3||yes"));
    let (settings, theirs) = theirs.split_once("}|").unwrap();
    assert_eq!(theirs, "-p|say \"it\"|--help|--unknown|--|");
    let settings: Value = serde_json::from_str(&format!("{settings}}}")).unwrap();
    assert_eq!(settings["env"]["ANTHROPIC_BASE_URL"], url);
    assert_eq!(code, Some(7));
}

#[test]
fn preferences_of_the_person_are_left_alone() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let set = [
        ("SPARKGAP_URL", url.as_str()),
        ("ENABLE_TOOL_SEARCH", "true"),
        ("ANTHROPIC_MODEL", "claude-opus-5-5"),
    ];
    let (_, text, _) = output_in(&["env", "--json"], &set);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((json.get("ENABLE_TOOL_SEARCH"), &json["ANTHROPIC_MODEL"]), (None, &json!("qwen3")));
    assert_eq!(json["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"], "1");
}

#[test]
fn the_settings_form_is_a_whole_settings_file() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let remote = format!("{}", server.address);
    let (code, text, _) = output(&["env", "--settings", "--remote", &remote]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"], "8192");
    assert_eq!((&json["skipWebFetchPreflight"], &json["disableAutoMode"]), (&json!(true), &json!("disable")));
    // A failure leaves no text that somebody would write into the file.
    let (code, text, _) = output(&["env", "--settings", "--remote", "127.0.0.1:1"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
}

#[test]
fn help_needs_no_sparkgap() {
    let nowhere = ("SPARKGAP_URL", "http://127.0.0.1:1");
    let claude = File::new("claude", "#!/bin/sh\necho \"theirs: $*\"\n");
    let path = claude.0.parent().unwrap().display().to_string();
    let (code, stdout, stderr) = output_in(&["claude", "--help"], &[nowhere, ("PATH", &path)]);
    assert!(stdout.contains("SPARKGAP_URL") && stdout.ends_with("theirs: --help\n"), "{stdout}");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let (code, stdout, _) = output_in(&["claude", "-h"], &[nowhere, ("PATH", "/nowhere")]);
    assert!(code == Some(0) && stdout.contains("claude itself is not on your PATH"), "{stdout}");
    let (code, stdout, _) = output_in(&["claude", "--version"], &[nowhere, ("PATH", &path)]);
    assert_eq!((code, stdout.as_str()), (Some(0), "theirs: --version\n"));
}

/// A sparkgap whose model server is down for so many questions. Returns its address.
fn down_for(questions: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.extend(byte);
            }
            let (status, body) = if i < questions {
                ("502 Bad Gateway", r#"{"error":{"message":"upstream default: connection refused"}}"#)
            } else {
                ("200 OK", r#"{"env":{"ANTHROPIC_BASE_URL":"http://box"}}"#)
            };
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

#[test]
fn a_model_server_that_is_down_is_asked_for_again() {
    let (code, stdout, stderr) = output(&["env", "--remote", &down_for(1)]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let (code, stdout, stderr) = output(&["env", "--remote", &down_for(usize::MAX)]);
    assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
    assert!(
        stderr.contains("--wait") && stderr.ends_with("upstream default: connection refused\n"),
        "{stderr}"
    );
    let (code, _, stderr) = output(&["env", "--wait", "--remote", &down_for(5)]);
    assert!(code == Some(0) && stderr.contains("connection refused\nwaiting"), "{stderr}");
    // Nobody can be asked whether to wait: stdin is not a terminal.
    let address = down_for(usize::MAX);
    let (code, _, stderr) = output_in(&["claude"], &[("SPARKGAP_URL", &address), ("PATH", "/nowhere")]);
    assert!(
        code == Some(1) && stderr.contains("connection refused") && !stderr.contains("[Y/n]"),
        "{stderr}"
    );
}

#[test]
fn claude_reports_what_is_missing() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let url = format!("http://{}", server.address);
    let (code, _, stderr) = output_in(&["claude"], &[("PATH", "/nowhere"), ("SPARKGAP_URL", &url)]);
    assert!(code == Some(1) && stderr.contains("npm install -g @anthropic-ai/claude-code"), "{stderr}");
    let (code, _, stderr) = output_in(&["claude"], &[("SPARKGAP_URL", "http://127.0.0.1:1")]);
    assert!(code == Some(1) && stderr.contains("no sparkgap answers at http://127.0.0.1:1 "), "{stderr}");
}
